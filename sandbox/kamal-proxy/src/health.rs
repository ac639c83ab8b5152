//! The health check before a switch: a GET each interval until it answers 2xx, redirects followed.

use std::time::Duration;

use http::{Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;

use crate::flags::Deploy;
use crate::log;

/// As many redirects as Go's client follows.
const REDIRECTS_MAX: usize = 10;

/// Checks until the target is healthy, or `deploy_timeout`.
pub(crate) async fn until_healthy(deploy: &Deploy) -> Result<(), String> {
    let limit = deploy.deploy_timeout;
    let work = async {
        loop {
            match once(deploy).await {
                Ok(()) => {
                    return log::note(
                        "INFO",
                        "Target health updated",
                        json!({"target": deploy.target, "success": true}),
                    );
                }
                Err(error) => log::note("INFO", "Healthcheck failed", json!({"error": error})),
            }
            tokio::time::sleep(deploy.health_interval).await;
        }
    };
    tokio::time::timeout(limit, work).await.map_err(|_| {
        format!("target failed to become healthy within configured timeout ({}s)", limit.as_secs())
    })
}

async fn once(deploy: &Deploy) -> Result<(), String> {
    let limit = deploy.health_timeout;
    let url = format!("http://{}{}", deploy.target, deploy.health_path);
    let mut path = deploy.health_path.clone();
    for _ in 0..=REDIRECTS_MAX {
        let asked = tokio::time::timeout(limit, get(&deploy.target, &path)).await;
        let (status, location) = match asked {
            Err(_) => return Err(format!("request timed out ({}s)", seconds(limit))),
            Ok(Err(error)) => return Err(format!("Get \"{url}\": {error}")),
            Ok(Ok(answer)) => answer,
        };
        match (status, location) {
            (200..=299, _) => return Ok(()),
            (301 | 302 | 303 | 307 | 308, Some(to)) => {
                let inside = to.strip_prefix(&format!("http://{}", deploy.target)).unwrap_or(&to);
                if !inside.starts_with('/') {
                    return Err(format!("unexpected status ({status})"));
                }
                inside.clone_into(&mut path);
            }
            _ => return Err(format!("unexpected status ({status})")),
        }
    }
    Err(format!("Get \"{url}\": stopped after 10 redirects"))
}

fn seconds(limit: Duration) -> u64 {
    limit.as_secs()
}

async fn get(target: &str, path: &str) -> Result<(u16, Option<String>), String> {
    let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
    let address = tokio::net::lookup_host(target).await.ok().and_then(|mut all| all.next());
    let address =
        address.ok_or_else(|| format!("dial tcp: lookup {host} on 127.0.0.11:53: no such host"))?;
    let stream = TcpStream::connect(address).await.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused",
            std::io::ErrorKind::HostUnreachable => "no route to host",
            _ => "connection reset by peer",
        };
        format!("dial tcp {address}: connect: {why}")
    })?;
    let cut = |_| "EOF".to_owned();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(cut)?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, target)
        .header(header::USER_AGENT, "kamal-proxy")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(cut)?;
    let location = response.headers().get(header::LOCATION);
    let location = location.and_then(|to| to.to_str().ok()).map(str::to_owned);
    Ok((response.status().as_u16(), location))
}
