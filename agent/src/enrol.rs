//! Enrolment: the single-use token of the user-data is exchanged for the agent's own key.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vmkit_agent_protocol::ENROL_PATH;
use vmkit_agent_protocol::bytes::{Bytes, Hidden};
use vmkit_agent_protocol::enrol::{EnrolRequest, Refusal};

use crate::agent::Agent;
use crate::backoff;
use crate::config::Gateway;
use crate::proxy::Proxy;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(30);
/// A refused token does not become good by itself, but a person may put things right.
const REFUSED_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
enum EnrolError {
    #[error("the gateway does not answer")]
    Unreachable(#[source] reqwest::Error),
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
    let mut client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    if let Some(proxy) = proxy.filter(|_| gateway.beyond_proxy().is_some()) {
        let proxy = reqwest::Proxy::all(proxy.url()).map_err(EnrolError::Unreachable)?;
        client = client.proxy(proxy);
    }
    let client = client.build().map_err(EnrolError::Unreachable)?;
    let answer = client
        .post(gateway.http(ENROL_PATH))
        .json(request)
        .send()
        .await
        .map_err(|error| EnrolError::Unreachable(error.without_url()))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    if status.is_client_error()
        && let Ok(refusal) = answer.json::<Refusal>().await
    {
        return Err(EnrolError::Refused { code: refusal.code, message: refusal.message });
    }
    Err(EnrolError::Unexpected(status.as_u16()))
}
