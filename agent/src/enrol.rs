//! Enrolment: the single-use token of the user-data is exchanged for the agent's own key.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes as Body;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use vmkit_agent_protocol::ENROL_PATH;
use vmkit_agent_protocol::bytes::{Bytes, Hidden};
use vmkit_agent_protocol::enrol::{EnrolRequest, Refusal};

use crate::agent::Agent;
use crate::backoff;
use crate::config::Gateway;
use crate::dial;
use crate::proxy::Proxy;

/// The longest answer that is read, in bytes.
const ANSWER_BYTES: usize = 16 * 1024;
const TIMEOUT: Duration = Duration::from_secs(30);
/// A refused token does not become good by itself, but a person may put things right.
const REFUSED_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
enum EnrolError {
    #[error("the gateway does not answer")]
    Unreachable(#[source] std::io::Error),
    #[error("the gateway refused the enrolment with {code}: {message}")]
    Refused { code: String, message: String },
    #[error("the gateway answered with status {0}")]
    Unexpected(u16),
}

/// Enrols, as long as it takes. Asking again with the same token and key is accepted, so a lost
/// answer costs nothing. Ends early only where `stop` says so.
pub(crate) async fn enrol(
    agent: &Agent,
    gateway: &Gateway,
    token: Hidden,
    stop: &CancellationToken,
) {
    let request = request(agent, token);
    let mut attempt = 0;
    loop {
        let wait = match ask(gateway, agent.proxy(), &request).await {
            Ok(()) => break,
            Err(error) => {
                attempt += 1;
                tracing::warn!(attempt, error = &error as &dyn std::error::Error, "not enrolled");
                match error {
                    EnrolError::Refused { .. } => REFUSED_WAIT,
                    EnrolError::Unreachable(_) | EnrolError::Unexpected(_) => {
                        backoff::jittered(attempt)
                    }
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
    agent.enrolled().await;
}

/// What an agent says of itself when it enrols.
pub(crate) fn request(agent: &Agent, token: Hidden) -> EnrolRequest {
    EnrolRequest {
        token,
        vm: agent.vm().to_owned(),
        public_key: Bytes(agent.key().verifying_key().to_bytes()),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        arch: crate::calls::facts::arch(),
    }
}

async fn ask(
    gateway: &Gateway,
    proxy: Option<&Proxy>,
    request: &EnrolRequest,
) -> Result<(), EnrolError> {
    let late = |_| std::io::ErrorKind::TimedOut.into();
    let (status, body) = tokio::time::timeout(TIMEOUT, post(gateway, proxy, request))
        .await
        .unwrap_or_else(|elapsed| Err(late(elapsed)))
        .map_err(EnrolError::Unreachable)?;
    match status {
        200..300 => Ok(()),
        400..500 => match serde_json::from_slice(&body) {
            Ok(Refusal { code, message }) => Err(EnrolError::Refused { code, message }),
            Err(_) => Err(EnrolError::Unexpected(status)),
        },
        _ => Err(EnrolError::Unexpected(status)),
    }
}

/// One request on a connection of its own: status and body.
async fn post(
    gateway: &Gateway,
    proxy: Option<&Proxy>,
    request: &EnrolRequest,
) -> std::io::Result<(u16, Body)> {
    let stream = dial::connect(gateway, proxy).await?;
    let uri: Uri = gateway.http(ENROL_PATH).parse().map_err(std::io::Error::other)?;
    let path = uri.path_and_query().map_or(ENROL_PATH, |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::post(path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("vmkit-agent/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Body::from(serde_json::to_vec(request)?)))
        .map_err(std::io::Error::other)?;
    let talk = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let answering = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
            Ok::<_, hyper::Error>((status, body.map(|body| body.to_bytes()).unwrap_or_default()))
        };
        let mut connection = std::pin::pin!(connection);
        let mut answering = std::pin::pin!(answering);
        // The connection may end with the answer's last byte.
        let ended = tokio::select! {
            answered = &mut answering => return answered,
            ended = &mut connection => ended,
        };
        ended?;
        answering.await
    };
    talk.await.map_err(std::io::Error::other)
}
