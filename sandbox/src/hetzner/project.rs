//! The resources of a simulated project, and how its actions go.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::answers;
use super::catalogue::{Location, ServerType};
use super::errors::{ApiError, Code};
use super::images::Image;
use super::input::Labels;
use super::knobs::Knobs;
use crate::clock;

/// How many actions are remembered; the oldest that have ended are forgotten first.
const ACTIONS_MAX: usize = 400;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Initializing,
    Starting,
    Running,
    Stopping,
    Off,
    Rebuilding,
    Migrating,
    Deleting,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Initializing => "initializing",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Off => "off",
            Self::Rebuilding => "rebuilding",
            Self::Migrating => "migrating",
            Self::Deleting => "deleting",
        }
    }
}

pub(super) struct Server {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) status: Status,
    pub(super) created: Timestamp,
    pub(super) server_type: ServerType,
    pub(super) location: &'static Location,
    pub(super) image: Image,
    pub(super) labels: Labels,
    pub(super) locked: bool,
    pub(super) primary_disk: u64,
    pub(super) protection: (bool, bool),
    /// The machine's address, also where the server has no public IPv4.
    pub(super) address: IpAddr,
    pub(super) ipv4: Option<u64>,
    pub(super) ipv6: Option<u64>,
    pub(super) firewalls: Vec<u64>,
}

pub(super) struct Action {
    pub(super) id: u64,
    pub(super) command: String,
    pub(super) started: Timestamp,
    pub(super) finished: Option<Timestamp>,
    pub(super) error: Option<(String, String)>,
    pub(super) resources: Vec<(u64, &'static str)>,
}

pub(super) struct SshKey {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) fingerprint: String,
    pub(super) public_key: String,
    pub(super) labels: Labels,
    pub(super) created: Timestamp,
}

pub(super) struct Firewall {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) created: Timestamp,
    pub(super) rules: Vec<Value>,
    /// Label selectors that it applies to; servers name it themselves.
    pub(super) selectors: Vec<String>,
}

pub(super) struct PrimaryIp {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) created: Timestamp,
    pub(super) location: &'static Location,
    pub(super) ip: String,
    pub(super) v4: bool,
    pub(super) auto_delete: bool,
    pub(super) protected: bool,
    pub(super) server: Option<u64>,
}

pub(super) struct Project {
    last_id: u64,
    pub(super) servers: BTreeMap<u64, Server>,
    pub(super) actions: BTreeMap<u64, Action>,
    pub(super) ssh_keys: BTreeMap<u64, SshKey>,
    pub(super) firewalls: BTreeMap<u64, Firewall>,
    pub(super) primary_ips: BTreeMap<u64, PrimaryIp>,
    /// The snapshots; the cloud's own images are in the catalogue.
    pub(super) images: BTreeMap<u64, Image>,
}

impl Project {
    pub(super) fn new() -> Self {
        Self {
            // Real ids have outgrown 32 bits long ago.
            last_id: 5_000_000_000,
            servers: BTreeMap::new(),
            actions: BTreeMap::new(),
            ssh_keys: BTreeMap::new(),
            firewalls: BTreeMap::new(),
            primary_ips: BTreeMap::new(),
            images: BTreeMap::new(),
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn server(&self, id: &str) -> Result<&Server, ApiError> {
        let found = id.parse().ok().and_then(|id: u64| self.servers.get(&id));
        found.ok_or_else(|| ApiError::not_found("server", id))
    }

    /// A server that no action runs on.
    pub(super) fn unlocked(&mut self, id: &str) -> Result<&mut Server, ApiError> {
        let found = id.parse().ok().and_then(|id: u64| self.servers.get_mut(&id));
        let server = found.ok_or_else(|| ApiError::not_found("server", id))?;
        if server.locked {
            return Err(ApiError::new(Code::Locked, "the server is locked"));
        }
        Ok(server)
    }

    /// Begins an action; a server among its resources is locked until it ends.
    pub(super) fn begin(&mut self, command: &str, resources: Vec<(u64, &'static str)>) -> u64 {
        let id = self.next_id();
        for (resource, kind) in &resources {
            if let (&"server", Some(server)) = (kind, self.servers.get_mut(resource)) {
                server.locked = true;
            }
        }
        let action = Action {
            id,
            command: command.to_owned(),
            started: clock::now(),
            finished: None,
            error: None,
            resources,
        };
        self.actions.insert(id, action);
        let ended = |(id, action): (&u64, &Action)| action.finished.map(|_| *id);
        if self.actions.len() > ACTIONS_MAX
            && let Some(oldest) = self.actions.iter().find_map(ended)
        {
            self.actions.remove(&oldest);
        }
        id
    }

    /// An action that ends as soon as it has begun.
    pub(super) fn done(&mut self, command: &str, resources: Vec<(u64, &'static str)>) -> Value {
        let id = self.begin(command, Vec::new());
        if let Some(action) = self.actions.get_mut(&id) {
            action.resources = resources;
            action.finished = Some(clock::now());
        }
        self.action_json(id)
    }

    pub(super) fn action_command(&self, id: u64) -> String {
        self.actions.get(&id).map(|action| action.command.clone()).unwrap_or_default()
    }

    pub(super) fn end_action(
        &mut self,
        id: u64,
        server: Option<u64>,
        result: Result<(), (String, String)>,
    ) {
        if let Some(action) = self.actions.get_mut(&id) {
            action.finished = Some(clock::now());
            action.error = result.err();
        }
        if let Some(server) = server.and_then(|server| self.servers.get_mut(&server)) {
            server.locked = false;
        }
    }

    pub(super) fn action_json(&self, id: u64) -> Value {
        self.actions.get(&id).map(Action::json).unwrap_or_default()
    }

    pub(super) fn set_status(&mut self, server: u64, status: Status) {
        if let Some(server) = self.servers.get_mut(&server) {
            server.status = status;
        }
    }

    /// Forgets a server, with the addresses that go with it.
    pub(super) fn forget_server(&mut self, id: u64) {
        self.servers.remove(&id);
        self.primary_ips.retain(|_, ip| ip.server != Some(id) || !ip.auto_delete);
        for ip in self.primary_ips.values_mut().filter(|ip| ip.server == Some(id)) {
            ip.server = None;
        }
    }

    /// Everything, as the API shows it.
    pub(super) fn json(&self, knobs: &Knobs) -> Value {
        let servers: Vec<Value> =
            self.servers.values().map(|server| answers::server(self, server, knobs)).collect();
        let firewalls: Vec<Value> =
            self.firewalls.values().map(|firewall| answers::firewall(self, firewall)).collect();
        json!({
            "servers": servers, "firewalls": firewalls,
            "ssh_keys": self.ssh_keys.values().map(SshKey::json).collect::<Vec<_>>(),
            "primary_ips": self.primary_ips.values().map(PrimaryIp::json).collect::<Vec<_>>(),
            "snapshots": self.images.values().map(Image::json).collect::<Vec<_>>(),
            "actions": self.actions.values().map(Action::json).collect::<Vec<_>>(),
        })
    }
}
