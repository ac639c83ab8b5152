//! What the agent does when asked: one arm a call.

mod beside;
pub(crate) mod containers;
mod control;
mod env_files;
pub(crate) mod facts;
pub(crate) mod host_key;
pub(crate) mod kamal_locks;
pub(crate) mod quiesce;
mod remove_app;

use std::sync::Arc;
use std::time::Duration;

use vmkit_agent_protocol::calls::{Call, Reply};

use crate::agent::Agent;
use crate::session::Asker;
use crate::{care, logs};

/// Why a call was not done, for the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Stable, in snake case; [`Fault`]'s functions are the list.
    pub(crate) code: &'static str,
    /// For a person.
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn busy() -> Self {
        Self::new("busy", "the agent has too many calls under way; ask again".to_owned())
    }

    pub(crate) fn timed_out(limit: Duration) -> Self {
        Self::new("timed_out", format!("not done within {} ms", limit.as_millis()))
    }

    pub(crate) fn crashed() -> Self {
        Self::new("crashed", "the agent stumbled over this call".to_owned())
    }

    pub(crate) fn ended() -> Self {
        Self::new("ended", "the stream ended with its link".to_owned())
    }

    pub(crate) fn unsupported() -> Self {
        let version = env!("CARGO_PKG_VERSION");
        Self::new("unsupported", format!("agent {version} does not know this call; upgrade it"))
    }

    /// This machine lacks what the call needs.
    pub(crate) fn unsupported_here(message: String) -> Self {
        Self::new("unsupported_here", message)
    }

    pub(crate) fn not_signed(message: String) -> Self {
        Self::new("not_signed", message)
    }

    /// The agent could, and this machine cannot.
    pub(crate) fn absent_here(message: &str) -> Self {
        Self::new("unsupported", message.to_owned())
    }

    pub(crate) fn invalid(message: String) -> Self {
        Self::new("invalid", message)
    }

    pub(crate) fn revision_conflict(message: String) -> Self {
        Self::new("revision_conflict", message)
    }

    pub(crate) fn kamal_locked(message: String) -> Self {
        Self::new("kamal_locked", message)
    }

    pub(crate) fn no_container(message: String) -> Self {
        Self::new("no_container", message)
    }

    pub(crate) fn docker(error: &bollard::errors::Error) -> Self {
        Self::new("docker_unavailable", format!("the Docker engine does not answer: {error}"))
    }

    pub(crate) fn files(error: &std::io::Error) -> Self {
        Self::new("file_error", format!("a file on the VM cannot be read or written: {error}"))
    }

    fn new(code: &'static str, message: String) -> Self {
        Self { code, message }
    }
}

/// Does one call. Items of a stream go to `asker`.
pub(crate) async fn perform(agent: &Arc<Agent>, call: Call, asker: &Asker) -> Result<Reply, Fault> {
    match call {
        Call::HostFacts => Ok(Reply::HostFacts(facts::facts(agent).await)),
        Call::Containers => {
            Ok(Reply::Containers { containers: containers::containers(agent.engine()).await? })
        }
        Call::WriteEnvFile(file) => {
            let host = agent.host().clone();
            blocking(move || env_files::write(&host, &file)).await?
        }
        Call::Logs(range) => Ok(Reply::Logs(logs::range::read(agent, range).await?)),
        Call::SystemLogs(range) => Ok(Reply::Logs(logs::system::read(agent, range).await?)),
        Call::FollowLogs(follow) => logs::follow::follow(agent, follow, asker).await,
        Call::Metrics => {
            let agent = Arc::clone(agent);
            Ok(Reply::Metrics(Box::new(blocking(move || agent.meter().now()).await?)))
        }
        Call::MetricsHistory(range) => {
            let agent = Arc::clone(agent);
            let history = blocking(move || agent.meter().history(&range)).await?;
            Ok(Reply::MetricsHistory(Box::new(history)))
        }
        Call::TakeKamalLocks(wanted) => kamal_locks::take(agent, wanted).await,
        Call::ReleaseKamalLocks(work) => {
            let host = agent.host().clone();
            blocking(move || kamal_locks::release(&host, &work.operation)).await?
        }
        Call::Quiesce(work) => quiesce::quiesce(agent, &work.operation).await,
        Call::Resume(_) => quiesce::resume(agent).await,
        Call::PrepareHostKey => {
            let host = agent.host().clone();
            blocking(move || host_key::prepare(&host)).await?
        }
        Call::InstallHostKey { public_key } => {
            let host = agent.host().clone();
            blocking(move || host_key::install(&host, &public_key)).await?
        }
        Call::RemoveApp(wanted) => {
            let removed = remove_app::remove(agent.host(), agent.engine(), wanted).await?;
            Ok(Reply::AppRemoved(removed))
        }
        Call::RetireRoles(wanted) => {
            let removed = remove_app::retire(agent.host(), agent.engine(), wanted).await?;
            Ok(Reply::AppRemoved(removed))
        }
        Call::Care(wanted) => care::perform(agent, wanted).await.map(Reply::Cared),
        Call::WriteServiceFile(file) => beside::write(agent, file).await,
        Call::RemoveService(wanted) => beside::remove(agent, wanted).await,
        Call::Control(wanted) => control::control(agent, wanted).await,
        Call::KamalLock { service } => {
            let host = agent.host().clone();
            blocking(move || kamal_locks::look(&host, &service)).await?
        }
        Call::BreakKamalLock(held) => {
            let host = agent.host().clone();
            blocking(move || kamal_locks::break_one(&host, &held)).await?
        }
        Call::Unknown => Err(Fault::unsupported()),
    }
}

/// Work on files, off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Fault::crashed())
}
