//! What changes the outside world: durable operations with a journal, and the few changes that
//! touch our own file only.
//!
//! An operation is a linear list of named steps. Its row exists before its first side effect; a
//! step may run twice and must then mean the same; a step that ends badly is taken back together
//! with all before it. The names of the steps and what they write are a stored format: another
//! list is another version.

pub mod adopt_vm;
pub mod agents;
pub mod build_env;
pub mod cancel;
pub mod catalogue;
mod changes;
mod config_files;
pub mod configure_app;
pub mod connect;
pub mod control_app;
pub mod deploy;
pub mod destroy;
pub mod domains;
mod downtime;
mod driver;
mod edits;
pub mod eject;
pub mod env;
pub mod environments;
mod error;
pub mod identity;
mod keys;
pub mod links;
pub mod maintain_vm;
pub mod plans;
pub mod provision_vm;
pub mod repo;
pub mod resize_vm;
mod runs;
pub mod services;
pub mod setup_repo;
pub mod share;
pub mod silence;
pub mod test_build;
#[cfg(test)]
pub(crate) mod testing;
pub mod webhooks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::Url;

pub use downtime::{Inhabited, inhabited};
pub use driver::Driver;
pub(crate) use driver::Run;
pub use error::OpError;
pub(crate) use error::ROLE_DIES;

use crate::accounts::Accounts;
use crate::dns::resolve::Resolver;
use crate::domain::clock::Clock;
use crate::domain::ids::{InstallationId, OperationId, PlanId};
use crate::domain::operation::OperationState;
use crate::fleet::Fleet;
use crate::store::{Failure, NewOperation, OperationRow, PlanRow, Queued, Store};
use crate::vault::Vault;

/// What operations are made of. Each takes the few things that it uses out of it.
#[derive(Clone)]
pub struct Context {
    /// The state file.
    pub store: Store,
    /// The sealing of secrets.
    pub vault: Arc<Vault>,
    /// The clients of clouds and GitHub.
    pub accounts: Accounts,
    /// The agents.
    pub fleet: Fleet,
    /// The time.
    pub clock: Clock,
    /// How retries are paced.
    pub pace: Pace,
    /// What other machines are told about a name.
    pub resolver: Resolver,
    /// What GitHub tells by itself.
    pub news: webhooks::News,
    /// The agents that can be handed to VMs.
    pub agent_binaries: Arc<agents::AgentBinaries>,
    /// What a person set for this installation.
    pub settings: Settings,
}

/// How retries are paced: the first pause, doubled each time up to the longest; and agents.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The pause after the first failure.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// How often a step is tried in all.
    pub attempts: u32,
    /// How long the agent of a VM may take to link again after we were away, or it was: longer
    /// than its own longest pause between two attempts.
    pub relink: Duration,
    /// How long GitHub may take to stop a run before it is told to force it.
    pub force: Duration,
    /// How long a deploy that holds Kamal's lock is waited for.
    pub kamal: Duration,
    /// How long a server may take to shut down before its power is cut.
    pub shut_down: Duration,
    /// How long the apps of a VM may take to answer after it was down.
    pub answer: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(400),
            longest: Duration::from_secs(30),
            attempts: 6,
            relink: Duration::from_secs(45),
            force: Duration::from_secs(20),
            kamal: Duration::from_secs(300),
            shut_down: Duration::from_secs(120),
            answer: Duration::from_secs(120),
        }
    }
}

impl Pace {
    /// The pause after the `tries`-th failure.
    pub fn pause(&self, tries: u32) -> Duration {
        self.first.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(self.longest)
    }
}

/// What a person set for this installation.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The label that every resource carries.
    pub installation: InstallationId,
    /// Where agents of new VMs dial to; none where no address is public, and VMKit comes to them
    /// over SSH.
    pub gateway: Option<AgentGateway>,
    /// The port of the VMs' SSH servers: 22, but in a sandbox.
    pub ssh_port: u16,
    /// What the Docker of a new VM asks before Docker Hub.
    pub registry_mirror: Option<Url>,
    /// The owner's own public SSH key.
    pub owner_key: Option<String>,
    /// How long every role has to run without a restart before a deploy counts as live.
    pub steady: Duration,
    /// How long the agent of a new VM may take to link.
    pub agent_wait: Duration,
}

/// Where agents dial to.
#[derive(Debug, Clone)]
pub struct AgentGateway {
    /// The public address, such as `https://vmkit.example.com`.
    pub url: Url,
}

/// A step: its stored name, and what it says while it runs.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) says: &'static str,
}

/// How a step that ended well goes on.
#[derive(Debug)]
pub(crate) enum StepEnd {
    /// The next step, with what this one made.
    Done(Value),
    /// The operation ends here until a person has merged something.
    NeedsMerge {
        /// What to tell.
        result: Value,
        /// One sentence.
        message: String,
    },
}

/// One kind of operation, loaded from its row.
pub(crate) trait Operation: Send + Sync {
    /// Its steps in order.
    fn steps(&self) -> &'static [Step];

    /// Runs a step; running it twice means the same as once.
    fn run<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<StepEnd, OpError>>;

    /// Takes a step back, whether or not it had its effect.
    fn undo<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<(), OpError>>;

    /// Writes what the end of the operation means for its own records, and returns its result.
    /// Runs again where the process dies before the end is in the journal.
    fn ended<'a>(
        &'a self,
        state: OperationState,
        failure: Option<&'a Failure>,
        outputs: &'a BTreeMap<String, Value>,
    ) -> BoxFuture<'a, Result<Option<Value>, OpError>>;

    /// What a person has to do where this step cannot be taken back, with the names of what is
    /// left.
    fn by_hand(&self, step: &'static str) -> String;

    /// Whether it may go on after it lay still for more than ten minutes; the tool to call again
    /// where it may not.
    fn resumes_when_old(&self) -> Result<(), &'static str>;

    /// Puts right what must not stay as an operation that goes no further left it, such as a
    /// server that is off. Returns a sentence for each thing that it could not put right.
    fn make_safe(&self) -> BoxFuture<'_, Vec<String>> {
        Box::pin(std::future::ready(Vec::new()))
    }
}

/// Every kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    SetupRepo,
    ProvisionVm,
    AdoptVm,
    Deploy,
    Destroy,
    Retire,
    Restore,
    ResizeVm,
    MaintainVm,
    ManageDomain,
    ConfigureApp,
    ManageService,
    RemoveService,
    ControlApp,
    TestBuild,
}

impl Kind {
    fn parse(name: &str, version: u32) -> Result<Self, String> {
        let kind = match name {
            setup_repo::KIND => Self::SetupRepo,
            provision_vm::KIND => Self::ProvisionVm,
            adopt_vm::KIND => Self::AdoptVm,
            deploy::KIND => Self::Deploy,
            destroy::purge::KIND => Self::Destroy,
            destroy::retire::KIND => Self::Retire,
            destroy::restore::KIND => Self::Restore,
            resize_vm::KIND => Self::ResizeVm,
            maintain_vm::KIND => Self::MaintainVm,
            domains::KIND => Self::ManageDomain,
            configure_app::KIND => Self::ConfigureApp,
            services::KIND => Self::ManageService,
            services::remove::KIND => Self::RemoveService,
            control_app::KIND => Self::ControlApp,
            test_build::KIND => Self::TestBuild,
            other => return Err(format!("its kind is `{other}`")),
        };
        if version == 0 || version > kind.version() {
            return Err(format!(
                "its version is {version}, and this VMKit knows 1 to {}",
                kind.version()
            ));
        }
        Ok(kind)
    }

    /// The version of its list of steps. Each kind loads the rows of every version up to it.
    fn version(self) -> u32 {
        match self {
            Self::SetupRepo => setup_repo::VERSION,
            Self::ProvisionVm => provision_vm::VERSION,
            Self::AdoptVm => adopt_vm::VERSION,
            Self::Deploy => deploy::VERSION,
            Self::Destroy => destroy::purge::VERSION,
            Self::Retire => destroy::retire::VERSION,
            Self::Restore => destroy::restore::VERSION,
            Self::ResizeVm => resize_vm::VERSION,
            Self::MaintainVm => maintain_vm::VERSION,
            Self::ManageDomain => domains::VERSION,
            Self::ConfigureApp => configure_app::VERSION,
            Self::ManageService => services::VERSION,
            Self::RemoveService => services::remove::VERSION,
            Self::ControlApp => control_app::VERSION,
            Self::TestBuild => test_build::VERSION,
        }
    }

    fn load(self, row: &OperationRow, context: &Context) -> Result<Box<dyn Operation>, String> {
        match self {
            Self::SetupRepo => setup_repo::load(row, context),
            Self::ProvisionVm => provision_vm::load(row, context),
            Self::AdoptVm => adopt_vm::load(row, context),
            Self::Deploy => deploy::load(row, context),
            Self::Destroy => destroy::purge::load(row, context),
            Self::Retire => destroy::retire::load(row, context),
            Self::Restore => destroy::restore::load(row, context),
            Self::ResizeVm => resize_vm::load(row, context),
            Self::MaintainVm => maintain_vm::load(row, context),
            Self::ManageDomain => domains::load(row, context),
            Self::ConfigureApp => configure_app::load(row, context),
            Self::ManageService => services::load(row, context),
            Self::RemoveService => services::remove::load(row, context),
            Self::ControlApp => control_app::load(row, context),
            Self::TestBuild => test_build::load(row, context),
        }
    }
}

/// Who asks, and how.
#[derive(Debug, Clone)]
pub struct Ask {
    /// `local`, or a key's id.
    pub caller: String,
    /// Why, for the audit log.
    pub reason: Option<String>,
    /// A key under which a repeat returns the same operation.
    pub idempotency_key: Option<String>,
}

impl Ask {
    /// Somebody who gives neither reason nor key.
    pub fn by(caller: impl Into<String>) -> Self {
        Self { caller: caller.into(), reason: None, idempotency_key: None }
    }

    /// What a repeat is recognised by: the caller's own key, or one made of the arguments and of
    /// the state that they meet.
    fn identity(&self, tool: &str, arguments: &Value) -> Option<(String, String, String)> {
        let key = self.idempotency_key.clone()?;
        Some((tool.to_owned(), key, digest(arguments)))
    }
}

/// SHA-256 of a value's JSON, in hexadecimal digits.
pub(crate) fn digest(value: &Value) -> String {
    hex::encode(Sha256::digest(value.to_string().as_bytes()))
}

/// How a call that may start an operation ended.
#[derive(Debug)]
pub enum Started {
    /// The operation runs, or ran already for the same request.
    Operation(OperationId),
    /// A person has to approve the plan first.
    NeedsApproval(Box<PlanRow>),
}

/// Writes an operation down and wakes its driver.
async fn queue(context: &Context, new: NewOperation, what: &str) -> Result<OperationId, OpError> {
    let id = new.id;
    let plan: Option<PlanId> = new.plan;
    let key = new.idempotency.as_ref().map(|(_, key, _)| key.clone()).unwrap_or_default();
    let queued = context.store.queue_operation(new).await?;
    let operation = match queued {
        Queued::New => id,
        Queued::Repeated(operation) => operation,
        Queued::KeyReused => return Err(OpError::KeyReused { key }),
        Queued::Busy(operation) => {
            return Err(OpError::Busy { what: what.to_owned(), operation });
        }
        Queued::PlanUsed(operation) => match plan {
            Some(plan) => return Err(OpError::PlanUsed { plan, operation }),
            None => operation,
        },
    };
    if let Err(error) = context.fleet.nudge().await {
        // The driver looks by itself, only later.
        tracing::debug!(code = error.code(), %operation, "no driver was woken for {operation}");
    }
    Ok(operation)
}

/// Parses what an operation was asked to do; a row that does not parse is another version's.
fn params<T: serde::de::DeserializeOwned>(row: &OperationRow) -> Result<T, String> {
    serde_json::from_value(row.params.clone()).map_err(|error| format!("its params: {error}"))
}
