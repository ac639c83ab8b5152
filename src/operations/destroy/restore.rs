//! The undo of a destroy: the server is ordered from its snapshot with the address that it had, or
//! powered on, and is held against what was reported of it before anything is told to use it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vmkit_agent_protocol::calls::{Call, Reply};

use super::Subject;
use crate::bootstrap;
use crate::clouds::{AnyCloud, Cloud, CloudError, VmOrder, vm_labels};
use crate::domain::environment::{Vm, VmState};
use crate::domain::ids::{EnvironmentId, OperationId, PlanId, VmId};
use crate::domain::names::EnvironmentPath;
use crate::domain::operation::OperationState;
use crate::domain::retirement::{Keeping, Retirement, RetirementState};
use crate::domain::secret::Secret;
use crate::operations::agents::linked;
use crate::operations::deploy::prove_release;
use crate::operations::domains;
use crate::operations::provision_vm::Shared;
use crate::operations::{Ask, Context, OpError, Operation, Run, Step, StepEnd, keys, params};
use crate::store::{Failure, NewOperation, OperationRow, VmRow};

pub(in crate::operations) const KIND: &str = "restore";
pub(in crate::operations) const VERSION: u32 = 1;

const STEPS: [Step; 11] = [
    Step { name: "ssh_key", says: "storing your public key at the cloud" },
    Step { name: "firewall", says: "making the firewall: 22, 80 and 443 in" },
    Step { name: "order_server", says: "ordering the server from its snapshot" },
    Step { name: "power_on", says: "powering the server on" },
    Step { name: "wait_server", says: "waiting for the server to start" },
    Step { name: "wait_agent", says: "waiting for the VM's agent to link again" },
    Step { name: "check_host", says: "holding its host key against the one that was reported" },
    Step { name: "grant_access", says: "giving GitHub Actions the deploy key and the host key" },
    Step { name: "prove", says: "proving that the app answers" },
    Step { name: "record", says: "noting that the environment is back" },
    Step { name: "delete_snapshot", says: "deleting the snapshot" },
];

/// How long a server may take to start.
const SERVER_WAIT: Duration = Duration::from_secs(300);
/// How long services may take to end where this is undone.
const GRACE: Duration = Duration::from_secs(120);
/// How long containers may take to run after a boot.
const BOOT_WAIT: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Params {
    environment: EnvironmentId,
    path: EnvironmentPath,
    vm: Option<VmId>,
    provider: Option<String>,
    keeping: Keeping,
    retirement: OperationId,
}

/// The steps that have something to do, as a plan tells them.
pub(super) fn says(keeping: Keeping) -> Vec<String> {
    let works = |step: &&Step| match step.name {
        "ssh_key" | "firewall" | "order_server" | "delete_snapshot" => keeping == Keeping::Snapshot,
        "power_on" => keeping == Keeping::Park,
        "wait_server" | "wait_agent" | "check_host" | "prove" => keeping != Keeping::Shared,
        _ => true,
    };
    STEPS.iter().filter(works).map(|step| step.says.to_owned()).collect()
}

/// The operation that brings the subject back.
pub(super) fn queued(
    context: &Context,
    subject: &Subject,
    kept: &Retirement,
    plan: PlanId,
    identity: Option<(String, String, String)>,
    ask: Ask,
) -> NewOperation {
    let params = Params {
        environment: subject.environment.id,
        path: subject.environment.path.clone(),
        vm: subject.environment.vm,
        provider: subject.own.as_ref().map(|row| row.vm.provider.clone()),
        keeping: kept.keeping,
        retirement: kept.id,
    };
    NewOperation {
        id: OperationId::generate(),
        kind: KIND,
        version: VERSION,
        environment: Some(subject.environment.id),
        vm: params.vm,
        params: json!(params),
        locks: subject.locks(),
        steps: STEPS.len() as u32,
        idempotency: identity,
        caller: ask.caller,
        reason: ask.reason,
        plan: Some(plan),
        deploy: None,
        created_at: context.clock.now(),
    }
}

struct Restore {
    operation: OperationId,
    params: Params,
    context: Context,
}

pub(in crate::operations) fn load(
    row: &OperationRow,
    context: &Context,
) -> Result<Box<dyn Operation>, String> {
    Ok(Box::new(Restore { operation: row.id, params: params(row)?, context: context.clone() }))
}

impl Restore {
    /// The VM that rests, and its cloud; none where only the app went.
    async fn own(&self) -> Result<Option<(VmRow, AnyCloud)>, OpError> {
        let (Some(vm), Some(provider)) = (self.params.vm, &self.params.provider) else {
            return Ok(None);
        };
        if self.params.keeping == Keeping::Shared {
            return Ok(None);
        }
        let Some(row) = self.context.store.vm(vm).await? else { return Ok(None) };
        Ok(Some((row, self.context.accounts.cloud(provider).await?)))
    }

    async fn snapshot_of(&self) -> Result<Option<(VmRow, AnyCloud)>, OpError> {
        Ok(self.own().await?.filter(|_| self.params.keeping == Keeping::Snapshot))
    }

    async fn ssh_key(&self) -> Result<Value, OpError> {
        let Some((_, cloud)) = self.snapshot_of().await? else { return Ok(Value::Null) };
        let key = self.context.settings.owner_key.clone().ok_or(OpError::NoOwnerKey)?;
        let name = Shared::of(&self.context).ssh_key;
        Ok(json!(cloud.ensure_ssh_key(&name, &key, self.context.settings.installation).await?))
    }

    async fn firewall(&self) -> Result<Value, OpError> {
        let Some((_, cloud)) = self.snapshot_of().await? else { return Ok(Value::Null) };
        let name = Shared::of(&self.context).firewall;
        Ok(json!(cloud.ensure_firewall(&name, self.context.settings.installation).await?))
    }

    async fn order(&self, run: &Run<'_>) -> Result<Value, OpError> {
        let Some((row, cloud)) = self.snapshot_of().await? else { return Ok(Value::Null) };
        let kept = self.context.store.retirement(self.params.retirement).await?;
        let gone = || OpError::NotDestroyed { environment: self.params.path.to_string() };
        let kept = kept.ok_or_else(gone)?;
        let image = kept.snapshot.clone().ok_or_else(gone)?;
        let name = Vm::cloud_name(&row.vm.id);
        let one = |step| run.output(step).as_str().map(str::to_owned).into_iter().collect();
        let order = VmOrder {
            user_data: Secret::new(bootstrap::restored(&name)?),
            name,
            size: row.vm.size.clone(),
            region: row.vm.region.clone(),
            image,
            ssh_keys: one("ssh_key"),
            firewalls: one("firewall"),
            address: row.vm.address_id.clone(),
            labels: vm_labels(self.context.settings.installation, row.vm.id, Some(self.operation)),
        };
        let server = match cloud.create_vm(&order).await {
            Err(error @ CloudError::SoldOut { .. }) => {
                return Err(OpError::NotRestorable {
                    environment: self.params.path.to_string(),
                    until: kept.until(),
                    reason: error.to_string(),
                });
            }
            ordered => ordered?,
        };
        let store = &self.context.store;
        store.set_vm_server(row.vm.id, server.provider_id.clone(), server.address).await?;
        Ok(json!({ "server": server.provider_id }))
    }

    async fn power_on(&self) -> Result<(), OpError> {
        let (Keeping::Park, Some((row, cloud))) = (self.params.keeping, self.own().await?) else {
            return Ok(());
        };
        let server = row.vm.provider_id.clone().unwrap_or_default();
        cloud.start_vm(&server, self.context.settings.installation, SERVER_WAIT).await?;
        Ok(())
    }

    async fn wait_server(&self) -> Result<Value, OpError> {
        let Some((row, cloud)) = self.own().await? else { return Ok(Value::Null) };
        let server = row.vm.provider_id.clone().unwrap_or_default();
        let server = cloud.wait_running(&server, SERVER_WAIT).await?;
        let store = &self.context.store;
        store.set_vm_server(row.vm.id, server.provider_id, server.address).await?;
        store.set_vm_ipv6(row.vm.id, server.ipv6).await?;
        Ok(json!({ "address": server.address }))
    }

    async fn wait_agent(&self, run: &Run<'_>) -> Result<(), OpError> {
        let Some((row, _)) = self.own().await? else { return Ok(()) };
        let wait = self.context.settings.agent_wait;
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let presence = self.context.fleet.presence(row.vm.id).await?;
            if presence.linked {
                break;
            }
            run.stop_if_asked().await?;
            if tokio::time::Instant::now() >= deadline {
                let vm = row.vm.id.to_string();
                let told = presence.trouble.map(|trouble| trouble.message).unwrap_or_default();
                return Err(OpError::AgentSilent { vm, waited_s: wait.as_secs(), told });
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// The host key is the one that was reported, else nothing may be told to trust it. Only the
    /// address before it may be another, where it was not the VM's own.
    async fn check_host(&self) -> Result<(), OpError> {
        let Some((row, _)) = self.own().await? else { return Ok(()) };
        let vm = row.vm.id;
        linked(&self.context, vm).await?;
        let found = match self.context.fleet.call(vm, Call::HostFacts, GRACE / 6).await? {
            Reply::HostFacts(facts) => facts.ssh_host_keys,
            _ => Vec::new(),
        };
        let noted = row.vm.known_hosts.unwrap_or_default();
        let known: Vec<&str> =
            noted.lines().filter_map(|line| Some(line.split_once(' ')?.1)).collect();
        if known.iter().any(|key| !found.iter().any(|now| now == key)) {
            let what = format!("VM {vm}");
            return Err(OpError::OtherHostKey { what, found: found.join("; ") });
        }
        let host = row.vm.address.map(|address| address.to_string()).unwrap_or_default();
        let lines: Vec<String> = known.iter().map(|key| format!("{host} {key}")).collect();
        Ok(self.context.store.set_vm_known_hosts(vm, lines.join("\n")).await?)
    }

    /// Waits for the app of the last release as after a deploy; containers start by themselves.
    async fn prove(&self, run: &Run<'_>) -> Result<Value, OpError> {
        let Some((row, _)) = self.own().await? else { return Ok(Value::Null) };
        let live = self.context.store.releases(self.params.environment, 1).await?;
        let Some(live) = live.first() else { return Ok(Value::Null) };
        let deadline = tokio::time::Instant::now() + BOOT_WAIT;
        loop {
            match prove_release(&self.context, &self.params.path, row.vm.id, live, run).await {
                Err(OpError::NotLive { .. }) if tokio::time::Instant::now() < deadline => {
                    run.stop_if_asked().await?;
                    tokio::time::sleep(PAUSE).await;
                }
                proven => return proven,
            }
        }
    }

    async fn record(&self) -> Result<(), OpError> {
        let store = &self.context.store;
        if let Some((row, _)) = self.own().await? {
            store.set_vm_state(row.vm.id, VmState::Ready).await?;
            let environment = self.params.environment;
            let now = (row.vm.address, row.vm.ipv6);
            match domains::follow(&self.context, environment, now).await {
                Err(error) if error.is_lost_lease() || error.retryable() => return Err(error),
                // `manage_domain` says what is wrong and mends it; the environment is back.
                Err(error) => tracing::warn!(code = error.code(), %error, "a DNS record is old"),
                Ok(()) => {}
            }
        }
        Ok(store.set_retirement_state(self.params.retirement, RetirementState::Restored).await?)
    }

    /// The environment is back: a snapshot that cannot be deleted is no reason to take it away
    /// again. Its row goes on naming it, and a sweep deletes it.
    async fn delete_snapshot(&self, run: &Run<'_>) -> Result<Value, OpError> {
        let Some((_, cloud)) = self.snapshot_of().await? else { return Ok(Value::Null) };
        let (store, id) = (&self.context.store, self.params.retirement);
        let kept = store.retirement(id).await?.and_then(|kept| kept.snapshot);
        let Some(snapshot) = kept else { return Ok(Value::Null) };
        let installation = self.context.settings.installation;
        match cloud.delete_snapshot(&snapshot, installation).await {
            Err(error) if !error.retryable() || run.again => {
                tracing::warn!(code = error.code(), %error, "snapshot {snapshot} is left");
                return Ok(json!({ "left": snapshot }));
            }
            deleted => deleted?,
        }
        store.set_retirement_snapshot(id, None, None).await?;
        Ok(Value::Null)
    }

    /// Where the snapshot is gone there is no way back any more: the server holds the only copy.
    async fn snapshot_is_there(&self) -> Result<(), OpError> {
        let Some((_, cloud)) = self.snapshot_of().await? else { return Ok(()) };
        let kept = self.context.store.retirement(self.params.retirement).await?;
        let snapshot = kept.and_then(|kept| kept.snapshot);
        let listed = cloud.list_snapshots().await?;
        if snapshot.is_some_and(|id| listed.iter().any(|one| one.provider_id == id)) {
            return Ok(());
        }
        Err(OpError::Restored { environment: self.params.path.to_string() })
    }

    /// Deletes the server that was ordered, whether or not its order was answered. Its address
    /// stays ours, and its snapshot was not touched.
    async fn delete_server(&self) -> Result<(), OpError> {
        let Some((row, cloud)) = self.snapshot_of().await? else { return Ok(()) };
        let installation = self.context.settings.installation;
        if let Some(server) = cloud.find_vm(&Vm::cloud_name(&row.vm.id)).await?
            && server.belongs_to(installation)
        {
            cloud.delete_vm(&server.provider_id, installation).await?;
        }
        Ok(())
    }

    async fn power_off(&self) -> Result<(), OpError> {
        let (Keeping::Park, Some((row, cloud))) = (self.params.keeping, self.own().await?) else {
            return Ok(());
        };
        let server = row.vm.provider_id.clone().unwrap_or_default();
        cloud.stop_vm(&server, self.context.settings.installation, GRACE).await?;
        Ok(())
    }

    async fn rest_again(&self) -> Result<(), OpError> {
        let store = &self.context.store;
        if let Some((row, _)) = self.own().await? {
            let state = match self.params.keeping {
                Keeping::Park => VmState::Parked,
                Keeping::Snapshot | Keeping::Shared => VmState::Kept,
            };
            store.set_vm_state(row.vm.id, state).await?;
        }
        Ok(store.set_retirement_state(self.params.retirement, RetirementState::Kept).await?)
    }
}

impl Operation for Restore {
    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    fn run<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<StepEnd, OpError>> {
        async move {
            let mut output = Value::Null;
            match step {
                "ssh_key" => output = self.ssh_key().await?,
                "firewall" => output = self.firewall().await?,
                "order_server" => output = self.order(run).await?,
                "power_on" => self.power_on().await?,
                "wait_server" => output = self.wait_server().await?,
                "wait_agent" => self.wait_agent(run).await?,
                "check_host" => self.check_host().await?,
                "grant_access" => {
                    if let Some(vm) = self.params.vm {
                        keys::grant(&self.context, &self.params.path, vm).await?;
                    }
                }
                "prove" => output = self.prove(run).await?,
                "record" => self.record().await?,
                _ => output = self.delete_snapshot(run).await?,
            }
            Ok(StepEnd::Done(output))
        }
        .boxed()
    }

    /// The firewall and the owner's key stay: the VM that rests needs them again.
    fn undo<'a>(
        &'a self,
        step: &'static str,
        _run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<(), OpError>> {
        async move {
            match step {
                "order_server" => self.delete_server().await,
                "power_on" => self.power_off().await,
                "grant_access" => keys::revoke(&self.context, &self.params.path).await,
                "record" => self.rest_again().await,
                "delete_snapshot" => self.snapshot_is_there().await,
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
            let path = &self.params.path;
            let url = outputs.get("prove").map(|proof| proof["url"].clone());
            let next = (self.params.keeping == Keeping::Shared)
                .then(|| format!("call `deploy` with environment `{path}` and ref `current`"));
            let left = outputs.get("delete_snapshot").map(|end| end["left"].clone());
            let done = state == OperationState::Succeeded;
            Ok(done.then(|| {
                json!({
                    "environment": path, "vm": self.params.vm, "url": url, "next": next,
                    "snapshot_left": left,
                })
            }))
        }
        .boxed()
    }

    fn by_hand(&self, step: &'static str) -> String {
        if step == "delete_snapshot" {
            return format!("call `get_status` with environment `{}`", self.params.path);
        }
        let left = match (step, &self.params.vm) {
            ("order_server", Some(vm)) => {
                format!("delete server `{}`, which is billed until then, and ", Vm::cloud_name(vm))
            }
            _ => String::new(),
        };
        let path = &self.params.path;
        format!(
            "{left}call `destroy` with environment `{path}` and `undo: true` again; what was kept is still there"
        )
    }

    fn resumes_when_old(&self) -> Result<(), &'static str> {
        Ok(())
    }
}
