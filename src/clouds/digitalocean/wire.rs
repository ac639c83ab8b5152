//! DigitalOcean's JSON, as much of it as is read. Every word that may grow is a plain string, and
//! what is not always there has a default, so that an addition never breaks a read.

use std::str::FromStr;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Debug, Default, Deserialize)]
pub(super) struct Fault {
    #[serde(default)]
    pub(super) id: String,
    #[serde(default)]
    pub(super) message: String,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Paged {
    #[serde(default)]
    pub(super) links: Links,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Links {
    #[serde(default)]
    pub(super) pages: Pages,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Pages {
    #[serde(default)]
    pub(super) next: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct AccountBody {
    pub(super) account: Account,
}

#[derive(Debug, Deserialize)]
pub(super) struct Account {
    #[serde(default)]
    pub(super) droplet_limit: Option<u32>,
    #[serde(default)]
    pub(super) status: String,
    #[serde(default)]
    pub(super) status_message: String,
    #[serde(default)]
    pub(super) email_verified: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Droplets {
    pub(super) droplets: Vec<Droplet>,
}

#[derive(Debug, Deserialize)]
pub(super) struct DropletBody {
    pub(super) droplet: Droplet,
}

#[derive(Debug, Deserialize)]
pub(super) struct Droplet {
    pub(super) id: u64,
    pub(super) name: String,
    #[serde(default)]
    pub(super) status: String,
    /// Whether an action is under way.
    #[serde(default)]
    pub(super) locked: bool,
    #[serde(default)]
    pub(super) disk: Option<u64>,
    #[serde(default)]
    pub(super) size_slug: String,
    #[serde(default)]
    pub(super) region: Region,
    #[serde(default)]
    pub(super) networks: Networks,
    #[serde(default)]
    pub(super) tags: Vec<String>,
    #[serde(default)]
    pub(super) created_at: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Region {
    #[serde(default)]
    pub(super) slug: String,
    #[serde(default)]
    pub(super) available: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Networks {
    #[serde(default)]
    pub(super) v4: Vec<Network>,
    #[serde(default)]
    pub(super) v6: Vec<Network>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Network {
    #[serde(default)]
    pub(super) ip_address: String,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Actions {
    pub(super) actions: Vec<Action>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ActionBody {
    pub(super) action: Action,
}

#[derive(Debug, Deserialize)]
pub(super) struct Action {
    pub(super) id: u64,
    pub(super) status: String,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Sizes {
    pub(super) sizes: Vec<Size>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Size {
    pub(super) slug: String,
    /// MiB.
    pub(super) memory: u64,
    pub(super) vcpus: u32,
    /// GB.
    pub(super) disk: u64,
    /// Included traffic in TB.
    #[serde(default)]
    pub(super) transfer: Option<f64>,
    pub(super) price_monthly: Price,
    #[serde(default)]
    pub(super) regions: Vec<String>,
    #[serde(default)]
    pub(super) available: Option<bool>,
}

/// A JSON number as it is written: as a float it would no longer be the price.
#[derive(Debug, Deserialize)]
pub(super) struct Price(Box<RawValue>);

impl Price {
    /// The amount; none where it is no number.
    pub(super) fn amount(&self) -> Option<Decimal> {
        let text = self.0.get().trim_matches('"');
        Decimal::from_str(text).or_else(|_| Decimal::from_scientific(text)).ok()
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Regions {
    pub(super) regions: Vec<Region>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Images {
    pub(super) images: Vec<Image>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Image {
    #[serde(default)]
    pub(super) slug: Option<String>,
    #[serde(default)]
    pub(super) status: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct SshKeys {
    pub(super) ssh_keys: Vec<SshKey>,
}

#[derive(Debug, Deserialize)]
pub(super) struct SshKeyBody {
    pub(super) ssh_key: SshKey,
}

#[derive(Debug, Deserialize)]
pub(super) struct SshKey {
    pub(super) id: u64,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) public_key: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Firewalls {
    pub(super) firewalls: Vec<Firewall>,
}

#[derive(Debug, Deserialize)]
pub(super) struct FirewallBody {
    pub(super) firewall: Firewall,
}

#[derive(Debug, Deserialize)]
pub(super) struct Firewall {
    pub(super) id: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) tags: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Snapshots {
    pub(super) snapshots: Vec<Snapshot>,
}

#[derive(Debug, Deserialize)]
pub(super) struct SnapshotBody {
    pub(super) snapshot: Snapshot,
}

#[derive(Debug, Deserialize)]
pub(super) struct Snapshot {
    pub(super) id: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) resource_id: String,
    #[serde(default)]
    pub(super) size_gigabytes: Option<f64>,
    #[serde(default)]
    pub(super) min_disk_size: u64,
    #[serde(default)]
    pub(super) regions: Vec<String>,
    #[serde(default)]
    pub(super) tags: Option<Vec<String>>,
    #[serde(default)]
    pub(super) created_at: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ReservedIps {
    pub(super) reserved_ips: Vec<ReservedIp>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ReservedIpBody {
    pub(super) reserved_ip: ReservedIp,
}

#[derive(Debug, Deserialize)]
pub(super) struct ReservedIp {
    pub(super) ip: String,
    #[serde(default)]
    pub(super) region: Region,
    #[serde(default)]
    pub(super) droplet: Option<DropletId>,
}

#[derive(Debug, Deserialize)]
pub(super) struct DropletId {
    #[serde(default)]
    pub(super) id: Option<u64>,
}

impl ReservedIp {
    /// The droplet that uses it.
    pub(super) fn droplet_id(&self) -> Option<u64> {
        self.droplet.as_ref().and_then(|droplet| droplet.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_never_becomes_a_float() {
        for (text, amount) in [
            ("24", "24"),
            ("24.0", "24.0"),
            ("0.00595", "0.00595"),
            ("1e1", "10"),
            ("\"6.00\"", "6.00"),
        ] {
            let price: Price = serde_json::from_str(text).expect("a price");
            assert_eq!(price.amount(), Decimal::from_str(amount).ok(), "{text}");
        }
        let none: Price = serde_json::from_str("null").expect("something");
        assert_eq!(none.amount(), None);
    }
}
