//! One client of stdin and stdout, carried to a gateway over HTTP and back, message by message.
//! The gateway decides everything; nothing is kept or understood here but who waits for an answer.

use std::collections::HashSet;
use std::error::Error;
use std::io;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use rmcp::model::{
    ClientJsonRpcMessage, ErrorCode, JsonRpcError, JsonRpcMessage, RequestId, ServerJsonRpcMessage,
};
use rmcp::service::ClientInitializeError;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_client::{
    StreamableHttpClientTransportConfig, StreamableHttpError,
};
use rmcp::transport::{StreamableHttpClientTransport, Transport};
use rmcp::{ErrorData, RoleServer, ServiceExt};
use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;

use super::ToolError;
use super::stdio::GRACE;
use crate::domain::secret::Secret;

type Link = StreamableHttpClientTransport<reqwest::Client>;
type HttpError = StreamableHttpError<reqwest::Error>;

/// A gateway, and the key that it knows us by.
#[derive(Debug, Clone)]
pub struct Gateway {
    url: Url,
    key: Option<Secret>,
}

impl Gateway {
    /// The gateway at `url`, which is its address with or without `/mcp`.
    pub fn new(mut url: Url, key: Option<Secret>) -> Self {
        if !url.path().ends_with("/mcp") {
            let path = format!("{}/mcp", url.path().trim_end_matches('/'));
            url.set_path(&path);
        }
        Self { url, key }
    }

    fn link(&self) -> Link {
        let config = StreamableHttpClientTransportConfig::with_uri(self.url.to_string());
        let config = match &self.key {
            Some(key) => config.auth_header(key.expose()),
            None => config,
        };
        StreamableHttpClientTransport::from_config(config)
    }

    /// Says hello once, so that a wrong address or key is known before a client waits.
    ///
    /// # Errors
    /// `gateway_unreachable`, `gateway_refuses` or `no_gateway`.
    pub async fn check(&self) -> Result<(), ToolError> {
        match ().serve(self.link()).await {
            Ok(session) => {
                drop(session.cancel().await);
                Ok(())
            }
            Err(ClientInitializeError::TransportError { error, .. }) => {
                Err(self.explained(error.error.downcast_ref::<HttpError>(), &*error.error))
            }
            Err(error) => Err(self.explained(None, &error)),
        }
    }

    /// Carries `input` to the gateway and its words to `output` until `input` ends.
    ///
    /// # Errors
    /// `output` cannot be written.
    pub async fn relay<R, W>(&self, input: R, output: W) -> io::Result<()>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let mut client = AsyncRwTransport::<RoleServer, R, W>::new(input, output);
        let mut link = self.link();
        let mut sending: FuturesUnordered<BoxFuture<'static, Sent>> = FuturesUnordered::new();
        let mut waiting = HashSet::new();
        let mut last_moment = None;
        while last_moment.is_none() || !waiting.is_empty() {
            tokio::select! {
                said = client.receive(), if last_moment.is_none() => match said {
                    Some(message) => {
                        let id = request_id(&message);
                        waiting.extend(id.clone());
                        let sent = link.send(message);
                        sending.push(Box::pin(async move { (id, sent.await) }));
                    }
                    None => last_moment = Some(tokio::time::Instant::now() + GRACE),
                },
                Some((id, sent)) = sending.next() => {
                    if let (Err(error), Some(id)) = (sent, id)
                        && waiting.remove(&id)
                    {
                        client.send(self.failed(id, &error)).await?;
                    }
                }
                answer = link.receive() => match answer {
                    Some(message) => {
                        if let Some(id) = answered(&message) {
                            waiting.remove(id);
                        }
                        client.send(message).await?;
                    }
                    // A link whose first message failed ends: the next message begins another.
                    None => {
                        link = self.link();
                        while let Some((id, _)) = sending.next().await {
                            waiting.extend(id);
                        }
                        for id in std::mem::take(&mut waiting) {
                            let error = HttpError::TransportChannelClosed;
                            client.send(self.failed(id, &error)).await?;
                        }
                    }
                },
                () = until(last_moment) => break,
            }
        }
        Ok(())
    }

    fn failed(&self, id: RequestId, error: &HttpError) -> ServerJsonRpcMessage {
        let told = self.explained(Some(error), error);
        let text = format!("{}: {}; {}", told.code, told.message, told.fix);
        let error = ErrorData::new(ErrorCode::INTERNAL_ERROR, text, None);
        JsonRpcMessage::Error(JsonRpcError::new(Some(id), error))
    }

    fn explained(&self, http: Option<&HttpError>, error: &(dyn Error + 'static)) -> ToolError {
        let url = &self.url;
        match http {
            Some(HttpError::AuthRequired(_) | HttpError::InsufficientScope(_)) => {
                let message = match self.key {
                    Some(_) => format!("the gateway {url} does not take this key"),
                    None => format!("the gateway {url} wants a key"),
                };
                ToolError::new("gateway_refuses", message).fix(
                    "put a key into VMKIT_GATEWAY_KEY, which `vmkit keys create` on the gateway makes",
                )
            }
            Some(HttpError::Client(error)) => {
                let first: &dyn Error = error;
                let causes = std::iter::successors(Some(first), |&error| error.source());
                let cause = causes.last().map(ToString::to_string).unwrap_or_default();
                let message = format!("the gateway {url} does not answer ({cause})");
                ToolError::new("gateway_unreachable", message)
                    .fix("check the address, and that `vmkit serve` runs there; then try again")
            }
            Some(HttpError::TransportChannelClosed | HttpError::UnexpectedEndOfStream) => {
                let message = format!("the gateway {url} went away before it answered");
                ToolError::new("gateway_lost", message).fix(
                    "what was asked for may have been done: look with `get_overview` before you repeat it",
                )
            }
            _ => {
                ToolError::new("no_gateway", format!("{url} does not speak as a gateway: {error}"))
                    .fix("give the address that `vmkit serve` tells")
            }
        }
    }
}

type Sent = (Option<RequestId>, Result<(), HttpError>);

fn request_id(message: &ClientJsonRpcMessage) -> Option<RequestId> {
    match message {
        JsonRpcMessage::Request(request) => Some(request.id.clone()),
        _ => None,
    }
}

fn answered(message: &ServerJsonRpcMessage) -> Option<&RequestId> {
    match message {
        JsonRpcMessage::Response(response) => Some(&response.id),
        JsonRpcMessage::Error(error) => error.id.as_ref(),
        _ => None,
    }
}

async fn until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
