//! `/primary_ips`: those that came with servers, and those that were made by themselves.

use std::net::IpAddr;

use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::catalogue;
use super::create::ipv6_net;
use super::errors::{ApiError, Code};
use super::input::Input;
use super::listing::Query;
use super::project::{PrimaryIp, Project, Status};
use super::{Answer, Hetzner, created, ok};
use crate::clock;

pub(super) async fn list(State(hetzner): State<Hetzner>, query: Query) -> Response {
    let project = hetzner.project();
    let shown = project.primary_ips.values().filter(|ip| {
        query.takes(&ip.name, &ip.labels) && query.get("ip").is_none_or(|wanted| wanted == ip.ip)
    });
    query.page("primary_ips", shown.map(PrimaryIp::json).collect())
}

pub(super) async fn create(State(hetzner): State<Hetzner>, input: Input) -> Answer {
    let limit = hetzner.knobs().primary_ip_limit;
    let mut project = hetzner.project();
    let name = input.required_text("name")?.to_owned();
    let v4 = match input.required_text("type")? {
        "ipv4" => true,
        "ipv6" => false,
        _ => return Err(ApiError::field("type", "must be ipv4 or ipv6")),
    };
    let (labels, auto_delete) = (input.labels()?.unwrap_or_default(), input.flag("auto_delete")?);
    if input.get("datacenter").is_some() {
        return Err(ApiError::field("datacenter", "is not accepted any more, use location"));
    }
    if input.text("assignee_type")?.is_some_and(|kind| kind != "server") {
        return Err(ApiError::field("assignee_type", "must be server"));
    }
    let server = match input.reference("assignee_id")? {
        Some(id) => Some(free_for(&project, &id, v4)?),
        None => None,
    };
    let location = match (server, input.reference("location")?) {
        (Some(server), _) => project.servers[&server].location,
        (None, Some(wanted)) => catalogue::find_location(&wanted)
            .ok_or_else(|| ApiError::field("location", "location not found"))?,
        (None, None) => {
            return Err(ApiError::field("location", "Missing data for required field."));
        }
    };
    if project.primary_ips.values().any(|ip| ip.name == name) {
        return Err(ApiError::not_unique("primary IP", "name"));
    }
    if limit.is_some_and(|limit| project.primary_ips.len() >= limit) {
        return Err(ApiError::limit("primary_ip_limit"));
    }
    let id = project.next_id();
    let ip = if v4 {
        let address = hetzner.0.machines.reserve().address;
        hetzner.0.machines.hold(address);
        address.to_string()
    } else {
        ipv6_net(id)
    };
    let ip = PrimaryIp {
        id,
        name,
        labels,
        created: clock::now(),
        location,
        ip,
        v4,
        auto_delete: auto_delete.unwrap_or(false),
        protected: false,
        server: None,
    };
    project.primary_ips.insert(id, ip);
    let action = server.map(|server| hetzner.give(&mut project, id, server));
    created(json!({"primary_ip": project.primary_ips[&id].json(), "action": action}))
}

pub(super) async fn show(State(hetzner): State<Hetzner>, Path(id): Path<String>) -> Answer {
    let mut project = hetzner.project();
    ok(json!({"primary_ip": find(&mut project, &id)?.json()}))
}

pub(super) async fn update(
    State(hetzner): State<Hetzner>,
    Path(id): Path<String>,
    input: Input,
) -> Answer {
    let mut project = hetzner.project();
    let (name, labels, auto_delete) =
        (input.text("name")?, input.labels()?, input.flag("auto_delete")?);
    let own = find(&mut project, &id)?.id;
    if project.primary_ips.values().any(|ip| ip.id != own && Some(&*ip.name) == name) {
        return Err(ApiError::not_unique("primary IP", "name"));
    }
    let ip = find(&mut project, &id)?;
    ip.name = name.map_or_else(|| ip.name.clone(), str::to_owned);
    ip.labels = labels.unwrap_or_else(|| ip.labels.clone());
    ip.auto_delete = auto_delete.unwrap_or(ip.auto_delete);
    let shown = ip.json();
    if let (false, Some(address)) = (ip.auto_delete, ip.address()) {
        hetzner.0.machines.hold(address);
    }
    ok(json!({"primary_ip": shown}))
}

pub(super) async fn delete(
    State(hetzner): State<Hetzner>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let mut project = hetzner.project();
    let ip = find(&mut project, &id)?;
    if ip.protected {
        return Err(ApiError::new(Code::Protected, "the primary IP is protected"));
    }
    if ip.server.is_some() {
        let message = "the primary IP must be unassigned before it is deleted";
        return Err(ApiError::new(Code::MustBeUnassigned, message));
    }
    let (id, address) = (ip.id, ip.address());
    project.primary_ips.remove(&id);
    if let Some(address) = address {
        hetzner.0.machines.let_go(address);
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn act(
    State(hetzner): State<Hetzner>,
    Path((id, action)): Path<(String, String)>,
    input: Input,
) -> Answer {
    let mut project = hetzner.project();
    let ip = find(&mut project, &id)?;
    let (id, v4) = (ip.id, ip.v4);
    let done = match action.as_str() {
        "assign" => {
            if ip.server.is_some() {
                let message = "the primary IP is assigned already";
                return Err(ApiError::new(Code::PrimaryIpAlreadyAssigned, message));
            }
            let location = ip.location.id;
            let server = free_for(&project, &input.required_reference("assignee_id")?, v4)?;
            if project.servers[&server].location.id != location {
                let message = "the server is in another location";
                return Err(ApiError::field("assignee_id", message));
            }
            hetzner.give(&mut project, id, server)
        }
        "unassign" => {
            let Some(server) = ip.server else {
                return Err(ApiError::field("id", "the primary IP is not assigned"));
            };
            stopped(&project, server)?;
            hetzner.take_back(&mut project, id, server)
        }
        "change_protection" => {
            ip.protected = input.flag("delete")?.unwrap_or(ip.protected);
            project.done("change_protection", vec![(id, "primary_ip")])
        }
        _ => return Err(ApiError::new(Code::NotFound, "the action was not found")),
    };
    created(json!({"action": done}))
}

fn find<'a>(project: &'a mut Project, id: &str) -> Result<&'a mut PrimaryIp, ApiError> {
    let found = id.parse().ok().and_then(|id: u64| project.primary_ips.get_mut(&id));
    found.ok_or_else(|| ApiError::not_found("primary IP", id))
}

/// A server that may get such an address: off, and without one.
fn free_for(project: &Project, server: &str, v4: bool) -> Result<u64, ApiError> {
    let server = project.server(server)?;
    stopped(project, server.id)?;
    match (v4, server.ipv4, server.ipv6) {
        (true, Some(_), _) => {
            Err(ApiError::new(Code::ServerHasIpv4, "the server has an IPv4 already"))
        }
        (false, _, Some(_)) => {
            Err(ApiError::new(Code::ServerHasIpv6, "the server has an IPv6 already"))
        }
        _ => Ok(server.id),
    }
}

fn stopped(project: &Project, server: u64) -> Result<(), ApiError> {
    let server = &project.servers[&server];
    if server.locked {
        return Err(ApiError::new(Code::Locked, "the server is locked"));
    }
    if server.status != Status::Off {
        let message = "server must be stopped for this operation";
        return Err(ApiError::new(Code::ServerNotStopped, message));
    }
    Ok(())
}

impl PrimaryIp {
    /// The address of an IPv4.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.ip.parse().ok()
    }
}

impl Project {
    /// The address of a primary IPv4.
    pub(super) fn address_of(&self, ip: u64) -> Result<IpAddr, ApiError> {
        let found = self.primary_ips.get(&ip).and_then(PrimaryIp::address);
        found.ok_or_else(|| ApiError::not_found("primary IP", &ip.to_string()))
    }
}

impl Hetzner {
    /// Assigns an address to a server that is off; its machine answers there from then on.
    fn give(&self, project: &mut Project, ip: u64, server: u64) -> Value {
        let address = project.primary_ips.get_mut(&ip).and_then(|ip| {
            ip.server = Some(server);
            ip.address()
        });
        if let Some(server) = project.servers.get_mut(&server) {
            match address {
                Some(address) => {
                    self.0.machines.readdress(server.address, address);
                    server.address = address;
                    server.ipv4 = Some(ip);
                }
                None => server.ipv6 = Some(ip),
            }
        }
        project.done("assign_primary_ip", vec![(ip, "primary_ip"), (server, "server")])
    }

    /// Unassigns an address from a server that is off; its machine goes where nobody looks.
    fn take_back(&self, project: &mut Project, ip: u64, server: u64) -> Value {
        let address = project.primary_ips.get_mut(&ip).and_then(|ip| {
            ip.server = None;
            ip.address()
        });
        if let Some(server) = project.servers.get_mut(&server) {
            match address {
                Some(address) => {
                    self.0.machines.hold(address);
                    server.address = self.0.machines.reserve().address;
                    self.0.machines.readdress(address, server.address);
                    server.ipv4 = None;
                }
                None => server.ipv6 = None,
            }
        }
        project.done("unassign_primary_ip", vec![(ip, "primary_ip"), (server, "server")])
    }
}
