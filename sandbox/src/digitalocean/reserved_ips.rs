//! `/reserved_ips`: addresses that outlive their droplets.

use std::net::IpAddr;

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::json;

use super::errors::ApiError;
use super::input::Input;
use super::listing::Query;
use super::project::{Project, ReservedIp, Status};
use super::{Answer, DigitalOcean, NO_CONTENT, Nothing, accepted, answers, catalogue, created, ok};

pub(super) async fn list(State(cloud): State<DigitalOcean>, query: Query) -> Response {
    let knobs = cloud.knobs();
    let project = cloud.project();
    let all = project.reserved_ips.values();
    query.page("reserved_ips", all.map(|ip| answers::reserved_ip(&project, ip, &knobs)).collect())
}

pub(super) async fn show(State(cloud): State<DigitalOcean>, Path(ip): Path<String>) -> Answer {
    let knobs = cloud.knobs();
    let project = cloud.project();
    let found = ip.parse().ok().and_then(|ip: IpAddr| project.reserved_ips.get(&ip));
    let found = found.ok_or_else(ApiError::not_found)?;
    ok(json!({"reserved_ip": answers::reserved_ip(&project, found, &knobs)}))
}

pub(super) async fn create(State(cloud): State<DigitalOcean>, input: Input) -> Answer {
    let knobs = cloud.knobs();
    let droplet = input.number("droplet_id")?;
    let ip = cloud.0.machines.reserve().address;
    cloud.0.machines.hold(ip);
    let (body, action) = {
        let mut project = cloud.project();
        let region = match droplet {
            Some(droplet) => assignable(&project, droplet)?.region,
            None => catalogue::find_region(input.required_text("region")?)
                .ok_or_else(|| ApiError::refused("region is invalid"))?,
        };
        let made = ReservedIp { ip, region, droplet: None, locked: droplet.is_some() };
        project.reserved_ips.insert(ip, made);
        let action =
            droplet.map(|_| project.begin_on("reserve_ip", (number(ip), "reserved_ip"), region));
        let shown = &project.reserved_ips[&ip];
        let actions: Vec<_> = action
            .map(|id| {
                let href = format!("https://api.digitalocean.com/v2/actions/{id}");
                json!({"id": id, "rel": "assign_ip", "href": href})
            })
            .into_iter()
            .collect();
        let mut body = json!({"reserved_ip": answers::reserved_ip(&project, shown, &knobs)});
        body["links"] = json!({"droplets": [], "actions": actions});
        (body, action)
    };
    if let Some(action) = action {
        cloud.hand_over(ip, droplet, action);
    }
    accepted(body)
}

pub(super) async fn delete(State(cloud): State<DigitalOcean>, Path(ip): Path<String>) -> Nothing {
    let ip: IpAddr = ip.parse().map_err(|_| ApiError::not_found())?;
    cloud.project().reserved_ips.remove(&ip).ok_or_else(ApiError::not_found)?;
    cloud.0.machines.lead_nowhere(ip);
    cloud.0.machines.let_go(ip);
    NO_CONTENT
}

pub(super) async fn act(
    State(cloud): State<DigitalOcean>,
    Path(ip): Path<String>,
    input: Input,
) -> Answer {
    let knobs = cloud.knobs();
    let ip: IpAddr = ip.parse().map_err(|_| ApiError::not_found())?;
    let kind = input.required_text("type")?.to_owned();
    let (action, droplet, shown) = {
        let mut project = cloud.project();
        let found = project.reserved_ips.get(&ip).ok_or_else(ApiError::not_found)?;
        let region = found.region;
        if found.locked {
            return Err(ApiError::refused("The Reserved IP already has a pending event."));
        }
        let droplet = match kind.as_str() {
            "assign" => {
                let wanted = input.number("droplet_id")?;
                let wanted = wanted.ok_or_else(|| ApiError::refused("droplet_id is required"))?;
                let droplet = assignable(&project, wanted)?;
                if droplet.region.slug != region.slug {
                    return Err(ApiError::refused("The droplet is in another region."));
                }
                Some(droplet.id)
            }
            "unassign" if found.droplet.is_none() => {
                return Err(ApiError::refused("The Reserved IP is not assigned."));
            }
            "unassign" => None,
            other => return Err(ApiError::refused(format!("{other} is not a valid action"))),
        };
        let kind = format!("{kind}_ip");
        let action = project.begin_on(&kind, (number(ip), "reserved_ip"), region);
        if let Some(found) = project.reserved_ips.get_mut(&ip) {
            found.locked = true;
        }
        let mut shown = answers::action(&project.actions[&action], &knobs);
        shown["project_id"] = "760e09ef-dc84-11e8-981e-3cfdfeaae000".into();
        (action, droplet, shown)
    };
    cloud.hand_over(ip, droplet, action);
    created(json!({"action": shown}))
}

pub(super) async fn show_action(
    state: State<DigitalOcean>,
    Path((_, action)): Path<(String, String)>,
) -> Answer {
    super::actions::show(state, Path(action)).await
}

/// A droplet that has no reserved address, and runs.
fn assignable(project: &Project, droplet: u64) -> Result<&super::project::Droplet, ApiError> {
    let found = project.droplets.get(&droplet);
    let found = found.ok_or_else(|| ApiError::refused("The droplet does not exist."))?;
    if found.status == Status::New {
        return Err(ApiError::refused("The droplet is not active yet."));
    }
    if project.reserved_ips.values().any(|ip| ip.droplet == Some(droplet)) {
        return Err(ApiError::refused("The droplet already has a reserved IP."));
    }
    Ok(found)
}

/// The id that an action names an address by.
fn number(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => u64::from(u32::from(ip)),
        IpAddr::V6(_) => 0,
    }
}

impl DigitalOcean {
    fn hand_over(&self, ip: IpAddr, droplet: Option<u64>, action: u64) {
        let this = self.clone();
        self.later(action, None, async move {
            let machines = &this.0.machines;
            machines.lead_nowhere(ip);
            let address = droplet.and_then(|id| Some(this.project().droplets.get(&id)?.address));
            if let Some(address) = address {
                machines.lead(ip, address).await.map_err(|error| error.to_string())?;
            }
            if let Some(found) = this.project().reserved_ips.get_mut(&ip) {
                found.droplet = droplet;
                found.locked = false;
            }
            Ok(())
        });
    }
}
