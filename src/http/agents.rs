//! The doors for agents: enrolment and links, and the program that a new VM downloads.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::failure;
use crate::domain::size::Arch;
use crate::operations::{Context, OpError};

/// What agents ask of us. They bring their own proof; the program is no secret.
pub fn agents(context: Arc<Context>) -> Router {
    let binary = Router::new()
        .route("/agent/v1/binary/{arch}", get(binary))
        .with_state(Arc::clone(&context));
    context.fleet.router().merge(binary)
}

async fn binary(State(context): State<Arc<Context>>, Path(arch): Path<String>) -> Response {
    let known = [Arch::Amd64, Arch::Arm64].into_iter().find(|known| known.as_str() == arch);
    let found = match known {
        Some(arch) => context.agent_binaries.find(arch).await,
        None => Err(OpError::NoAgentBinary { arch, folder: context.agent_binaries.place() }),
    };
    let found = match found {
        Ok(found) => found,
        Err(error @ OpError::NoAgentBinary { .. }) => {
            return failure(StatusCode::NOT_FOUND, error.code(), &error.to_string());
        }
        Err(error) => {
            tracing::error!(%error, "an agent that a VM asked for cannot be had");
            return failure(StatusCode::BAD_GATEWAY, error.code(), &error.to_string());
        }
    };
    match tokio::fs::File::open(&found.path).await {
        Ok(file) => {
            let body = Body::from_stream(tokio_util::io::ReaderStream::new(file));
            let kind = HeaderValue::from_static("application/octet-stream");
            ([(header::CONTENT_TYPE, kind)], body).into_response()
        }
        Err(error) => {
            tracing::error!(%error, path = %found.path.display(), "the agent cannot be read");
            let message = "the agent cannot be read; see the gateway's log";
            failure(StatusCode::INTERNAL_SERVER_ERROR, "agent_unreadable", message)
        }
    }
}
