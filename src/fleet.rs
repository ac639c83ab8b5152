//! Our side of the agent links: who is there, calls with time-outs, and a bounded cache of logs.
//!
//! The process that holds the links has a local fleet; any other has a remote one, which asks the
//! first over a Unix socket. Callers cannot tell.

mod cache;
mod error;
mod hub;
mod identity;
mod link;
mod logs;
mod metrics;
mod reach;
mod roster;
mod routes;
pub mod shell;
mod socket;
mod ssh;

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use vmkit_agent_protocol::calls::{Call, Reply};
use vmkit_agent_protocol::metrics::MetricsHistory;
use vmkit_agent_protocol::wire::Wire;

use crate::domain::clock::{Clock, Millis};
use crate::domain::ids::VmId;

pub use cache::Bounds;
pub use error::FleetError;
use hub::Hub;
pub use logs::{LogLine, LogPage, LogQuery, LogStream};
pub use reach::{Directory, Trouble};
pub use roster::{EnrolRefusal, Roster};
pub use routes::TlsSession;
pub use ssh::Dial;

/// All agents that this installation has, wherever their links end.
#[derive(Clone)]
pub struct Fleet(Kind);

#[derive(Clone)]
enum Kind {
    Local(Arc<Hub>),
    Remote(socket::Remote),
}

/// What a fleet may take up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// An agent that was silent for so long counts as away, and its link is closed.
    pub silent_after: Duration,
    /// Handshakes and enrolments under way at a time; more are told to come back.
    pub newcomers: usize,
    /// How long a log query waits for the agent before it answers from the cache alone.
    pub log_wait: Duration,
    /// The log cache.
    pub cache: Bounds,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            silent_after: Duration::from_secs(45),
            newcomers: 256,
            log_wait: Duration::from_secs(10),
            cache: Bounds::default(),
        }
    }
}

/// What is known of an agent's link.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Presence {
    /// The link is up, and the agent was heard lately.
    pub linked: bool,
    /// Since when the link is up, or when the last one began.
    pub since: Option<Millis>,
    /// When the agent was last heard.
    pub last_seen: Option<Millis>,
    /// The agent's version, as it said.
    pub agent_version: Option<String>,
    /// How far the VM's clock is behind ours, in milliseconds, as measured at the hello.
    pub clock_offset_ms: i64,
    /// The keys of ours that the agent had pinned when it was last heard of them, in base64; none
    /// where it cannot be told of another one.
    #[serde(default)]
    pub trusts: Vec<String>,
    /// Why it is not linked, where that is known.
    #[serde(default)]
    pub trouble: Option<Trouble>,
    /// When links came and went lately, oldest first.
    #[serde(default)]
    pub changes: Vec<PresenceChange>,
}

/// A link came or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceChange {
    /// When.
    pub at: Millis,
    /// Whether the agent is linked from then on.
    pub linked: bool,
    /// Why it is not, as far as the link's end tells.
    pub reason: Option<String>,
}

/// From here on a VM's clock counts as wrong: certificates and logs suffer.
const CLOCK_WRONG_MS: i64 = 60_000;

impl Presence {
    /// What is wrong with the link or the clock, in a sentence; nothing where all is well.
    pub fn complaint(&self) -> Option<String> {
        let wrong_ms = self.clock_offset_ms;
        let side = if wrong_ms > 0 { "behind" } else { "ahead" };
        let clock = (wrong_ms.abs() >= CLOCK_WRONG_MS)
            .then(|| format!("{} s {side}", wrong_ms.abs() / 1000));
        if self.linked {
            return clock.map(|wrong| format!("the VM's clock is {wrong}"));
        }
        let gone = self.changes.last().filter(|change| !change.linked);
        let since = gone.map(|change| format!(" since {}", change.at.rfc3339()));
        let reason = self.trouble.as_ref().map(|trouble| trouble.message.clone());
        let reason = reason.or_else(|| gone.and_then(|change| change.reason.clone()));
        let reason = reason.map(|reason| format!(": {reason}"));
        // By such a clock the gateway's certificate may not be valid yet, or no more.
        let clock =
            clock.map(|wrong| format!("; the VM's clock was {wrong} when it was last linked"));
        let (since, reason) = (since.unwrap_or_default(), reason.unwrap_or_default());
        Some(format!("the agent is not linked{since}{reason}{}", clock.unwrap_or_default()))
    }
}

impl Fleet {
    /// A fleet whose links end in this process. `identity` is the gateway's key, which the agents
    /// have pinned.
    pub fn local(
        roster: Arc<dyn Roster>,
        identity: SigningKey,
        clock: Clock,
        limits: Limits,
    ) -> Self {
        Self(Kind::Local(Arc::new(Hub::new(roster, identity, clock, limits))))
    }

    /// A fleet that another process holds, which serves `socket` by [`Fleet::serve_socket`].
    pub fn remote(socket: PathBuf) -> Self {
        Self(Kind::Remote(socket::Remote::new(socket)))
    }

    /// The routes that agents use: `/agent/v1/enrol` and `/agent/v1/link`. Empty where the fleet
    /// is remote.
    pub fn router(&self) -> axum::Router {
        match &self.0 {
            Kind::Local(hub) => routes::router(Arc::clone(hub)),
            Kind::Remote(_) => axum::Router::new(),
        }
    }

    /// Runs a link over a byte stream that leads to an agent's socket, to the link's end.
    ///
    /// # Errors
    /// Where the handshake fails, or the fleet is remote.
    pub async fn attach(
        &self,
        io: impl AsyncRead + AsyncWrite + Send + 'static,
    ) -> Result<(), FleetError> {
        match &self.0 {
            Kind::Local(hub) => link::run(hub, Wire::lines(io)).await.map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                FleetError::Link {
                    reason: cause.map_or(error.to_string(), |cause| format!("{error}: {cause}")),
                }
            }),
            Kind::Remote(_) => {
                Err(FleetError::Link { reason: "the links end in another process".to_owned() })
            }
        }
    }

    /// Opens links to the VMs of `directory` and keeps them until `stop` is cancelled. Does nothing
    /// where the fleet is remote.
    pub async fn reach(&self, directory: Arc<dyn Directory>, stop: CancellationToken) {
        match &self.0 {
            Kind::Local(hub) => reach::keep(Arc::clone(hub), directory, stop).await,
            Kind::Remote(_) => {}
        }
    }

    /// Ends a VM's link, so that another one takes its place.
    pub fn relink(&self, vm: VmId) {
        match &self.0 {
            Kind::Local(hub) => hub.relink(vm),
            Kind::Remote(_) => {}
        }
    }

    /// Answers remote fleets until `stop` is cancelled. Does nothing where this one is remote.
    pub async fn serve_socket(&self, listener: UnixListener, stop: CancellationToken) {
        match &self.0 {
            Kind::Local(_) => socket::serve(self.clone(), listener, stop).await,
            Kind::Remote(_) => {}
        }
    }

    /// Resolves when somebody has nudged since it last did. Never, where the fleet is remote.
    pub async fn nudged(&self) {
        match &self.0 {
            Kind::Local(hub) => hub.nudge.notified().await,
            Kind::Remote(_) => pending().await,
        }
    }

    /// Tells whoever waits in [`Fleet::nudged`], in whichever process, that there is work.
    ///
    /// # Errors
    /// [`FleetError::WorkerAway`] where no process serves the socket.
    pub async fn nudge(&self) -> Result<(), FleetError> {
        match &self.0 {
            Kind::Local(hub) => {
                hub.nudge.notify_one();
                Ok(())
            }
            Kind::Remote(remote) => remote.nudge().await,
        }
    }

    /// What is known of the VM's agent.
    ///
    /// # Errors
    /// [`FleetError::WorkerAway`] where no process holds the links.
    pub async fn presence(&self, vm: VmId) -> Result<Presence, FleetError> {
        match &self.0 {
            Kind::Local(hub) => Ok(hub.presence(vm)),
            Kind::Remote(remote) => remote.presence(vm).await,
        }
    }

    /// Notes why a VM's agent is not linked, as somebody saw it who looked from outside; counts for
    /// more than what the link's own end tells, until the agent is linked. Does nothing where the
    /// fleet is remote.
    pub fn explain(&self, vm: VmId, seen: Option<Trouble>) {
        match &self.0 {
            Kind::Local(hub) => hub.explain(vm, seen),
            Kind::Remote(_) => {}
        }
    }

    /// Waits until the VM's agent is linked.
    ///
    /// # Errors
    /// [`FleetError::NotLinked`] after `timeout`.
    pub async fn wait_linked(&self, vm: VmId, timeout: Duration) -> Result<Presence, FleetError> {
        match &self.0 {
            Kind::Local(hub) => hub.wait_linked(vm, timeout).await,
            Kind::Remote(remote) => remote.wait_linked(vm, timeout).await,
        }
    }

    /// Asks the VM's agent and waits for its reply, `timeout` at most. Streams cannot be asked
    /// for here.
    ///
    /// # Errors
    /// Where there is no link, no reply in time, or the agent could not do it.
    pub async fn call(&self, vm: VmId, call: Call, timeout: Duration) -> Result<Reply, FleetError> {
        match &self.0 {
            Kind::Local(hub) => hub.call(vm, call, timeout).await,
            Kind::Remote(remote) => remote.call(vm, call, timeout).await,
        }
    }

    /// The newest lines of a service: from the VM where its agent is linked, together with what
    /// the cache still has of containers that are gone; from the cache alone otherwise.
    ///
    /// # Errors
    /// [`FleetError::WorkerAway`] where no process holds the links.
    pub async fn logs(&self, vm: VmId, query: LogQuery) -> Result<LogPage, FleetError> {
        match &self.0 {
            Kind::Local(hub) => Ok(logs::query(hub, vm, &query, true).await),
            Kind::Remote(remote) => remote.logs(vm, query, true).await,
        }
    }

    /// The same from the cache alone, at once.
    ///
    /// # Errors
    /// [`FleetError::WorkerAway`] where no process holds the links.
    pub async fn cached_logs(&self, vm: VmId, query: LogQuery) -> Result<LogPage, FleetError> {
        match &self.0 {
            Kind::Local(hub) => Ok(logs::query(hub, vm, &query, false).await),
            Kind::Remote(remote) => remote.logs(vm, query, false).await,
        }
    }

    /// Signs a statement with the key by which the VM's agent knows us.
    ///
    /// # Errors
    /// [`FleetError::WorkerAway`] where another process holds the key for links.
    pub fn vouch(&self, vm: VmId, statement: &[u8]) -> Result<[u8; 64], FleetError> {
        match &self.0 {
            Kind::Local(hub) => Ok(hub.vouch(vm, statement)),
            Kind::Remote(_) => {
                let reason = "the key is with the process that holds the links".to_owned();
                Err(FleetError::WorkerAway { reason })
            }
        }
    }

    /// How the VM did from `since` to `until` (both open where absent), drawn into at most `points`
    /// points, and how it does now.
    ///
    /// # Errors
    /// As [`Fleet::call`].
    pub async fn metrics(
        &self,
        vm: VmId,
        since: Option<Millis>,
        until: Option<Millis>,
        points: u32,
    ) -> Result<MetricsHistory, FleetError> {
        metrics::history(self, vm, since, until, points).await
    }

    /// Forgets a VM that is no more: its link, its presence, its cached lines.
    pub fn forget(&self, vm: VmId) {
        match &self.0 {
            Kind::Local(hub) => hub.forget(vm),
            Kind::Remote(_) => {}
        }
    }

    /// Closes all links, in whichever process, so that each is made anew.
    ///
    /// # Errors
    /// [`FleetError::WorkerAway`] where no process holds the links.
    pub async fn renew(&self) -> Result<(), FleetError> {
        match &self.0 {
            Kind::Local(hub) => {
                hub.close();
                Ok(())
            }
            Kind::Remote(remote) => remote.renew().await,
        }
    }

    /// Closes all links; the agents dial again.
    pub fn close(&self) {
        match &self.0 {
            Kind::Local(hub) => hub.close(),
            Kind::Remote(_) => {}
        }
    }
}
