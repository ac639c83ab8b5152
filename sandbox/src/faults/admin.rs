//! The side door of a simulator, under `/_sandbox`: its state, its record, its faults.

use axum::Router;
use axum::extract::{Json, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::future::BoxFuture;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::{Exchange, Faults, Held, Rule};

/// All resources of a simulator as JSON.
pub type StateOf = Arc<dyn Fn() -> BoxFuture<'static, Value> + Send + Sync>;

#[derive(Deserialize)]
#[serde(untagged)]
enum Release {
    One { id: u64 },
    All { all: bool },
}

impl Faults {
    /// `GET /_sandbox/state`, `GET /_sandbox/requests`, `GET|POST|DELETE /_sandbox/faults`,
    /// `GET /_sandbox/held`, `POST /_sandbox/release` with `{"id": 1}` or `{"all": true}`. No
    /// token, and no fault applies here.
    pub fn admin(&self, state: StateOf) -> Router {
        let show = move || async move { Json(state().await) };
        Router::new()
            .route("/_sandbox/state", get(show))
            .route("/_sandbox/requests", get(requests))
            .route("/_sandbox/faults", get(rules).post(add).delete(clear))
            .route("/_sandbox/held", get(held))
            .route("/_sandbox/release", post(release))
            .with_state(self.clone())
    }
}

async fn requests(State(faults): State<Faults>) -> Json<Vec<Exchange>> {
    Json(faults.requests())
}

async fn rules(State(faults): State<Faults>) -> Json<Vec<Rule>> {
    Json(faults.rules())
}

async fn held(State(faults): State<Faults>) -> Json<Vec<Held>> {
    Json(faults.held())
}

async fn add(State(faults): State<Faults>, Json(rule): Json<Rule>) -> Response {
    match faults.add(rule) {
        Ok(()) => (StatusCode::CREATED, Json(json!({}))).into_response(),
        Err(error) => {
            let body = Json(json!({"message": error.to_string()}));
            (StatusCode::UNPROCESSABLE_ENTITY, body).into_response()
        }
    }
}

async fn clear(State(faults): State<Faults>) -> StatusCode {
    faults.clear();
    StatusCode::NO_CONTENT
}

async fn release(State(faults): State<Faults>, Json(wanted): Json<Release>) -> Json<Value> {
    let released = match wanted {
        Release::One { id } => usize::from(faults.release(id)),
        Release::All { all } if all => faults.release_all(),
        Release::All { .. } => 0,
    };
    Json(json!({"released": released}))
}
