//! `GET /actions`, and the actions of one server.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::json;

use super::errors::ApiError;
use super::listing::Query;
use super::project::Action;
use super::{Answer, Hetzner, ok};

/// Since 2025-01-30 only the actions whose ids are given.
pub(super) async fn list(
    State(hetzner): State<Hetzner>,
    query: Query,
) -> Result<Response, ApiError> {
    let ids: Vec<u64> = query.all("id").iter().filter_map(|id| id.parse().ok()).collect();
    if ids.is_empty() {
        return Err(ApiError::field("id", "Missing data for required field."));
    }
    let project = hetzner.project();
    let shown = ids.iter().filter_map(|id| project.actions.get(id)).map(Action::json).collect();
    Ok(query.page("actions", shown))
}

pub(super) async fn show(State(hetzner): State<Hetzner>, Path(id): Path<String>) -> Answer {
    let project = hetzner.project();
    let found = id.parse().ok().and_then(|id: u64| project.actions.get(&id));
    let action = found.ok_or_else(|| ApiError::not_found("action", &id))?;
    ok(json!({"action": action.json()}))
}

pub(super) async fn list_of_server(
    State(hetzner): State<Hetzner>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let project = hetzner.project();
    let server = project.server(&id)?.id;
    let of_server = |action: &&Action| action.resources.contains(&(server, "server"));
    let actions = project.actions.values().filter(of_server);
    let shown = actions.filter(|action| query.one_of("status", action.status()));
    Ok(query.page("actions", shown.map(Action::json).collect()))
}

pub(super) async fn show_of_server(
    state: State<Hetzner>,
    Path((_, action)): Path<(String, String)>,
) -> Answer {
    show(state, Path(action)).await
}
