//! The sandbox: simulated clouds, GitHub and VMs, over real HTTP and with real processes, so that
//! the whole main job runs without an account or a network.

pub mod build;
mod clock;
pub mod cloudflare;
pub mod digitalocean;
pub mod dns;
pub mod faults;
mod formats;
mod front;
pub mod github;
pub mod hetzner;
pub mod kamal;
pub mod lab;
pub mod machines;
pub mod sample;
pub mod sample_app;
pub mod sample_service;
mod serve;
pub mod tether;
pub mod workflow;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use rand::Rng;
use rand::distr::Alphanumeric;

use cloudflare::Cloudflare;
use digitalocean::DigitalOcean;
use dns::NameServer;
use faults::{Faults, Style};
use front::{Door, Front};
use github::{GitHub, GitHubOptions};
use hetzner::Hetzner;
use lab::Lab;
use machines::Machines;

/// How a sandbox is to be started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The vmkit binary, which plays the agent, the tether and the sample app.
    pub exe: PathBuf,
    /// The first port: Hetzner's; GitHub's is two further, Cloudflare's three, the registry's four.
    /// Without one, or with port 0, free ports of 127.0.0.1. The name server always takes a free one.
    pub listen: Option<SocketAddr>,
    /// A folder of `OWNER/NAME` folders that become repos of the simulated GitHub.
    pub repos: Option<PathBuf>,
    /// Servers are containers and runs are run for real in this lab, instead of being played.
    pub lab: Option<Lab>,
}

/// A running sandbox. All its processes end with it, and with the process that holds it.
pub struct Sandbox {
    machines: Machines,
    hetzner: Hetzner,
    hetzner_front: Front,
    hetzner_token: String,
    digitalocean: DigitalOcean,
    digitalocean_front: Front,
    digitalocean_token: String,
    github: GitHub,
    github_front: Front,
    github_token: String,
    /// What answers for `ghcr.io`; in the lab that is a real registry.
    registry_front: Option<Front>,
    cloudflare: Cloudflare,
    cloudflare_front: Front,
    cloudflare_token: String,
    names: NameServer,
}

impl Sandbox {
    /// Starts the simulators. Must be called inside a tokio runtime, which drives them.
    pub async fn start(options: Options) -> Result<Self, SandboxError> {
        let machines = Machines::new(&options.exe, options.lab.clone())?;
        let hetzner_token = token();
        let hetzner = Hetzner::new(&hetzner_token, machines.clone());
        let door = Door::open(address(options.listen, 0), Style::Hetzner).await?;
        let state = {
            let hetzner = hetzner.clone();
            Arc::new(move || hetzner.state())
        };
        let hetzner_front = door.serve(hetzner.router(), hetzner.knobs_router(), state);
        let digitalocean_token = token();
        let digitalocean = DigitalOcean::new(&digitalocean_token, machines.clone());
        let door = Door::open(address(options.listen, 1), Style::DigitalOcean).await?;
        let state = {
            let digitalocean = digitalocean.clone();
            Arc::new(move || digitalocean.state())
        };
        let digitalocean_front =
            door.serve(digitalocean.router(), digitalocean.knobs_router(), state);
        let github_token = token();
        let door = Door::open(address(options.listen, 2), Style::GitHub).await?;
        let github = GitHub::new(GitHubOptions {
            origin: door.origin(),
            token: github_token.clone(),
            work_dir: machines.dir().join("images"),
            machines: machines.clone(),
            repos: options.repos,
            lab: options.lab.clone(),
        })?;
        let state = {
            let github = github.clone();
            Arc::new(move || {
                let everything = github.everything();
                Box::pin(async move { everything }) as BoxFuture<'static, serde_json::Value>
            })
        };
        let github_front = door.serve(github.router(), github.knobs_router(), state);
        let registry_front = match options.lab {
            Some(_) => None,
            None => {
                let door = Door::open(address(options.listen, 4), Style::GitHub).await?;
                let state = {
                    let github = github.clone();
                    Arc::new(move || {
                        let images = github.registry().references();
                        Box::pin(async move { serde_json::json!({ "images": images }) })
                            as BoxFuture<'static, serde_json::Value>
                    })
                };
                Some(door.serve(github.images_router(), axum::Router::new(), state))
            }
        };
        let cloudflare_token = token();
        let cloudflare = Cloudflare::new(&cloudflare_token);
        let door = Door::open(address(options.listen, 3), Style::Cloudflare).await?;
        let state = {
            let cloudflare = cloudflare.clone();
            Arc::new(move || {
                let everything = cloudflare.state();
                Box::pin(async move { everything }) as BoxFuture<'static, serde_json::Value>
            })
        };
        let cloudflare_front = door.serve(cloudflare.router(), cloudflare.knobs_router(), state);
        let (of_cloudflare, of_hetzner) = (cloudflare.clone(), hetzner.clone());
        let zones: Vec<dns::ZonesOf> =
            vec![Arc::new(move || of_cloudflare.entries()), Arc::new(move || of_hetzner.entries())];
        // The lab's certificate authority asks it too.
        let at = options.lab.as_ref().map_or(address(options.listen, 0).ip(), Lab::gateway);
        let names = NameServer::start(at, zones).await?;
        Ok(Self {
            machines,
            hetzner,
            hetzner_front,
            hetzner_token,
            digitalocean,
            digitalocean_front,
            digitalocean_token,
            github,
            github_front,
            github_token,
            registry_front,
            cloudflare,
            cloudflare_front,
            cloudflare_token,
            names,
        })
    }

    /// The settings that point VMKit and other clients at the sandbox.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let registry = self.registry_front.as_ref();
        let registry = registry.map(|front| ("VMKIT_REGISTRY_URL", front.origin.clone()));
        let others = vec![
            ("VMKIT_HETZNER_URL", format!("{}/v1", self.hetzner_front.origin)),
            ("VMKIT_HETZNER_TOKEN", self.hetzner_token.clone()),
            ("VMKIT_DIGITALOCEAN_URL", self.digitalocean_front.origin.clone()),
            ("VMKIT_DIGITALOCEAN_TOKEN", self.digitalocean_token.clone()),
            ("VMKIT_GITHUB_URL", self.github_front.origin.clone()),
            ("VMKIT_GITHUB_TOKEN", self.github_token.clone()),
            // Nobody else shares these simulators' time.
            ("VMKIT_GITHUB_WRITE_SECONDS", "0".to_owned()),
            ("VMKIT_CLOUDFLARE_URL", format!("{}/client/v4", self.cloudflare_front.origin)),
            ("VMKIT_CLOUDFLARE_TOKEN", self.cloudflare_token.clone()),
            ("VMKIT_RESOLVER", self.names.address().to_string()),
            ("VMKIT_SSH_PORT", self.machines.ssh_port().to_string()),
        ];
        others.into_iter().chain(registry).collect()
    }

    /// The VMs.
    pub fn machines(&self) -> &Machines {
        &self.machines
    }

    /// The simulated Hetzner project.
    pub fn hetzner(&self) -> &Hetzner {
        &self.hetzner
    }

    /// The faults and the record of the simulated Hetzner.
    pub fn hetzner_faults(&self) -> &Faults {
        &self.hetzner_front.faults
    }

    /// Where `/_sandbox/state` and its like are, such as `http://127.0.0.1:4010`.
    pub fn hetzner_admin_url(&self) -> String {
        self.hetzner_front.origin.clone()
    }

    /// The simulated DigitalOcean account.
    pub fn digitalocean(&self) -> &DigitalOcean {
        &self.digitalocean
    }

    /// The faults and the record of the simulated DigitalOcean.
    pub fn digitalocean_faults(&self) -> &Faults {
        &self.digitalocean_front.faults
    }

    /// Where DigitalOcean's `/_sandbox/state` and its like are, such as `http://127.0.0.1:4011`.
    pub fn digitalocean_admin_url(&self) -> String {
        self.digitalocean_front.origin.clone()
    }

    /// The simulated GitHub.
    pub fn github(&self) -> &GitHub {
        &self.github
    }

    /// The faults and the record of the simulated GitHub.
    pub fn github_faults(&self) -> &Faults {
        &self.github_front.faults
    }

    /// Where GitHub's `/_sandbox/state` and its like are, such as `http://127.0.0.1:4012`.
    pub fn github_admin_url(&self) -> String {
        self.github_front.origin.clone()
    }

    /// The simulated Cloudflare account.
    pub fn cloudflare(&self) -> &Cloudflare {
        &self.cloudflare
    }

    /// The faults and the record of the simulated Cloudflare.
    pub fn cloudflare_faults(&self) -> &Faults {
        &self.cloudflare_front.faults
    }

    /// Where Cloudflare's `/_sandbox/state` and its like are, such as `http://127.0.0.1:4013`.
    pub fn cloudflare_admin_url(&self) -> String {
        self.cloudflare_front.origin.clone()
    }

    /// The name server that answers for the simulated zones.
    pub fn names(&self) -> &NameServer {
        &self.names
    }

    /// Ends the simulators and every process of every VM, and removes all files.
    pub async fn stop(self) {
        self.hetzner_front.stop().await;
        self.digitalocean_front.stop().await;
        self.github_front.stop().await;
        if let Some(registry) = &self.registry_front {
            registry.stop().await;
        }
        self.cloudflare_front.stop().await;
        self.names.stop();
        self.github.stop();
        self.machines.stop().await;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.github.stop();
        self.machines.abandon();
    }
}

/// Where the simulator that is `offset` ports after the first listens.
fn address(first: Option<SocketAddr>, offset: u16) -> SocketAddr {
    let first = first.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    match first.port() {
        0 => first,
        port => SocketAddr::new(first.ip(), port.saturating_add(offset)),
    }
}

/// A token as long as Hetzner's; GitHub's have no fixed length.
fn token() -> String {
    rand::rng().sample_iter(Alphanumeric).take(64).map(char::from).collect()
}

/// Why the sandbox cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The file system or a socket refused.
    #[error("cannot {doing} `{path}`")]
    Io {
        /// What was tried, such as `write`.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// All blocks of 127.77.0.0/16 that were tried are in use.
    #[error("no free block of addresses in 127.77.0.0/16; end other sandboxes")]
    NoAddress,
    /// No port is left for the process behind a container.
    #[error("no port is left for a container: {0}; end other sandboxes")]
    NoPort(String),
    /// The listener's address is in use or not ours.
    #[error("cannot listen on {address}; choose another with `--listen`")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The sandbox is being stopped.
    #[error("the sandbox is being stopped; start another")]
    Stopped,
    /// The lab's Docker engine refused.
    #[error("the lab cannot {doing}: {detail}")]
    Lab {
        /// What was tried, such as `use Docker`.
        doing: &'static str,
        /// What Docker said.
        detail: String,
    },
    /// The machine's host key cannot be made.
    #[error("cannot make an SSH host key")]
    HostKey(#[source] ssh_key::Error),
}

impl SandboxError {
    pub(crate) fn io(doing: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { doing, path: path.as_ref().to_owned(), source }
    }

    /// A stable name of the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "sandbox_io",
            Self::NoAddress => "sandbox_no_address",
            Self::NoPort(_) => "sandbox_no_port",
            Self::Listen { .. } => "sandbox_listen",
            Self::Stopped => "sandbox_stopped",
            Self::Lab { .. } => "sandbox_lab",
            Self::HostKey(_) => "sandbox_host_key",
        }
    }
}

/// Locks, whatever a thread that panicked left behind.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
