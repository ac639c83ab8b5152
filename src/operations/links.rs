//! How a VM and VMKit meet. Where a public address is set the VM's agent dials out; else VMKit
//! comes over SSH, with a key of the VM's own that stays in the vault, to a host key that it knows
//! beforehand.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use url::Url;
use vmkit_agent_protocol::calls::{Call, Reply};

use super::agents::{AgentBinaries, AgentBinary, linked};
use super::{Context, OpError, Run, identity};
use crate::bootstrap::{Bootstrap, Link, user_data};
use crate::domain::environment::{Vm, VmState};
use crate::domain::ids::{SecretId, VmId};
use crate::domain::secret::Secret;
use crate::domain::size::Arch;
use crate::fleet::{Dial, Directory, Presence, Trouble};
use crate::store::{Store, VmLink};
use crate::vault::{Purpose, Vault};

/// The user on a VM whose only command leads to the agent.
const USER: &str = "vmkit";
/// How long the agent may take to answer one call of ours.
const CALL_WAIT: Duration = Duration::from_secs(20);
/// How long a link may take to prove the new host key before another one is asked for.
const RELINK: Duration = Duration::from_secs(5);
/// How often a wait for an agent looks.
const LOOK: Duration = Duration::from_millis(100);

/// What a plan says of the link that a new VM will have.
pub(super) fn told(context: &Context) -> String {
    match &context.settings.gateway {
        Some(gateway) => format!("its agent will dial out to {}", gateway.url),
        None => "VMKit will reach its agent over SSH, so it needs no public address".to_owned(),
    }
}

/// What a VM's user-data is made of beside its link.
pub(super) struct FirstBoot<'a> {
    pub(super) vm: VmId,
    pub(super) arch: Arch,
    pub(super) binary: &'a AgentBinary,
    pub(super) enrolment_token: &'a Secret,
    pub(super) deploy_public_key: &'a str,
    pub(super) owner_public_key: &'a str,
}

/// The user-data of a new VM, for the kind of link that this installation gives it. Making it
/// twice gives the same.
pub(super) async fn first_boot(context: &Context, boot: &FirstBoot<'_>) -> Result<Secret, OpError> {
    let settings = &context.settings;
    let identity = identity::newest(context).await?;
    let made = |link: Link<'_>| {
        user_data(&Bootstrap {
            vm: boot.vm,
            hostname: &Vm::cloud_name(&boot.vm),
            link,
            gateway_key_base64: &BASE64_STANDARD.encode(identity),
            enrolment_token: boot.enrolment_token,
            agent_sha256: &boot.binary.sha256,
            registry_mirror: settings.registry_mirror.as_ref(),
            deploy_public_key: boot.deploy_public_key,
            owner_public_key: boot.owner_public_key,
        })
    };
    let text = match &settings.gateway {
        Some(gateway) => {
            let base = gateway.url.as_str().trim_end_matches('/');
            let agent_url = format!("{base}/agent/v1/binary/{}", boot.arch.as_str());
            let agent_url = Url::parse(&agent_url).map_err(|_| OpError::NoAgentGateway)?;
            made(Link::DialOut { gateway_url: &gateway.url, agent_url: &agent_url })?
        }
        None => {
            let link = prepare(context, boot.vm).await?;
            let host_secret = link.host_secret.ok_or_else(|| replaced(boot.vm))?;
            let host_private_key = unseal(context, host_secret, Purpose::HostKey).await?;
            made(Link::Served {
                link_public_key: &link.public_key,
                host_private_key: &host_private_key,
                host_public_key: &link.host_key,
                agent_bytes: boot.binary.bytes,
            })?
        }
    };
    Ok(Secret::new(text))
}

fn replaced(vm: VmId) -> OpError {
    OpError::KeyPair { detail: format!("the first boot's host key of {vm} is gone by now") }
}

/// The keys of a VM's link, made where there are none yet. Does nothing for a VM that dials out.
async fn prepare(context: &Context, vm: VmId) -> Result<VmLink, OpError> {
    if let Some(link) = context.store.vm_link(vm).await? {
        return Ok(link);
    }
    let (public_key, private_key) = key_pair("vmkit-link")?;
    let (host_key, host_private_key) = key_pair("vmkit-first-boot")?;
    let (secret, host_secret) = (SecretId::generate(), SecretId::generate());
    let sealed = |value: &Secret, purpose: Purpose, id: SecretId| {
        let sealed = context.vault.seal(value, purpose, &id.to_string())?;
        Ok::<_, OpError>((purpose.as_str(), sealed))
    };
    let login = sealed(&private_key, Purpose::LinkKey, secret)?;
    let host = sealed(&host_private_key, Purpose::HostKey, host_secret)?;
    let link = VmLink {
        vm,
        public_key,
        secret,
        host_key: without_comment(&host_key),
        next_host_key: None,
        host_secret: Some(host_secret),
    };
    Ok(context.store.put_vm_link(link, login, host, context.clock.now()).await?)
}

async fn unseal(context: &Context, id: SecretId, purpose: Purpose) -> Result<Secret, OpError> {
    let sealed = context.store.secret(id).await?.unwrap_or_default();
    Ok(context.vault.unseal(&sealed, purpose, &id.to_string())?)
}

/// A fresh ed25519 pair: the public line, and the private key in OpenSSH's form.
pub(super) fn key_pair(comment: &str) -> Result<(String, Secret), OpError> {
    use ssh_key::{Algorithm, LineEnding, PrivateKey, rand_core::OsRng};
    let pair = || -> Result<(String, Secret), ssh_key::Error> {
        let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519)?;
        key.set_comment(comment);
        let private = key.to_openssh(LineEnding::LF)?;
        Ok((key.public_key().to_openssh()?, Secret::new(private.as_str())))
    };
    pair().map_err(|error| OpError::KeyPair { detail: error.to_string() })
}

fn without_comment(line: &str) -> String {
    line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// Waits for the first link of a new VM, says meanwhile what it waits for, and then has the agent
/// replace the host key that stood in the user-data. Trouble of the kinds in `hopeless` ends the
/// wait.
pub(super) async fn first_link(
    context: &Context,
    run: &Run<'_>,
    vm: VmId,
    hopeless: &[&str],
) -> Result<(), OpError> {
    let wait = context.settings.agent_wait;
    let deadline = tokio::time::Instant::now() + wait;
    let mut said = String::new();
    loop {
        let presence = context.fleet.presence(vm).await?;
        if presence.linked {
            break;
        }
        run.stop_if_asked().await?;
        let told = trouble(&presence);
        let is_hopeless = |trouble: &Trouble| hopeless.contains(&trouble.code.as_str());
        if presence.trouble.as_ref().is_some_and(is_hopeless) {
            return Err(OpError::FirstBoot { vm: vm.to_string(), told });
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(OpError::AgentSilent {
                vm: vm.to_string(),
                waited_s: wait.as_secs(),
                told,
            });
        }
        if !told.is_empty() && told != said {
            run.say(format!("waiting for the VM's agent to link: {told}")).await?;
            said = told;
        }
        tokio::time::sleep(LOOK).await;
    }
    replace_host_key(context, run, vm, deadline).await
}

fn trouble(presence: &Presence) -> String {
    presence.trouble.as_ref().map(|trouble| trouble.message.clone()).unwrap_or_default()
}

/// The new key is announced before it is used, and counts once the VM has proven that it holds it.
/// Every part may run twice.
async fn replace_host_key(
    context: &Context,
    run: &Run<'_>,
    vm: VmId,
    deadline: tokio::time::Instant,
) -> Result<(), OpError> {
    let first = match context.store.vm_link(vm).await? {
        Some(link) if link.host_secret.is_some() => link.host_key,
        _ => return Ok(()),
    };
    run.say("replacing the VM's first host key by one of its own").await?;
    let prepared = context.fleet.call(vm, Call::PrepareHostKey, CALL_WAIT).await?;
    let Reply::HostKeyPrepared { public_key } = prepared else {
        return Err(crate::fleet::FleetError::NotUnderstood { vm }.into());
    };
    context.store.announce_host_key(vm, public_key.clone()).await?;
    context.fleet.call(vm, Call::InstallHostKey { public_key }, CALL_WAIT).await?;
    // The SSH server may take a moment to read its key again: a link on the first one proves
    // nothing.
    let mut relink_at = tokio::time::Instant::now();
    loop {
        let link = context.store.vm_link(vm).await?;
        let proven = link.is_none_or(|link| link.host_key != first);
        let presence = context.fleet.presence(vm).await?;
        if proven && presence.linked {
            return Ok(());
        }
        if presence.linked && tokio::time::Instant::now() >= relink_at {
            context.fleet.relink(vm);
            relink_at = tokio::time::Instant::now() + RELINK;
        }
        run.stop_if_asked().await?;
        if tokio::time::Instant::now() >= deadline {
            let waited_s = context.settings.agent_wait.as_secs();
            let told = trouble(&presence);
            return Err(OpError::AgentSilent { vm: vm.to_string(), waited_s, told });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Opens and keeps the links to all VMs that do not dial out, until `stop` is cancelled.
pub async fn keep(context: Arc<Context>, stop: CancellationToken) {
    context.fleet.reach(Arc::new(known(&context)), stop).await;
}

/// The VMs of the state file.
struct Known {
    store: Store,
    vault: Arc<Vault>,
    binaries: Arc<AgentBinaries>,
    port: u16,
}

/// How VMKit comes to a VM; none where the VM dials out, or has no address yet.
pub(super) async fn dial(context: &Context, vm: VmId) -> Result<Option<Dial>, OpError> {
    known(context).find(vm).await
}

fn known(context: &Context) -> Known {
    Known {
        store: context.store.clone(),
        vault: Arc::clone(&context.vault),
        binaries: Arc::clone(&context.agent_binaries),
        port: context.settings.ssh_port,
    }
}

/// The link of a machine that is adopted: it has its host key and keeps it.
pub(super) async fn prepare_adopted(
    context: &Context,
    vm: VmId,
    host_key: &str,
) -> Result<VmLink, OpError> {
    if let Some(link) = context.store.vm_link(vm).await? {
        return Ok(link);
    }
    let (public_key, private_key) = key_pair("vmkit-link")?;
    let (secret, purpose) = (SecretId::generate(), Purpose::LinkKey);
    let sealed = context.vault.seal(&private_key, purpose, &secret.to_string())?;
    let link = VmLink {
        vm,
        public_key,
        secret,
        host_key: without_comment(host_key),
        next_host_key: None,
        host_secret: None,
    };
    let (login, none) = ((purpose.as_str(), sealed), (Purpose::HostKey.as_str(), Vec::new()));
    Ok(context.store.put_vm_link(link, login, none, context.clock.now()).await?)
}

/// Notes the host keys that a linked VM has, and that it is ready.
pub(super) async fn record(context: &Context, vm: VmId) -> Result<Value, OpError> {
    linked(context, vm).await?;
    let keys = match context.fleet.call(vm, Call::HostFacts, CALL_WAIT).await? {
        Reply::HostFacts(facts) => facts.ssh_host_keys,
        _ => Vec::new(),
    };
    let row = context.store.vm(vm).await?;
    let address = row.and_then(|row| row.vm.address);
    let host = address.map(|address| address.to_string()).unwrap_or_default();
    let lines: Vec<String> = keys.iter().map(|key| format!("{host} {key}")).collect();
    context.store.set_vm_known_hosts(vm, lines.join("\n")).await?;
    context.store.set_vm_state(vm, VmState::Ready).await?;
    Ok(json!({ "vm": vm, "address": address }))
}

impl Known {
    async fn find(&self, vm: VmId) -> Result<Option<Dial>, OpError> {
        let address = self.store.vm(vm).await?.and_then(|row| row.vm.address);
        let link = self.store.vm_link(vm).await?;
        let (Some(address), Some(link)) = (address, link) else { return Ok(None) };
        let sealed = self.store.secret(link.secret).await?.unwrap_or_default();
        let key = self.vault.unseal(&sealed, Purpose::LinkKey, &link.secret.to_string())?;
        let host_keys = [Some(link.host_key), link.next_host_key].into_iter().flatten().collect();
        let address = SocketAddr::new(address, self.port);
        Ok(Some(Dial { address, user: USER.to_owned(), key, host_keys }))
    }
}

impl Directory for Known {
    fn vms(&self) -> BoxFuture<'_, Vec<VmId>> {
        async move { unless_failed("the VMs to reach", self.store.vms_to_reach().await) }.boxed()
    }

    fn dial(&self, vm: VmId) -> BoxFuture<'_, Option<Dial>> {
        async move { unless_failed("a VM's link", self.find(vm).await) }.boxed()
    }

    fn met(&self, vm: VmId, host_key: String) -> BoxFuture<'_, ()> {
        async move {
            unless_failed("a VM's host key", self.store.adopt_host_key(vm, host_key).await);
        }
        .boxed()
    }

    fn agent(&self, vm: VmId, sha256: String) -> BoxFuture<'_, Option<PathBuf>> {
        async move {
            let row = self.store.vm(vm).await.ok().flatten()?;
            let binary = self.binaries.find(row.vm.arch).await.ok()?;
            (binary.sha256 == sha256).then_some(binary.path)
        }
        .boxed()
    }
}

/// Nobody waits for these answers, and each is asked for again soon.
fn unless_failed<T: Default>(
    what: &'static str,
    answer: Result<T, impl std::error::Error + 'static>,
) -> T {
    answer.unwrap_or_else(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "{what} cannot be read now");
        T::default()
    })
}
