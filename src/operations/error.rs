//! Why an operation was not started, or a step did not end well.

use crate::accounts::AccountError;
use crate::bootstrap::BootstrapError;
use crate::clouds::CloudError;
use crate::domain::clock::Millis;
use crate::domain::env_values::EnvValueError;
use crate::domain::ids::{DeployId, OperationId, PlanId, VmId};
use crate::fleet::FleetError;
use crate::github::GitHubError;
use crate::pipeline::PipelineError;
use crate::store::{Failure, StoreError};
use crate::vault::VaultError;

/// Why an operation was not started, or a step did not end well.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what its fields are")]
pub enum OpError {
    #[error("app `{app}` does not exist; {known}")]
    UnknownApp { app: String, known: String },
    #[error("environment `{environment}` does not exist; {known}")]
    UnknownEnvironment { environment: String, known: String },
    #[error("environment `{environment}` exists already")]
    EnvironmentExists { environment: String },
    #[error("the name `{slug}` belongs to the app of {repo}")]
    SlugTaken { slug: String, repo: String },
    #[error("{repo} is not set up: its default branch has no {missing}")]
    NotSetUp { repo: String, missing: String },
    #[error("`{app}` cannot be deployed: {reasons}")]
    Blocked { app: String, reasons: String },
    #[error("environment `{environment}` has no VM")]
    NoVm { environment: String },
    #[error("environment `{environment}` has a VM already: {vm}")]
    HasVm { environment: String, vm: String },
    #[error("size `{size}` does not exist in region `{region}`; {near}")]
    UnknownSize { size: String, region: String, near: String },
    #[error("size `{size}` cannot be ordered in `{region}` now: {near}")]
    SoldOut { size: String, region: String, near: String },
    #[error("the agent of a new VM could not reach this VMKit: no public address is set")]
    NoAgentGateway,
    #[error("there is no agent for {arch} VMs in {folder}")]
    NoAgentBinary { arch: String, folder: String },
    #[error("no public SSH key of yours was found, and without one you could not log in to the VM")]
    NoOwnerKey,
    #[error("no key pair could be made: {detail}")]
    KeyPair { detail: String },
    #[error("plan {plan} does not exist")]
    UnknownPlan { plan: String },
    #[error("plan {plan} expired at {at}")]
    PlanExpired { plan: PlanId, at: String },
    #[error("plan {plan} is for {made}, not for {wanted}")]
    OtherPlan { plan: PlanId, made: String, wanted: String },
    #[error("what plan {plan} looked at has changed: {what}")]
    StalePlan { plan: PlanId, what: String },
    #[error("plan {plan} was used by operation {operation}")]
    PlanUsed { plan: PlanId, operation: OperationId },
    #[error("{what} is held by operation {operation}, which is not over")]
    Busy { what: String, operation: OperationId },
    #[error("idempotency key `{key}` was used with other arguments")]
    KeyReused { key: String },
    #[error("the agent on VM {vm} did not link within {waited_s} s")]
    AgentSilent { vm: String, waited_s: u64 },
    #[error("the agent on VM {vm} is not linked, and did not link again within {waited_s} s")]
    AgentAway { vm: VmId, waited_s: u64 },
    #[error("the server of VM {vm} did not start within {waited_s} s")]
    ServerSilent { vm: String, waited_s: u64 },
    #[error("`{given}` is not a commit, branch or tag of {repo}")]
    UnknownRef { given: String, repo: String },
    #[error("`{given}` is at {found}, not at the expected {expected}")]
    OtherCommit { given: String, found: String, expected: String },
    #[error("environment `{environment}` has no release yet")]
    NoRelease { environment: String },
    #[error("environment `{environment}` has no earlier release to go back to")]
    NothingToRollBack { environment: String },
    #[error("environment `{environment}` was rolled back at {at}, less than an hour ago")]
    RolledBackAlready { environment: String, at: String },
    #[error("release `{release}` is not one of `{environment}`")]
    UnknownRelease { release: String, environment: String },
    #[error("the deploy of {commit} failed: {cause}")]
    DeployFailed { commit: String, code: String, cause: String, fix: String },
    #[error("{commit} was deployed but is not live: {reason}")]
    NotLive { commit: String, reason: String },
    #[error("an env value was refused: {0}")]
    BadValue(#[from] EnvValueError),
    #[error("other changes of the env values came in between")]
    EnvRace,
    #[error("nothing was asked for: {what}")]
    Nothing { what: String },
    #[error("a destroy that can be undone is not built yet: this one loses everything for good")]
    PurgeRequired,
    #[error("`{environment}` is half destroyed: its server is deleted or being deleted")]
    HalfDestroyed { environment: String },
    #[error("the workflow run of deploy {deploy} was not found in {repo} after it was started")]
    RunLost { repo: String, deploy: DeployId },
    #[error("{what} cannot be understood: {detail}")]
    Unreadable { what: String, detail: String },
    #[error("stopped as asked")]
    Cancelled,
    #[error("interrupted {minutes} minutes ago, and a {tool} is not resumed unasked after 10")]
    Interrupted { tool: &'static str, minutes: i64 },
    #[error("operation {operation} was written by another version: {detail}")]
    UnknownSteps { operation: OperationId, detail: String },
    #[error("operation {operation} has ended: {state}")]
    Ended { operation: OperationId, state: &'static str },
    #[error("operation `{operation}` does not exist")]
    UnknownOperation { operation: String },
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Cloud(#[from] CloudError),
    #[error(transparent)]
    GitHub(#[from] GitHubError),
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpError {
    /// A stable word for it.
    pub fn code(&self) -> &str {
        match self {
            Self::UnknownApp { .. } => "unknown_app",
            Self::UnknownEnvironment { .. } => "unknown_environment",
            Self::EnvironmentExists { .. } => "environment_exists",
            Self::SlugTaken { .. } => "slug_taken",
            Self::NotSetUp { .. } => "not_set_up",
            Self::Blocked { .. } => "blocked",
            Self::NoVm { .. } => "no_vm",
            Self::HasVm { .. } => "has_vm",
            Self::UnknownSize { .. } => "unknown_size",
            Self::SoldOut { .. } => "sold_out",
            Self::NoAgentGateway => "no_agent_gateway",
            Self::NoAgentBinary { .. } => "no_agent_binary",
            Self::NoOwnerKey => "no_owner_key",
            Self::KeyPair { .. } => "key_pair",
            Self::UnknownPlan { .. } => "unknown_plan",
            Self::PlanExpired { .. } => "plan_expired",
            Self::OtherPlan { .. } => "other_plan",
            Self::StalePlan { .. } => "stale_plan",
            Self::PlanUsed { .. } => "plan_used",
            Self::Busy { .. } => "busy",
            Self::KeyReused { .. } => "idempotency_key_reused",
            Self::AgentSilent { .. } => "agent_silent",
            Self::AgentAway { .. } => "agent_not_linked",
            Self::ServerSilent { .. } => "server_silent",
            Self::UnknownRef { .. } => "unknown_ref",
            Self::OtherCommit { .. } => "other_commit",
            Self::NoRelease { .. } => "no_release",
            Self::NothingToRollBack { .. } => "nothing_to_roll_back",
            Self::RolledBackAlready { .. } => "rolled_back_already",
            Self::UnknownRelease { .. } => "unknown_release",
            Self::DeployFailed { code, .. } => code,
            Self::NotLive { .. } => "not_live",
            Self::BadValue(error) => error.code(),
            Self::EnvRace => "env_race",
            Self::Nothing { .. } => "nothing_to_do",
            Self::PurgeRequired => "purge_required",
            Self::HalfDestroyed { .. } => "half_destroyed",
            Self::RunLost { .. } => "run_lost",
            Self::Unreadable { .. } => "unreadable",
            Self::Cancelled => "cancelled",
            Self::Interrupted { .. } => "interrupted",
            Self::UnknownSteps { .. } => "unknown_steps",
            Self::Ended { .. } => "already_ended",
            Self::UnknownOperation { .. } => "unknown_operation",
            Self::Account(error) => error.code(),
            Self::Cloud(error) => error.code(),
            Self::GitHub(error) => error.code(),
            Self::Fleet(error) => error.code(),
            Self::Pipeline(error) => error.code(),
            Self::Bootstrap(error) => error.code(),
            Self::Vault(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }

    /// Whether the same call may go through later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::EnvRace | Self::Busy { .. } => true,
            Self::Account(error) => error.retryable(),
            Self::Cloud(error) => error.retryable(),
            Self::GitHub(error) => error.retryable(),
            Self::Fleet(error) => error.retryable(),
            Self::Vault(error) => error.retryable(),
            Self::Store(error) => error.retryable(),
            _ => false,
        }
    }

    /// What to do next.
    pub fn fix(&self) -> String {
        match self {
            Self::UnknownApp { .. } => "call `get_overview` for the apps, or `setup_repo` to add one".into(),
            Self::UnknownEnvironment { .. } => "call `get_overview` for the environments, or `create_environment`".into(),
            Self::EnvironmentExists { environment } => format!("call `get_status` with environment `{environment}`"),
            Self::SlugTaken { .. } => "pass another `app` name".into(),
            Self::NotSetUp { repo, .. } => format!("call `setup_repo` with repo `{repo}` and merge its pull request"),
            Self::Blocked { .. } => "clear the blocking rows of `scan_repo`".into(),
            Self::NoVm { environment } => format!("call `provision_vm` with environment `{environment}`"),
            Self::HasVm { environment, .. } => format!("call `get_status` with environment `{environment}`"),
            Self::UnknownSize { .. } | Self::SoldOut { .. } => "call `list_sizes` and create the environment with a size that can be ordered".into(),
            Self::NoAgentGateway => "run a gateway (`vmkit serve`), or set VMKIT_AGENT_LISTEN and VMKIT_PUBLIC_URL to an address that the VM can reach".into(),
            Self::NoAgentBinary { arch, .. } => format!("put `vmkit-agent-{arch}` into the folder that VMKIT_AGENT_DIR names"),
            Self::NoOwnerKey => "make one with `ssh-keygen -t ed25519`, or set VMKIT_OWNER_KEY to your public key".into(),
            Self::KeyPair { .. } => "try again, and report it if it stays".into(),
            Self::UnknownPlan { .. } | Self::PlanExpired { .. } | Self::StalePlan { .. } | Self::OtherPlan { .. } => "call the tool without `plan_id` for a fresh plan".into(),
            Self::PlanUsed { operation, .. } | Self::Busy { operation, .. } => format!("call `get_operation` with operation `{operation}`"),
            Self::KeyReused { .. } => "use a new idempotency key for a new request".into(),
            Self::AgentSilent { .. } => "the order was undone; check that the VM can reach this VMKit's public address, then provision again".into(),
            Self::AgentAway { .. } => "call `get_status`: the VM may be off or cut off".into(),
            Self::ServerSilent { .. } => "the order was undone; look at the provider's status page, then provision again".into(),
            Self::UnknownRef { .. } => "push it first, or name a branch that exists".into(),
            Self::OtherCommit { .. } => "push your commit first, or leave out `expect_sha`".into(),
            Self::NoRelease { environment } => format!("call `deploy` with environment `{environment}` and a `ref`"),
            Self::NothingToRollBack { environment } | Self::UnknownRelease { environment, .. } => format!("call `list_deploys` with environment `{environment}`"),
            Self::RolledBackAlready { environment, .. } => format!("name the release with `to`; `list_deploys` with environment `{environment}` has them"),
            Self::DeployFailed { fix, .. } => fix.clone(),
            Self::NotLive { .. } => "call `get_logs` for the app's own output".into(),
            Self::BadValue(_) => "mend the value and set it again".into(),
            Self::EnvRace => "call `set_env` again".into(),
            Self::Nothing { .. } => "name at least one change".into(),
            Self::PurgeRequired => "pass `purge: true` to plan the removal for good, or keep the environment".into(),
            Self::HalfDestroyed { .. } => "call `destroy` again: it goes on where this one ended".into(),
            Self::RunLost { .. } => "look at the repo's Actions tab, then deploy again".into(),
            Self::Unreadable { .. } => "call `setup_repo` again".into(),
            Self::Cancelled => "start it again when you want it".into(),
            Self::Interrupted { tool, .. } => format!("look at what is there with `get_status`, then call `{tool}` again"),
            Self::UnknownSteps { .. } => "go on with the version of VMKit that wrote it".into(),
            Self::Ended { operation, .. } => format!("call `get_operation` with operation `{operation}` for its result"),
            Self::UnknownOperation { .. } => "call `get_overview` for running operations".into(),
            Self::Account(AccountError::NotConnected { provider, .. }) => format!("ask the person to run `vmkit connect {provider}` in a terminal"),
            Self::Account(_) | Self::Vault(_) => "run `vmkit doctor`".into(),
            Self::Cloud(error) if error.retryable() => "try again in a minute".into(),
            Self::GitHub(error) if error.retryable() => "try again in a minute".into(),
            Self::Cloud(_) | Self::GitHub(_) => "run `vmkit doctor` to check the token and its permissions".into(),
            Self::Fleet(_) => "call `get_status`: the VM may be off or cut off".into(),
            Self::Pipeline(_) | Self::Bootstrap(_) => "mend the setting that is named".into(),
            Self::Store(_) => "run `vmkit doctor`".into(),
        }
    }

    /// What is written into the journal.
    pub fn failure(&self) -> Failure {
        Failure { code: self.code().to_owned(), message: self.to_string(), fix: self.fix() }
    }

    /// Whether another process drives the operation by now.
    pub(crate) fn is_lost_lease(&self) -> bool {
        matches!(self, Self::Store(StoreError::LostLease { .. }))
    }
}

/// An expired plan, for its message.
pub(crate) fn plan_expired(plan: PlanId, at: Millis) -> OpError {
    OpError::PlanExpired { plan, at: at.rfc3339() }
}
