//! What the simulated account can be made to do, beside the faults of any simulator.

use std::collections::BTreeSet;

use axum::extract::{Json, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::DigitalOcean;
use crate::hetzner::Offer;

/// What the account is made to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Knobs {
    /// Not listed in the regions of their size, and refused.
    pub sold_out: BTreeSet<Offer>,
    /// Listed, and refused when ordered.
    pub sold_out_at_order: BTreeSet<Offer>,
    /// How many droplets the account may have.
    pub droplet_limit: usize,
    /// The guests do not listen to ACPI: a shutdown has no effect.
    pub shutdown_ignored: bool,
    /// The scopes of the token, such as `droplet:read`; all where none.
    pub scopes: Option<BTreeSet<String>>,
    /// Whether agents are started on droplets made from now on.
    pub agents_start: bool,
    /// How long an action takes at least.
    pub action_ms: u64,
    /// Types of actions that end in an error, such as `create` or `power_on`.
    pub failing_actions: BTreeSet<String>,
    /// `active`, `warning` or `locked`.
    pub account_status: String,
    /// Whether the owner's e-mail address is verified.
    pub email_verified: bool,
    /// How many requests an hour may have.
    pub per_hour: usize,
    /// How many requests a minute may have.
    pub per_minute: usize,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            sold_out: BTreeSet::new(),
            sold_out_at_order: BTreeSet::new(),
            droplet_limit: 25,
            shutdown_ignored: false,
            scopes: None,
            agents_start: true,
            action_ms: 50,
            failing_actions: BTreeSet::new(),
            account_status: "active".to_owned(),
            email_verified: true,
            per_hour: 5000,
            per_minute: 250,
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

pub(super) async fn show(State(cloud): State<DigitalOcean>) -> Json<Knobs> {
    Json(cloud.knobs())
}

pub(super) async fn turn(State(cloud): State<DigitalOcean>, Json(change): Json<Value>) -> Response {
    match crate::hetzner::turned(&cloud.knobs(), change) {
        Ok(knobs) => {
            cloud.set_knobs(knobs);
            Json(cloud.knobs()).into_response()
        }
        Err(error) => {
            let body = Json(json!({"message": error.to_string()}));
            (StatusCode::UNPROCESSABLE_ENTITY, body).into_response()
        }
    }
}
