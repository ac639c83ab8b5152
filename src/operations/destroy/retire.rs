//! A destroy that can be undone: the server goes and its disk and address are kept, or it is only
//! powered off; where others use the VM, only the app goes.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Subject, app, plan};
use crate::clouds::{AnyCloud, Cloud, CloudVm, CloudVmState, LABEL_EXPIRES, vm_labels};
use crate::domain::clock::Millis;
use crate::domain::environment::VmState;
use crate::domain::ids::{EnvironmentId, OperationId, PlanId, VmId};
use crate::domain::names::EnvironmentPath;
use crate::domain::operation::OperationState;
use crate::domain::retirement::{Keeping, Retirement, RetirementState, UNDO_MS, snapshot_name};
use crate::operations::{Ask, Context, OpError, Operation, Run, Step, StepEnd, keys, params};
use crate::store::{Failure, NewOperation, OperationRow, VmRow};

pub(in crate::operations) const KIND: &str = "retire";
pub(in crate::operations) const VERSION: u32 = 1;

const STEPS: [Step; 8] = [
    Step { name: "note", says: "noting what will be kept, and until when" },
    Step { name: "revoke_access", says: "deleting the deploy key and the host key at GitHub" },
    Step { name: "remove_app", says: "removing its containers, route and env file" },
    Step { name: "stop_server", says: "shutting the server down; its services have two minutes" },
    Step { name: "keep_snapshot", says: "keeping its disk as a snapshot" },
    Step { name: "keep_address", says: "keeping its address" },
    Step { name: "delete_server", says: "deleting the server" },
    Step { name: "mark", says: "marking the environment as one that can be restored" },
];

/// How long services may take to end before the power is cut.
const GRACE: Duration = Duration::from_secs(120);
/// How long a server may take to start again where this is undone.
const START: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Params {
    environment: EnvironmentId,
    path: EnvironmentPath,
    /// The VM that it runs on, its own or not.
    vm: Option<VmId>,
    provider: Option<String>,
    keeping: Keeping,
    /// The retirement that it goes on with, where an earlier attempt got stuck.
    retirement: OperationId,
    began_at: Millis,
    expires_at: Option<Millis>,
}

/// The steps that have something to do, as a plan tells them.
pub(super) fn says(keeping: Keeping) -> Vec<String> {
    let works = |step: &&Step| match step.name {
        "remove_app" => keeping == Keeping::Shared,
        "stop_server" => keeping != Keeping::Shared,
        "keep_snapshot" | "keep_address" | "delete_server" => keeping == Keeping::Snapshot,
        _ => true,
    };
    STEPS.iter().filter(works).map(|step| step.says.to_owned()).collect()
}

/// The operation that puts the subject away.
pub(super) fn queued(
    context: &Context,
    subject: &Subject,
    keeping: Keeping,
    plan: PlanId,
    identity: Option<(String, String, String)>,
    ask: Ask,
) -> NewOperation {
    let id = OperationId::generate();
    let now = context.clock.now();
    // A parked VM loses nothing by waiting, and says on every bill that it is there.
    let expires_at = (keeping != Keeping::Park).then(|| now.plus_ms(UNDO_MS));
    let stuck = subject.retirement.as_ref().filter(|kept| kept.keeping == keeping);
    let params = Params {
        environment: subject.environment.id,
        path: subject.environment.path.clone(),
        vm: subject.environment.vm,
        provider: subject.own.as_ref().map(|row| row.vm.provider.clone()),
        keeping,
        retirement: stuck.map_or(id, |kept| kept.id),
        began_at: now,
        expires_at,
    };
    NewOperation {
        id,
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
        created_at: now,
    }
}

struct Retire {
    params: Params,
    context: Context,
}

pub(in crate::operations) fn load(
    row: &OperationRow,
    context: &Context,
) -> Result<Box<dyn Operation>, String> {
    Ok(Box::new(Retire { params: params(row)?, context: context.clone() }))
}

impl Retire {
    /// The VM that goes or rests with the environment, and its cloud.
    async fn own(&self) -> Result<Option<(VmRow, AnyCloud)>, OpError> {
        let (Some(vm), Some(provider)) = (self.params.vm, &self.params.provider) else {
            return Ok(None);
        };
        let Some(row) = self.context.store.vm(vm).await? else { return Ok(None) };
        Ok(Some((row, self.context.accounts.cloud(provider).await?)))
    }

    fn snapshots(&self) -> bool {
        self.params.keeping == Keeping::Snapshot
    }

    fn snapshot_name(&self) -> Option<String> {
        let vm = self.params.vm.as_ref().filter(|_| self.snapshots())?;
        Some(snapshot_name(vm, &self.params.retirement))
    }

    async fn note(&self) -> Result<Value, OpError> {
        let mut monthly = None;
        if let (true, Some((row, cloud))) = (self.snapshots(), self.own().await?) {
            let server = self.server(&row, &cloud).await?;
            monthly = plan::cost_meanwhile(&cloud, server.and_then(|s| s.disk_gb), &row).await?;
        } else if let Some((row, _)) = self.own().await? {
            monthly = Some(row.monthly);
        }
        let retirement = Retirement {
            id: self.params.retirement,
            environment: self.params.environment,
            vm: self.params.vm,
            keeping: self.params.keeping,
            state: RetirementState::Making,
            snapshot_name: self.snapshot_name(),
            snapshot: None,
            size_gb: None,
            monthly,
            began_at: self.params.began_at,
            expires_at: self.params.expires_at,
        };
        self.context.store.insert_retirement(retirement).await?;
        Ok(json!({ "snapshot_name": self.snapshot_name() }))
    }

    async fn server(&self, row: &VmRow, cloud: &AnyCloud) -> Result<Option<CloudVm>, OpError> {
        super::server_of(cloud, &row.vm).await
    }

    /// Shuts the server down; its id, or nothing where it is gone already.
    async fn stop(&self) -> Result<Value, OpError> {
        let Some((row, cloud)) = self.own().await? else { return Ok(Value::Null) };
        let Some(server) = self.server(&row, &cloud).await? else { return Ok(Value::Null) };
        let installation = self.context.settings.installation;
        let stopped = cloud.stop_vm(&server.provider_id, installation, GRACE).await?;
        Ok(json!({ "server": server.provider_id, "forced": stopped.forced }))
    }

    async fn snapshot(&self, run: &Run<'_>) -> Result<Value, OpError> {
        let (true, Some((row, cloud))) = (self.snapshots(), self.own().await?) else {
            return Ok(Value::Null);
        };
        let (store, id) = (&self.context.store, self.params.retirement);
        let Some(server) = run.output("stop_server")["server"].as_str() else {
            // It is gone: an earlier attempt got this far.
            let noted = store.retirement(id).await?.and_then(|kept| kept.snapshot);
            return match noted {
                Some(snapshot) => Ok(json!({ "snapshot": snapshot })),
                None => {
                    let environment = self.params.path.to_string();
                    Err(OpError::HalfDestroyed { environment })
                }
            };
        };
        let installation = self.context.settings.installation;
        let mut labels = vm_labels(installation, row.vm.id, Some(self.params.retirement));
        if let Some(at) = self.params.expires_at {
            labels.insert(LABEL_EXPIRES.to_owned(), (at.0 / 1000).to_string());
        }
        let name = snapshot_name(&row.vm.id, &id);
        let made = cloud.snapshot_vm(server, installation, &name, &labels).await?;
        store.set_retirement_snapshot(id, Some(made.provider_id.clone()), made.size_gb).await?;
        Ok(json!({ "snapshot": made.provider_id, "gb": made.size_gb }))
    }

    async fn keep_address(&self) -> Result<(), OpError> {
        let (true, Some((row, cloud))) = (self.snapshots(), self.own().await?) else {
            return Ok(());
        };
        let Some(address) = &row.vm.address_id else { return Ok(()) };
        Ok(cloud.release_address(address, self.context.settings.installation).await?)
    }

    async fn delete_server(&self) -> Result<(), OpError> {
        let (true, Some((row, cloud))) = (self.snapshots(), self.own().await?) else {
            return Ok(());
        };
        if let Some(server) = self.server(&row, &cloud).await? {
            cloud.delete_vm(&server.provider_id, self.context.settings.installation).await?;
        }
        Ok(())
    }

    async fn mark(&self) -> Result<(), OpError> {
        let store = &self.context.store;
        let rests = match self.params.keeping {
            Keeping::Snapshot => Some(VmState::Kept),
            Keeping::Park => Some(VmState::Parked),
            Keeping::Shared => None,
        };
        if let (Some(vm), Some(state)) = (self.params.vm, rests) {
            store.set_vm_state(vm, state).await?;
        }
        Ok(store.set_retirement_state(self.params.retirement, RetirementState::Kept).await?)
    }

    /// There is no way back from a server that is gone, but there is one forward: what was kept
    /// makes it restorable.
    async fn still_there(&self) -> Result<(), OpError> {
        let (true, Some((row, cloud))) = (self.snapshots(), self.own().await?) else {
            return Ok(());
        };
        let there = self.server(&row, &cloud).await?;
        if there.is_some_and(|server| server.state != CloudVmState::Deleting) {
            return Ok(());
        }
        self.mark().await?;
        Err(OpError::HalfDestroyed { environment: self.params.path.to_string() })
    }

    async fn take_address_back(&self) -> Result<(), OpError> {
        let (true, Some((row, cloud))) = (self.snapshots(), self.own().await?) else {
            return Ok(());
        };
        let (Some(address), Some(server)) = (&row.vm.address_id, self.server(&row, &cloud).await?)
        else {
            return Ok(());
        };
        let installation = self.context.settings.installation;
        cloud.assign_address(address, &server.provider_id, installation).await?;
        Ok(())
    }

    async fn drop_snapshot(&self) -> Result<(), OpError> {
        let (Some(name), Some((_, cloud))) = (self.snapshot_name(), self.own().await?) else {
            return Ok(());
        };
        let installation = self.context.settings.installation;
        for one in cloud.list_snapshots().await? {
            if one.name == name && one.belongs_to(installation) {
                cloud.delete_snapshot(&one.provider_id, installation).await?;
            }
        }
        let id = self.params.retirement;
        Ok(self.context.store.set_retirement_snapshot(id, None, None).await?)
    }

    async fn start_again(&self, run: &Run<'_>) -> Result<(), OpError> {
        let Some((row, cloud)) = self.own().await? else { return Ok(()) };
        let Some(server) = self.server(&row, &cloud).await? else { return Ok(()) };
        let installation = self.context.settings.installation;
        if run.output("stop_server").is_null() {
            // It may be on its way down and still look as if it ran: it would be off a moment later.
            cloud.stop_vm(&server.provider_id, installation, GRACE).await?;
        }
        cloud.start_vm(&server.provider_id, installation, START).await?;
        Ok(self.context.store.set_vm_state(row.vm.id, VmState::Ready).await?)
    }

    async fn grant_again(&self) -> Result<(), OpError> {
        let Some(vm) = self.params.vm else { return Ok(()) };
        if let Err(error) = keys::grant(&self.context, &self.params.path, vm).await {
            // The next deploy puts both keys back.
            tracing::debug!(code = error.code(), %error, "the keys are not back at GitHub");
        }
        Ok(())
    }

    async fn app_still_runs(&self) -> Result<(), OpError> {
        let (Keeping::Shared, Some(vm)) = (self.params.keeping, self.params.vm) else {
            return Ok(());
        };
        match app::runs(&self.context, &self.params.path, vm).await? {
            Some(false) => {
                self.mark().await?;
                Err(OpError::HalfDestroyed { environment: self.params.path.to_string() })
            }
            Some(true) | None => Ok(()),
        }
    }
}

impl Operation for Retire {
    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    fn run<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<StepEnd, OpError>> {
        async move {
            let Params { environment, path, vm, keeping, .. } = &self.params;
            let mut output = Value::Null;
            match step {
                "note" => output = self.note().await?,
                "revoke_access" => keys::revoke(&self.context, path).await?,
                "remove_app" => {
                    if let (Keeping::Shared, Some(vm)) = (keeping, vm) {
                        let extent = app::Extent::App;
                        output =
                            app::remove(&self.context, *environment, path, *vm, extent).await?;
                    }
                }
                "stop_server" => output = self.stop().await?,
                "keep_snapshot" => output = self.snapshot(run).await?,
                "keep_address" => self.keep_address().await?,
                "delete_server" => self.delete_server().await?,
                _ => self.mark().await?,
            }
            Ok(StepEnd::Done(output))
        }
        .boxed()
    }

    fn undo<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<(), OpError>> {
        async move {
            let (store, id) = (&self.context.store, self.params.retirement);
            match step {
                "delete_server" => self.still_there().await,
                "keep_address" => self.take_address_back().await,
                "keep_snapshot" => self.drop_snapshot().await,
                "stop_server" => self.start_again(run).await,
                "remove_app" => self.app_still_runs().await,
                "revoke_access" => self.grant_again().await,
                "note" => Ok(store.set_retirement_state(id, RetirementState::Undone).await?),
                _ => Ok(store.set_retirement_state(id, RetirementState::Making).await?),
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
            let Params { path, keeping, expires_at, .. } = &self.params;
            let until = expires_at.map(|at| at.rfc3339());
            let forced = outputs.get("stop_server").map(|stopped| stopped["forced"].clone());
            let done = state == OperationState::Succeeded;
            Ok(done.then(|| {
                json!({
                    "environment": path, "kept": keeping, "until": until,
                    "power_was_cut": forced,
                    "undo": format!("call `destroy` with environment `{path}` and `undo: true`"),
                })
            }))
        }
        .boxed()
    }

    fn by_hand(&self, step: &'static str) -> String {
        let path = &self.params.path;
        // From here on `destroy` alone is refused: there is something to be restored or purged.
        let kept = step == "delete_server"
            || (step == "remove_app" && self.params.keeping == Keeping::Shared);
        if kept {
            return format!(
                "call `destroy` with environment `{path}` and `undo: true` to bring it back from what was kept, or `purge: true` to be rid of it for good"
            );
        }
        let left = match (step, self.snapshot_name()) {
            ("keep_snapshot", Some(name)) => {
                format!("; snapshot `{name}` is billed until then")
            }
            _ => String::new(),
        };
        format!(
            "call `get_status`, then `destroy` with environment `{path}` again, or with `undo: true` where it says that it can be restored{left}"
        )
    }

    fn resumes_when_old(&self) -> Result<(), &'static str> {
        Err(super::ACTION)
    }
}
