//! What a gateway may ask of an agent: a closed list, and no shell among it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::beside::{Control, Controlled, RemoveService, ServiceFile};
use crate::bytes::Hidden;
use crate::care::{Care, Cared};
use crate::logs::{FollowLogs, LogRange, LogRangeReply, SystemLogRange};
pub use crate::metrics::{Metrics, Pressure};
use crate::metrics::{MetricsHistory, MetricsRange};
use crate::upkeep::{HeldLock, KamalLocks, Upkeep};

/// A request to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Call {
    /// What the VM is: answered by [`Reply::HostFacts`].
    HostFacts,
    /// All containers, stopped ones too: answered by [`Reply::Containers`].
    Containers,
    /// Puts an environment's env file in place: answered by [`Reply::EnvFileWritten`].
    WriteEnvFile(EnvFile),
    /// Lines of the past: answered by [`Reply::Logs`].
    Logs(LogRange),
    /// Lines of the machine's own past: answered by [`Reply::Logs`].
    SystemLogs(SystemLogRange),
    /// A stream of [`crate::messages::Item::Logs`] until it is cancelled.
    FollowLogs(FollowLogs),
    /// How the VM is doing: answered by [`Reply::Metrics`].
    Metrics,
    /// How it was, by the minutes that the agent keeps: answered by [`Reply::MetricsHistory`].
    MetricsHistory(MetricsRange),
    /// Takes Kamal's lock of every service on the VM, or none: answered by [`Reply::KamalLocks`].
    TakeKamalLocks(KamalLocks),
    /// Gives back the locks that this work took; none is fine: answered by [`Reply::KamalLocks`].
    ReleaseKamalLocks(Upkeep),
    /// Stops the apps, then the services beside them, and keeps on the VM what ran: answered by
    /// [`Reply::Quiesced`].
    Quiesce(Upkeep),
    /// Starts exactly what was stopped so, the services first: answered by [`Reply::Resumed`].
    Resume(Upkeep),
    /// Makes the SSH host key that will take the place of the one from the user-data, and keeps
    /// it aside: answered by [`Reply::HostKeyPrepared`], with the same key until it is installed.
    PrepareHostKey,
    /// Puts the prepared host key in place and lets the SSH server read it: answered by
    /// [`Reply::HostKeyInstalled`].
    InstallHostKey {
        /// The prepared key's public half, so that no other is meant.
        public_key: String,
    },
    /// Takes one app off a VM that others use: answered by [`Reply::AppRemoved`].
    RemoveApp(RemoveApp),
    /// Cares for the VM as a whole: answered by [`Reply::Cared`].
    Care(Care),
    /// Puts the env file of a service beside an app in place: answered by
    /// [`Reply::ServiceFileWritten`].
    WriteServiceFile(ServiceFile),
    /// Takes a service beside an app off the VM: answered by [`Reply::AppRemoved`].
    RemoveService(RemoveService),
    /// Restarts, stops or starts the containers of an app, or of one service beside it: answered by
    /// [`Reply::Controlled`].
    Control(Control),
    /// Who holds Kamal's lock of one service: answered by [`Reply::KamalLocks`].
    KamalLock {
        /// Such as `shop-staging`.
        service: String,
    },
    /// Breaks that lock of Kamal's, and no other: answered by [`Reply::KamalLocks`], with what is
    /// held where that is another one by now.
    BreakKamalLock(HeldLock),
    /// Ends what runs of an app in roles that it has no more: Kamal leaves them running. Answered by
    /// [`Reply::AppRemoved`].
    RetireRoles(RetireRoles),
    /// From a newer gateway; the agent answers with the fault `unsupported`.
    #[serde(other)]
    Unknown,
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Call::HostFacts`].
    HostFacts(HostFacts),
    /// To [`Call::Containers`].
    Containers {
        /// In the order of their names.
        containers: Vec<Container>,
    },
    /// To [`Call::WriteEnvFile`].
    EnvFileWritten {
        /// The revision that is in place.
        revision: u32,
        /// False where it was in place already.
        changed: bool,
    },
    /// To [`Call::Logs`] and [`Call::SystemLogs`].
    Logs(LogRangeReply),
    /// To [`Call::Metrics`].
    Metrics(Box<Metrics>),
    /// To [`Call::MetricsHistory`].
    MetricsHistory(Box<MetricsHistory>),
    /// To [`Call::TakeKamalLocks`], [`Call::ReleaseKamalLocks`], [`Call::KamalLock`] and
    /// [`Call::BreakKamalLock`].
    KamalLocks {
        /// The services whose locks were taken, given back or broken.
        services: Vec<String>,
        /// Somebody's lock, for which none was taken or broken.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        held: Option<HeldLock>,
    },
    /// To [`Call::Quiesce`].
    Quiesced {
        /// The names of the containers that [`Call::Resume`] will start.
        containers: Vec<String>,
    },
    /// To [`Call::Resume`].
    Resumed {
        /// The names of the containers that run again.
        containers: Vec<String>,
        /// Those that are not there any more.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        missing: Vec<String>,
    },
    /// To [`Call::PrepareHostKey`].
    HostKeyPrepared {
        /// As in `known_hosts` without the host: `ssh-ed25519 AAAA…`.
        public_key: String,
    },
    /// To [`Call::InstallHostKey`].
    HostKeyInstalled {
        /// False where it was in place already.
        changed: bool,
    },
    /// To [`Call::RemoveApp`], [`Call::RemoveService`] and [`Call::RetireRoles`].
    AppRemoved(AppRemoved),
    /// To [`Call::Care`].
    Cared(Cared),
    /// To [`Call::WriteServiceFile`].
    ServiceFileWritten {
        /// False where it was in place already.
        changed: bool,
        /// Whether the VM had a volume of the service's name before.
        #[serde(default)]
        volume: bool,
    },
    /// To [`Call::Control`].
    Controlled(Controlled),
    /// From a newer agent.
    #[serde(other)]
    Unknown,
}

/// Which app is to go from a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveApp {
    /// The app's slug.
    pub app: String,
    /// The environment's name.
    pub environment: String,
    /// The Kamal services whose containers go: `APP-ENV`, and those of its accessories.
    pub services: Vec<String>,
    /// The public key that deploys it, where nobody else's does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy_key: Option<String>,
    /// Whether the volumes of those containers go too, which loses their data.
    #[serde(default)]
    pub volumes: bool,
    /// Volumes that go with them although no container may have them any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_names: Vec<String>,
}

/// Which roles of an app are to go from a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetireRoles {
    /// The app's slug.
    pub app: String,
    /// The environment's name.
    pub environment: String,
    /// As in the labels that Kamal gives: `worker`, ...
    pub roles: Vec<String>,
}

/// What went with an app.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AppRemoved {
    /// The containers' names.
    pub containers: Vec<String>,
    /// Whether the proxy had a route to it.
    pub route: bool,
    /// The volumes' names.
    pub volumes: Vec<String>,
    /// Whether the deploy key lets nobody in any more.
    pub key: bool,
}

/// An environment's runtime env values, as Docker's `--env-file` reads them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvFile {
    /// The app's slug.
    pub app: String,
    /// The environment's name.
    pub environment: String,
    /// Which revision of the values this is. The same revision with the same content is fine.
    pub revision: u32,
    /// The file's content.
    pub content: Hidden,
}

/// What a VM is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostFacts {
    /// The VM's own name.
    pub hostname: String,
    /// The operating system, such as `Debian GNU/Linux 13 (trixie)`.
    pub os: String,
    /// The kernel's release.
    pub kernel: String,
    /// `amd64` or `arm64`, else as the kernel says it.
    pub arch: String,
    /// The Docker engine.
    pub docker: DockerFacts,
    /// One line each, as in `known_hosts` without the host: `ssh-ed25519 AAAA…`.
    pub ssh_host_keys: Vec<String>,
    /// How many CPUs.
    pub cpus: u32,
    /// Memory in all, in bytes.
    pub memory_bytes: u64,
    /// The root disk's size, in bytes.
    pub disk_bytes: u64,
    /// What is free of it, in bytes.
    pub disk_free_bytes: u64,
    /// Changes with every boot.
    pub boot_id: String,
    /// The agent's version.
    pub agent_version: String,
}

/// The Docker engine, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DockerFacts {
    /// Its version, where it answers.
    pub version: Option<String>,
    /// Why it does not, where it does not.
    pub absent_because: Option<String>,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// The full id.
    pub id: String,
    /// The name, without Docker's leading slash.
    pub name: String,
    /// The image as it was asked for.
    pub image: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// As Docker says it: `running`, `exited`, `restarting`, …
    pub state: String,
    /// Health as Docker says it, where the image has a health check: `healthy`, `starting`, …
    pub health: Option<String>,
    /// How the last run ended, where the container is not running.
    pub exit_code: Option<i64>,
    /// The kernel ended it for want of memory.
    pub oom_killed: bool,
    /// How often Docker restarted it.
    pub restarts: u32,
    /// When the last run began, in milliseconds since 1970.
    pub started_at_ms: Option<i64>,
    /// The ports that the machine outside sees.
    pub ports: Vec<PublishedPort>,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishedPort {
    /// Inside the container.
    pub container_port: u16,
    /// The address outside; `0.0.0.0` for all.
    pub host_ip: String,
    /// The port outside.
    pub host_port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}
