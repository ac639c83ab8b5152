//! What is known of a failed run, or of an environment in trouble. All of it is optional, and all of
//! it is data that others wrote.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The facts that a diagnosis rests on. The fewer there are, the more careful it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Evidence {
    /// The environment, `app/name`, for the call that a fix names.
    pub environment: Option<String>,
    /// How GitHub's run ended: `failure`, `cancelled`, `timed_out`, `startup_failure`, `success`.
    pub conclusion: Option<String>,
    /// The failed job's name.
    pub job: Option<String>,
    /// The name of its failed step.
    pub step: Option<String>,
    /// GitHub's annotations of the failed job: the only place that names billing and time-outs.
    pub annotations: Vec<String>,
    /// The failed job's log.
    pub job_log: String,
    /// The end of the output of the version in question, oldest line first.
    pub app_log: String,
    /// The end of kamal-proxy's own log on the VM, which knows why a health check failed.
    pub proxy_log: String,
    /// A role of the version did not stay up after a run that ended well, in the proof's words. What
    /// served before serves again then, and the version's containers are put away.
    pub role_dies: Option<String>,
    /// The containers of the version in question; of the live one where none failed.
    pub containers: Vec<ContainerFacts>,
    /// The VM.
    pub vm: VmFacts,
    /// The VM's recorded address.
    pub address: Option<IpAddr>,
    /// What the app's name resolves to; none where it has no name, or nobody asked.
    pub name: Option<NameFacts>,
    /// The certificate that the VM shows for the name.
    pub certificate: Option<Certificate>,
    /// What the app answered at the VM's address, under its name.
    pub probe: Option<Probe>,
    /// The env keys that differ from the last good deploy: `GREETING changed`.
    pub env_changed: Vec<String>,
    /// Whether the commit is that of the last good deploy; none where nobody knows.
    pub same_commit: Option<bool>,
    /// Why GitHub refused to start the run, in our client's words; there is none then.
    pub refused: Option<String>,
    /// Why GitHub could not be asked, in our client's words.
    pub github: Option<String>,
    /// The port on which the app has to listen.
    pub port: Option<u16>,
    /// The path that the proxy asks.
    pub health_path: Option<String>,
}

/// One container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContainerFacts {
    /// Its name.
    pub name: String,
    /// Its role, such as `web`.
    pub role: String,
    /// The version that it runs, where its name tells.
    pub version: Option<String>,
    /// `running`, `exited`, `restarting`, as Docker says it.
    pub state: String,
    /// How the last run ended.
    pub exit_code: Option<i64>,
    /// The kernel ended it for want of memory.
    pub oom_killed: bool,
    /// How often Docker restarted it.
    pub restarts: u32,
    /// Docker's own health check, where the image has one.
    pub health: Option<String>,
    /// The image's architecture, where somebody knows it.
    pub image_arch: Option<String>,
}

/// Whether a VM has power, as its cloud says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// Nobody asked, or the cloud did not say.
    #[default]
    Unknown,
    /// It is up.
    On,
    /// It is down, and billed.
    Off,
    /// The cloud does not have it any more.
    Gone,
}

/// A VM.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VmFacts {
    /// Whether it has power.
    pub power: Power,
    /// Whether its agent is linked.
    pub agent_linked: Option<bool>,
    /// `amd64` or `arm64`.
    pub arch: Option<String>,
    /// Memory in all, in bytes.
    pub memory_bytes: Option<u64>,
    /// What could be had without swapping, in bytes.
    pub memory_available_bytes: Option<u64>,
    /// The root disk's size, in bytes.
    pub disk_bytes: Option<u64>,
    /// What is free of it, in bytes.
    pub disk_free_bytes: Option<u64>,
    /// Share of the last 10 s in which some task waited for memory, 0 to 1.
    pub memory_pressure: Option<f64>,
}

/// A name in the DNS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NameFacts {
    /// The name.
    pub name: String,
    /// Its addresses; empty where it has none.
    pub resolves_to: Vec<IpAddr>,
}

/// What the VM shows at port 443.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certificate {
    /// One that is good.
    Good,
    /// One whose time is over.
    Expired,
    /// None, or one of another name.
    Missing,
}

/// What came back from the app's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// An HTTP status.
    Status(u16),
    /// Why there was no answer.
    Error(String),
}
