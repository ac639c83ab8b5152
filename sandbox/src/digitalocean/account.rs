//! `/account`, its balance and its SSH keys.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::errors::ApiError;
use super::input::Input;
use super::listing::Query;
use super::project::{Project, SshKey};
use super::{Answer, DigitalOcean, NO_CONTENT, Nothing, created, ok};
use crate::clock;
use crate::formats::key_fingerprint;

pub(super) async fn show(State(cloud): State<DigitalOcean>) -> Answer {
    let knobs = cloud.knobs();
    ok(json!({"account": {
        "droplet_limit": knobs.droplet_limit, "floating_ip_limit": 3, "reserved_ip_limit": 3,
        "volume_limit": 100, "email": "owner@example.com", "name": "Owner",
        "uuid": "b6fr89dbf6d9156cace5f3c78dc9851d957381ef", "email_verified": knobs.email_verified,
        "status": knobs.account_status, "status_message": "",
        "team": {"uuid": "5df3e3004a17e242b7c20ca6c9fc25b701a47ece", "name": "My Team"},
    }}))
}

pub(super) async fn balance() -> Answer {
    ok(json!({
        "month_to_date_balance": "0.00", "account_balance": "0.00", "month_to_date_usage": "0.00",
        "generated_at": clock::rfc3339_seconds(clock::now()),
    }))
}

impl SshKey {
    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id, "name": self.name, "fingerprint": self.fingerprint,
            "public_key": self.public_key,
        })
    }
}

pub(super) async fn list_keys(State(cloud): State<DigitalOcean>, query: Query) -> Response {
    query.page("ssh_keys", cloud.project().ssh_keys.values().map(SshKey::json).collect())
}

pub(super) async fn create_key(State(cloud): State<DigitalOcean>, input: Input) -> Answer {
    let mut project = cloud.project();
    let name = input.required_text("name")?.to_owned();
    let public_key = input.required_text("public_key")?.to_owned();
    let fingerprint = key_fingerprint(&public_key)
        .ok_or_else(|| ApiError::refused("Key invalid, type is not recognized"))?;
    if project.ssh_keys.values().any(|key| key.fingerprint == fingerprint) {
        return Err(ApiError::refused("SSH Key is already in use on your account"));
    }
    let id = project.next_id();
    let key = SshKey { id, name, fingerprint, public_key };
    let body = json!({"ssh_key": key.json()});
    project.ssh_keys.insert(id, key);
    created(body)
}

pub(super) async fn show_key(State(cloud): State<DigitalOcean>, Path(id): Path<String>) -> Answer {
    ok(json!({"ssh_key": find(&mut cloud.project(), &id)?.json()}))
}

pub(super) async fn update_key(
    State(cloud): State<DigitalOcean>,
    Path(id): Path<String>,
    input: Input,
) -> Answer {
    let mut project = cloud.project();
    let key = find(&mut project, &id)?;
    key.name = input.required_text("name")?.to_owned();
    ok(json!({"ssh_key": key.json()}))
}

pub(super) async fn delete_key(
    State(cloud): State<DigitalOcean>,
    Path(id): Path<String>,
) -> Nothing {
    let mut project = cloud.project();
    let id = find(&mut project, &id)?.id;
    project.ssh_keys.remove(&id);
    NO_CONTENT
}

/// By id or by fingerprint.
pub(super) fn find<'a>(project: &'a mut Project, id: &str) -> Result<&'a mut SshKey, ApiError> {
    let fits = |key: &&mut SshKey| key.id.to_string() == id || key.fingerprint == id;
    project.ssh_keys.values_mut().find(fits).ok_or_else(ApiError::not_found)
}
