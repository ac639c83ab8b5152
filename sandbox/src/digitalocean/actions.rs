//! `GET /actions`, and the actions of one droplet.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::errors::ApiError;
use super::listing::Query;
use super::{Answer, DigitalOcean, answers, ok};

pub(super) async fn list(State(cloud): State<DigitalOcean>, query: Query) -> Response {
    let knobs = cloud.knobs();
    let project = cloud.project();
    // The newest first.
    let all = project.actions.values().rev();
    query.page("actions", all.map(|action| answers::action(action, &knobs)).collect())
}

pub(super) async fn show(State(cloud): State<DigitalOcean>, Path(id): Path<String>) -> Answer {
    let knobs = cloud.knobs();
    let project = cloud.project();
    let found = id.parse().ok().and_then(|id: u64| project.actions.get(&id));
    ok(json!({"action": answers::action(found.ok_or_else(ApiError::not_found)?, &knobs)}))
}

pub(super) async fn list_of_droplet(
    State(cloud): State<DigitalOcean>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let knobs = cloud.knobs();
    let project = cloud.project();
    let droplet = project.droplet(&id)?.id;
    let shown: Vec<Value> = project
        .actions
        .values()
        .rev()
        .filter(|action| (action.resource, action.resource_type) == (droplet, "droplet"))
        .map(|action| answers::action(action, &knobs))
        .collect();
    Ok(query.page("actions", shown))
}

pub(super) async fn show_of_droplet(
    state: State<DigitalOcean>,
    Path((_, action)): Path<(String, String)>,
) -> Answer {
    show(state, Path(action)).await
}
