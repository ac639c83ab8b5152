//! `manage_service`: PostgreSQL, Redis, Meilisearch and Qdrant beside an app, as accessories of Kamal
//! named with the environment, so that two environments of one VM share nothing.
//!
//! The password is made here and goes to the VM over the agent's link alone. The container is made by
//! Kamal, in a run of the workflow; the app learns the address as an env value, with its next deploy.

mod error;
pub(super) mod files;
pub(super) mod needed;
pub mod remove;
mod status;
mod steps;

pub use error::ServiceError;
pub(super) use files::password;
pub use status::{ServiceView, of, views};
pub(super) use steps::load;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::environments::{app, environment, not_retired};
use super::{Ask, Context, OpError, Step, queue};
use crate::domain::environment::{Environment, VmState};
use crate::domain::ids::{EnvironmentId, OperationId, SecretId, ServiceId, VmId};
use crate::domain::names::EnvironmentPath;
use crate::domain::service::{Service, ServiceKind, ServiceState, ServiceVersion};
use crate::fleet::FleetError;
use crate::pipeline::Names;
use crate::store::{Lock, LockMode, NewOperation};

pub(super) const KIND: &str = "manage_service";
pub(super) const VERSION: u32 = 1;

const COMMIT: Step =
    Step { name: "commit_config", says: "bringing the Kamal config in the repo up to date" };
const GRANT: Step =
    Step { name: "grant_access", says: "giving GitHub Actions the deploy key and the host key" };
const DISPATCH: Step = Step { name: "dispatch", says: "starting the workflow run" };
const WATCH: Step = Step { name: "watch", says: "waiting for the workflow run" };
const PROVE: Step = Step { name: "prove", says: "waiting until the service is well" };

const ADD: [Step; 8] = [
    Step { name: "claim", says: "noting the service and making its password" },
    Step { name: "write_file", says: "writing its env file on the VM" },
    COMMIT,
    GRANT,
    DISPATCH,
    WATCH,
    PROVE,
    Step { name: "give_address", says: "noting its address among the app's env values" },
];
const UPGRADE: [Step; 6] = [
    Step { name: "note_version", says: "noting the version that it is to have" },
    COMMIT,
    GRANT,
    DISPATCH,
    WATCH,
    PROVE,
];
const RESTART: [Step; 2] =
    [Step { name: "restart", says: "restarting its container; the app goes on" }, PROVE];

/// What is done to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is made.
    Add,
    /// It gets another version, or another memory limit.
    Upgrade,
    /// Its container is restarted.
    Restart,
}

impl Action {
    /// Its steps: a stored format.
    fn steps(self) -> &'static [Step] {
        match self {
            Self::Add => &ADD,
            Self::Upgrade => &UPGRADE,
            Self::Restart => &RESTART,
        }
    }
}

/// What is to be done to which service.
#[derive(Debug, Clone)]
pub struct ServiceRequest {
    /// Beside which app.
    pub environment: EnvironmentPath,
    /// Which service.
    pub kind: ServiceKind,
    /// What.
    pub action: Action,
    /// Its exact version, for `add` and `upgrade`.
    pub version: Option<String>,
    /// The most memory that it may have, in MiB.
    pub memory_mb: Option<u32>,
}

/// What the steps need, as the journal keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Params {
    environment: EnvironmentId,
    path: EnvironmentPath,
    vm: VmId,
    action: Action,
    kind: ServiceKind,
    service: ServiceId,
    secret: SecretId,
    version: String,
    memory_mb: Option<u32>,
    /// What it had before an upgrade.
    before: Option<(String, Option<u32>)>,
}

/// The services of an environment, and the one of a kind among them.
async fn of_kind(
    context: &Context,
    environment: EnvironmentId,
    kind: ServiceKind,
) -> Result<Option<Service>, OpError> {
    let all = context.store.services(environment).await?;
    Ok(all.into_iter().find(|service| service.kind == kind))
}

/// The VM of an environment, where it can be used.
pub(super) async fn ready_vm(
    context: &Context,
    environment: &Environment,
) -> Result<VmId, OpError> {
    not_retired(&context.store, environment).await?;
    let no_vm = || OpError::NoVm { environment: environment.path.to_string() };
    let row = context.store.vm(environment.vm.ok_or_else(no_vm)?).await?.ok_or_else(no_vm)?;
    match row.vm.state {
        VmState::Ready => Ok(row.vm.id),
        VmState::Ordered
        | VmState::Parked
        | VmState::Kept
        | VmState::Deleting
        | VmState::Deleted => Err(no_vm()),
    }
}

async fn intend(context: &Context, request: &ServiceRequest) -> Result<Params, OpError> {
    let environment = environment(&context.store, &request.environment).await?;
    let vm = ready_vm(context, &environment).await?;
    let (kind, path) = (request.kind, environment.path.to_string());
    let there = of_kind(context, environment.id, kind).await?;
    let wanted = request.version.as_deref();
    let wanted = wanted.map(|text| ServiceVersion::parse(kind, text)).transpose();
    let wanted = wanted.map_err(ServiceError::from)?;
    let mut params = Params {
        environment: environment.id,
        path: environment.path.clone(),
        vm,
        action: request.action,
        kind,
        service: there.as_ref().map_or_else(ServiceId::generate, |one| one.id),
        secret: there.as_ref().map_or_else(SecretId::generate, |one| one.secret),
        version: String::new(),
        memory_mb: request.memory_mb.or(there.as_ref().and_then(|one| one.memory_mb)),
        before: None,
    };
    let state = there.as_ref().map(|one| one.state);
    let unfinished = |state: ServiceState| ServiceError::Unfinished {
        environment: path.clone(),
        kind,
        state: state.as_str(),
    };
    let version = match (request.action, &there, state) {
        (Action::Add, Some(one), Some(ServiceState::Ready)) => {
            let version = one.version.to_string();
            return Err(ServiceError::Exists { environment: path, kind, version }.into());
        }
        (_, _, Some(state @ ServiceState::Removing)) => return Err(unfinished(state).into()),
        (Action::Add, one, _) => {
            own_values(context, &environment, kind).await?;
            set_up(context, &environment).await?;
            let kept = one.as_ref().map(|one| one.version);
            wanted.or(kept).unwrap_or_else(|| kind.default_version())
        }
        (_, None, _) => return Err(ServiceError::None { environment: path, kind }.into()),
        (_, Some(_), Some(state @ ServiceState::Ordered)) => return Err(unfinished(state).into()),
        (Action::Restart, Some(one), _) => one.version,
        (Action::Upgrade, Some(one), _) => {
            let to = wanted.unwrap_or(one.version);
            let same = to == one.version && params.memory_mb == one.memory_mb;
            if same {
                let version = to.to_string();
                return Err(ServiceError::SameVersion { environment: path, kind, version }.into());
            }
            one.version.upgrade(kind, to).map_err(ServiceError::from)?;
            params.before = Some((one.version.to_string(), one.memory_mb));
            to
        }
    };
    params.version = version.to_string();
    Ok(params)
}

/// Fails where the app has an address of the owner's own under the same name.
async fn own_values(
    context: &Context,
    environment: &Environment,
    kind: ServiceKind,
) -> Result<(), OpError> {
    let values = context.store.env_at(environment.id, environment.env_revision).await?;
    let taken = values.iter().find(|row| kind.keys().any(|key| key == row.key.as_str()));
    match taken {
        Some(row) => {
            let (environment, key) = (environment.path.to_string(), row.key.to_string());
            Err(ServiceError::OwnValue { environment, key }.into())
        }
        None => Ok(()),
    }
}

/// Fails where the repo has no workflow that could make the container.
async fn set_up(context: &Context, environment: &Environment) -> Result<(), OpError> {
    let row = app(&context.store, &environment.path.app).await?;
    let github = context.accounts.github().await?;
    let (name, branch) = (&row.app.repo, &row.app.default_branch);
    let workflow = Names::of(&row.app).workflow_path();
    if github.read_file(name, &workflow, branch).await?.is_some() {
        return Ok(());
    }
    Err(OpError::NotSetUp { repo: name.to_string(), missing: format!("`{workflow}`") })
}

/// What would be done, one line each. Changes nothing.
///
/// # Errors
/// As [`start`].
pub async fn preview(context: &Context, request: &ServiceRequest) -> Result<Vec<String>, OpError> {
    let params = intend(context, request).await?;
    let (kind, path) = (params.kind, &params.path);
    let title = kind.title();
    let mut lines = vec![match (params.action, &params.before) {
        (Action::Add, _) => {
            let image = ServiceVersion::parse(kind, &params.version).map_err(ServiceError::from)?;
            let hint = params.memory_mb.unwrap_or(kind.memory_hint_mb());
            format!(
                "{title} as container `{}` from {}, its data in a volume of that name, about {hint} MiB of memory; it publishes no port",
                kind.host(path),
                image.image(kind)
            )
        }
        (Action::Upgrade, before) => format!(
            "{title} of {path} from {} to {}; it is away for some seconds",
            before.as_ref().map_or("?", |(version, _)| version),
            params.version
        ),
        (Action::Restart, _) => {
            format!("the container of {title} restarts, and the app is not touched")
        }
    }];
    if params.action == Action::Add {
        let keys: Vec<&str> = kind.keys().collect();
        lines.push(format!(
            "{} in the app's env values, which its next deploy takes",
            keys.join(" and ")
        ));
    }
    lines.extend(params.action.steps().iter().map(|step| step.says.to_owned()));
    Ok(lines)
}

/// Starts it.
///
/// # Errors
/// The environment has no VM, there is no such service or there is one already, or its data would
/// not survive the version.
pub async fn start(
    context: &Context,
    request: &ServiceRequest,
    ask: Ask,
) -> Result<OperationId, OpError> {
    let params = intend(context, request).await?;
    let arguments = json!({
        "environment": params.path, "service": params.kind, "action": params.action,
        "version": params.version, "memory_mb": params.memory_mb,
    });
    let new = NewOperation {
        id: OperationId::generate(),
        kind: KIND,
        version: VERSION,
        environment: Some(params.environment),
        vm: Some(params.vm),
        locks: locks(params.environment, params.vm),
        steps: u32::try_from(params.action.steps().len()).unwrap_or(u32::MAX),
        params: json!(params),
        idempotency: ask.identity(KIND, &arguments),
        caller: ask.caller,
        reason: ask.reason,
        plan: None,
        deploy: None,
        created_at: context.clock.now(),
    };
    queue(context, new, &format!("environment `{}`", params.path)).await
}

/// Work on one environment of a VM: nobody else works on it meanwhile, or on the VM as a whole.
pub(super) fn locks(environment: EnvironmentId, vm: VmId) -> Vec<Lock> {
    vec![
        Lock { resource: format!("env:{environment}"), mode: LockMode::Exclusive },
        Lock { resource: format!("vm:{vm}"), mode: LockMode::Shared },
    ]
}

/// An agent's answer as an error; one that does not know the call is too old.
pub(super) async fn of_agent(context: &Context, vm: VmId, error: FleetError) -> OpError {
    match error {
        FleetError::Fault { code, .. } if code == "unsupported" => {
            let presence = context.fleet.presence(vm).await.ok();
            let version = presence.and_then(|one| one.agent_version);
            OpError::AgentTooOld { vm, version: version.unwrap_or_else(|| "unknown".to_owned()) }
        }
        other => other.into(),
    }
}
