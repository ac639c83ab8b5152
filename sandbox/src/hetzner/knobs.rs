//! What the simulated project can be made to do, beside the faults of any simulator.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Json, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
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
    fn matches(&self, size: &str, region: &str) -> bool {
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
    let mut knobs = serde_json::to_value(hetzner.knobs()).unwrap_or_default();
    if let (Some(knobs), Value::Object(change)) = (knobs.as_object_mut(), change) {
        knobs.extend(change);
    }
    match serde_json::from_value::<Knobs>(knobs) {
        Ok(knobs) => {
            hetzner.set_knobs(knobs.clone());
            Json(knobs).into_response()
        }
        Err(error) => {
            let body = Json(json!({"message": error.to_string()}));
            (StatusCode::UNPROCESSABLE_ENTITY, body).into_response()
        }
    }
}
