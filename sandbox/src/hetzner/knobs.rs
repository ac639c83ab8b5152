//! What the simulated project can be made to do, beside the faults of any simulator.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Json, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Hetzner;

/// A size at a location.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Offer {
    /// The server type, such as `cax11`.
    pub size: String,
    /// The location, such as `fsn1`; all where none.
    #[serde(default)]
    pub region: Option<String>,
}

impl Offer {
    pub(crate) fn matches(&self, size: &str, region: &str) -> bool {
        self.size == size && self.region.as_deref().is_none_or(|own| own == region)
    }
}

/// What the project is made to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Knobs {
    /// Listed as not available, and refused.
    pub sold_out: BTreeSet<Offer>,
    /// Listed as available, and refused when ordered.
    pub sold_out_at_order: BTreeSet<Offer>,
    /// How many servers the account may have.
    pub server_limit: Option<usize>,
    /// How many primary IPs the account may have.
    pub primary_ip_limit: Option<usize>,
    /// How many snapshots the account may have.
    pub snapshot_limit: Option<usize>,
    /// The guests do not listen to ACPI: a shutdown has no effect.
    pub shutdown_ignored: bool,
    /// Only GET is allowed.
    pub read_only_token: bool,
    /// Whether agents are started on servers made from now on.
    pub agents_start: bool,
    /// How long an action takes at least.
    pub action_ms: u64,
    /// Commands whose actions end in an error, with its code, such as
    /// `{"create_server": "server_error"}`.
    pub failing_actions: BTreeMap<String, String>,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            sold_out: BTreeSet::new(),
            sold_out_at_order: BTreeSet::new(),
            server_limit: None,
            primary_ip_limit: None,
            snapshot_limit: None,
            shutdown_ignored: false,
            read_only_token: false,
            agents_start: true,
            action_ms: 50,
            failing_actions: BTreeMap::new(),
        }
    }
}

impl Knobs {
    pub(super) fn listed(&self, size: &str, region: &str) -> bool {
        !self.sold_out.iter().any(|offer| offer.matches(size, region))
    }

    pub(super) fn can_be_ordered(&self, size: &str, region: &str) -> bool {
        let refused = self.sold_out_at_order.iter().any(|offer| offer.matches(size, region));
        self.listed(size, region) && !refused
    }
}

pub(super) async fn show(State(hetzner): State<Hetzner>) -> Json<Knobs> {
    Json(hetzner.knobs())
}

pub(super) async fn turn(State(hetzner): State<Hetzner>, Json(change): Json<Value>) -> Response {
    match turned(&hetzner.knobs(), change) {
        Ok(knobs) => {
            hetzner.set_knobs(knobs);
            Json(hetzner.knobs()).into_response()
        }
        Err(error) => {
            let body = Json(json!({"message": error.to_string()}));
            (StatusCode::UNPROCESSABLE_ENTITY, body).into_response()
        }
    }
}

/// Knobs with those fields changed that `change` names.
pub(crate) fn turned<K: Serialize + DeserializeOwned>(
    knobs: &K,
    change: Value,
) -> Result<K, serde_json::Error> {
    let mut all = serde_json::to_value(knobs)?;
    if let (Some(all), Value::Object(change)) = (all.as_object_mut(), change) {
        all.extend(change);
    }
    serde_json::from_value(all)
}
