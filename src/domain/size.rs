//! What a cloud sells: sizes, regions, architectures and what they cost today.

use serde::{Deserialize, Serialize};

use super::money::Money;
use super::names::{RegionName, SizeName};

/// A processor architecture, which an image must match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

impl Arch {
    /// `amd64` or `arm64`, as Docker and Debian write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// A size in one region, with its live price.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// The provider's name for it.
    pub name: SizeName,
    /// The region that price and availability hold for.
    pub region: RegionName,
    /// Virtual cores.
    pub cores: u32,
    /// Whether the cores are ours alone.
    pub dedicated: bool,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disk in GB.
    pub disk_gb: u64,
    /// Architecture.
    pub arch: Arch,
    /// Net price per month, the public IPv4 address included.
    pub monthly: Money,
    /// Whether the provider says that it can be ordered there now.
    pub available: bool,
}
