//! `maintain_vm`: a VM's power, with everything on it taken down and brought back in order.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::downtime::{Downtime, inhabited};
use super::{Ask, Context, OpError, Operation, Run, Started, Step, StepEnd, params, plans, queue};
use crate::domain::ids::{OperationId, PlanId, VmId};
use crate::domain::operation::OperationState;
use crate::domain::plan::{PlanBody, Policy};
use crate::store::{Failure, Lock, LockMode, NewOperation, OperationRow, PlanRow};

pub(super) const KIND: &str = "maintain_vm";
pub(super) const VERSION: u32 = 1;

const LOOK: Step = Step { name: "look", says: "noting which apps answer" };
const LOCK: Step =
    Step { name: "lock_kamal", says: "taking Kamal's locks, so that nobody deploys meanwhile" };
const QUIESCE: Step = Step { name: "quiesce", says: "stopping the apps, then their services" };
const SHUT_DOWN: Step = Step { name: "shut_down", says: "shutting the server down" };
const POWER_ON: Step = Step { name: "power_on", says: "starting the server" };
const CYCLE: Step = Step { name: "cycle", says: "cutting the server's power and giving it back" };
const WAIT_AGENT: Step = Step { name: "wait_agent", says: "waiting for the VM's agent to link" };
const RESUME: Step = Step { name: "resume", says: "starting the services, then the apps" };
const PROVE: Step = Step { name: "prove", says: "asking the apps whether they answer" };
const UNLOCK: Step = Step { name: "unlock_kamal", says: "giving Kamal's locks back" };

const REBOOT: [Step; 9] =
    [LOOK, LOCK, QUIESCE, SHUT_DOWN, POWER_ON, WAIT_AGENT, RESUME, PROVE, UNLOCK];
const ON: [Step; 3] = [POWER_ON, WAIT_AGENT, RESUME];
// Nobody deploys to what is off, and a lock would outlast it.
const OFF: [Step; 4] = [LOCK, QUIESCE, UNLOCK, SHUT_DOWN];
// For a VM that answers nobody: nothing is asked of it before.
const POWER_CYCLE: [Step; 3] = [CYCLE, WAIT_AGENT, RESUME];

/// What is done to a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Down and up again, in order.
    Reboot,
    /// Up.
    PowerOn,
    /// Down, in order; billed all the same.
    PowerOff,
    /// The power is cut and given back, for a VM that answers nobody.
    PowerCycle,
}

impl Action {
    /// Its steps: a stored format.
    fn steps(self) -> &'static [Step] {
        match self {
            Self::Reboot => &REBOOT,
            Self::PowerOn => &ON,
            Self::PowerOff => &OFF,
            Self::PowerCycle => &POWER_CYCLE,
        }
    }

    /// Whether it disturbs what runs.
    fn disturbs(self) -> bool {
        match self {
            Self::PowerOn => false,
            Self::Reboot | Self::PowerOff | Self::PowerCycle => true,
        }
    }

    fn says(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::PowerOn => "power on",
            Self::PowerOff => "power off (it is billed all the same)",
            Self::PowerCycle => "cut and restore the power of",
        }
    }

    /// How long apps are away, as a rule, in seconds; nothing where that is for the caller to end.
    fn downtime_s(self) -> u32 {
        match self {
            Self::Reboot => 90,
            Self::PowerCycle => 60,
            Self::PowerOn | Self::PowerOff => 0,
        }
    }

    fn why(self) -> &'static str {
        match self {
            Self::Reboot => "VMKit is rebooting this VM; deploy again when it is over",
            Self::PowerOff => "VMKit is switching this VM off",
            Self::PowerOn | Self::PowerCycle => "VMKit is starting this VM; deploy again later",
        }
    }
}

/// What is to be done to which VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaintainRequest {
    /// The VM.
    pub vm: VmId,
    /// What.
    pub action: Action,
}

impl MaintainRequest {
    fn arguments(&self) -> Value {
        json!({ "vm": self.vm, "action": self.action })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Params {
    vm: VmId,
    provider: String,
    server: String,
    action: Action,
}

/// Whether it needs a plan first: where it disturbs a protected environment.
///
/// # Errors
/// There is no such VM.
pub async fn needs_plan(context: &Context, request: &MaintainRequest) -> Result<bool, OpError> {
    Ok(request.action.disturbs() && inhabited(context, request.vm).await?.is_protected())
}

/// Plans it. Changes nothing.
///
/// # Errors
/// There is no such VM.
pub async fn plan(context: &Context, request: &MaintainRequest) -> Result<PlanRow, OpError> {
    let here = inhabited(context, request.vm).await?;
    here.server()?;
    let action = request.action;
    let body = PlanBody {
        summary: format!("{} VM {}", action.says(), request.vm),
        steps: action.steps().iter().map(|step| step.says.to_owned()).collect(),
        monthly_before: Some(here.row.monthly),
        monthly_after: Some(here.row.monthly),
        downtime_s: action.downtime_s(),
        lost: Vec::new(),
        touches: here.touches(),
        confirm_with: here.confirm_with(),
    };
    let human = action.disturbs() && here.is_protected();
    let policy = if human { Policy::Human } else { Policy::Plan };
    let seen = json!(here.touches());
    plans::make(context, KIND, request.arguments(), &seen, body, policy).await
}

/// Does it, with a plan where it needs one.
///
/// # Errors
/// The plan is unknown, expired, used, for something else, or no longer what is there.
pub async fn start(
    context: &Context,
    request: &MaintainRequest,
    plan: Option<PlanId>,
    ask: Ask,
) -> Result<Started, OpError> {
    let here = inhabited(context, request.vm).await?;
    let plan = match plan {
        Some(plan) => Some(plans::usable(context, plan, KIND, &request.arguments()).await?),
        None if needs_plan(context, request).await? => Some(self::plan(context, request).await?),
        None => None,
    };
    if let Some(plan) = &plan {
        plans::still_holds(plan, &json!(here.touches()), "who lives on the VM")?;
    }
    if let Some(plan) = plan.clone().filter(plans::waits) {
        return Ok(Started::NeedsApproval(Box::new(plan)));
    }
    let params = Params {
        vm: request.vm,
        provider: here.row.vm.provider.clone(),
        server: here.server()?,
        action: request.action,
    };
    let new = NewOperation {
        id: OperationId::generate(),
        kind: KIND,
        version: VERSION,
        environment: here.environments.first().map(|one| one.id),
        vm: Some(request.vm),
        params: json!(params),
        locks: vec![Lock { resource: format!("vm:{}", request.vm), mode: LockMode::Exclusive }],
        steps: u32::try_from(request.action.steps().len()).unwrap_or(u32::MAX),
        idempotency: ask.identity(KIND, &request.arguments()),
        caller: ask.caller,
        reason: ask.reason,
        plan: plan.map(|plan| plan.id),
        deploy: None,
        created_at: context.clock.now(),
    };
    Ok(Started::Operation(queue(context, new, &format!("VM {}", request.vm)).await?))
}

struct MaintainVm {
    params: Params,
    context: Context,
    down: Downtime,
}

pub(super) fn load(row: &OperationRow, context: &Context) -> Result<Box<dyn Operation>, String> {
    let params: Params = params(row)?;
    let down = Downtime {
        context: context.clone(),
        operation: row.id,
        vm: params.vm,
        provider: params.provider.clone(),
        server: params.server.clone(),
        why: params.action.why(),
    };
    Ok(Box::new(MaintainVm { params, context: context.clone(), down }))
}

impl Operation for MaintainVm {
    fn steps(&self) -> &'static [Step] {
        self.params.action.steps()
    }

    fn run<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<StepEnd, OpError>> {
        async move {
            let down = &self.down;
            let output = match step {
                "look" => down.look().await?,
                "lock_kamal" => down.lock(run).await?,
                "quiesce" => down.quiesce().await?,
                "shut_down" => down.shut_down().await?,
                "power_on" => down.power_on().await?,
                "cycle" => down.cycle().await?,
                "wait_agent" => {
                    down.wait_agent(self.context.settings.agent_wait).await?;
                    Value::Null
                }
                "resume" => down.resume().await?,
                "prove" => down.prove(run).await?,
                _ => {
                    down.unlock().await?;
                    Value::Null
                }
            };
            Ok(StepEnd::Done(output))
        }
        .boxed()
    }

    /// A server that runs stays so, and one that was switched off is switched on.
    fn undo<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<(), OpError>> {
        async move {
            let down = &self.down;
            match step {
                "shut_down" => down.start_again(run).await?,
                "cycle" => drop(down.power_on().await?),
                "quiesce" => {
                    down.wait_agent(self.context.settings.agent_wait).await?;
                    down.resume().await?;
                }
                "lock_kamal" => down.unlock().await?,
                _ => {}
            }
            Ok(())
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
            let output = |step: &str, field: &str| match outputs.get(step) {
                Some(output) => output[field].clone(),
                None => Value::Null,
            };
            Ok((state == OperationState::Succeeded).then(|| {
                json!({
                    "vm": self.params.vm,
                    "action": self.params.action,
                    "power_was_cut": output("shut_down", "forced"),
                    "started": output("resume", "containers"),
                    "answering": output("look", "answering"),
                })
            }))
        }
        .boxed()
    }

    fn by_hand(&self, step: &'static str) -> String {
        let Params { vm, provider, server, .. } = &self.params;
        match step {
            "shut_down" | "cycle" => {
                format!("start server {server} at {provider}; its apps start with it")
            }
            _ => format!("call `get_status` for VM {vm}, then `maintain_vm` with action `reboot`"),
        }
    }

    fn resumes_when_old(&self) -> Result<(), &'static str> {
        // To start a server is safe at any age.
        if self.params.action.disturbs() { Err(KIND) } else { Ok(()) }
    }

    fn make_safe(&self) -> BoxFuture<'_, Vec<String>> {
        self.down.make_safe().boxed()
    }
}
