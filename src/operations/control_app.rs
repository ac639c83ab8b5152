//! `control_app`: the containers of an app restarted, stopped and started, and a lock of Kamal's that
//! nobody needs any more broken. What runs afterwards is the agent's word.

mod lock;
mod steps;

pub(super) use steps::load;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vmkit_agent_protocol::upkeep::HeldLock;

use self::lock::Holder;
use super::environments::environment;
use super::services::{ServiceError, locks, ready_vm};
use super::{Ask, Context, OpError, Started, Step, plans, queue};
use crate::domain::environment::Environment;
use crate::domain::ids::{EnvironmentId, OperationId, PlanId, VmId};
use crate::domain::names::{CommitSha, EnvironmentPath};
use crate::domain::plan::{PlanBody, Policy};
use crate::store::{NewOperation, PlanRow};

pub(super) const KIND: &str = "control_app";
pub(super) const VERSION: u32 = 1;

const RESTART: [Step; 2] = [
    Step { name: "restart", says: "restarting its containers" },
    Step { name: "prove", says: "proving that it serves again" },
];
const STOP: [Step; 2] = [
    Step { name: "stop", says: "stopping its containers; they stay stopped over a reboot" },
    Step { name: "look", says: "asking the agent what runs" },
];
const START: [Step; 2] = [
    Step { name: "start", says: "starting the containers of its newest release" },
    Step { name: "prove", says: "proving that it serves again" },
];
const BREAK: [Step; 1] =
    [Step { name: "break_lock", says: "breaking Kamal's lock, where it is still that one" }];

/// What is done to an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Its containers stop and start.
    Restart,
    /// Its containers stop, and stay so until it is started or deployed.
    Stop,
    /// The containers of its newest release start.
    Start,
    /// A lock of Kamal's is broken.
    BreakLock,
}

impl Action {
    /// Its steps: a stored format.
    fn steps(self) -> &'static [Step] {
        match self {
            Self::Restart => &RESTART,
            Self::Stop => &STOP,
            Self::Start => &START,
            Self::BreakLock => &BREAK,
        }
    }

    /// The stored and shown form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::BreakLock => "break_lock",
        }
    }
}

/// What the steps need, as the journal keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Params {
    environment: EnvironmentId,
    path: EnvironmentPath,
    vm: VmId,
    action: Action,
    /// What is live, and so what is started.
    commit: Option<CommitSha>,
    /// The lock that is broken, and no other.
    lock: Option<HeldLock>,
}

/// What an action looks at before anything is touched.
struct Subject {
    environment: Environment,
    vm: VmId,
    commit: Option<CommitSha>,
    lock: Option<(HeldLock, Holder)>,
}

impl Subject {
    /// A person has to agree: on a protected environment to whatever takes something away from its
    /// users, and anywhere to breaking another person's lock.
    fn needs_person(&self, action: Action) -> bool {
        let persons = self.lock.as_ref().is_some_and(|(_, holder)| *holder == Holder::Person);
        match action {
            Action::Restart | Action::Start => false,
            Action::Stop => self.environment.settings.protected,
            Action::BreakLock => persons || self.environment.settings.protected,
        }
    }

    fn seen(&self) -> Value {
        json!({ "vm": self.vm, "lock": self.lock.as_ref().map(|(held, _)| held) })
    }
}

fn arguments(path: &EnvironmentPath, action: Action) -> Value {
    json!({ "environment": path, "action": action })
}

async fn look(
    context: &Context,
    path: &EnvironmentPath,
    action: Action,
) -> Result<Subject, OpError> {
    let environment = environment(&context.store, path).await?;
    let vm = ready_vm(context, &environment).await?;
    let live = context.store.releases(environment.id, 1).await?.pop();
    let commit = live.map(|live| live.commit);
    let mut lock = None;
    match action {
        Action::Start | Action::Restart if commit.is_none() => {
            return Err(ServiceError::NothingToStart { environment: path.to_string() }.into());
        }
        Action::Restart | Action::Stop | Action::Start => {}
        Action::BreakLock => {
            let none = || ServiceError::NoLock { environment: path.to_string() };
            let held = lock::held(context, path, vm).await?.ok_or_else(none)?;
            let holder = lock::holder(context, path, &held).await?;
            if let Holder::Alive { by } = holder {
                return Err(ServiceError::LiveLock { environment: path.to_string(), by }.into());
            }
            lock = Some((held, holder));
        }
    }
    Ok(Subject { environment, vm, commit, lock })
}

/// Whether it needs a plan first.
///
/// # Errors
/// The environment has no VM, there is nothing to start, or no lock to break.
pub async fn needs_plan(
    context: &Context,
    path: &EnvironmentPath,
    action: Action,
) -> Result<bool, OpError> {
    Ok(look(context, path, action).await?.needs_person(action))
}

/// Plans it. Changes nothing.
///
/// # Errors
/// As [`needs_plan`].
pub async fn plan(
    context: &Context,
    path: &EnvironmentPath,
    action: Action,
) -> Result<PlanRow, OpError> {
    let subject = look(context, path, action).await?;
    let human = subject.needs_person(action);
    let summary = match (action, &subject.lock) {
        (Action::BreakLock, Some((held, holder))) => format!(
            "break Kamal's lock of `{path}`, held by {}{} since {} ({})",
            if held.by.is_empty() { "somebody" } else { &held.by },
            if *holder == Holder::Dead { ", which is over," } else { "" },
            held.since,
            held.message
        ),
        _ => format!("{} `{path}`", action.as_str()),
    };
    let mut touches = vec![path.to_string()];
    if action == Action::BreakLock && human {
        touches
            .push("a deploy that really is under way would go on beside the next one".to_owned());
    }
    if action == Action::Stop {
        touches.push("nothing answers for it until it is started or deployed again".to_owned());
    }
    let body = PlanBody {
        summary,
        steps: action.steps().iter().map(|step| step.says.to_owned()).collect(),
        monthly_before: None,
        monthly_after: None,
        downtime_s: if action == Action::Restart { 10 } else { 0 },
        lost: Vec::new(),
        touches,
        confirm_with: path.to_string(),
    };
    let policy = if human { Policy::Human } else { Policy::Plan };
    plans::make(context, KIND, arguments(path, action), &subject.seen(), body, policy).await
}

/// Does it, with a plan where it needs one.
///
/// # Errors
/// As [`needs_plan`]; the plan is unknown, expired, used, for something else, or no longer what is
/// there.
pub async fn start(
    context: &Context,
    path: &EnvironmentPath,
    action: Action,
    plan: Option<PlanId>,
    ask: Ask,
) -> Result<Started, OpError> {
    let arguments = arguments(path, action);
    let subject = look(context, path, action).await?;
    let plan = match plan {
        Some(plan) => Some(plans::usable(context, plan, KIND, &arguments).await?),
        None if subject.needs_person(action) => Some(self::plan(context, path, action).await?),
        None => None,
    };
    if let Some(plan) = &plan {
        plans::still_holds(plan, &subject.seen(), "the lock or the VM")?;
    }
    if let Some(plan) = plan.clone().filter(plans::waits) {
        return Ok(Started::NeedsApproval(Box::new(plan)));
    }
    let Subject { environment, vm, commit, lock } = subject;
    let params = Params {
        environment: environment.id,
        path: environment.path,
        vm,
        action,
        commit,
        lock: lock.map(|(held, _)| held),
    };
    let new = NewOperation {
        id: OperationId::generate(),
        kind: KIND,
        version: VERSION,
        environment: Some(environment.id),
        vm: Some(vm),
        locks: locks(environment.id, vm),
        steps: u32::try_from(action.steps().len()).unwrap_or(u32::MAX),
        params: json!(params),
        idempotency: ask.identity(KIND, &arguments),
        caller: ask.caller,
        reason: ask.reason,
        plan: plan.map(|plan| plan.id),
        deploy: None,
        created_at: context.clock.now(),
    };
    Ok(Started::Operation(queue(context, new, &format!("environment `{path}`")).await?))
}
