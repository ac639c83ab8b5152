//! `destroy` with `purge`: an environment and its VM, for good.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::environments::{app, environment};
use super::provision_vm::Shared;
use super::{Ask, Context, OpError, Operation, Run, Started, Step, StepEnd, params, plans, queue};
use crate::clouds::{AnyCloud, Cloud, CloudVmState};
use crate::domain::environment::{Environment, Vm, VmState};
use crate::domain::ids::{EnvironmentId, OperationId, PlanId, VmId};
use crate::domain::money::Money;
use crate::domain::names::EnvironmentPath;
use crate::domain::operation::OperationState;
use crate::domain::plan::{PlanBody, Policy};
use crate::pipeline::{known_hosts_variable, ssh_key_secret};
use crate::store::{Failure, Lock, LockMode, NewOperation, OperationRow, PlanRow, VmRow};

pub(super) const KIND: &str = "destroy";
pub(super) const VERSION: u32 = 1;

const STEPS: [Step; 5] = [
    Step { name: "revoke_access", says: "deleting the deploy key and the host key at GitHub" },
    Step { name: "delete_server", says: "deleting the server" },
    Step { name: "delete_firewall", says: "deleting the firewall if no other VM needs it" },
    Step { name: "delete_ssh_key", says: "deleting your public key at the cloud, likewise" },
    Step { name: "forget", says: "forgetting the environment, its env values and its keys" },
];

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Params {
    environment: EnvironmentId,
    path: EnvironmentPath,
    vm: Option<VmId>,
    provider: Option<String>,
}

/// The VM that goes with an environment, if no other environment runs on it.
async fn own_vm(context: &Context, environment: &Environment) -> Result<Option<VmRow>, OpError> {
    let Some(vm) = environment.vm else { return Ok(None) };
    let others = context.store.environments().await?;
    if others.iter().any(|other| other.vm == Some(vm) && other.id != environment.id) {
        return Ok(None);
    }
    Ok(context.store.vm(vm).await?)
}

async fn seen(context: &Context, environment: &Environment) -> Result<Value, OpError> {
    let live = context.store.releases(environment.id, 1).await?;
    Ok(json!({
        "environment": environment.id,
        "vm": environment.vm,
        "env_revision": environment.env_revision,
        "live": live.first().map(|deploy| deploy.id),
    }))
}

fn arguments(path: &EnvironmentPath) -> Value {
    json!({ "environment": path, "purge": true })
}

/// Plans the removal for good. Changes nothing.
///
/// # Errors
/// [`OpError::PurgeRequired`] without `purge`; the environment does not exist.
pub async fn plan(
    context: &Context,
    path: &EnvironmentPath,
    purge: bool,
) -> Result<PlanRow, OpError> {
    if !purge {
        return Err(OpError::PurgeRequired);
    }
    let environment = environment(&context.store, path).await?;
    let app = app(&context.store, &path.app).await?;
    let vm = own_vm(context, &environment).await?;
    let mut lost = vec![format!("the env values of `{path}`, at every revision")];
    let mut touches = vec![path.to_string(), format!("secrets and variables in {}", app.app.repo)];
    if let Some(row) = &vm {
        let id = row.vm.id;
        lost.push(format!("VM {id} with its disk: containers, volumes, logs, env files"));
        touches.push(format!("VM {id}"));
    }
    if let Some(domain) = &environment.settings.domain {
        touches.push(format!("domain {domain} (DNS records that VMKit made go, others stay)"));
    }
    let monthly = vm.as_ref().map(|row| row.monthly);
    let body = PlanBody {
        summary: format!(
            "destroy `{path}` for good{}; the files in {} and its images stay",
            if vm.is_some() { " with its VM" } else { "" },
            app.app.repo
        ),
        steps: STEPS.iter().map(|step| step.says.to_owned()).collect(),
        monthly_before: monthly,
        monthly_after: monthly.map(|money| Money::zero(money.currency)),
        downtime_s: 0,
        lost,
        touches,
        confirm_with: path.to_string(),
    };
    let seen = seen(context, &environment).await?;
    plans::make(context, KIND, arguments(path), &seen, body, Policy::Human).await
}

/// Carries out a plan that a person has approved.
///
/// # Errors
/// The plan is unknown, expired, used, for something else, or no longer what is there.
pub async fn start(
    context: &Context,
    path: &EnvironmentPath,
    plan: PlanId,
    ask: Ask,
) -> Result<Started, OpError> {
    let plan = plans::usable(context, plan, KIND, &arguments(path)).await?;
    let environment = environment(&context.store, path).await?;
    plans::still_holds(
        &plan,
        &seen(context, &environment).await?,
        "the VM, the release or the env values",
    )?;
    if plans::waits(&plan) {
        return Ok(Started::NeedsApproval(Box::new(plan)));
    }
    let vm = own_vm(context, &environment).await?.map(|row| row.vm);
    let exclusive = |resource| Lock { resource, mode: LockMode::Exclusive };
    let mut locks = vec![exclusive(format!("env:{}", environment.id))];
    locks.extend(vm.as_ref().map(|vm| exclusive(format!("vm:{}", vm.id))));
    let params = Params {
        environment: environment.id,
        path: path.clone(),
        vm: vm.as_ref().map(|vm| vm.id),
        provider: vm.map(|vm| vm.provider),
    };
    let new = NewOperation {
        id: OperationId::generate(),
        kind: KIND,
        version: VERSION,
        environment: Some(environment.id),
        vm: params.vm,
        params: json!(params),
        locks,
        steps: STEPS.len() as u32,
        idempotency: ask.identity(KIND, &arguments(path)),
        caller: ask.caller,
        reason: ask.reason,
        plan: Some(plan.id),
        deploy: None,
        created_at: context.clock.now(),
    };
    Ok(Started::Operation(queue(context, new, &format!("environment `{path}`")).await?))
}

struct Destroy {
    params: Params,
    context: Context,
}

pub(super) fn load(row: &OperationRow, context: &Context) -> Result<Box<dyn Operation>, String> {
    Ok(Box::new(Destroy { params: params(row)?, context: context.clone() }))
}

impl Destroy {
    async fn cloud(&self) -> Result<Option<AnyCloud>, OpError> {
        match &self.params.provider {
            Some(provider) => Ok(Some(self.context.accounts.cloud(provider).await?)),
            None => Ok(None),
        }
    }

    /// Deletes what only this environment's workflow runs use. A repo that is gone has nothing.
    async fn revoke_access(&self) -> Result<(), OpError> {
        let path = &self.params.path;
        let row = app(&self.context.store, &path.app).await?;
        let github = self.context.accounts.github().await?;
        github.delete_secret(&row.app.repo, &ssh_key_secret(path)).await?;
        github.delete_variable(&row.app.repo, &known_hosts_variable(path)).await?;
        Ok(())
    }

    async fn delete_server(&self) -> Result<(), OpError> {
        let (Some(vm), Some(cloud)) = (self.params.vm, self.cloud().await?) else {
            return Ok(());
        };
        self.context.store.set_vm_state(vm, VmState::Deleting).await?;
        let installation = self.context.settings.installation;
        if let Some(server) = cloud.find_vm(&Vm::cloud_name(&vm)).await? {
            cloud.delete_vm(&server.provider_id, installation).await?;
        }
        self.context.store.set_vm_state(vm, VmState::Deleted).await?;
        Ok(())
    }

    /// Keeps a server that the cloud would not delete. One that is gone or going stays so.
    async fn keep_server(&self) -> Result<(), OpError> {
        let (Some(vm), Some(cloud)) = (self.params.vm, self.cloud().await?) else {
            return Ok(());
        };
        let server = cloud.find_vm(&Vm::cloud_name(&vm)).await?;
        let kept = server.is_some_and(|server| server.state != CloudVmState::Deleting);
        let row = self.context.store.vm(vm).await?;
        let gone = row.is_none_or(|row| row.vm.state == VmState::Deleted);
        if gone || !kept {
            let environment = self.params.path.to_string();
            return Err(OpError::HalfDestroyed { environment });
        }
        Ok(self.context.store.set_vm_state(vm, VmState::Ready).await?)
    }

    /// Whether what all VMs share can go.
    async fn is_last(&self) -> Result<bool, OpError> {
        match self.params.vm {
            Some(vm) => Ok(!Shared::needed_without(&self.context, vm).await?),
            None => Ok(false),
        }
    }
}

impl Operation for Destroy {
    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    fn run<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<StepEnd, OpError>> {
        async move {
            let shared = Shared::of(&self.context);
            let installation = self.context.settings.installation;
            match step {
                "revoke_access" => self.revoke_access().await?,
                "delete_server" => self.delete_server().await?,
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
                "forget" => {
                    let removed = super::domains::remove(&self.context, self.params.environment);
                    for left in removed.await?.left {
                        run.say(format!("delete by hand: {left}")).await?;
                    }
                    let now = self.context.clock.now();
                    self.context.store.remove_environment(self.params.environment, now).await?;
                }
                _ => {}
            }
            Ok(StepEnd::Done(Value::Null))
        }
        .boxed()
    }

    /// What is deleted stays deleted: once the server goes there is no way back.
    fn undo<'a>(
        &'a self,
        step: &'static str,
        _run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<(), OpError>> {
        async move {
            match step {
                // The next deploy puts both keys back.
                "revoke_access" => Ok(()),
                _ => self.keep_server().await,
            }
        }
        .boxed()
    }

    fn ended<'a>(
        &'a self,
        state: OperationState,
        _failure: Option<&'a Failure>,
        _outputs: &'a BTreeMap<String, Value>,
    ) -> BoxFuture<'a, Result<Option<Value>, OpError>> {
        async move {
            let done = state == OperationState::Succeeded;
            Ok(done.then(|| json!({ "environment": self.params.path, "vm": self.params.vm })))
        }
        .boxed()
    }

    fn by_hand(&self, _step: &'static str) -> String {
        format!(
            "call `destroy` with environment `{}` again: it goes on from here",
            self.params.path
        )
    }

    fn resumes_when_old(&self) -> Result<(), &'static str> {
        Err(KIND)
    }
}
