//! `/ssh_keys`.

use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use super::errors::ApiError;
use super::input::Input;
use super::listing::Query;
use super::project::{Project, SshKey};
use super::{Answer, Hetzner, created, ok};
use crate::clock;
use crate::formats::key_fingerprint;

pub(super) async fn list(State(hetzner): State<Hetzner>, query: Query) -> Response {
    let project = hetzner.project();
    let shown = project.ssh_keys.values().filter(|key| {
        query.takes(&key.name, &key.labels) && query.one_of("fingerprint", &key.fingerprint)
    });
    query.page("ssh_keys", shown.map(SshKey::json).collect())
}

pub(super) async fn create(State(hetzner): State<Hetzner>, input: Input) -> Answer {
    let mut project = hetzner.project();
    let name = input.required_text("name")?.to_owned();
    let public_key = input.required_text("public_key")?.to_owned();
    let fingerprint = key_fingerprint(&public_key)
        .ok_or_else(|| ApiError::field("public_key", "is not a valid SSH public key"))?;
    if project.ssh_keys.values().any(|key| key.name == name) {
        return Err(ApiError::not_unique("SSH key", "name"));
    }
    if project.ssh_keys.values().any(|key| key.fingerprint == fingerprint) {
        return Err(ApiError::not_unique("SSH key", "fingerprint"));
    }
    let labels = input.labels()?.unwrap_or_default();
    let id = project.next_id();
    let key = SshKey { id, name, fingerprint, public_key, labels, created: clock::now() };
    let body = json!({"ssh_key": key.json()});
    project.ssh_keys.insert(id, key);
    created(body)
}

pub(super) async fn show(State(hetzner): State<Hetzner>, Path(id): Path<String>) -> Answer {
    let mut project = hetzner.project();
    ok(json!({"ssh_key": find(&mut project, &id)?.json()}))
}

pub(super) async fn update(
    State(hetzner): State<Hetzner>,
    Path(id): Path<String>,
    input: Input,
) -> Answer {
    let mut project = hetzner.project();
    let name = input.text("name")?;
    let same = |key: &SshKey| key.id.to_string() != id && Some(&*key.name) == name;
    if project.ssh_keys.values().any(same) {
        return Err(ApiError::not_unique("SSH key", "name"));
    }
    let labels = input.labels()?;
    let key = find(&mut project, &id)?;
    key.name = name.map_or_else(|| key.name.clone(), str::to_owned);
    key.labels = labels.unwrap_or_else(|| key.labels.clone());
    ok(json!({"ssh_key": key.json()}))
}

pub(super) async fn delete(
    State(hetzner): State<Hetzner>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let mut project = hetzner.project();
    let id = find(&mut project, &id)?.id;
    project.ssh_keys.remove(&id);
    Ok(StatusCode::NO_CONTENT)
}

fn find<'a>(project: &'a mut Project, id: &str) -> Result<&'a mut SshKey, ApiError> {
    let found = id.parse().ok().and_then(|id: u64| project.ssh_keys.get_mut(&id));
    found.ok_or_else(|| ApiError::not_found("SSH key", id))
}
