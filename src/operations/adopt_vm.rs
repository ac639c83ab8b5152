//! `adopt_vm`: a machine that exists becomes the VM of an environment, and loses nothing by it.
//!
//! A person lets VMKit in with one line in `authorized_keys`; that key stays in the vault, and its
//! line goes again at the end. On the machine the undo is armed before anything else: unless VMKit
//! confirms that all is well, the machine takes everything off again by itself.

mod error;
mod look;
mod plan;
mod target;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::error::AdoptError;
pub use self::plan::{NeedsKey, Planned, plan};
pub use self::target::Target;
use super::agents::token_hash;
use super::provision_vm::{ENROLMENT_MS, agent_binary, deploy_key_pair, random_token};
use super::{
    Ask, Context, OpError, Operation, Run, Started, Step, StepEnd, identity, links, params, plans,
    queue,
};
use crate::bootstrap::adopt::{Adoption as Facts, LEAVE, Part, script};
use crate::clouds::{AnyCloud, Cloud, vm_labels};
use crate::domain::environment::{Vm, VmState};
use crate::domain::ids::{EnvironmentId, OperationId, PlanId, SecretId, VmId};
use crate::domain::money::{Currency, Money};
use crate::domain::names::{EnvironmentPath, RegionName, SizeName};
use crate::domain::operation::OperationState;
use crate::domain::size::Arch;
use crate::fleet::Dial;
use crate::fleet::shell;
use crate::store::{
    Adoption, DeployKey, Failure, Lock, LockMode, NewOperation, OperationRow, VmRow,
};
use crate::vault::Purpose;

pub(super) const KIND: &str = "adopt_vm";
pub(super) const VERSION: u32 = 1;

const STEPS: [Step; 9] = [
    Step { name: "prepare", says: "making the VM's keys" },
    Step { name: "label", says: "labelling the server at its cloud" },
    Step { name: "arm", says: "arming the undo on the machine itself" },
    Step {
        name: "set_up",
        says: "adding the users kamal and vmkit, Docker if absent, and the agent's units",
    },
    Step { name: "wait_agent", says: "bringing the agent, and waiting for it to link" },
    Step { name: "check", says: "seeing that all that was there is as it was" },
    Step { name: "confirm", says: "calling the undo on the machine off" },
    Step { name: "record", says: "noting the VM's host key" },
    Step { name: "lock_out", says: "removing the key that let VMKit in" },
];

/// How long a look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(60);
/// How long a part of the set-up may take: Docker may have to be installed.
const PART_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How long a machine may take to take VMKit's things off.
const LEAVE_LIMIT: Duration = Duration::from_secs(90);
/// How often it is looked whether it has; a login that succeeds costs nothing, and the first that is
/// refused is the answer.
const LEAVE_LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Params {
    environment: EnvironmentId,
    path: EnvironmentPath,
    vm: VmId,
    token: SecretId,
    deploy_key: SecretId,
    target: String,
    login: String,
    address: IpAddr,
    host_key: String,
    provider: String,
    /// The cloud's id of the server.
    server: Option<String>,
    size: SizeName,
    region: RegionName,
    arch: Arch,
    monthly: Money,
    /// What the environment's settings said before.
    before: Place,
    /// What has to be there afterwards.
    kept: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    provider: Option<String>,
    size: SizeName,
    region: RegionName,
}

/// What runs on the machine: the script comes on standard input.
fn command(login: &str, part: Option<Part>) -> String {
    let part = part.map(|part| format!(" {}", part.as_str())).unwrap_or_default();
    let sudo = if login == "root" { "" } else { "sudo -n " };
    format!("{sudo}sh -s{part}")
}

/// A size or a region as the cloud names it; a machine that is in nobody's list is its own.
fn named<T: std::str::FromStr<Err = crate::domain::names::BadName>>(
    given: Option<&str>,
) -> Result<T, OpError> {
    let given = given.unwrap_or("own");
    given.parse().map_err(|error: crate::domain::names::BadName| {
        let (machine, reasons) = ("the server".to_owned(), vec![error.to_string()]);
        AdoptError::Unfit { machine, reasons }.into()
    })
}

/// Whether a plan is one of an adoption.
///
/// # Errors
/// There is no such plan.
pub async fn is_plan_of(context: &Context, plan: PlanId) -> Result<bool, OpError> {
    Ok(plans::find(context, plan).await?.action == KIND)
}

/// Carries out a plan of an adoption; the plan says which machine.
///
/// # Errors
/// The plan is unknown, expired, used, for something else, or no longer what is there.
pub async fn start(
    context: &Context,
    path: &EnvironmentPath,
    plan: PlanId,
    ask: Ask,
) -> Result<Started, OpError> {
    let made = plans::find(context, plan).await?;
    let word = |name: &str| made.arguments[name].as_str().unwrap_or_default().to_owned();
    let (target, host_key) = (Target::parse(&word("adopt"))?, word("host_key"));
    let arguments = plan::arguments(path, &target, &host_key);
    let plan = plans::usable(context, plan, KIND, &arguments).await?;
    let found = plan::look_again(context, path, &target, &host_key, &plan).await?;
    if plans::waits(&plan) {
        return Ok(Started::NeedsApproval(Box::new(plan)));
    }
    let vm = VmId::generate();
    let environment = found.environment;
    let server = found.server.as_ref();
    let settings = &environment.settings;
    let params = Params {
        environment: environment.id,
        path: path.clone(),
        vm,
        token: SecretId::generate(),
        deploy_key: SecretId::generate(),
        target: target.to_string(),
        login: target.login.clone(),
        address: found.address,
        host_key,
        provider: server.map_or(Vm::OWN_MACHINE, |(cloud, _)| cloud).to_owned(),
        server: server.map(|(_, server)| server.provider_id.clone()),
        size: named(server.map(|(_, server)| server.size.as_str()))?,
        region: named(server.map(|(_, server)| server.region.as_str()))?,
        arch: found.look.arch().unwrap_or(Arch::Amd64),
        monthly: found.monthly.unwrap_or(Money::zero(Currency::Eur)),
        before: Place {
            provider: settings.provider.clone(),
            size: settings.size.clone(),
            region: settings.region.clone(),
        },
        kept: found.look.kept(),
    };
    let exclusive = |resource| Lock { resource, mode: LockMode::Exclusive };
    let new = NewOperation {
        id: OperationId::generate(),
        kind: KIND,
        version: VERSION,
        environment: Some(environment.id),
        vm: None,
        locks: vec![
            exclusive(format!("env:{}", environment.id)),
            exclusive(format!("vm:{vm}")),
            exclusive(format!("machine:{}", params.address)),
        ],
        params: json!(params),
        steps: STEPS.len() as u32,
        idempotency: ask.identity(KIND, &arguments),
        caller: ask.caller,
        reason: ask.reason,
        plan: Some(plan.id),
        deploy: None,
        created_at: context.clock.now(),
    };
    Ok(Started::Operation(queue(context, new, &format!("environment `{path}`")).await?))
}

/// What the steps use.
struct AdoptVm {
    operation: OperationId,
    params: Params,
    context: Context,
}

pub(super) fn load(row: &OperationRow, context: &Context) -> Result<Box<dyn Operation>, String> {
    let (operation, params) = (row.id, params(row)?);
    Ok(Box::new(AdoptVm { operation, params, context: context.clone() }))
}

impl AdoptVm {
    /// The client of the server's cloud, and the server's id there.
    async fn server(&self) -> Result<Option<(AnyCloud, &str)>, OpError> {
        match &self.params.server {
            Some(id) => Ok(Some((self.context.accounts.cloud(&self.params.provider).await?, id))),
            None => Ok(None),
        }
    }

    async fn adoption(&self) -> Result<Adoption, OpError> {
        let Params { environment, target, path, .. } = &self.params;
        let kept = self.context.store.adoption(*environment, target.clone()).await?;
        kept.ok_or_else(|| AdoptError::NoTarget { environment: path.to_string() }.into())
    }

    async fn dial(&self) -> Result<Dial, OpError> {
        let Params { login, address, host_key, .. } = &self.params;
        plan::dial(&self.context, &self.adoption().await?, login, *address, host_key).await
    }

    /// The VM's row and all its keys: made here, before anything is changed anywhere.
    async fn prepare(&self) -> Result<Value, OpError> {
        let (context, params) = (&self.context, &self.params);
        let store = &context.store;
        let other = super::environments::environment(store, &params.path).await?.vm;
        if let Some(vm) = other.filter(|vm| *vm != params.vm) {
            let environment = params.path.to_string();
            return Err(OpError::HasVm { environment, vm: vm.to_string() });
        }
        let now = context.clock.now();
        let vm = Vm {
            id: params.vm,
            provider: params.provider.clone(),
            provider_id: params.server.clone(),
            size: params.size.clone(),
            region: params.region.clone(),
            arch: params.arch,
            // Not before somebody answers there for us: until then nobody tries.
            address: None,
            address_id: None,
            ipv6: None,
            known_hosts: None,
            state: VmState::Ordered,
            created_at: now,
        };
        store.insert_vm(VmRow { vm, monthly: params.monthly }).await?;
        store.set_environment_vm(params.environment, Some(params.vm)).await?;
        links::prepare_adopted(context, params.vm, &params.host_key).await?;
        let (purpose, id) = (Purpose::EnrolmentToken, params.token);
        let sealed = context.vault.seal(&random_token(), purpose, &id.to_string())?;
        store.put_secret(id, purpose.as_str(), sealed, now).await?;
        let sealed = store.secret(id).await?.unwrap_or_default();
        let token = context.vault.unseal(&sealed, purpose, &id.to_string())?;
        store.set_enrolment(params.vm, token_hash(&token), now.plus_ms(ENROLMENT_MS)).await?;
        let (public_key, private_key) = deploy_key_pair(&params.path)?;
        let (purpose, secret) = (Purpose::DeployKey, params.deploy_key);
        let sealed = context.vault.seal(&private_key, purpose, &secret.to_string())?;
        let key = DeployKey { environment: params.environment, vm: params.vm, public_key, secret };
        store.put_deploy_key(key, purpose.as_str(), sealed, now).await?;
        Ok(json!({ "vm": params.vm }))
    }

    /// Makes the server ours at its cloud.
    async fn label(&self) -> Result<Value, OpError> {
        let Some((cloud, id)) = self.server().await? else { return Ok(Value::Null) };
        let installation = self.context.settings.installation;
        let labels = vm_labels(installation, self.params.vm, Some(self.operation));
        let server = cloud.adopt_vm(id, &labels).await?;
        self.context.store.set_vm_ipv6(self.params.vm, server.ipv6).await?;
        Ok(json!({ "server": id }))
    }

    /// Runs a part of the set-up on the machine.
    async fn part(&self, part: Part) -> Result<(), OpError> {
        let (context, params) = (&self.context, &self.params);
        let adoption = self.adoption().await?;
        let binary = agent_binary(context, params.arch).await?;
        let token = context.store.secret(params.token).await?.unwrap_or_default();
        let id = params.token.to_string();
        let token = context.vault.unseal(&token, Purpose::EnrolmentToken, &id)?;
        let key = context.store.deploy_key(params.environment, params.vm).await?;
        let link = links::prepare_adopted(context, params.vm, &params.host_key).await?;
        let text = script(&Facts {
            vm: params.vm,
            gateway_key_base64: &BASE64_STANDARD.encode(identity::newest(context).await?),
            enrolment_token: &token,
            agent_sha256: &binary.sha256,
            agent_bytes: binary.bytes,
            registry_mirror: context.settings.registry_mirror.as_ref(),
            deploy_public_key: &key.map(|key| key.public_key).unwrap_or_default(),
            owner_public_key: context.settings.owner_key.as_deref(),
            link_public_key: &link.public_key,
            login: &params.login,
            login_public_key: &adoption.public_key,
        })?;
        let dial = self.dial().await?;
        let command = command(&params.login, Some(part));
        let said = shell::run_secret(&dial, &command, &text, PART_LIMIT).await;
        let machine = params.address.to_string();
        let said = said.map_err(|error| plan::refused(error, &dial, &machine))?;
        match said.status {
            Some(0) => Ok(()),
            // 65: the machine is another installation's by now.
            Some(65) => Err(AdoptError::Theirs { machine }.into()),
            _ => {
                let said = plan::last_line(&said.complaint);
                Err(AdoptError::Script { machine, part: part.as_str(), said }.into())
            }
        }
    }

    /// Once the users are there, a login that is refused means that the machine has taken them off.
    async fn wait_agent(&self, run: &Run<'_>) -> Result<(), OpError> {
        let hopeless = ["first_boot_failed", "ssh_login_refused"];
        match links::first_link(&self.context, run, self.params.vm, &hopeless).await {
            Err(OpError::FirstBoot { told, .. }) => {
                let machine = self.params.address.to_string();
                Err(AdoptError::Disturbed { machine, what: told }.into())
            }
            linked => linked,
        }
    }

    /// What was there before has to be there now.
    async fn check(&self) -> Result<Value, OpError> {
        let machine = self.params.address.to_string();
        let look = plan::looked(&self.dial().await?, &self.params.login, &machine).await?;
        let now = look.kept();
        let gone: Vec<&str> =
            self.params.kept.iter().filter(|one| !now.contains(one)).map(String::as_str).collect();
        if gone.is_empty() {
            return Ok(json!({ "unchanged": now.len() }));
        }
        let what = gone.into_iter().take(6).collect::<Vec<_>>().join("; ");
        Err(AdoptError::Disturbed { machine, what }.into())
    }

    /// The machine is ours by now, so a key that stays is told and undoes nothing.
    async fn lock_out(&self) -> Result<Value, OpError> {
        let left = match self.part(Part::LockOut).await {
            Ok(()) => None,
            // It went before, and the answer did not come.
            Err(OpError::Adopt(AdoptError::Ssh(error))) if error.is_login_refused() => None,
            Err(error) if error.retryable() || error.is_lost_lease() => return Err(error),
            Err(error) => Some(error),
        };
        let left = left.map(|error| {
            let login = &self.params.login;
            format!("remove the line `vmkit-adopt` from {login}'s authorized_keys by hand: {error}")
        });
        Ok(json!({ "left": left }))
    }

    /// Takes off the machine what was put on it.
    async fn take_off(&self) -> Result<(), OpError> {
        let dial = self.dial().await?;
        let machine = self.params.address.to_string();
        let command = command(&self.params.login, None);
        match shell::run(&dial, &command, LEAVE, PART_LIMIT).await {
            Ok(said) if said.status == Some(0) => Ok(()),
            Ok(said) => {
                let said = plan::last_line(&said.complaint);
                Err(AdoptError::Script { machine, part: "leave", said }.into())
            }
            // Our line is gone already: the other way in is there then.
            Err(error) if error.is_login_refused() => {
                match leave(&self.context, self.params.vm).await? {
                    None => Ok(()),
                    Some(_) => Err(plan::refused(error, &dial, &machine).into()),
                }
            }
            Err(error) => Err(plan::refused(error, &dial, &machine).into()),
        }
    }
}

/// Has an adopted machine take VMKit's things off, over its link. What is left for a person to do,
/// where it does not answer any more.
pub(super) async fn leave(context: &Context, vm: VmId) -> Result<Option<String>, OpError> {
    let Some(dial) = links::dial(context, vm).await? else { return Ok(None) };
    let by_hand = |why: &str| {
        Some(format!(
            "{} {why}: run /usr/local/lib/vmkit/leave there, if the machine is to be used again",
            dial.address.ip()
        ))
    };
    let until = tokio::time::Instant::now() + LEAVE_LIMIT;
    let mut asked = false;
    loop {
        match shell::run(&dial, "vmkit-leave", "", LOOK_LIMIT).await {
            Err(error) if error.is_login_refused() => return Ok(None),
            Err(error) if error.is_other_host_key() => {
                return Ok(by_hand("has another SSH host key than it had"));
            }
            Err(_) if !asked && tokio::time::Instant::now() >= until => {
                return Ok(by_hand("does not answer"));
            }
            Ok(said) if said.status == Some(0) => asked = true,
            Ok(_) | Err(_) => {}
        }
        if tokio::time::Instant::now() >= until {
            return Ok(by_hand("was told to, and has not done it yet"));
        }
        tokio::time::sleep(LEAVE_LOOK).await;
    }
}

impl Operation for AdoptVm {
    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    fn run<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<StepEnd, OpError>> {
        async move {
            let (context, params) = (&self.context, &self.params);
            let mut output = Value::Null;
            match step {
                "prepare" => output = self.prepare().await?,
                "label" => output = self.label().await?,
                "arm" => self.part(Part::Arm).await?,
                "set_up" => {
                    self.part(Part::SetUp).await?;
                    context.store.set_vm_address(params.vm, params.address).await?;
                }
                "wait_agent" => self.wait_agent(run).await?,
                "check" => output = self.check().await?,
                "confirm" => self.part(Part::Confirm).await?,
                "record" => {
                    output = links::record(context, params.vm).await?;
                    let provider = Some(params.provider.clone());
                    let (size, region) = (params.size.clone(), params.region.clone());
                    let id = params.environment;
                    context.store.set_environment_place(id, provider, size, region).await?;
                }
                _ => output = self.lock_out().await?,
            }
            Ok(StepEnd::Done(output))
        }
        .boxed()
    }

    fn undo<'a>(
        &'a self,
        step: &'static str,
        _run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<(), OpError>> {
        async move {
            match step {
                "arm" | "set_up" => self.take_off().await,
                "label" => {
                    let Some((cloud, id)) = self.server().await? else { return Ok(()) };
                    let installation = self.context.settings.installation;
                    Ok(cloud.disown_vm(id, installation).await?)
                }
                _ => Ok(()),
            }
        }
        .boxed()
    }

    fn ended<'a>(
        &'a self,
        state: OperationState,
        _failure: Option<&'a Failure>,
        outputs: &'a BTreeMap<String, Value>,
    ) -> BoxFuture<'a, Result<Option<Value>, OpError>> {
        async move {
            let (store, params) = (&self.context.store, &self.params);
            match state {
                OperationState::Failed | OperationState::Cancelled => {
                    let now = store.environment(params.path.clone()).await?;
                    if now.is_some_and(|found| found.vm == Some(params.vm)) {
                        store.set_environment_vm(params.environment, None).await?;
                        let Place { provider, size, region } = params.before.clone();
                        let id = params.environment;
                        store.set_environment_place(id, provider, size, region).await?;
                    }
                    // The key to the machine stays, so that the same line serves the next attempt.
                    store.set_vm_state(params.vm, VmState::Deleted).await?;
                    Ok(None)
                }
                OperationState::Succeeded => {
                    store.forget_adoptions(params.environment).await?;
                    let mut result = outputs.get("record").cloned().unwrap_or_default();
                    let left = outputs.get("lock_out").map(|out| out["left"].clone());
                    result["left"] = left.unwrap_or_default();
                    Ok(Some(result))
                }
                _ => Ok(None),
            }
        }
        .boxed()
    }

    fn by_hand(&self, step: &'static str) -> String {
        let Params { address, path, server, provider, .. } = &self.params;
        match (step, server) {
            ("label", Some(id)) => {
                format!("remove the labels that begin with `vmkit` from server {id} at {provider}")
            }
            _ => format!(
                "{address} takes VMKit's things off by itself within half an hour; to be sure, run \
                 /usr/local/lib/vmkit/leave there; then call `destroy` with environment `{path}`"
            ),
        }
    }

    fn resumes_when_old(&self) -> Result<(), &'static str> {
        Ok(())
    }
}
