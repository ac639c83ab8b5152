//! What a cloud sells: sizes, regions, architectures and what they cost today.

mod nearest;
mod need;

use serde::{Deserialize, Serialize};

use super::money::Money;
use super::names::{RegionName, SizeName};

pub use nearest::{Alternative, Why, misfit, nearest, told};
pub use need::{DiskOnly, Need, disk_only, rank, unmet};

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
    /// The cloud that sells it: `hetzner`, `digitalocean`. What was stored before there was a
    /// second one says nothing, and means the first.
    #[serde(default = "first_cloud")]
    pub provider: String,
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
    /// Traffic out per month that the price includes, in GB; none where the cloud does not tell.
    #[serde(default)]
    pub traffic_gb: Option<u64>,
    /// Net price per month, the public IPv4 address included.
    pub monthly: Money,
    /// Whether the provider says that it can be ordered there now.
    pub available: bool,
}

fn first_cloud() -> String {
    "hetzner".to_owned()
}

/// A size in one region, and whose it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// The cloud: `hetzner`.
    pub cloud: String,
    /// What it sells.
    pub size: Size,
}

impl Offer {
    /// A size of its own cloud.
    pub fn of(size: Size) -> Self {
        Self { cloud: size.provider.clone(), size }
    }
}

/// What a size is good for (the founding sizing advice).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suits {
    /// Up to 4 GiB.
    Small,
    /// Up to 8 GiB.
    Production,
    /// Up to 16 GiB.
    Inference,
    /// More than that.
    Memory,
}

impl Suits {
    /// The advice in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Small => "small APIs and personal projects",
            Self::Production => "production with moderate traffic or sidecars",
            Self::Inference => "ML inference and several apps",
            Self::Memory => "memory-heavy work and local LLMs",
        }
    }
}

/// What a size suits: the smaller of what its memory and what its cores allow, since eight GiB
/// behind one core serve no more traffic than four.
pub fn suits(size: &Size) -> Suits {
    let by_memory = match size.memory_mib {
        0..=4_096 => 0,
        4_097..=8_192 => 1,
        8_193..=16_384 => 2,
        _ => 3,
    };
    let by_cores = match size.cores {
        0..=1 => 0,
        2..=3 => 1,
        // Memory beyond 16 GiB is what local models want, however many cores there are.
        _ => 3,
    };
    match by_memory.min(by_cores) {
        0 => Suits::Small,
        1 => Suits::Production,
        2 => Suits::Inference,
        _ => Suits::Memory,
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::domain::money::Currency;

    /// `cloud name region arch cores/GiB/GB price available`.
    pub(crate) fn offer(text: &str) -> Offer {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [cloud, name, region, arch, shape, price, rest @ ..] = words.as_slice() else {
            panic!("{text}")
        };
        let shape: Vec<u64> =
            shape.split('/').map(|part| part.parse().expect("a number")).collect();
        let currency = if *cloud == "hetzner" { Currency::Eur } else { Currency::Usd };
        Offer {
            cloud: (*cloud).to_owned(),
            size: Size {
                provider: (*cloud).to_owned(),
                name: name.parse().expect("a size"),
                region: region.parse().expect("a region"),
                cores: shape[0] as u32,
                dedicated: name.starts_with("ccx"),
                memory_mib: shape[1] * 1024,
                disk_gb: shape[2],
                arch: if *arch == "arm64" { Arch::Arm64 } else { Arch::Amd64 },
                traffic_gb: Some(20_000),
                monthly: Money::new(price.parse().expect("a price"), currency),
                available: rest.is_empty(),
            },
        }
    }

    /// A small catalogue of two clouds.
    pub(crate) fn offers() -> Vec<Offer> {
        [
            "hetzner cx23 fsn1 amd64 2/4/40 5.99",
            "hetzner cx23 nbg1 amd64 2/4/40 5.99",
            "hetzner cax11 fsn1 arm64 2/4/40 6.49",
            "hetzner cax11 nbg1 arm64 2/4/40 6.49",
            "hetzner cax11 hel1 arm64 2/4/40 6.49",
            "hetzner cx33 fsn1 amd64 4/8/80 8.99",
            "hetzner cpx22 fsn1 amd64 2/4/80 19.99",
            "hetzner cpx32 fsn1 amd64 4/8/160 35.99",
            "hetzner ccx13 fsn1 amd64 2/8/80 43.49",
            "hetzner cpx11 ash amd64 2/2/40 17.99",
            "hetzner cpx21 ash amd64 3/4/80 32.49",
            "digitalocean s-1vcpu-1gb fra1 amd64 1/1/25 6",
            "digitalocean s-2vcpu-4gb fra1 amd64 2/4/80 24",
            "digitalocean s-4vcpu-8gb fra1 amd64 4/8/160 48",
        ]
        .map(offer)
        .to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::offer;
    use super::*;

    #[test]
    fn the_sizing_advice_goes_by_memory_and_cores() {
        let rows = [
            ("hetzner cx23 fsn1 amd64 2/4/40 1", Suits::Small),
            ("hetzner cpx12 fsn1 amd64 1/2/40 1", Suits::Small),
            ("hetzner odd1 fsn1 amd64 1/8/40 1", Suits::Small),
            ("hetzner cx33 fsn1 amd64 4/8/80 1", Suits::Production),
            ("hetzner ccx13 fsn1 amd64 2/8/80 1", Suits::Production),
            ("hetzner odd2 fsn1 amd64 2/16/80 1", Suits::Production),
            ("hetzner cax31 fsn1 arm64 8/16/160 1", Suits::Inference),
            ("hetzner cax41 fsn1 arm64 16/32/320 1", Suits::Memory),
        ];
        for (text, advice) in rows {
            assert_eq!(suits(&offer(text).size), advice, "{text}");
        }
    }

    #[test]
    fn a_size_that_an_older_version_stored_is_read() {
        let mut stored =
            serde_json::to_value(offer("hetzner cx23 fsn1 amd64 2/4/40 5.99").size).expect("JSON");
        stored.as_object_mut().expect("an object").remove("traffic_gb");
        let read: Size = serde_json::from_value(stored).expect("a size");
        assert_eq!(read.traffic_gb, None);
    }
}
