//! `GET /servers`, `GET|PUT|DELETE /servers/{id}`.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::errors::{ApiError, Code};
use super::input::Input;
use super::listing::Query;
use super::project::Status;
use super::{Answer, Hetzner, answers, ok};
use crate::formats::is_hostname;

pub(super) async fn list(State(hetzner): State<Hetzner>, query: Query) -> Response {
    let (project, knobs) = (hetzner.project(), hetzner.knobs());
    let shown: Vec<Value> = project
        .servers
        .values()
        .filter(|server| query.takes(&server.name, &server.labels))
        .filter(|server| query.one_of("status", server.status.name()))
        .map(|server| answers::server(&project, server, &knobs))
        .collect();
    query.page("servers", shown)
}

pub(super) async fn show(State(hetzner): State<Hetzner>, Path(id): Path<String>) -> Answer {
    let (project, knobs) = (hetzner.project(), hetzner.knobs());
    let server = project.server(&id)?;
    ok(json!({"server": answers::server(&project, server, &knobs)}))
}

pub(super) async fn update(
    State(hetzner): State<Hetzner>,
    Path(id): Path<String>,
    input: Input,
) -> Answer {
    let (mut project, knobs) = (hetzner.project(), hetzner.knobs());
    let server = project.server(&id)?.id;
    let labels = input.labels()?;
    let name = input.text("name")?;
    if let Some(name) = name {
        if !is_hostname(name) {
            return Err(ApiError::field("name", "must be a valid hostname"));
        }
        if project.servers.values().any(|other| other.id != server && other.name == name) {
            return Err(ApiError::not_unique("server", "name"));
        }
    }
    if let Some(server) = project.servers.get_mut(&server) {
        server.name = name.map_or_else(|| server.name.clone(), str::to_owned);
        server.labels = labels.unwrap_or_else(|| server.labels.clone());
    }
    let server = project.server(&id)?;
    ok(json!({"server": answers::server(&project, server, &knobs)}))
}

pub(super) async fn delete(State(hetzner): State<Hetzner>, Path(id): Path<String>) -> Answer {
    let (server, action, address, body) = {
        let mut project = hetzner.project();
        let server = project.unlocked(&id)?;
        if server.protection.0 {
            return Err(ApiError::new(Code::Protected, "server deletion is protected"));
        }
        server.status = Status::Deleting;
        let (server, address) = (server.id, server.address);
        let action = project.begin("delete_server", vec![(server, "server")]);
        (server, action, address, json!({"action": project.action_json(action)}))
    };
    let this = hetzner.clone();
    hetzner.later(action, Some(server), async move {
        this.0.machines.delete(address).await;
        this.project().forget_server(server);
        Ok(())
    });
    ok(body)
}
