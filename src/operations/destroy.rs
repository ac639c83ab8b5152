//! `destroy`: an environment with its VM, so that it can be undone for a while, or for good; and
//! the undo. Three operations: `retire`, `restore`, and `destroy` for good.

mod app;
mod plan;
pub mod purge;
pub mod restore;
pub mod retire;
pub mod sweep;
pub mod table;

pub use plan::plan;

use serde_json::{Value, json};

use super::environments::environment;
use super::{Ask, Context, OpError, Started, plans};
use crate::clouds::{AnyCloud, Cloud, CloudVm};
use crate::domain::environment::{Environment, Vm, VmState};
use crate::domain::ids::PlanId;
use crate::domain::names::EnvironmentPath;
use crate::domain::retirement::{Keeping, Retirement, RetirementState};
use crate::store::{Lock, LockMode, VmRow};

/// The tool that plans and starts all three.
const ACTION: &str = "destroy";

/// What a caller of `destroy` wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// For good.
    Purge,
    /// So that it can be undone, with the disk as a snapshot.
    Keep,
    /// So that it can be undone, with the server off.
    Park,
    /// The undo.
    Undo,
}

impl Wanted {
    /// What the caller's flags mean.
    ///
    /// # Errors
    /// [`OpError::Nothing`] where they contradict each other.
    pub fn of(purge: bool, undo: bool, park: bool) -> Result<Self, OpError> {
        match (purge, undo, park) {
            (true, false, false) => Ok(Self::Purge),
            (false, true, false) => Ok(Self::Undo),
            (false, false, true) => Ok(Self::Park),
            (false, false, false) => Ok(Self::Keep),
            _ => Err(OpError::Nothing {
                what: "`purge`, `undo` and mode `park` exclude each other".to_owned(),
            }),
        }
    }

    /// The arguments under which its plan is kept.
    fn arguments(self, path: &EnvironmentPath) -> Value {
        match self {
            Self::Purge => json!({ "environment": path, "purge": true }),
            Self::Keep => json!({ "environment": path, "mode": "snapshot" }),
            Self::Park => json!({ "environment": path, "mode": "park" }),
            Self::Undo => json!({ "environment": path, "undo": true }),
        }
    }
}

/// What a destroy looks at before anything is touched.
struct Subject {
    environment: Environment,
    /// The VM that goes or rests with it; none where it has none or others run on it.
    own: Option<VmRow>,
    /// The VM's server, where it is there.
    server: Option<CloudVm>,
    retirement: Option<Retirement>,
    /// The person's own machine that VMKit leaves with it.
    left: Option<VmRow>,
}

impl Subject {
    /// How it would be kept.
    fn keeping(&self, park: bool) -> Keeping {
        match &self.own {
            None => Keeping::Shared,
            Some(_) if park => Keeping::Park,
            Some(_) => Keeping::Snapshot,
        }
    }

    /// What a plan depends on.
    fn seen(&self, live: Option<String>) -> Value {
        json!({
            "environment": self.environment.id,
            "vm": self.environment.vm,
            "own": self.own.as_ref().map(|row| (row.vm.id, row.vm.state)),
            "env_revision": self.environment.env_revision,
            "retirement": self.retirement.as_ref().map(|kept| (kept.id, kept.state)),
            "live": live,
        })
    }

    fn locks(&self) -> Vec<Lock> {
        let lock = |resource, mode| Lock { resource, mode };
        let mut locks = vec![lock(format!("env:{}", self.environment.id), LockMode::Exclusive)];
        let alone = self.own.is_some() || self.left.is_some();
        let mode = if alone { LockMode::Exclusive } else { LockMode::Shared };
        locks.extend(self.environment.vm.map(|vm| lock(format!("vm:{vm}"), mode)));
        locks
    }
}

async fn look(context: &Context, path: &EnvironmentPath) -> Result<Subject, OpError> {
    let environment = environment(&context.store, path).await?;
    let retirement = context.store.retirement_of(environment.id).await?;
    let own = own_vm(context, &environment).await?;
    let server = match &own {
        Some(row) if row.vm.state != VmState::Deleted => {
            let cloud = context.accounts.cloud(&row.vm.provider).await?;
            server_of(&cloud, &row.vm).await?
        }
        _ => None,
    };
    let left = alone_on(context, &environment).await?.filter(|row| row.vm.is_own_machine());
    Ok(Subject { environment, own, server, retirement, left })
}

/// A VM's server: by the name that VMKit gives, or by the cloud's id, since an adopted one keeps the
/// name that it has.
async fn server_of(cloud: &AnyCloud, vm: &Vm) -> Result<Option<CloudVm>, OpError> {
    if let Some(found) = cloud.find_vm(&Vm::cloud_name(&vm.id)).await? {
        return Ok(Some(found));
    }
    match &vm.provider_id {
        Some(id) => Ok(cloud.get_vm(id).await?),
        None => Ok(None),
    }
}

/// The VM that goes with an environment, if no other environment runs on it. A machine of the
/// person's own never goes.
async fn own_vm(context: &Context, environment: &Environment) -> Result<Option<VmRow>, OpError> {
    let alone = alone_on(context, environment).await?;
    Ok(alone.filter(|row| !row.vm.is_own_machine()))
}

/// The VM of an environment, if no other environment runs on it.
async fn alone_on(context: &Context, environment: &Environment) -> Result<Option<VmRow>, OpError> {
    let Some(vm) = environment.vm else { return Ok(None) };
    let others = context.store.environments().await?;
    if others.iter().any(|other| other.vm == Some(vm) && other.id != environment.id) {
        return Ok(None);
    }
    Ok(context.store.vm(vm).await?)
}

/// What a plan looked at, in the form that it is compared in.
async fn seen(context: &Context, subject: &Subject) -> Result<Value, OpError> {
    let live = context.store.releases(subject.environment.id, 1).await?;
    Ok(subject.seen(live.first().map(|deploy| deploy.id.to_string())))
}

/// A retirement that is kept and not over.
///
/// # Errors
/// [`OpError::NotDestroyed`] and [`OpError::UndoExpired`].
fn restorable(context: &Context, subject: &Subject) -> Result<Retirement, OpError> {
    let environment = subject.environment.path.to_string();
    match &subject.retirement {
        Some(kept) if kept.state == RetirementState::Kept => {
            if kept.is_over(context.clock.now()) {
                return Err(OpError::UndoExpired { environment, at: kept.until() });
            }
            Ok(kept.clone())
        }
        _ => Err(OpError::NotDestroyed { environment }),
    }
}

/// Carries out a plan, once a person has approved it where that is needed.
///
/// # Errors
/// The plan is unknown, expired, used, for something else, or no longer what is there.
pub async fn start(
    context: &Context,
    path: &EnvironmentPath,
    wanted: Option<Wanted>,
    plan: PlanId,
    ask: Ask,
) -> Result<Started, OpError> {
    // A caller need not repeat what the plan says, only not contradict it.
    let made = plans::find(context, plan).await?;
    let all = [Wanted::Purge, Wanted::Keep, Wanted::Park, Wanted::Undo];
    let by_plan = all.into_iter().find(|one| one.arguments(path) == made.arguments);
    let wanted = match (wanted, by_plan) {
        (None | Some(Wanted::Keep), Some(by_plan)) => by_plan,
        (Some(wanted), _) => wanted,
        (None, None) => Wanted::Purge,
    };
    let arguments = wanted.arguments(path);
    let plan = plans::usable(context, plan, ACTION, &arguments).await?;
    let subject = look(context, path).await?;
    let seen = seen(context, &subject).await?;
    plans::still_holds(&plan, &seen, "the VM, the release or the env values")?;
    plan::check(context, &subject, wanted).await?;
    if plans::waits(&plan) {
        return Ok(Started::NeedsApproval(Box::new(plan)));
    }
    let identity = ask.identity(ACTION, &arguments);
    let queued = match wanted {
        Wanted::Purge => purge::queued(context, &subject, Some(plan.id), identity, ask),
        Wanted::Keep | Wanted::Park => {
            let keeping = subject.keeping(wanted == Wanted::Park);
            retire::queued(context, &subject, keeping, plan.id, identity, ask)
        }
        Wanted::Undo => {
            let kept = restorable(context, &subject)?;
            restore::queued(context, &subject, &kept, plan.id, identity, ask)
        }
    };
    let what = format!("environment `{path}`");
    Ok(Started::Operation(super::queue(context, queued, &what).await?))
}
