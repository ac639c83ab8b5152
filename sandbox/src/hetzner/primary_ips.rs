//! `/primary_ips`: those that came with servers.

use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use super::errors::{ApiError, Code};
use super::input::Input;
use super::listing::Query;
use super::project::{PrimaryIp, Project};
use super::{Answer, Hetzner, ok};

pub(super) async fn list(State(hetzner): State<Hetzner>, query: Query) -> Response {
    let project = hetzner.project();
    let shown = project.primary_ips.values().filter(|ip| {
        query.takes(&ip.name, &ip.labels) && query.get("ip").is_none_or(|wanted| wanted == ip.ip)
    });
    query.page("primary_ips", shown.map(PrimaryIp::json).collect())
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
    let ip = find(&mut project, &id)?;
    ip.name = name.map_or_else(|| ip.name.clone(), str::to_owned);
    ip.labels = labels.unwrap_or_else(|| ip.labels.clone());
    ip.auto_delete = auto_delete.unwrap_or(ip.auto_delete);
    ok(json!({"primary_ip": ip.json()}))
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
    let id = ip.id;
    project.primary_ips.remove(&id);
    Ok(StatusCode::NO_CONTENT)
}

fn find<'a>(project: &'a mut Project, id: &str) -> Result<&'a mut PrimaryIp, ApiError> {
    let found = id.parse().ok().and_then(|id: u64| project.primary_ips.get_mut(&id));
    found.ok_or_else(|| ApiError::not_found("primary IP", id))
}
