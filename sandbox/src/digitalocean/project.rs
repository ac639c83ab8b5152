//! The resources of a simulated account, and how its actions go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::answers;
use super::catalogue::{Region, Size};
use super::errors::ApiError;
use super::knobs::Knobs;
use crate::clock;
use crate::machines::Disk;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    New,
    Active,
    Off,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Active => "active",
            Self::Off => "off",
        }
    }
}

pub(super) struct Droplet {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) status: Status,
    pub(super) created: Timestamp,
    pub(super) size: &'static Size,
    pub(super) disk: u64,
    pub(super) region: &'static Region,
    /// As the API showed it when the disk was written.
    pub(super) image: Value,
    pub(super) tags: BTreeSet<String>,
    pub(super) locked: bool,
    /// The machine's address.
    pub(super) address: IpAddr,
    /// Whether it has started once: it has no networks before.
    pub(super) started: bool,
    pub(super) ipv6: bool,
    pub(super) user_data: String,
}

pub(super) struct Action {
    pub(super) id: u64,
    pub(super) kind: String,
    pub(super) started: Timestamp,
    /// When it ended, and whether well.
    pub(super) ended: Option<(Timestamp, bool)>,
    pub(super) resource: u64,
    pub(super) resource_type: &'static str,
    pub(super) region: &'static Region,
}

pub(super) struct SshKey {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) fingerprint: String,
    pub(super) public_key: String,
}

pub(super) struct Firewall {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) created: Timestamp,
    pub(super) inbound: Vec<Value>,
    pub(super) outbound: Vec<Value>,
    pub(super) droplets: BTreeSet<u64>,
    pub(super) tags: BTreeSet<String>,
}

pub(super) struct Snapshot {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) created: Timestamp,
    pub(super) droplet: u64,
    pub(super) regions: Vec<&'static str>,
    pub(super) min_disk: u64,
    pub(super) disk: Disk,
    pub(super) tags: BTreeSet<String>,
}

pub(super) struct ReservedIp {
    pub(super) ip: IpAddr,
    pub(super) region: &'static Region,
    pub(super) droplet: Option<u64>,
    pub(super) locked: bool,
}

pub(super) struct Domain {
    pub(super) ttl: u64,
    pub(super) records: BTreeMap<u64, Value>,
}

pub(super) struct Project {
    last_id: u64,
    pub(super) droplets: BTreeMap<u64, Droplet>,
    pub(super) actions: BTreeMap<u64, Action>,
    pub(super) ssh_keys: BTreeMap<u64, SshKey>,
    pub(super) firewalls: BTreeMap<String, Firewall>,
    pub(super) snapshots: BTreeMap<u64, Snapshot>,
    pub(super) reserved_ips: BTreeMap<IpAddr, ReservedIp>,
    pub(super) tags: BTreeSet<String>,
    pub(super) domains: BTreeMap<String, Domain>,
}

impl Project {
    pub(super) fn new() -> Self {
        Self {
            last_id: 3_164_000,
            droplets: BTreeMap::new(),
            actions: BTreeMap::new(),
            ssh_keys: BTreeMap::new(),
            firewalls: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            reserved_ips: BTreeMap::new(),
            tags: BTreeSet::new(),
            domains: BTreeMap::new(),
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn droplet(&self, id: &str) -> Result<&Droplet, ApiError> {
        let found = id.parse().ok().and_then(|id: u64| self.droplets.get(&id));
        found.ok_or_else(ApiError::not_found)
    }

    /// A droplet that no action runs on.
    pub(super) fn unlocked(&mut self, id: &str) -> Result<&mut Droplet, ApiError> {
        let found = id.parse().ok().and_then(|id: u64| self.droplets.get_mut(&id));
        let droplet = found.ok_or_else(ApiError::not_found)?;
        if droplet.locked {
            return Err(ApiError::refused("Droplet already has a pending event."));
        }
        Ok(droplet)
    }

    /// Begins an action on a droplet, which is locked until it ends.
    pub(super) fn begin(&mut self, kind: &str, droplet: u64) -> Option<u64> {
        let of = self.droplets.get_mut(&droplet)?;
        of.locked = true;
        let region = of.region;
        Some(self.begin_on(kind, (droplet, "droplet"), region))
    }

    pub(super) fn begin_on(
        &mut self,
        kind: &str,
        (resource, resource_type): (u64, &'static str),
        region: &'static Region,
    ) -> u64 {
        let id = self.next_id();
        let (kind, started) = (kind.to_owned(), clock::now());
        let action = Action { id, kind, started, ended: None, resource, resource_type, region };
        self.actions.insert(id, action);
        id
    }

    pub(super) fn action_kind(&self, id: u64) -> String {
        self.actions.get(&id).map(|action| action.kind.clone()).unwrap_or_default()
    }

    pub(super) fn end_action(&mut self, id: u64, droplet: Option<u64>, well: bool) {
        if let Some(droplet) = droplet.and_then(|id| self.droplets.get_mut(&id)) {
            droplet.locked = false;
        }
        if let Some(action) = self.actions.get_mut(&id) {
            action.ended = Some((clock::now(), well));
        }
    }

    pub(super) fn set_status(&mut self, droplet: u64, status: Status) {
        if let Some(droplet) = self.droplets.get_mut(&droplet) {
            droplet.status = status;
            droplet.started |= status == Status::Active;
        }
    }

    /// Forgets a droplet; its reserved address and its snapshots stay.
    pub(super) fn forget(&mut self, id: u64) {
        self.droplets.remove(&id);
        for ip in self.reserved_ips.values_mut().filter(|ip| ip.droplet == Some(id)) {
            ip.droplet = None;
        }
        for firewall in self.firewalls.values_mut() {
            firewall.droplets.remove(&id);
        }
    }

    /// Everything, as the API shows it.
    pub(super) fn json(&self, knobs: &Knobs) -> Value {
        let droplets: Vec<Value> =
            self.droplets.values().map(|one| answers::droplet(self, one, knobs)).collect();
        let firewalls: Vec<Value> =
            self.firewalls.values().map(|one| answers::firewall(self, one)).collect();
        let tags: Vec<Value> = self.tags.iter().map(|name| answers::tag(self, name)).collect();
        let ips = self.reserved_ips.values();
        let domains: Vec<Value> = self
            .domains
            .iter()
            .map(|(name, domain)| {
                json!({"name": name, "ttl": domain.ttl,
                    "records": domain.records.values().collect::<Vec<_>>()})
            })
            .collect();
        json!({
            "droplets": droplets, "firewalls": firewalls, "tags": tags, "domains": domains,
            "ssh_keys": self.ssh_keys.values().map(SshKey::json).collect::<Vec<_>>(),
            "snapshots": self.snapshots.values().map(answers::snapshot).collect::<Vec<_>>(),
            "reserved_ips": ips.map(|ip| answers::reserved_ip(self, ip, knobs)).collect::<Vec<_>>(),
            "actions":
                self.actions.values().map(|one| answers::action(one, knobs)).collect::<Vec<_>>(),
        })
    }
}

/// A random id of the form that firewalls and requests have.
pub(super) fn uuid() -> String {
    let hex = hex::encode(rand::random::<[u8; 16]>());
    let (a, b, c, d) = (&hex[..8], &hex[8..12], &hex[13..16], &hex[17..20]);
    format!("{a}-{b}-4{c}-8{d}-{}", &hex[20..])
}
