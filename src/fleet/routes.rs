//! The two routes that agents use.

use std::io;
use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use futures::{SinkExt, StreamExt};
use vmkit_agent_protocol::bytes::Bytes;
use vmkit_agent_protocol::enrol::{EnrolRequest, Refusal};
use vmkit_agent_protocol::handshake::{TLS_LABEL, TlsBinding};
use vmkit_agent_protocol::wire::{Wire, WireError};
use vmkit_agent_protocol::{ENROL_PATH, LINK_PATH, MAX_MESSAGE_BYTES};

use super::EnrolRefusal;
use super::hub::Hub;
use super::link;
use crate::domain::ids::VmId;
use crate::domain::secret::Secret;

/// The TLS session that a request came over, where this process ended it: whoever accepts
/// connections puts it into each request's extensions, and links are then bound to it.
#[derive(Debug, Clone, Copy)]
pub struct TlsSession(TlsBinding);

impl TlsSession {
    /// Of a session whose handshake is over; none where it cannot export keying material.
    pub fn of(session: &rustls::ServerConnection) -> Option<Self> {
        let material = session.export_keying_material([0; 32], TLS_LABEL, None).ok()?;
        Some(Self(Bytes(material)))
    }
}

/// The longest enrolment that is read, in bytes.
const ENROL_BYTES: usize = 16 * 1024;
/// What a link reads at a time, and writes together. It is held, and touched, as long as the link
/// is there, which mostly says little: the library's own 128 KiB are more than all else of it.
const BUFFER_BYTES: usize = 4 * 1024;

pub(super) fn router(hub: Arc<Hub>) -> Router {
    Router::new()
        .route(ENROL_PATH, post(enrol).layer(DefaultBodyLimit::max(ENROL_BYTES)))
        .route(LINK_PATH, get(open_link))
        .with_state(hub)
}

async fn enrol(
    State(hub): State<Arc<Hub>>,
    body: Result<Json<EnrolRequest>, JsonRejection>,
) -> Response {
    let Ok(_place) = hub.newcomers.try_acquire() else { return busy() };
    let Ok(Json(request)) = body else {
        return refuse(StatusCode::BAD_REQUEST, "bad_request", "the body is not an enrolment");
    };
    let Ok(vm) = request.vm.parse::<VmId>() else {
        return refuse(StatusCode::BAD_REQUEST, "bad_request", "`vm` is not the id of a VM");
    };
    let token = Secret::new(request.token.0);
    match hub.roster.redeem(vm, token, request.public_key.0).await {
        Ok(()) => {
            tracing::info!(%vm, "agent enrolled: {vm}");
            Json(serde_json::json!({})).into_response()
        }
        Err(refusal) => {
            tracing::warn!(%vm, code = refusal.code(), "enrolment refused for {vm}: {refusal}");
            let status = match refusal {
                EnrolRefusal::UnknownToken | EnrolRefusal::Expired | EnrolRefusal::Used => {
                    StatusCode::FORBIDDEN
                }
                EnrolRefusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            };
            refuse(status, refusal.code(), &refusal.to_string())
        }
    }
}

async fn open_link(
    State(hub): State<Arc<Hub>>,
    tls: Option<Extension<TlsSession>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    if hub.newcomers.available_permits() == 0 {
        return busy();
    }
    upgrade
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES)
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .on_upgrade(async move |socket| {
            // How it ended has been logged where it ended, and the agent dials again.
            let tls = tls.map(|Extension(TlsSession(binding))| binding);
            drop(link::run_bound(&hub, carry(socket), None, tls).await);
        })
}

fn busy() -> Response {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many agents at once; come again")
}

fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    let refusal = Refusal { code: code.to_owned(), message: message.to_owned() };
    (status, Json(refusal)).into_response()
}

/// One text message each; pings are answered by the library, and other kinds do not occur.
fn carry(socket: WebSocket) -> Wire {
    let (sink, stream) = socket.split();
    let outgoing = sink
        .sink_map_err(broken)
        .with(async |text: String| Ok::<_, WireError>(Message::Text(text.into())));
    let incoming = stream.filter_map(async |message| match message {
        Ok(Message::Text(text)) => Some(Ok(text.as_str().to_owned())),
        Ok(_) => None,
        Err(error) => Some(Err(broken(error))),
    });
    Wire { outgoing: Box::pin(outgoing), incoming: incoming.boxed() }
}

fn broken(error: axum::Error) -> WireError {
    WireError::Broken(io::Error::other(error))
}
