//! The running agent: what its links share, and the tasks that it consists of.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use tokio_util::sync::CancellationToken;
use vmkit_agent_protocol::bytes::{Hidden, PublicKey};

use crate::calls::quiesce;
use crate::care::harden;
use crate::care::upgrade::{self, Trial};
use crate::config::{Config, ConfigError, Gateway};
use crate::docker::Engine;
use crate::host::Host;
use crate::identity::{self, IdentityError};
use crate::logs::backlog::Room;
use crate::metrics::{self, Meter};
use crate::notify::Notifier;
use crate::proxy::Proxy;
use crate::{enrol, link, socket};

/// How often the agent does what it does by itself.
#[derive(Debug, Clone, Copy)]
pub struct Rhythm {
    /// Between two signs of life.
    pub heartbeat: Duration,
    /// Between two looks at the VM.
    pub sample: Duration,
}

impl Default for Rhythm {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(15), sample: metrics::EVERY }
    }
}

/// How long a next version of the agent may take to link.
pub const TRIAL: Duration = Duration::from_secs(90);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration is of no use.
    #[error("the agent has no usable configuration")]
    Config(#[source] ConfigError),
    /// There is no key.
    #[error("the agent has no identity")]
    Identity(#[source] IdentityError),
    /// The socket could not be served.
    #[error("the agent cannot serve its socket")]
    Socket(#[source] std::io::Error),
}

/// What all links of this agent share.
#[derive(Debug)]
pub(crate) struct Agent {
    host: Host,
    vm: String,
    /// The gateway's key, and the one that will take its place.
    pinned: Mutex<Vec<PublicKey>>,
    proxy: Option<Proxy>,
    key: SigningKey,
    heartbeat: Duration,
    engine: Engine,
    meter: Meter,
    room: Room,
    upkeep: Arc<tokio::sync::Mutex<()>>,
    role: Role,
    /// Ends the links, so that a next version can try to link.
    links: Mutex<CancellationToken>,
    /// There until the agent has enrolled, over whichever link.
    enrolment: Mutex<Option<Hidden>>,
}

impl Agent {
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn vm(&self) -> &str {
        &self.vm
    }

    /// The keys of which a gateway has to hold one.
    pub(crate) fn pinned(&self) -> Vec<PublicKey> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// They are in the configuration already.
    pub(crate) fn pin(&self, keys: Vec<PublicKey>) {
        *self.pinned.lock().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// The proxy to dial through.
    pub(crate) fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    pub(crate) fn key(&self) -> &SigningKey {
        &self.key
    }

    pub(crate) fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The enrolment token, while it has not been used.
    pub(crate) fn enrolment(&self) -> Option<Hidden> {
        self.enrolment.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The token has been used: it goes from memory and from the configuration.
    pub(crate) async fn enrolled(&self) {
        if self.enrolment.lock().unwrap_or_else(PoisonError::into_inner).take().is_none() {
            return;
        }
        tracing::info!(vm = self.vm, "enrolled as {}", self.vm);
        let host = self.host.clone();
        let forgotten = tokio::task::spawn_blocking(move || Config::forget_token(&host)).await;
        if let Ok(Err(error)) = forgotten {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the used enrolment token stays in the configuration");
        }
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// What the streams of logs share.
    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    /// Held by whoever stops or starts the VM's containers: one at a time.
    pub(crate) fn upkeep(&self) -> &tokio::sync::Mutex<()> {
        &self.upkeep
    }

    /// A link is up; whoever has this agent on trial waits for that.
    pub(crate) fn linked(&self) {
        if self.role == Role::OnTrial {
            let mut out = std::io::stdout().lock();
            // Nobody who hears it means that the trial is over.
            drop(writeln!(out, "{}", upgrade::LINKED_WORD).and_then(|()| out.flush()));
        }
    }

    /// Ends this agent's links and lets the next version try.
    pub(crate) fn begin_trial(&self) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }

    fn new_links(&self, stop: &CancellationToken) -> CancellationToken {
        let links = stop.child_token();
        *self.links.lock().unwrap_or_else(PoisonError::into_inner) = links.clone();
        links
    }
}

/// What an agent is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It is the machine's agent. A next version has this long to link.
    Agent {
        /// How long.
        trial: Duration,
    },
    /// It only shows that it can link.
    OnTrial,
}

/// How an agent ended.
#[derive(Debug)]
pub enum Ended {
    /// It was told to.
    Told,
    /// The program at this path is its next version, and goes on in its place.
    Replaced(PathBuf),
}

/// Runs the agent of `host` until `stop` is cancelled.
///
/// # Errors
/// Where it cannot start. A gateway that is away is no error: the agent goes on trying.
pub async fn run(host: Host, rhythm: Rhythm, stop: CancellationToken) -> Result<(), AgentError> {
    let role = Role::Agent { trial: TRIAL };
    run_as(host, rhythm, role, Notifier::default(), stop).await.map(drop)
}

/// The same in a given role, under systemd; ends as well where a next version takes over.
///
/// # Errors
/// As [`run`].
pub async fn run_as(
    host: Host,
    rhythm: Rhythm,
    role: Role,
    notifier: Notifier,
    stop: CancellationToken,
) -> Result<Ended, AgentError> {
    // Fails where the process has chosen one already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let config = Config::read(&host).map_err(AgentError::Config)?;
    let key = identity::load_or_make(&host).map_err(AgentError::Identity)?;
    let stop = stop.child_token();
    let agent = Arc::new(Agent {
        engine: Engine::new(host.clone()),
        meter: Meter::new(host.clone()),
        room: Room::default(),
        host,
        vm: config.vm,
        pinned: Mutex::new(
            std::iter::once(config.gateway_key).chain(config.next_gateway_key).collect(),
        ),
        proxy: config.proxy,
        key,
        heartbeat: rhythm.heartbeat,
        upkeep: Arc::default(),
        role,
        links: Mutex::new(stop.child_token()),
        enrolment: Mutex::new(config.enrolment_token),
    });
    let gateway = config.gateway;
    let linking = async {
        loop {
            let links = agent.new_links(&stop);
            notifier.ready();
            serve_links(&agent, gateway.as_ref(), &links, &stop).await?;
            let trial = match role {
                Role::Agent { trial } if !stop.is_cancelled() => trial,
                _ => return Ok(Ended::Told),
            };
            if let Trial::Linked(next) = upgrade::trial(&agent, trial, &stop).await {
                return Ok(Ended::Replaced(next));
            }
        }
    };
    let beside = async {
        if let Role::Agent { .. } = role {
            if let Err(error) = upgrade::settle(agent.host()) {
                tracing::warn!(%error, "what became of the last upgrade cannot be written down");
            }
            let watching = harden::watch(agent.host().clone(), Arc::clone(&agent.upkeep));
            let measuring = metrics::keep(&agent, rhythm.sample);
            tokio::join!(watching, measuring, quiesce::resume_after_boot(&agent));
        }
        std::future::pending::<()>().await
    };
    let ended = tokio::select! {
        ended = linking => ended,
        () = beside => Ok(Ended::Told),
        () = notifier.keep_saying_alive() => Ok(Ended::Told),
    };
    if let Ok(Ended::Told) = &ended {
        notifier.stopping();
    }
    tracing::info!("the agent ends");
    ended
}

/// Links, until `links` is cancelled.
async fn serve_links(
    agent: &Arc<Agent>,
    gateway: Option<&Gateway>,
    links: &CancellationToken,
    stop: &CancellationToken,
) -> Result<(), AgentError> {
    let dialling = async {
        let Some(gateway) = gateway else {
            return links.cancelled().await;
        };
        if let Some(token) = agent.enrolment() {
            enrol::enrol(agent, gateway, token, links).await;
        }
        link::keep(Arc::clone(agent), gateway, links).await;
    };
    let serving = socket::serve(Arc::clone(agent), links.clone());
    // Nothing that waits for a gateway keeps the agent from ending.
    let dialling = async {
        tokio::select! {
            () = dialling => {}
            () = links.cancelled() => {}
        }
    };
    let ((), served) = tokio::join!(dialling, async {
        let served = serving.await;
        if let Err(error) = &served {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "the agent's socket cannot be served");
            if gateway.is_none() {
                links.cancel();
                stop.cancel();
            }
        }
        served
    });
    served.map_err(AgentError::Socket)
}
