//! `destroy` for good: an environment, its VM where nobody else uses it, and all that was kept.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::table::Manner;
use super::{Subject, app};
use crate::clouds::{AnyCloud, Cloud, CloudVm, CloudVmState};
use crate::domain::environment::VmState;
use crate::domain::ids::{EnvironmentId, OperationId, PlanId, VmId};
use crate::domain::names::EnvironmentPath;
use crate::domain::operation::OperationState;
use crate::domain::retirement::{Keeping, RetirementState};
use crate::operations::adopt_vm;
use crate::operations::agents::linked;
use crate::operations::provision_vm::{Shared, address};
use crate::operations::{
    Ask, Context, OpError, Operation, Run, Step, StepEnd, build_env, domains, keys, params,
};
use crate::store::{Failure, NewOperation, OperationRow};

pub(in crate::operations) const KIND: &str = "destroy";
pub(in crate::operations) const VERSION: u32 = 2;

const REVOKE: Step =
    Step { name: "revoke_access", says: "deleting the deploy key and the host key at GitHub" };
const RECORDS: Step = Step { name: "remove_records", says: "removing our DNS records" };
const APP: Step = Step { name: "remove_app", says: "removing its containers, route and env file" };
const SERVER: Step = Step { name: "delete_server", says: "deleting the server" };
const SNAPSHOT: Step =
    Step { name: "delete_snapshot", says: "deleting the snapshot that was kept" };
const ADDRESS: Step = Step { name: "delete_address", says: "deleting the VM's own address" };
const FIREWALL: Step =
    Step { name: "delete_firewall", says: "deleting the firewall if no other VM needs it" };
const OWNER_KEY: Step =
    Step { name: "delete_ssh_key", says: "deleting your public key at the cloud, likewise" };
const FORGET: Step =
    Step { name: "forget", says: "forgetting the environment, its env values and its keys" };

const STEPS: [Step; 9] =
    [REVOKE, RECORDS, APP, SERVER, SNAPSHOT, ADDRESS, FIREWALL, OWNER_KEY, FORGET];

/// As version 1 had them: VMs had no address of their own, and nothing was kept.
const STEPS_1: [Step; 5] = [REVOKE, SERVER, FIREWALL, OWNER_KEY, FORGET];

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Params {
    environment: EnvironmentId,
    path: EnvironmentPath,
    /// The VM that goes with it.
    vm: Option<VmId>,
    provider: Option<String>,
    /// The VM that it runs on and that others use.
    #[serde(default)]
    shared: Option<VmId>,
    /// The person's own machine that VMKit's things are taken off.
    #[serde(default)]
    leaves: Option<VmId>,
    /// Whether its volumes on such a VM go too: not where the time of an undo only ran out.
    #[serde(default)]
    volumes: bool,
}

/// The steps that have something to do, as a plan tells them.
pub(super) fn says(manner: Manner) -> Vec<String> {
    let shared = manner != Manner::Purge;
    let idle = |step: &&Step| match step.name {
        "remove_app" => !shared,
        "delete_server" | "delete_snapshot" | "delete_address" | "delete_firewall"
        | "delete_ssh_key" => shared,
        _ => false,
    };
    STEPS.iter().filter(|step| !idle(step)).map(|step| step.says.to_owned()).collect()
}

/// The operation that removes the subject for good.
pub(super) fn queued(
    context: &Context,
    subject: &Subject,
    plan: Option<PlanId>,
    identity: Option<(String, String, String)>,
    ask: Ask,
) -> NewOperation {
    let own = subject.own.as_ref().map(|row| &row.vm);
    let params = Params {
        environment: subject.environment.id,
        path: subject.environment.path.clone(),
        vm: own.map(|vm| vm.id),
        provider: own.map(|vm| vm.provider.clone()),
        shared: subject.environment.vm.filter(|_| own.is_none()),
        volumes: plan.is_some(),
        leaves: subject.left.as_ref().map(|row| row.vm.id),
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
        plan,
        deploy: None,
        created_at: context.clock.now(),
    }
}

struct Destroy {
    version: u32,
    operation: OperationId,
    params: Params,
    context: Context,
}

pub(in crate::operations) fn load(
    row: &OperationRow,
    context: &Context,
) -> Result<Box<dyn Operation>, String> {
    let (version, params) = (row.version, params(row)?);
    Ok(Box::new(Destroy { version, operation: row.id, params, context: context.clone() }))
}

impl Destroy {
    async fn cloud(&self) -> Result<Option<AnyCloud>, OpError> {
        match &self.params.provider {
            Some(provider) => Ok(Some(self.context.accounts.cloud(provider).await?)),
            None => Ok(None),
        }
    }

    async fn remove_app(&self) -> Result<Value, OpError> {
        let Params { environment, path, shared, volumes, .. } = &self.params;
        let Some(vm) = *shared else { return Ok(Value::Null) };
        if self.params.leaves.is_some() {
            // A machine that is gone must not keep its environment for ever.
            match linked(&self.context, vm).await {
                Err(OpError::AgentAway { .. }) => {
                    return Ok(json!({ "left": "its agent does not answer: its containers stay" }));
                }
                linked => linked?,
            }
        }
        // Where only the time of an undo ran out the app went before, and its volumes stay, since
        // nobody said otherwise.
        let extent = if *volumes { app::Extent::All } else { app::Extent::AppAndKey };
        app::remove(&self.context, *environment, path, vm, extent).await
    }

    /// The person's own machine stays; VMKit's things go.
    async fn leave(&self, vm: VmId) -> Result<Value, OpError> {
        self.context.store.set_vm_state(vm, VmState::Deleting).await?;
        let left = adopt_vm::leave(&self.context, vm).await?;
        self.context.store.set_vm_state(vm, VmState::Deleted).await?;
        Ok(json!({ "left": left }))
    }

    async fn delete_server(&self) -> Result<(), OpError> {
        let (Some(vm), Some(cloud)) = (self.params.vm, self.cloud().await?) else {
            return Ok(());
        };
        if self.version == 1 {
            self.context.store.set_vm_state(vm, VmState::Deleting).await?;
        }
        let installation = self.context.settings.installation;
        if let Some(server) = self.server(&cloud, vm).await? {
            self.context.store.set_vm_state(vm, VmState::Deleting).await?;
            cloud.delete_vm(&server.provider_id, installation).await?;
        }
        if self.version == 1 {
            self.context.store.set_vm_state(vm, VmState::Deleted).await?;
        }
        Ok(())
    }

    /// Deletes every snapshot that a destroy of this environment kept, whatever became of it.
    async fn delete_snapshot(&self) -> Result<(), OpError> {
        let all = self.context.store.retirements().await?;
        let of_ours: Vec<_> = all
            .into_iter()
            .filter(|kept| kept.environment == self.params.environment)
            .filter(|kept| kept.state != RetirementState::Purged)
            .collect();
        if of_ours.iter().all(|kept| kept.snapshot_name.is_none()) {
            return Ok(());
        }
        let Some(cloud) = self.cloud().await? else { return Ok(()) };
        let installation = self.context.settings.installation;
        let listed = cloud.list_snapshots().await?;
        for kept in of_ours {
            let named = listed.iter().filter(|one| Some(&one.name) == kept.snapshot_name.as_ref());
            for snapshot in named.filter(|one| one.belongs_to(installation)) {
                cloud.delete_snapshot(&snapshot.provider_id, installation).await?;
            }
            self.context.store.set_retirement_snapshot(kept.id, None, None).await?;
        }
        Ok(())
    }

    /// The VM's row is closed when its server and its address are gone.
    async fn delete_address(&self) -> Result<(), OpError> {
        let (Some(vm), Some(cloud)) = (self.params.vm, self.cloud().await?) else {
            return Ok(());
        };
        if let Some(row) = self.context.store.vm(vm).await?.filter(|r| r.vm.address_id.is_some()) {
            address::delete(&self.context, &cloud, &row).await?;
        }
        Ok(self.context.store.set_vm_state(vm, VmState::Deleted).await?)
    }

    async fn server(&self, cloud: &AnyCloud, vm: VmId) -> Result<Option<CloudVm>, OpError> {
        match self.context.store.vm(vm).await? {
            Some(row) => super::server_of(cloud, &row.vm).await,
            None => Ok(None),
        }
    }

    /// Keeps a server that the cloud would not delete. One that is gone or going stays so.
    async fn keep_server(&self) -> Result<(), OpError> {
        let (Some(vm), Some(cloud)) = (self.params.vm, self.cloud().await?) else {
            return Ok(());
        };
        let row = self.context.store.vm(vm).await?;
        let state = row.map(|row| row.vm.state);
        if state == Some(VmState::Kept) {
            return Ok(());
        }
        let server = self.server(&cloud, vm).await?;
        let off = server.as_ref().is_some_and(|server| server.state == CloudVmState::Off);
        let kept = server.is_some_and(|server| server.state != CloudVmState::Deleting);
        if state.is_none_or(|state| state == VmState::Deleted) || !kept {
            let environment = self.params.path.to_string();
            return Err(OpError::HalfDestroyed { environment });
        }
        let retirement = self.context.store.retirement_of(self.params.environment).await?;
        let parked = off && retirement.is_some_and(|kept| kept.keeping == Keeping::Park);
        let state = if parked { VmState::Parked } else { VmState::Ready };
        Ok(self.context.store.set_vm_state(vm, state).await?)
    }

    /// A machine that VMKit began to leave is left.
    async fn still_there(&self, vm: VmId) -> Result<(), OpError> {
        match self.context.store.vm(vm).await?.map(|row| row.vm.state) {
            Some(VmState::Deleting | VmState::Deleted) | None => {
                Err(OpError::HalfDestroyed { environment: self.params.path.to_string() })
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether what all VMs share can go.
    async fn is_last(&self) -> Result<bool, OpError> {
        match self.params.vm {
            Some(vm) => Ok(!Shared::needed_without(&self.context, vm).await?),
            None => Ok(false),
        }
    }

    async fn forget(&self) -> Result<(), OpError> {
        let store = &self.context.store;
        for kept in store.retirements().await? {
            if kept.environment == self.params.environment {
                store.set_retirement_state(kept.id, RetirementState::Purged).await?;
            }
        }
        // Its names too, which it has kept as long as it could stay.
        domains::remove(&self.context, self.params.environment).await?;
        let now = self.context.clock.now();
        Ok(store.remove_environment(self.params.environment, now).await?)
    }
}

impl Operation for Destroy {
    fn steps(&self) -> &'static [Step] {
        if self.version == 1 { &STEPS_1 } else { &STEPS }
    }

    fn run<'a>(
        &'a self,
        step: &'static str,
        _run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<StepEnd, OpError>> {
        async move {
            let shared = Shared::of(&self.context);
            let installation = self.context.settings.installation;
            let mut output = Value::Null;
            match step {
                "revoke_access" => {
                    build_env::forget(&self.context, &self.params.path).await?;
                    keys::revoke(&self.context, &self.params.path).await?;
                }
                "remove_records" => {
                    output = app::remove_records(&self.context, self.params.environment).await?;
                }
                "remove_app" => output = self.remove_app().await?,
                "delete_server" => match self.params.leaves {
                    Some(vm) => output = self.leave(vm).await?,
                    None => self.delete_server().await?,
                },
                "delete_snapshot" => self.delete_snapshot().await?,
                "delete_address" => self.delete_address().await?,
                "delete_firewall" if self.is_last().await? => {
                    if let Some(cloud) = self.cloud().await? {
                        cloud.delete_firewall(&shared.firewall, installation).await?;
                    }
                }
                "delete_ssh_key" if self.is_last().await? => {
                    if let Some(cloud) = self.cloud().await? {
                        cloud.delete_ssh_key(&shared.ssh_key, installation).await?;
                    }
                }
                "forget" => self.forget().await?,
                _ => {}
            }
            Ok(StepEnd::Done(output))
        }
        .boxed()
    }

    /// What is deleted stays deleted: once the server or the app goes there is no way back.
    fn undo<'a>(
        &'a self,
        step: &'static str,
        _run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<(), OpError>> {
        async move {
            match step {
                // The next deploy puts both keys back.
                "revoke_access" => Ok(()),
                // Visitors have to find the app that stays.
                "remove_records" => {
                    let (operation, environment) = (self.operation, self.params.environment);
                    domains::put_back(&self.context, operation, environment).await
                }
                "remove_app" => {
                    let Some(vm) = self.params.shared else { return Ok(()) };
                    match app::runs(&self.context, &self.params.path, vm).await? {
                        Some(false) => {
                            let environment = self.params.path.to_string();
                            Err(OpError::HalfDestroyed { environment })
                        }
                        Some(true) | None => Ok(()),
                    }
                }
                _ => match self.params.leaves {
                    Some(vm) => self.still_there(vm).await,
                    None => self.keep_server().await,
                },
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
            let done = state == OperationState::Succeeded;
            let mut result = json!({ "environment": self.params.path, "vm": self.params.vm });
            let told = |step: &str| outputs.get(step).and_then(|out| out["left"].as_str());
            if let Some(left) = told("delete_server").or(told("remove_app")) {
                result["left"] = json!(left);
            }
            Ok(done.then_some(result))
        }
        .boxed()
    }

    fn by_hand(&self, _step: &'static str) -> String {
        format!(
            "call `destroy` with environment `{}` and `purge: true` again: it goes on from here",
            self.params.path
        )
    }

    fn resumes_when_old(&self) -> Result<(), &'static str> {
        Err(KIND)
    }
}
