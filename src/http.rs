//! The gateway over HTTP: MCP behind keys, the agents' doors, and whether we are well.

mod agents;
mod auth;
mod early;
mod webhooks;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use futures::future::BoxFuture;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::access::Keys;
use crate::domain::clock::Clock;
use crate::mcp::{Server, ToolError};

pub use agents::agents;
pub use auth::Door;
pub use webhooks::webhooks;

/// Whether we can work now; the error says why not.
pub type Ready = Arc<dyn Fn() -> BoxFuture<'static, Result<(), ToolError>> + Send + Sync>;

/// What the routes are made of.
pub struct Gateway {
    /// The MCP server.
    pub server: Server,
    /// Who is let in.
    pub door: Door,
    /// Where clients reach us: its host and origin are accepted beside those of loopback.
    pub public_url: Option<Url>,
    /// The agents' routes.
    pub agents: Router,
    /// GitHub's route.
    pub webhooks: Router,
    /// Whether we can work: the reason where we cannot.
    pub ready: Ready,
    /// Ends every open stream.
    pub stop: CancellationToken,
}

/// Why a gateway cannot be served as asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Everybody on the network would be an administrator.
    #[error(
        "--no-auth serves everybody who can connect, so it works on a loopback address only, and {given} is none; leave --no-auth out, or {instead}"
    )]
    OpenToTheNetwork {
        /// The address or URL that others can reach.
        given: String,
        /// What to do so that they cannot.
        instead: &'static str,
    },
}

impl HttpError {
    /// A stable name for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OpenToTheNetwork { .. } => "open_to_the_network",
        }
    }
}

/// Who is let in: everybody with a key, or, on a loopback address only, everybody.
///
/// # Errors
/// No keys are to be asked for where others could connect.
pub fn door(
    keys: Keys,
    clock: Clock,
    no_auth: bool,
    listen: SocketAddr,
    public_url: Option<&Url>,
) -> Result<Door, HttpError> {
    if !no_auth {
        return Ok(Door::Keys(Arc::new(keys), clock));
    }
    let open = |given, instead| Err(HttpError::OpenToTheNetwork { given, instead });
    match public_url {
        _ if !listen.ip().is_loopback() => open(listen.to_string(), "listen on 127.0.0.1"),
        Some(url) if !is_loopback(url) => {
            open(format!("the public URL {url}"), "unset VMKIT_PUBLIC_URL")
        }
        _ => Ok(Door::Open),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(host)) => host == "localhost",
        None => false,
    }
}

impl Gateway {
    /// All routes.
    pub fn router(self) -> Router {
        let Self { server, door, public_url, agents, webhooks, ready, stop } = self;
        let config = config(public_url.as_ref(), stop);
        let mcp = StreamableHttpService::new(
            move || Ok(server.clone()),
            Arc::new(LocalSessionManager::default()),
            config,
        );
        // The outermost layer is the last one: the key is checked before anything is answered.
        let mcp = Router::new()
            .route_service("/mcp", mcp)
            .layer(from_fn(early::early_sse))
            .layer(from_fn_with_state(door, auth::let_in));
        Router::new()
            .merge(mcp)
            .merge(agents)
            .merge(webhooks)
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(is_ready).with_state(ready))
            .route("/.well-known/{*rest}", any(not_found))
            .fallback(not_found)
    }
}

/// Modern requests are stateless anyway; without sessions the old ones are too, so that none is
/// lost at a restart, and none can be taken over by the holder of another key.
fn config(public_url: Option<&Url>, stop: CancellationToken) -> StreamableHttpServerConfig {
    let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    let mut origins =
        ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"].map(str::to_owned).to_vec();
    if let Some(url) = public_url
        && let Some(host) = url.host_str()
    {
        hosts.push(host.to_owned());
        let port = url.port_or_known_default().unwrap_or(443);
        origins.push(format!("{}://{host}:{port}", url.scheme()));
    }
    StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(false)
        .with_allowed_hosts(hosts)
        .with_allowed_origins(origins)
        .enforce_origin_validation()
        .with_cancellation_token(stop)
}

async fn is_ready(State(ready): State<Ready>) -> Response {
    match ready().await {
        Ok(()) => "ready\n".into_response(),
        Err(error) => failure(StatusCode::SERVICE_UNAVAILABLE, &error.code, &error.message),
    }
}

/// No document of OAuth exists, and a client that looks for one must hear so in JSON: else it
/// shows "needs authentication" though its key is good.
async fn not_found(request: Request) -> Response {
    let message = format!("there is nothing at {}; MCP is at /mcp", request.uri().path());
    failure(StatusCode::NOT_FOUND, "not_found", &message)
}

fn failure(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "error": { "code": code, "message": message } });
    (status, axum::Json(body)).into_response()
}

#[cfg(test)]
mod tests;
