//! `POST /servers`.

use axum::extract::State;
use serde_json::{Value, json};

use super::catalogue::{self, Location, ServerType};
use super::errors::{ApiError, Code};
use super::images::{Image, find_image};
use super::input::{Input, Labels};
use super::project::{PrimaryIp, Project, Server, Status};
use super::{Answer, Hetzner, answers, created};
use crate::clock;
use crate::formats::is_hostname;
use crate::machines::{MachineOrder, Place};

pub(super) const USER_DATA_BYTES_MAX: usize = 32 * 1024;

/// A checked order.
struct Order {
    name: String,
    server_type: ServerType,
    location: &'static Location,
    image: Image,
    labels: Labels,
    keys: Vec<String>,
    firewalls: Vec<u64>,
    user_data: String,
    start: bool,
    ipv4: Net,
    ipv6: Net,
}

/// What a server gets of one kind of address.
#[derive(Clone, Copy)]
enum Net {
    None,
    New,
    Own(u64),
}

pub(super) async fn create(State(hetzner): State<Hetzner>, input: Input) -> Answer {
    let knobs = hetzner.knobs();
    let (body, server, action, start_action, order, place, machine_order) = {
        let mut project = hetzner.project();
        let mut order = Order::read(&hetzner, &project, &input)?;
        if hetzner.0.machines.are_containers() {
            // Its network has IPv4 alone: an address that nobody answers at must not be in a name.
            order.ipv6 = Net::None;
        }
        if knobs.server_limit.is_some_and(|limit| project.servers.len() >= limit) {
            return Err(ApiError::limit("server_limit"));
        }
        let place = match order.ipv4 {
            Net::Own(ip) => hetzner.0.machines.place_at(project.address_of(ip)?),
            Net::New | Net::None => hetzner.0.machines.reserve(),
        };
        let machine_order = MachineOrder {
            name: order.name.clone(),
            user_data: order.user_data.clone(),
            root_keys: order.keys.clone(),
            off: !order.start,
            disk: order.image.disk(),
            bare: false,
        };
        let start = order.start;
        let password = order.keys.is_empty().then_some("changed-at-first-login");
        let server = add(&mut project, order, &place);
        let action = project.begin("create_server", vec![(server, "server")]);
        let next = start.then(|| project.begin("start_server", vec![(server, "server")]));
        let shown = &project.servers[&server];
        let body = json!({
            "server": answers::server(&project, shown, &knobs),
            "action": project.action_json(action),
            "next_actions": next.iter().map(|id| project.action_json(*id)).collect::<Vec<_>>(),
            "root_password": password,
        });
        (body, server, action, next, start, place, machine_order)
    };
    hetzner.boot(server, action, start_action, order, place, machine_order);
    created(body)
}

fn add(project: &mut Project, order: Order, place: &Place) -> u64 {
    let id = project.next_id();
    let mut address = |wanted: Net, v4: bool| {
        let ip_id = match wanted {
            Net::None => return None,
            Net::Own(own) => {
                project.primary_ips.get_mut(&own)?.server = Some(id);
                return Some(own);
            }
            Net::New => project.next_id(),
        };
        let ip = if v4 { place.address.to_string() } else { ipv6_net(id) };
        let ip = PrimaryIp {
            id: ip_id,
            name: format!("primary_ip-{ip_id}"),
            labels: Labels::new(),
            created: clock::now(),
            location: order.location,
            ip,
            v4,
            auto_delete: true,
            protected: false,
            server: Some(id),
        };
        project.primary_ips.insert(ip_id, ip);
        Some(ip_id)
    };
    let (ipv4, ipv6) = (address(order.ipv4, true), address(order.ipv6, false));
    let server = Server {
        id,
        name: order.name,
        status: Status::Initializing,
        created: clock::now(),
        primary_disk: order.server_type.disk,
        server_type: order.server_type,
        location: order.location,
        image: order.image,
        labels: order.labels,
        locked: false,
        protection: (false, false),
        address: place.address,
        ipv4,
        ipv6,
        firewalls: order.firewalls,
    };
    project.servers.insert(id, server);
    id
}

/// A /64 that only the resource with this id has.
pub(super) fn ipv6_net(id: u64) -> String {
    format!("2001:db8:{:x}:{:x}::/64", (id >> 16) & 0xffff, id & 0xffff)
}

impl Hetzner {
    /// Boots the machine behind a new server, and ends its actions.
    fn boot(
        &self,
        server: u64,
        action: u64,
        start_action: Option<u64>,
        start: bool,
        place: Place,
        order: MachineOrder,
    ) {
        let this = self.clone();
        let failing = self.knobs().failing_actions.get("create_server").cloned();
        if let (Some(code), Some(start_action)) = (failing, start_action) {
            let text = "the server was not created".to_owned();
            self.project().end_action(start_action, None, Err((code, text)));
        }
        self.later(action, Some(server), async move {
            let size = this
                .project()
                .servers
                .get(&server)
                .map(|it| (it.server_type.cores, it.server_type.memory));
            let booted = match (this.0.machines.create_at(place, order).await, size) {
                (Ok(machine), Some((cores, memory))) => machine.limit(cores, memory).await,
                (booted, _) => booted.map(drop),
            };
            let mut project = this.project();
            let status = if start && booted.is_ok() { Status::Running } else { Status::Off };
            project.set_status(server, status);
            let result = booted.map_err(|error| error.to_string());
            if let Some(start_action) = start_action {
                let failed = |text: String| ("server_error".to_owned(), text);
                project.end_action(start_action, None, result.clone().map_err(failed));
            }
            result
        });
    }
}

impl Order {
    fn read(hetzner: &Hetzner, project: &Project, input: &Input) -> Result<Self, ApiError> {
        let name = input.required_text("name")?.to_owned();
        if !is_hostname(&name) {
            return Err(ApiError::field("name", "must be a valid hostname"));
        }
        let server_type = input.required_reference("server_type")?;
        let server_type = catalogue::find_type(&server_type)
            .ok_or_else(|| ApiError::field("server_type", "server type not found"))?;
        let image = find_image(project, &input.required_reference("image")?, &server_type)?;
        if input.get("datacenter").is_some() {
            return Err(ApiError::field("datacenter", "is not accepted any more, use location"));
        }
        let location = find_location(hetzner, input, &server_type)?;
        let user_data = input.text("user_data")?.unwrap_or_default().to_owned();
        if user_data.len() > USER_DATA_BYTES_MAX {
            return Err(ApiError::field("user_data", "is longer than 32 KiB"));
        }
        if project.servers.values().any(|server| server.name == name) {
            return Err(ApiError::not_unique("server", "name"));
        }
        let net = Input(input.get("public_net").cloned().unwrap_or_else(|| json!({})));
        Ok(Self {
            keys: find_keys(project, &input.list("ssh_keys")?)?,
            firewalls: find_firewalls(project, &input.list("firewalls")?)?,
            labels: input.labels()?.unwrap_or_default(),
            start: input.flag("start_after_create")?.unwrap_or(true),
            ipv4: find_net(project, &net, true, location)?,
            ipv6: find_net(project, &net, false, location)?,
            name,
            server_type,
            location,
            image,
            user_data,
        })
    }
}

fn find_location(
    hetzner: &Hetzner,
    input: &Input,
    server_type: &ServerType,
) -> Result<&'static Location, ApiError> {
    let knobs = hetzner.knobs();
    let sold_out = || ApiError::new(Code::ResourceUnavailable, "error during placement");
    let Some(reference) = input.reference("location")? else {
        return server_type.default_location(&knobs).ok_or_else(sold_out);
    };
    let location = catalogue::find_location(&reference)
        .ok_or_else(|| ApiError::field("location", "location not found"))?;
    if !server_type.is_offered(location.name) {
        let message = "unsupported location for server type";
        return Err(ApiError::new(Code::InvalidInput, message));
    }
    if !knobs.can_be_ordered(server_type.name, location.name) {
        return Err(sold_out());
    }
    Ok(location)
}

/// What the order says of one kind of address: a new one, one of its own, or none.
fn find_net(
    project: &Project,
    net: &Input,
    v4: bool,
    location: &Location,
) -> Result<Net, ApiError> {
    let (enable, own) = if v4 { ("enable_ipv4", "ipv4") } else { ("enable_ipv6", "ipv6") };
    let enabled = net.flag(enable)?.unwrap_or(true);
    let Some(id) = net.get(own) else {
        return Ok(if enabled { Net::New } else { Net::None });
    };
    let found = id.as_u64().and_then(|id| project.primary_ips.get(&id));
    let ip = found.ok_or_else(|| ApiError::field("public_net", "primary IP not found"))?;
    if ip.v4 != v4 {
        let message = "the primary IP has another version";
        return Err(ApiError::new(Code::PrimaryIpVersionMismatch, message));
    }
    if ip.server.is_some() {
        return Err(ApiError::new(Code::PrimaryIpAssigned, "the primary IP is assigned already"));
    }
    if ip.location.id != location.id {
        return Err(ApiError::field("public_net", "the primary IP is in another location"));
    }
    Ok(Net::Own(ip.id))
}

fn find_keys(project: &Project, wanted: &[Value]) -> Result<Vec<String>, ApiError> {
    let find = |reference: &Value| {
        let text = reference.as_str().map_or_else(|| reference.to_string(), str::to_owned);
        let found =
            project.ssh_keys.values().find(|key| key.name == text || key.id.to_string() == text);
        found
            .map(|key| key.public_key.clone())
            .ok_or_else(|| ApiError::field("ssh_keys", &format!("SSH key {text} not found")))
    };
    wanted.iter().map(find).collect()
}

fn find_firewalls(project: &Project, wanted: &[Value]) -> Result<Vec<u64>, ApiError> {
    let find = |reference: &Value| {
        let id = reference["firewall"].as_u64();
        id.filter(|id| project.firewalls.contains_key(id))
            .ok_or_else(|| ApiError::field("firewalls", "firewall not found"))
    };
    wanted.iter().map(find).collect()
}
