//! `maintain_vm`: a VM's power, with everything on it taken down and brought back in order; and
//! care that leaves it running: hardening, freeing disk, the agent's next version, new keys.

pub(super) mod care;
mod rotate;
mod upgrade;

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::downtime::{Downtime, Inhabited, inhabited};
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
const HARDEN: Step =
    Step { name: "harden", says: "hardening the VM, with an undo that the VM plays by itself" };
const NEW_LOGIN: Step =
    Step { name: "new_login", says: "linking anew, to see that the way in is still open" };
const KEEP: Step = Step { name: "keep", says: "telling the VM to keep it" };
const PRUNE: Step = Step {
    name: "prune",
    says: "removing old stopped versions of the apps and images that nothing uses",
};
const SEND_AGENT: Step =
    Step { name: "send_agent", says: "sending the agent's next version, signed" };
const TRY_AGENT: Step = Step {
    name: "try_agent",
    says: "waiting for the next version to link; the old one stays if it does not",
};
const MAKE_KEYS: Step = Step { name: "make_keys", says: "making new keys" };
const ADD_KEYS: Step = Step { name: "add_keys", says: "letting the new keys in" };
const SWITCH_KEYS: Step =
    Step { name: "switch_keys", says: "using the new keys, here and at GitHub" };
const PROVE_KEYS: Step = Step { name: "prove_keys", says: "logging in with the new key" };
const DROP_KEYS: Step = Step { name: "drop_keys", says: "shutting the old keys out" };
const FORGET_KEYS: Step = Step { name: "forget_keys", says: "forgetting the old keys" };

const HARDEN_ALL: [Step; 3] = [HARDEN, NEW_LOGIN, KEEP];
// A deploy that goes back to an old version must not meet it half removed.
const PRUNE_ALL: [Step; 3] = [LOCK, PRUNE, UNLOCK];
const UPGRADE: [Step; 2] = [SEND_AGENT, TRY_AGENT];
const ROTATE: [Step; 8] =
    [LOCK, MAKE_KEYS, ADD_KEYS, SWITCH_KEYS, PROVE_KEYS, DROP_KEYS, UNLOCK, FORGET_KEYS];
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
    /// What a careful administrator would set, and nothing that is set already.
    Harden,
    /// Frees disk of what is ours and unused.
    Prune,
    /// The agent's next version.
    UpgradeAgent,
    /// New deploy keys, and a new key for VMKit's own link.
    RotateKeys,
}

impl Action {
    /// Its steps: a stored format.
    fn steps(self) -> &'static [Step] {
        match self {
            Self::Reboot => &REBOOT,
            Self::PowerOn => &ON,
            Self::PowerOff => &OFF,
            Self::PowerCycle => &POWER_CYCLE,
            Self::Harden => &HARDEN_ALL,
            Self::Prune => &PRUNE_ALL,
            Self::UpgradeAgent => &UPGRADE,
            Self::RotateKeys => &ROTATE,
        }
    }

    /// Whether it disturbs what runs.
    fn disturbs(self) -> bool {
        match self {
            Self::PowerOn | Self::Harden | Self::Prune | Self::UpgradeAgent | Self::RotateKeys => {
                false
            }
            Self::Reboot | Self::PowerOff | Self::PowerCycle => true,
        }
    }

    /// Whether a person has to approve it where a protected environment is on the VM.
    fn is_grave(self) -> bool {
        self.disturbs() || matches!(self, Self::Prune | Self::RotateKeys)
    }

    fn says(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::PowerOn => "power on",
            Self::PowerOff => "power off (it is billed all the same)",
            Self::PowerCycle => "cut and restore the power of",
            Self::Harden => "harden",
            Self::Prune => "free the disk of",
            Self::UpgradeAgent => "upgrade the agent of",
            Self::RotateKeys => "make new keys for",
        }
    }

    /// How long apps are away, as a rule, in seconds; nothing where that is for the caller to end.
    fn downtime_s(self) -> u32 {
        match self {
            Self::Reboot => 90,
            Self::PowerCycle => 60,
            Self::PowerOn
            | Self::PowerOff
            | Self::Harden
            | Self::Prune
            | Self::UpgradeAgent
            | Self::RotateKeys => 0,
        }
    }

    fn why(self) -> &'static str {
        match self {
            Self::Reboot => "VMKit is rebooting this VM; deploy again when it is over",
            Self::PowerOff => "VMKit is switching this VM off",
            Self::PowerOn | Self::PowerCycle => "VMKit is starting this VM; deploy again later",
            Self::Prune => "VMKit is freeing this VM's disk; deploy again in a minute",
            Self::RotateKeys => "VMKit is changing this VM's keys; deploy again in a minute",
            Self::Harden | Self::UpgradeAgent => "VMKit is caring for this VM",
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
    /// For new keys alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rotation: Option<rotate::Rotation>,
}

/// Whether it needs a plan first: where it is grave for a protected environment, and where things
/// go that should be seen beforehand.
///
/// # Errors
/// There is no such VM.
pub async fn needs_plan(context: &Context, request: &MaintainRequest) -> Result<bool, OpError> {
    let protected = inhabited(context, request.vm).await?.is_protected();
    Ok(request.action == Action::Prune || (request.action.is_grave() && protected))
}

/// The cloud's id of its server, without which nobody can switch its power; a machine of the owner's
/// own has none and can be cared for all the same.
fn server_of(here: &Inhabited, action: Action) -> Result<String, OpError> {
    match action {
        Action::Reboot | Action::PowerOn | Action::PowerOff | Action::PowerCycle => here.server(),
        Action::Harden | Action::Prune | Action::UpgradeAgent | Action::RotateKeys => {
            Ok(here.row.vm.provider_id.clone().unwrap_or_default())
        }
    }
}

/// Plans it. Changes nothing.
///
/// # Errors
/// There is no such VM.
pub async fn plan(context: &Context, request: &MaintainRequest) -> Result<PlanRow, OpError> {
    let here = inhabited(context, request.vm).await?;
    let action = request.action;
    server_of(&here, action)?;
    let (mut lost, mut summary) = (Vec::new(), format!("{} VM {}", action.says(), request.vm));
    match action {
        Action::Prune => {
            let pruned = care::prune(context, request.vm, true).await?;
            lost = care::listed(&pruned);
            summary = format!("{summary}: {} MB", pruned.bytes / 1_000_000);
        }
        // What is missing is said now.
        Action::UpgradeAgent => drop(upgrade::binary(context, request.vm).await?),
        _ => {}
    }
    let body = PlanBody {
        summary,
        steps: action.steps().iter().map(|step| step.says.to_owned()).collect(),
        monthly_before: Some(here.row.monthly),
        monthly_after: Some(here.row.monthly),
        downtime_s: action.downtime_s(),
        lost,
        touches: here.touches(),
        confirm_with: here.confirm_with(),
    };
    let human = action.is_grave() && here.is_protected();
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
    if request.action == Action::UpgradeAgent {
        upgrade::binary(context, request.vm).await?;
    }
    let rotates = request.action == Action::RotateKeys;
    let params = Params {
        rotation: rotates.then(|| rotate::Rotation::of(&here)),
        vm: request.vm,
        provider: here.row.vm.provider.clone(),
        server: server_of(&here, request.action)?,
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
    operation: OperationId,
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
    Ok(Box::new(MaintainVm { operation: row.id, params, context: context.clone(), down }))
}

impl MaintainVm {
    /// A step that leaves the apps running.
    async fn care(&self, step: &str, run: &Run<'_>) -> Result<Value, OpError> {
        let (context, operation, vm) = (&self.context, self.operation, self.params.vm);
        match step {
            "harden" => care::harden(context, operation, vm).await,
            "new_login" => care::new_login(context, run, vm).await,
            "keep" => care::keep(context, operation, run, vm).await,
            "prune" => Ok(json!(care::prune(context, vm, false).await?)),
            "send_agent" => upgrade::send(context, run, vm).await,
            "try_agent" => upgrade::attempt(context, operation, run, vm).await,
            "make_keys" => match &self.params.rotation {
                Some(rotation) => rotate::make(context, rotation, vm).await,
                None => Ok(Value::Null),
            },
            "add_keys" => rotate::add(context, run, vm).await,
            "switch_keys" => rotate::switch(context, run, vm).await,
            "prove_keys" => rotate::prove(context, run, vm).await,
            "drop_keys" => rotate::drop_old(context, run, vm).await,
            _ => rotate::forget_old(context, run).await,
        }
    }

    /// What a good end has to say.
    fn result(&self, outputs: &BTreeMap<String, Value>) -> Value {
        let output = |step: &str| outputs.get(step).cloned().unwrap_or_default();
        let Params { vm, action, .. } = &self.params;
        let mut result = match action {
            Action::Reboot | Action::PowerOn | Action::PowerOff | Action::PowerCycle => json!({
                "power_was_cut": output("shut_down")["forced"],
                "started": output("resume")["containers"],
                "answering": output("look")["answering"],
            }),
            Action::Harden => output("harden"),
            Action::Prune => output("prune"),
            Action::UpgradeAgent => json!({
                "before": output("send_agent")["before"],
                "sha256": output("send_agent")["sha256"],
                "transcript": output("try_agent")["transcript"],
            }),
            Action::RotateKeys => json!({ "keys": output("drop_keys")["keys"] }),
        };
        result["vm"] = json!(vm);
        result["action"] = json!(action);
        result
    }
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
                "unlock_kamal" => {
                    down.unlock().await?;
                    Value::Null
                }
                _ => self.care(step, run).await?,
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
                "harden" => care::undo(&self.context, self.operation, self.params.vm).await?,
                _ => {
                    if let Some(rotation) = &self.params.rotation {
                        let vm = self.params.vm;
                        rotate::undo(&self.context, run, rotation, step, vm).await?;
                    }
                }
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
        async move { Ok((state == OperationState::Succeeded).then(|| self.result(outputs))) }
            .boxed()
    }

    fn by_hand(&self, step: &'static str) -> String {
        let Params { vm, provider, server, .. } = &self.params;
        match step {
            "shut_down" | "cycle" => {
                format!("start server {server} at {provider}; its apps start with it")
            }
            "harden" => format!("wait 10 minutes: VM {vm} takes hardening back by itself"),
            "make_keys" | "add_keys" | "switch_keys" | "drop_keys" => {
                format!("call `maintain_vm` with action `rotate_keys` for VM {vm} again")
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
