//! Dialling out: a WebSocket to the gateway, opened again whenever it ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Error as WsError, Message, protocol::WebSocketConfig};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_with_config};
use tokio_util::sync::CancellationToken;
use vmkit_agent_protocol::bytes::Bytes;
use vmkit_agent_protocol::handshake::{TLS_LABEL, TlsBinding};
use vmkit_agent_protocol::wire::{Wire, WireError};
use vmkit_agent_protocol::{LINK_PATH, MAX_MESSAGE_BYTES};

use crate::agent::Agent;
use crate::backoff;
use crate::config::Gateway;
use crate::dial;
use crate::proxy::Proxy;
use crate::session::{self, LinkError};

const DIAL_TIMEOUT: Duration = Duration::from_secs(15);
/// A link that held this long was a good one: the next attempt comes at once.
const GOOD_LINK: Duration = Duration::from_secs(10);
/// Where the gateway greeted us it is there and works: the wait then grows no further than this
/// attempt's.
const GREETED: u32 = 3;
/// The wait after another agent with this one's identity has taken the link.
const REPLACED: Duration = Duration::from_secs(300);

/// Keeps a link to the gateway until `stop` is cancelled.
pub(crate) async fn keep(agent: Arc<Agent>, gateway: &Gateway, stop: &CancellationToken) {
    let url = gateway.web_socket(LINK_PATH);
    let mut attempt = 0;
    while !stop.is_cancelled() {
        let (begun, mut greeted) = (Instant::now(), false);
        let ended = match dial(&url, gateway, agent.proxy()).await {
            Ok((wire, tls)) => session::run(&agent, wire, tls, stop, || greeted = true).await,
            Err(error) => Err(error),
        };
        if stop.is_cancelled() {
            return;
        }
        attempt = match greeted {
            true if begun.elapsed() >= GOOD_LINK => 1,
            true => (attempt + 1).min(GREETED),
            false => attempt + 1,
        };
        // Else two agents with one identity would take the link from each other for ever.
        let replaced = matches!(&ended, Err(LinkError::Refused { code, .. }) if code == "replaced");
        let wait = if replaced { REPLACED } else { backoff::jittered(attempt) };
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        match ended {
            Ok(()) => tracing::info!(attempt, wait_ms, "the link ended"),
            Err(error) if error.loud() => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(attempt, wait_ms, error, "the link is refused");
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(attempt, wait_ms, error, "no link");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn dial(
    url: &str,
    gateway: &Gateway,
    proxy: Option<&Proxy>,
) -> Result<(Wire, Option<TlsBinding>), LinkError> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
        .max_write_buffer_size(2 * MAX_MESSAGE_BYTES);
    let dialling = async {
        let stream = dial::connect(gateway, proxy).await.map_err(WsError::Io)?;
        client_async_with_config(url, stream, Some(config)).await
    };
    let (socket, _) = tokio::time::timeout(DIAL_TIMEOUT, dialling)
        .await
        .map_err(|_| LinkError::Silent { seconds: DIAL_TIMEOUT.as_secs() })?
        .map_err(|error| match error {
            WsError::Io(error) if dial::is_out_of_time(&error) => LinkError::OutOfTime(error),
            error => LinkError::Wire(broken(error)),
        })?;
    let tls = binding(socket.get_ref());
    Ok((carry(socket), tls))
}

/// What only the two ends of our TLS session know.
fn binding(stream: &MaybeTlsStream<TcpStream>) -> Option<TlsBinding> {
    let MaybeTlsStream::Rustls(stream) = stream else { return None };
    let material = stream.get_ref().1.export_keying_material([0; 32], TLS_LABEL, None).ok()?;
    Some(Bytes(material))
}

/// One text message each; pings are answered by the library, and other kinds do not occur.
fn carry(socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Wire {
    let (sink, stream) = socket.split();
    let outgoing = sink
        .sink_map_err(broken)
        .with(async |text: String| Ok::<_, WireError>(Message::text(text)));
    let incoming = stream.filter_map(async |message| match message {
        Ok(Message::Text(text)) => Some(Ok(text.as_str().to_owned())),
        Ok(_) => None,
        Err(WsError::ConnectionClosed | WsError::AlreadyClosed) => Some(Err(WireError::Closed)),
        Err(error) => Some(Err(broken(error))),
    });
    Wire { outgoing: Box::pin(outgoing), incoming: incoming.boxed() }
}

fn broken(error: WsError) -> WireError {
    match error {
        WsError::ConnectionClosed | WsError::AlreadyClosed => WireError::Closed,
        WsError::Capacity(_) => WireError::TooLong,
        WsError::Io(error) => WireError::Broken(error),
        other => WireError::Broken(io::Error::other(other)),
    }
}
