//! Why an operation was not started, or a step did not end well.

use super::adopt_vm::AdoptError;
use super::services::ServiceError;
use super::share::ShareError;
use crate::accounts::AccountError;
use crate::agent_releases::AgentReleaseError;
use crate::bootstrap::BootstrapError;
use crate::clouds::CloudError;
use crate::dns::DnsError;
use crate::dns::resolve::ResolveError;
use crate::domain::clock::Millis;
use crate::domain::env_values::EnvValueError;
use crate::domain::ids::{DeployId, OperationId, PlanId, VmId};
use crate::fleet::FleetError;
use crate::github::GitHubError;
use crate::pipeline::PipelineError;
use crate::store::{Failure, StoreError};
use crate::vault::VaultError;

/// The code of a deploy whose role did not stay up.
pub(crate) const ROLE_DIES: &str = "role_dies";

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
    #[error(
        "VM {vm} is a machine of your own, reached by SSH: VMKit has no power over it, no other size of it and no snapshot"
    )]
    OwnMachine { vm: VmId },
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    #[error("environment `{environment}` has no VM")]
    NoVm { environment: String },
    #[error("environment `{environment}` has a VM already: {vm}")]
    HasVm { environment: String, vm: String },
    #[error("size `{size}` is not sold in `{region}`: {near}")]
    UnknownSize { size: String, region: String, near: String },
    #[error("size `{size}` cannot be ordered in `{region}` now: {near}")]
    SoldOut { size: String, region: String, near: String },
    #[error("the address for agents cannot be written into a VM's user-data")]
    NoAgentGateway,
    #[error("no connected cloud has a region `{region}`; the regions are {known}")]
    UnknownRegion { region: String, known: String },
    #[error("`max_monthly` of {asked} cannot be met: {clouds}; VMKit converts no currencies")]
    OtherCurrency { asked: String, clouds: String },
    #[error("{cloud} takes no orders from this account: {reason}")]
    AccountBlocked { cloud: String, reason: String },
    #[error("there is no agent for {arch} VMs in {folder}")]
    NoAgentBinary { arch: String, folder: String },
    #[error("the agent `{path}` {fault}")]
    UnfitAgentBinary { path: String, fault: String },
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
    #[error("the agent on VM {vm} did not link within {waited_s} s{}{told}", if told.is_empty() { "" } else { ": " })]
    AgentSilent { vm: String, waited_s: u64, told: String },
    #[error("VM {vm} cannot be used: {told}")]
    FirstBoot { vm: String, told: String },
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
    #[error("the registry has the image of release {release} no more: `{image}`")]
    ImageGone { release: DeployId, image: String, fix: String },
    /// The image of one environment cannot run in another.
    #[error("the image of `{from}` cannot be deployed to `{to}`: {why}")]
    OtherImage {
        /// Whose image.
        from: String,
        /// Where to.
        to: String,
        /// The reason.
        why: String,
    },
    #[error("environment `{environment}` was rolled back at {at}, less than an hour ago")]
    RolledBackAlready { environment: String, at: String },
    #[error("release `{release}` is not one of `{environment}`")]
    UnknownRelease { release: String, environment: String },
    #[error("the deploy of {commit} failed: {cause}")]
    DeployFailed { commit: String, code: String, cause: String, fix: String },
    /// `dies`: a role ends and is started again, by the proof's own look.
    #[error("{commit} was deployed but is not live: {reason}")]
    NotLive { commit: String, reason: String, dies: bool },
    #[error("an env value was refused: {0}")]
    BadValue(#[from] EnvValueError),
    #[error("other changes of the env values came in between")]
    EnvRace,
    #[error("nothing was asked for: {what}")]
    Nothing { what: String },
    /// All apps of a VM share what stands before them.
    #[error(
        "`{environment}` on the same VM is served through {has}, so `{proxy}` cannot take its place"
    )]
    ProxyInUse { proxy: &'static str, environment: String, has: &'static str },
    #[error("`{environment}` was destroyed, and can be restored until {until}")]
    Retired { environment: String, until: String },
    #[error("there is nothing to undo: `{environment}` is not destroyed")]
    NotDestroyed { environment: String },
    #[error("the destroy of `{environment}` could be undone until {at}")]
    UndoExpired { environment: String, at: String },
    #[error(
        "`{environment}` cannot be restored now, and nothing of it is lost until {until}: {reason}"
    )]
    NotRestorable { environment: String, until: String, reason: String },
    #[error("`{environment}` is restored already: its snapshot is gone, and its server stays")]
    Restored { environment: String },
    #[error("{what} is protected at {provider} against being deleted; nothing was touched")]
    Guarded { what: String, provider: String },
    #[error("{what} has another host key than the one that was reported: {found}")]
    OtherHostKey { what: String, found: String },
    #[error("`{environment}` is half destroyed: its server is deleted or being deleted")]
    HalfDestroyed { environment: String },
    #[error("the workflow run of deploy {deploy} was not found in {repo} after it was started")]
    RunLost { repo: String, deploy: DeployId },
    #[error("{what} cannot be understood: {detail}")]
    Unreadable { what: String, detail: String },
    #[error("VM `{vm}` does not exist; {known}")]
    UnknownVm { vm: String, known: String },
    #[error("the server of VM {vm} is gone from {provider}")]
    ServerGone { vm: VmId, provider: String },
    #[error("VM {vm} has size `{size}` already")]
    SameSize { vm: VmId, size: String },
    #[error(
        "size `{size}` is {arch} and VM {vm} is {has}: no cloud changes a server's architecture"
    )]
    OtherArch { vm: VmId, has: &'static str, size: String, arch: &'static str },
    #[error(
        "size `{size}` has a disk of {disk_gb} GB, and that of VM {vm} has {has_gb} GB: a disk never shrinks"
    )]
    SmallerDisk { vm: VmId, has_gb: u64, size: String, disk_gb: u64 },
    #[error("the agent of VM {vm} is version {version}, which does not know how to do this")]
    AgentTooOld { vm: VmId, version: String },
    #[error("the new agent of VM {vm} was not taken: {told}")]
    UpgradeRolledBack { vm: VmId, told: String },
    #[error(
        "VM {vm} has containers of another app under the name `{service}` already (image {image})"
    )]
    ServiceTaken { service: String, vm: VmId, image: String },
    #[error("the agent's program has {bytes} bytes, and a VM takes {most} at most")]
    AgentTooLong { bytes: u64, most: u64 },
    #[error("Kamal's lock of `{service}` is held by {by} since {since} ({why})")]
    KamalLocked { service: String, by: String, since: String, why: String },
    #[error("after VM {vm} was down, {reason}")]
    AppsSilent { vm: VmId, reason: String },
    #[error(
        "`{domain}` is the domain of environment `{environment}`, and a domain serves one environment"
    )]
    DomainTaken { domain: String, environment: String },
    #[error(
        "environment `{environment}` has no domain: it answers by plain HTTP at its VM's address"
    )]
    NoDomain { environment: String },
    #[error("`{domain}` is not the domain of `{environment}`, which has {has}")]
    OtherDomain { domain: String, environment: String, has: String },
    #[error("no certificate can be had for `{domain}` yet: {wrong}")]
    NotPointed { domain: String, wrong: String },
    #[error(
        "`{domain}` leads {elsewhere}, and no certificate can be had for it so; nothing was built. {records}"
    )]
    LeadsElsewhere { domain: String, elsewhere: String, records: String },
    #[error("`{domain}` has no certificate yet: {reason}")]
    NoCertificate { domain: String, reason: String },
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error(transparent)]
    Share(#[from] ShareError),
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
    AgentRelease(#[from] AgentReleaseError),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Cloud(#[from] CloudError),
    #[error(transparent)]
    GitHub(#[from] GitHubError),
    #[error(transparent)]
    Dns(#[from] DnsError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
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
    /// The word for what lay still for too long to go on.
    pub(crate) const INTERRUPTED: &str = "interrupted";

    /// A stable word for it.
    pub fn code(&self) -> &str {
        match self {
            Self::UnknownApp { .. } => "unknown_app",
            Self::UnknownEnvironment { .. } => "unknown_environment",
            Self::EnvironmentExists { .. } => "environment_exists",
            Self::SlugTaken { .. } => "slug_taken",
            Self::NotSetUp { .. } => "not_set_up",
            Self::Blocked { .. } => "blocked",
            Self::OwnMachine { .. } => "own_machine",
            Self::Adopt(error) => error.code(),
            Self::NoVm { .. } => "no_vm",
            Self::HasVm { .. } => "has_vm",
            Self::UnknownSize { .. } => "unknown_size",
            Self::SoldOut { .. } => "sold_out",
            Self::NoAgentGateway => "no_agent_gateway",
            Self::UnknownRegion { .. } => "unknown_region",
            Self::OtherCurrency { .. } => "other_currency",
            Self::AccountBlocked { .. } => "account_blocked",
            Self::NoAgentBinary { .. } => "no_agent_binary",
            Self::UnfitAgentBinary { .. } => "unfit_agent_binary",
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
            Self::FirstBoot { .. } => "first_boot_failed",
            Self::AgentAway { .. } => "agent_not_linked",
            Self::ServerSilent { .. } => "server_silent",
            Self::UnknownRef { .. } => "unknown_ref",
            Self::OtherCommit { .. } => "other_commit",
            Self::NoRelease { .. } => "no_release",
            Self::NothingToRollBack { .. } => "nothing_to_roll_back",
            Self::OtherImage { .. } => "other_image",
            Self::RolledBackAlready { .. } => "rolled_back_already",
            Self::UnknownRelease { .. } => "unknown_release",
            Self::ImageGone { .. } => "image_gone",
            Self::DeployFailed { code, .. } => code,
            Self::NotLive { dies: true, .. } => ROLE_DIES,
            Self::NotLive { .. } => "not_live",
            Self::BadValue(error) => error.code(),
            Self::EnvRace => "env_race",
            Self::Nothing { .. } => "nothing_to_do",
            Self::ProxyInUse { .. } => "proxy_in_use",
            Self::Retired { .. } => "retired",
            Self::NotDestroyed { .. } => "not_destroyed",
            Self::UndoExpired { .. } => "undo_expired",
            Self::NotRestorable { .. } => "not_restorable",
            Self::Restored { .. } => "restored",
            Self::Guarded { .. } => "protected",
            Self::OtherHostKey { .. } => "other_host_key",
            Self::HalfDestroyed { .. } => "half_destroyed",
            Self::RunLost { .. } => "run_lost",
            Self::Unreadable { .. } => "unreadable",
            Self::DomainTaken { .. } => "domain_taken",
            Self::NoDomain { .. } => "no_domain",
            Self::OtherDomain { .. } => "other_domain",
            Self::NotPointed { .. } => "not_pointed",
            Self::LeadsElsewhere { .. } => "leads_elsewhere",
            Self::NoCertificate { .. } => "no_certificate",
            Self::Service(error) => error.code(),
            Self::Share(error) => error.code(),
            Self::Cancelled => "cancelled",
            Self::Interrupted { .. } => Self::INTERRUPTED,
            Self::UnknownVm { .. } => "unknown_vm",
            Self::ServerGone { .. } => "server_gone",
            Self::SameSize { .. } => "same_size",
            Self::OtherArch { .. } => "other_arch",
            Self::SmallerDisk { .. } => "smaller_disk",
            Self::AgentTooOld { .. } => "agent_too_old",
            Self::UpgradeRolledBack { .. } => "upgrade_rolled_back",
            Self::ServiceTaken { .. } => "service_taken",
            Self::AgentTooLong { .. } => "agent_too_long",
            Self::KamalLocked { .. } => "kamal_locked",
            Self::AppsSilent { .. } => "apps_silent",
            Self::UnknownSteps { .. } => "unknown_steps",
            Self::Ended { .. } => "already_ended",
            Self::UnknownOperation { .. } => "unknown_operation",
            Self::AgentRelease(error) => error.code(),
            Self::Account(error) => error.code(),
            Self::Cloud(error) => error.code(),
            Self::GitHub(error) => error.code(),
            Self::Dns(error) => error.code(),
            Self::Resolve(error) => error.code(),
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
            Self::EnvRace | Self::Busy { .. } | Self::NoCertificate { .. } => true,
            Self::Adopt(error) => error.retryable(),
            Self::AgentRelease(error) => error.retryable(),
            Self::Account(error) => error.retryable(),
            Self::Cloud(error) => error.retryable(),
            Self::GitHub(error) => error.retryable(),
            Self::Dns(error) => error.retryable(),
            Self::Resolve(error) => error.retryable(),
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
            Self::Blocked { .. } => "do what each row says and push it; a row that you accept as it is goes into `ignore_checks` of `deploy`".into(),
            Self::OwnMachine { .. } => "change it where it is; to move, create another environment with a size from `list_sizes`".into(),
            Self::Adopt(error) => error.fix(),
            Self::NoVm { environment } => format!("call `provision_vm` with environment `{environment}`"),
            Self::HasVm { environment, .. } => format!("call `get_status` with environment `{environment}`"),
            Self::UnknownSize { .. } | Self::SoldOut { .. } => "call `list_sizes` and create the environment with a size that can be ordered".into(),
            Self::UnknownRegion { .. } => "call `list_sizes` without `region`, or with one of these".into(),
            Self::OtherCurrency { .. } => "name the currency that the cloud bills in, such as `EUR 20`".into(),
            Self::AccountBlocked { .. } => "clear that in the provider's console, then try again".into(),
            Self::NoAgentGateway => "set VMKIT_PUBLIC_URL to an address that the VM can reach, or unset it: VMKit then reaches VMs over SSH".into(),
            Self::NoAgentBinary { arch, .. } => format!("put `vmkit-agent-{arch}` into the folder that VMKIT_AGENT_DIR names, or say with VMKIT_AGENT_{} where a release of it lies", arch.to_uppercase()),
            Self::UnfitAgentBinary { .. } => "build it on Debian 12 or older with `cargo build --profile agent -p vmkit-agent`, or with `scripts/agent-arm64`, and put it into the folder that VMKIT_AGENT_DIR names".into(),
            Self::NoOwnerKey => "make one with `ssh-keygen -t ed25519`, or set VMKIT_OWNER_KEY to your public key".into(),
            Self::KeyPair { .. } => "try again, and report it if it stays".into(),
            Self::UnknownPlan { .. } | Self::PlanExpired { .. } | Self::StalePlan { .. } | Self::OtherPlan { .. } => "call the tool without `plan_id` for a fresh plan".into(),
            Self::PlanUsed { operation, .. } | Self::Busy { operation, .. } => format!("call `get_operation` with operation `{operation}`"),
            Self::KeyReused { .. } => "use a new idempotency key for a new request".into(),
            Self::AgentSilent { .. } => "the order was undone; run `vmkit doctor`: it tells whether VMs and this VMKit can reach each other; then provision again".into(),
            Self::FirstBoot { .. } => "the order was undone; the step that is named says what failed, most often a package mirror that was away: provision again".into(),
            Self::AgentAway { .. } => "call `get_status`: the VM may be off or cut off".into(),
            Self::ServerSilent { .. } => "the order was undone; look at the provider's status page, then provision again".into(),
            Self::UnknownRef { .. } => "push it first, or name a branch that exists".into(),
            Self::OtherCommit { .. } => "push your commit first, or leave out `expect_sha`".into(),
            Self::NoRelease { environment } => format!("call `deploy` with environment `{environment}` and a `ref`"),
            Self::OtherImage { to, .. } => format!("build it there: call `deploy` with environment `{to}` and the commit as `ref`"),
            Self::NothingToRollBack { environment } | Self::UnknownRelease { environment, .. } => format!("call `list_deploys` with environment `{environment}`"),
            Self::ImageGone { fix, .. } => fix.clone(),
            Self::RolledBackAlready { environment, .. } => format!("name the release with `to`; `list_deploys` with environment `{environment}` has them"),
            Self::DeployFailed { fix, .. } => fix.clone(),
            Self::NotLive { .. } => "call `get_logs` for the app's own output".into(),
            Self::BadValue(_) => "mend the value and set it again".into(),
            Self::EnvRace => "call `set_env` again".into(),
            Self::Nothing { .. } => "name at least one change".into(),
            Self::ProxyInUse { .. } => "choose the proxy before the first deploy to a VM, the same for all its environments".into(),
            Self::Retired { environment, .. } => format!("call `destroy` with environment `{environment}` and `undo: true` to restore it, or `purge: true` to be rid of it"),
            Self::NotDestroyed { environment } => format!("call `get_status` with environment `{environment}`"),
            Self::UndoExpired { environment, .. } => format!("call `destroy` with environment `{environment}` and `purge: true`, then provision and deploy anew"),
            Self::NotRestorable { environment, .. } => format!("call `destroy` with environment `{environment}` and `undo: true` again later"),
            Self::Restored { environment } => format!("call `get_status` with environment `{environment}`"),
            Self::Guarded { what, provider } => format!("lift the protection of {what} in {provider}'s console, then call `destroy` again"),
            Self::OtherHostKey { .. } => "the restored server was deleted again and its snapshot kept; call `destroy` with `undo: true` again, and report it if it stays".into(),
            Self::HalfDestroyed { .. } => "call `destroy` again: it goes on where this one ended".into(),
            Self::RunLost { .. } => "look at the repo's Actions tab, then deploy again".into(),
            Self::Unreadable { .. } => "call `setup_repo` again".into(),
            Self::UnknownVm { .. } => "call `get_overview` for the VMs".into(),
            Self::ServerGone { .. } => "look at the provider's console, then `destroy` the environment or provision it again".into(),
            Self::SameSize { .. } => "call `list_sizes` for another one".into(),
            Self::OtherArch { .. } => "call `list_sizes` with this VM's architecture, or create another environment with that size".into(),
            Self::SmallerDisk { .. } => "call `list_sizes` for a size with at least that disk, or create another environment with the smaller one".into(),
            Self::UpgradeRolledBack { .. } => "the VM goes on with the agent that it had; `get_operation` has the story, and `maintain_vm` with `upgrade_agent` may be called again".into(),
            Self::ServiceTaken { .. } => "create the environment under another name, or remove those containers by hand; a deploy would have stopped them".into(),
            Self::AgentTooLong { .. } => "put a stripped release build into the folder that VMKIT_AGENT_DIR names".into(),
            Self::AgentTooOld { .. } => "call `maintain_vm` with `upgrade_agent`, then this again; at the provider's console it can be done by hand".into(),
            Self::KamalLocked { .. } => "wait until that deploy is over and call this again; a lock that a dead deploy left is released with `kamal lock release`".into(),
            Self::AppsSilent { .. } => "call `get_logs` for the apps' own output".into(),
            Self::DomainTaken { environment, .. } => format!("give another name, or give `{environment}` another domain first (`manage_domain`, action add)"),
            Self::NoDomain { environment } => format!("call `manage_domain` with environment `{environment}`, action `add` and a domain"),
            Self::OtherDomain { environment, .. } => format!("leave `domain` out, or call `manage_domain` with environment `{environment}` and action `add` to change it"),
            Self::NotPointed { .. } => "mend that, then call `manage_domain` with action `verify`".into(),
            Self::LeadsElsewhere { .. } => "make that so and deploy again; where a proxy of yours stands in front on purpose, deploy with ignore_checks `leads_elsewhere`".into(),
            Self::NoCertificate { .. } => "call it again in a minute: the proxy asks Let's Encrypt at most once a minute".into(),
            Self::Cancelled => "start it again when you want it".into(),
            Self::Interrupted { tool, .. } => format!("look at what is there with `get_status`, then call `{tool}` again"),
            Self::UnknownSteps { .. } => "go on with the version of VMKit that wrote it".into(),
            Self::Ended { operation, .. } => format!("call `get_operation` with operation `{operation}` for its result"),
            Self::UnknownOperation { .. } => "call `get_overview` for running operations".into(),
            Self::AgentRelease(error) => error.fix(),
            Self::Account(AccountError::NotConnected { provider, .. }) => format!("ask the person to run `vmkit connect {provider}` in a terminal"),
            Self::Account(AccountError::OtherProviders { issuer, .. }) => format!("run `vmkit connect {issuer}` with it"),
            Self::Account(_) | Self::Vault(_) => "run `vmkit doctor`".into(),
            Self::Cloud(error) if error.retryable() => "try again in a minute".into(),
            Self::GitHub(error) if error.retryable() => "try again in a minute".into(),
            Self::Cloud(CloudError::Limit { .. }) => "call `get_costs` for servers and addresses that nothing uses, or raise the limit in the provider's console".into(),
            Self::Cloud(_) | Self::GitHub(_) => "run `vmkit doctor` to check the token and its permissions".into(),
            Self::Dns(error) if error.retryable() => "try again in a minute".into(),
            Self::Dns(_) => "run `vmkit doctor` to check the token and its permissions".into(),
            Self::Resolve(_) => "call `manage_domain` with action `verify` later".into(),
            Self::Fleet(_) => "call `get_status`: the VM may be off or cut off".into(),
            Self::Service(error) => error.fix(),
            Self::Share(error) => error.fix(),
            Self::Pipeline(_) | Self::Bootstrap(_) => "mend the setting that is named".into(),
            Self::Store(_) => "run `vmkit doctor`".into(),
        }
    }

    /// Not before when a retry has a point, where the provider said so.
    pub fn retry_at(&self) -> Option<Millis> {
        match self {
            Self::Cloud(error) | Self::Account(AccountError::Cloud(error)) => error.retry_at(),
            Self::GitHub(error) | Self::Account(AccountError::GitHub(error)) => error.retry_at(),
            _ => None,
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
