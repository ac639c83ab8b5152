//! The running agent: what its links share, and the tasks that it consists of.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use tokio_util::sync::CancellationToken;
use vmkit_agent_protocol::bytes::{Hidden, PublicKey};

use crate::calls::metrics::CpuSample;
use crate::calls::quiesce;
use crate::config::{Config, ConfigError};
use crate::docker::Engine;
use crate::host::Host;
use crate::identity::{self, IdentityError};
use crate::{enrol, link, socket};

/// How often the agent says that it is alive, unless told otherwise.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

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
    gateway_key: PublicKey,
    key: SigningKey,
    heartbeat: Duration,
    engine: Engine,
    cpu: Mutex<Option<CpuSample>>,
    upkeep: tokio::sync::Mutex<()>,
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

    pub(crate) fn gateway_key(&self) -> &PublicKey {
        &self.gateway_key
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

    pub(crate) fn cpu(&self) -> &Mutex<Option<CpuSample>> {
        &self.cpu
    }

    /// Held by whoever stops or starts the VM's containers: one at a time.
    pub(crate) fn upkeep(&self) -> &tokio::sync::Mutex<()> {
        &self.upkeep
    }
}

/// Runs the agent of `host` until `stop` is cancelled.
///
/// # Errors
/// Where it cannot start. A gateway that is away is no error: the agent goes on trying.
pub async fn run(
    host: Host,
    heartbeat: Duration,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    // Fails where the process has chosen one already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let config = Config::read(&host).map_err(AgentError::Config)?;
    let key = identity::load_or_make(&host).map_err(AgentError::Identity)?;
    let agent = Arc::new(Agent {
        engine: Engine::new(host.clone()),
        host,
        vm: config.vm,
        gateway_key: config.gateway_key,
        key,
        heartbeat,
        cpu: Mutex::new(None),
        upkeep: tokio::sync::Mutex::new(()),
        enrolment: Mutex::new(config.enrolment_token),
    });
    let stop = stop.child_token();
    let socket_only = config.gateway.is_none();
    let dialling = async {
        let Some(gateway) = config.gateway else {
            return stop.cancelled().await;
        };
        if let Some(token) = agent.enrolment() {
            enrol::enrol(&agent, &gateway, token, &stop).await;
        }
        link::keep(Arc::clone(&agent), &gateway, &stop).await;
    };
    let serving = socket::serve(Arc::clone(&agent), stop.clone());
    // Nothing that waits for a gateway keeps the agent from ending.
    let dialling = async {
        tokio::select! {
            () = dialling => {}
            () = stop.cancelled() => {}
        }
    };
    let resuming = stop.run_until_cancelled(quiesce::resume_after_boot(&agent));
    let ((), _, served) = tokio::join!(dialling, resuming, async {
        let served = serving.await;
        if let Err(error) = &served {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "the agent's socket cannot be served");
            if socket_only {
                stop.cancel();
            }
        }
        served
    });
    tracing::info!("the agent ends");
    served.map_err(AgentError::Socket)
}
