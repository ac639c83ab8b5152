//! The door for GitHub's webhooks. It brings its own proof, and is answered before anything is done.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use super::failure;
use crate::operations::Context;
use crate::operations::webhooks::{Head, PATH, WebhookError, receive};

/// GitHub sends nothing larger.
const BODY_MAX: usize = 25 << 20;

/// What GitHub asks of us.
pub fn webhooks(context: Arc<Context>) -> Router {
    Router::new().route(&format!("/{PATH}"), post(take)).with_state(context)
}

async fn take(State(context): State<Arc<Context>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Some(body) = whole(body).await else {
        let message = format!("a delivery is at most {BODY_MAX} bytes");
        return failure(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &message);
    };
    match receive(&context, of(&head.headers), &body).await {
        Ok(true) => (StatusCode::ACCEPTED, "noted\n").into_response(),
        Ok(false) => (StatusCode::ACCEPTED, "known\n").into_response(),
        Err(error) => {
            let status = match error {
                WebhookError::Signature => StatusCode::UNAUTHORIZED,
                WebhookError::Form { .. } => StatusCode::BAD_REQUEST,
                WebhookError::Op(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            tracing::warn!(code = error.code(), "a delivery to the webhook was not taken");
            let message = match &error {
                WebhookError::Op(_) => "it could not be noted; see the gateway's log".to_owned(),
                error => error.to_string(),
            };
            failure(status, error.code(), &message)
        }
    }
}

async fn whole(body: Body) -> Option<axum::body::Bytes> {
    to_bytes(body, BODY_MAX).await.ok()
}

fn of(headers: &HeaderMap) -> Head<'_> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Head {
        event: text("x-github-event"),
        id: text("x-github-delivery"),
        signature: text("x-hub-signature-256"),
    }
}
