//! The proxy's health check: a GET until it answers 2xx, with kamal-proxy's words for what it gets.

use std::time::Duration;

use axum::body::Body;
use http::{Request, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Target;
use crate::machines::docker::Docker;

/// Kamal checks each second; a simulation need not take that long.
const INTERVAL: Duration = Duration::from_millis(50);
/// How long one check may take; Kamal's default.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Check<'a> {
    pub(super) target: &'a Target,
    pub(super) path: &'a str,
    /// The container's id.
    pub(super) container: &'a str,
}

/// The container ended: waiting has no point.
pub(super) struct Ended;

impl Check<'_> {
    /// Checks until the target is healthy or its container has ended. Each new cause is told once.
    pub(super) async fn until_healthy(
        &self,
        docker: &Docker,
        tell: impl Fn(&str),
    ) -> Result<(), Ended> {
        let mut last = String::new();
        loop {
            let ended =
                docker.get(self.container).is_none_or(|info| !info.running || info.restarts > 0);
            let result = if ended { Err(self.no_such_host()) } else { self.once().await };
            let Err(error) = result else { return Ok(()) };
            if error != last {
                tell(&error);
                last = error;
            }
            if ended {
                return Err(Ended);
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn once(&self) -> Result<(), String> {
        match tokio::time::timeout(REQUEST_TIMEOUT, self.get()).await {
            Err(_) => Err("request timed out".to_owned()),
            Ok(Err(error)) => Err(format!("Get \"{}\": {error}", self.url())),
            Ok(Ok(status)) if (200..300).contains(&status) => Ok(()),
            Ok(Ok(status)) => Err(format!("unexpected status ({status})")),
        }
    }

    async fn get(&self) -> Result<u16, String> {
        let address = self.target.address;
        let stream = TcpStream::connect(address)
            .await
            .map_err(|_| format!("dial tcp {address}: connect: connection refused"))?;
        let cut = |_| "EOF".to_owned();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(cut)?;
        let request = Request::get(self.path)
            .header(header::HOST, &self.target.name)
            .header(header::USER_AGENT, "kamal-proxy")
            .body(Body::empty())
            .map_err(|error| error.to_string())?;
        let asking = sender.send_request(request);
        tokio::pin!(connection, asking);
        let response = tokio::select! {
            answer = &mut asking => answer,
            // The connection may end in the same moment as its last answer.
            _ = &mut connection => asking.await,
        };
        response.map(|response| response.status().as_u16()).map_err(cut)
    }

    fn no_such_host(&self) -> String {
        let host = self.target.name.trim_end_matches(":80");
        format!("Get \"{}\": dial tcp: lookup {host} on 127.0.0.11:53: no such host", self.url())
    }

    fn url(&self) -> String {
        format!("http://{}{}", self.target.name, self.path)
    }
}
