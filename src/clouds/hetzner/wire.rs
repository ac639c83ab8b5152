//! Hetzner's JSON, as much of it as is read. Every word that may grow is a plain string, and what
//! is not always there has a default, so that an addition never breaks a read.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Default, Deserialize)]
pub(super) struct ErrorBody {
    #[serde(default)]
    pub(super) error: Fault,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Fault {
    #[serde(default)]
    pub(super) code: String,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    details: Value,
}

impl Fault {
    /// The fields of an `invalid_input`, each with its messages.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, String)> {
        self.details["fields"].as_array().into_iter().flatten().map(|field| {
            let messages: Vec<&str> = field["messages"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            (field["name"].as_str().unwrap_or_default(), messages.join(", "))
        })
    }

    /// The limits of a `resource_limit_exceeded`.
    pub(super) fn limits(&self) -> impl Iterator<Item = &str> {
        self.details["limits"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|limit| limit["name"].as_str())
    }
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Paged {
    #[serde(default)]
    pub(super) meta: Meta,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Meta {
    #[serde(default)]
    pub(super) pagination: Pagination,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Pagination {
    #[serde(default)]
    pub(super) next_page: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ServerBody {
    pub(super) server: Server,
}

#[derive(Debug, Deserialize)]
pub(super) struct Servers {
    pub(super) servers: Vec<Server>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Server {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) status: String,
    #[serde(default)]
    pub(super) created: Option<String>,
    #[serde(default)]
    pub(super) public_net: PublicNet,
    pub(super) server_type: Named,
    #[serde(default)]
    pub(super) location: Option<Named>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) protection: Protection,
    /// Whether an action runs on it, so that no other may begin.
    #[serde(default)]
    pub(super) locked: bool,
    #[serde(default)]
    pub(super) primary_disk_size: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Protection {
    #[serde(default)]
    pub(super) delete: bool,
    #[serde(default)]
    pub(super) rebuild: bool,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct PublicNet {
    #[serde(default)]
    pub(super) ipv4: Option<NetAddress>,
    /// Its `ip` is a network, such as `2001:db8::/64`.
    #[serde(default)]
    pub(super) ipv6: Option<NetAddress>,
}

#[derive(Debug, Deserialize)]
pub(super) struct NetAddress {
    /// The primary IP that it is.
    #[serde(default)]
    pub(super) id: Option<u64>,
    #[serde(default)]
    pub(super) ip: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Named {
    pub(super) name: String,
    #[serde(default)]
    pub(super) architecture: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct ActionBody {
    pub(super) action: Action,
}

#[derive(Debug, Deserialize)]
pub(super) struct Action {
    pub(super) id: u64,
    #[serde(default)]
    pub(super) command: String,
    pub(super) status: String,
    #[serde(default)]
    pub(super) error: Option<Fault>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Actions {
    pub(super) actions: Vec<Action>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ServerTypes {
    pub(super) server_types: Vec<ServerType>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ServerType {
    pub(super) name: String,
    /// Documented as a number, not as a whole one.
    pub(super) cores: f64,
    /// GB, sometimes with a fraction.
    pub(super) memory: f64,
    pub(super) disk: f64,
    #[serde(default)]
    pub(super) cpu_type: String,
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) prices: Vec<LocationPrice>,
    #[serde(default)]
    pub(super) locations: Vec<TypeLocation>,
}

#[derive(Debug, Deserialize)]
pub(super) struct TypeLocation {
    pub(super) name: String,
    #[serde(default)]
    pub(super) available: Option<bool>,
    #[serde(default)]
    pub(super) deprecation: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct LocationPrice {
    pub(super) location: String,
    pub(super) price_monthly: Price,
    /// In bytes; addresses have none.
    #[serde(default)]
    pub(super) included_traffic: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Price {
    /// A decimal in a string.
    pub(super) net: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct PricingBody {
    pub(super) pricing: Pricing,
}

#[derive(Debug, Deserialize)]
pub(super) struct Pricing {
    pub(super) currency: String,
    #[serde(default)]
    pub(super) primary_ips: Vec<AddressPrice>,
    #[serde(default)]
    pub(super) image: Option<GbPrice>,
    #[serde(default)]
    pub(super) volume: Option<GbPrice>,
}

#[derive(Debug, Deserialize)]
pub(super) struct GbPrice {
    pub(super) price_per_gb_month: Price,
}

#[derive(Debug, Deserialize)]
pub(super) struct AddressPrice {
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) prices: Vec<LocationPrice>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Images {
    pub(super) images: Vec<Image>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ImageBody {
    pub(super) image: Image,
}

#[derive(Debug, Deserialize)]
pub(super) struct Image {
    pub(super) id: u64,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) description: Option<String>,
    /// GB, as billed; none while it is being made.
    #[serde(default)]
    pub(super) image_size: Option<f64>,
    /// GB.
    #[serde(default)]
    pub(super) disk_size: f64,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) protection: Protection,
    #[serde(default)]
    pub(super) created: Option<String>,
    #[serde(default)]
    pub(super) status: Option<String>,
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) deprecation: Option<Value>,
    #[serde(default)]
    pub(super) deprecated: Option<Value>,
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
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
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
    pub(super) id: u64,
    pub(super) name: String,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PrimaryIps {
    pub(super) primary_ips: Vec<PrimaryIp>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PrimaryIpBody {
    pub(super) primary_ip: PrimaryIp,
}

#[derive(Debug, Deserialize)]
pub(super) struct PrimaryIp {
    pub(super) id: u64,
    #[serde(default)]
    pub(super) name: String,
    pub(super) ip: String,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) location: Option<Named>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) protection: Protection,
    #[serde(default)]
    pub(super) auto_delete: bool,
    #[serde(default)]
    pub(super) assignee_type: Option<String>,
    #[serde(default)]
    pub(super) assignee_id: Option<u64>,
}
