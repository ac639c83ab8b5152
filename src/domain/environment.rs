//! Apps, environments and VMs as the rest of VMKit sees them.

use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::clock::Millis;
use super::ids::{AppId, EnvironmentId, VmId};
use super::names::{
    AppSlug, Domain, EnvironmentName, EnvironmentPath, RegionName, RepoName, SizeName,
};
use super::run_settings::RunSettings;
use super::size::Arch;

/// A GitHub repo and a root directory in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Its id.
    pub id: AppId,
    /// Its short name.
    pub slug: AppSlug,
    /// The repo's numeric id: a rename does not break it.
    pub repo_id: u64,
    /// The repo's name when it was last seen.
    pub repo: RepoName,
    /// The repo's default branch when it was last seen.
    pub default_branch: String,
    /// The folder of the app in the repo, `.` for the top.
    pub root: String,
    /// Whether its files, images and secrets carry its name: those of the repo's first app do not.
    pub named_files: bool,
    /// When it was made.
    pub created_at: Millis,
}

/// A named place where an app runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Its id.
    pub id: EnvironmentId,
    /// Its app.
    pub app: AppId,
    /// `app/name`.
    pub path: EnvironmentPath,
    /// The VM that it runs on, once there is one.
    pub vm: Option<VmId>,
    /// What a person chose.
    pub settings: Settings,
    /// How its app is built and run, as far as somebody chose.
    #[serde(default)]
    pub run: RunSettings,
    /// The newest revision of its env values; 0 before the first.
    pub env_revision: u32,
    /// When it was made.
    pub created_at: Millis,
}

impl Environment {
    /// The environment's name within its app.
    pub fn name(&self) -> &EnvironmentName {
        &self.path.name
    }
}

/// What a person chose for an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The cloud to order from; where none is named, the one that has size and region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The size to order.
    pub size: SizeName,
    /// The region to order in.
    pub region: RegionName,
    /// The public name; none means a plain HTTP address.
    pub domain: Option<Domain>,
    /// The port that the app listens on.
    pub port: u16,
    /// The path that answers 2xx when the app is ready.
    pub health_path: String,
    /// Whether losing it, or spending on it, needs a person's approval.
    pub protected: bool,
}

impl Settings {
    /// Whether asking for these would change nothing where `stored` holds.
    pub fn are(&self, stored: &Self) -> bool {
        let provider = self.provider.clone().or_else(|| stored.provider.clone());
        Self { provider, ..self.clone() } == *stored
    }
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// Its id; its name at the cloud is `vmkit-` and the bare id.
    pub id: VmId,
    /// The cloud: `hetzner`, `digitalocean`; `ssh` for a machine of the person's own.
    pub provider: String,
    /// The cloud's own id, once the cloud has answered.
    pub provider_id: Option<String>,
    /// Its size.
    pub size: SizeName,
    /// Its region.
    pub region: RegionName,
    /// Its architecture.
    pub arch: Arch,
    /// Its public IPv4 address, once known.
    pub address: Option<IpAddr>,
    /// The cloud's id of an address of its own, which survives the server; none where the address
    /// goes with the server.
    pub address_id: Option<String>,
    /// The host's own address in its IPv6 network, once known.
    pub ipv6: Option<Ipv6Addr>,
    /// The line of `known_hosts` for it, once the agent has reported its host key.
    pub known_hosts: Option<String>,
    /// Where it is in its life.
    pub state: VmState,
    /// When the row was made, before the server was.
    pub created_at: Millis,
}

impl Vm {
    /// The provider of a machine of the person's own: reached by SSH, and in nobody's API. There is
    /// no power, no size and no snapshot of it.
    pub const OWN_MACHINE: &'static str = "ssh";

    /// Whether it is such a machine.
    pub fn is_own_machine(&self) -> bool {
        self.provider == Self::OWN_MACHINE
    }

    /// The server's name at the cloud: made of our id, so a retry finds it.
    pub fn cloud_name(id: &VmId) -> String {
        format!("vmkit-{}", id.bare())
    }
}

/// Where a VM is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// Its row exists; the server may.
    Ordered,
    /// Its agent has linked once.
    Ready,
    /// It is powered off, and billed in full, so that a destroy can be undone.
    Parked,
    /// Its server is gone; its disk is kept as a snapshot, so that a destroy can be undone.
    Kept,
    /// It is being taken away.
    Deleting,
    /// It is gone.
    Deleted,
}

impl VmState {
    /// The stored and shown form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Ready => "ready",
            Self::Parked => "parked",
            Self::Kept => "kept",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
        }
    }
}
