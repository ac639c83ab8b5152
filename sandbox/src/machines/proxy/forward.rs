//! One request through the proxy: to the target of its host, streamed both ways.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;

use super::{Proxy, Target};

/// Headers that belong to one connection.
const HOP_BY_HOP: [header::HeaderName; 5] =
    [header::CONNECTION, header::TE, header::TRAILER, header::TRANSFER_ENCODING, header::UPGRADE];

/// Counts a request as open until it is dropped.
struct Open(Arc<Target>);

impl Open {
    fn new(target: Arc<Target>) -> Self {
        target.open_requests.send_modify(|open| *open += 1);
        Self(target)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open_requests.send_modify(|open| *open -= 1);
    }
}

pub(super) async fn forward(State(proxy): State<Proxy>, request: Request) -> Response {
    let started = Instant::now();
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let found = proxy.target(&host);
    let (service, response) = match found {
        None => (String::new(), page(StatusCode::NOT_FOUND)),
        Some((service, target)) => {
            let answer = pass(request, Open::new(target), &host).await;
            (service, answer.unwrap_or_else(|| page(StatusCode::BAD_GATEWAY)))
        }
    };
    let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    proxy.note(
        "Request",
        json!({
            "host": host, "path": path, "status": response.status().as_u16(), "service": service,
            "method": method, "duration": nanos,
        }),
    );
    response
}

/// None where the target cannot be reached or gives no answer.
async fn pass(request: Request, open: Open, host: &str) -> Option<Response> {
    let stream = TcpStream::connect(open.0.address).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    // It ends with the target's answer or with the client.
    tokio::spawn(connection);
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
    parts.version = http::Version::HTTP_11;
    clean(&mut parts.headers);
    parts.headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    if let Ok(host) = HeaderValue::from_str(host) {
        parts.headers.insert("x-forwarded-host", host);
    }
    let response = sender.send_request(Request::from_parts(parts, body)).await.ok()?;
    let (mut parts, body) = response.into_parts();
    clean(&mut parts.headers);
    let stream = Body::new(body).into_data_stream().map(move |chunk| {
        let _open = &open;
        chunk
    });
    Some(Response::from_parts(parts, Body::from_stream(stream)))
}

fn clean(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn page(status: StatusCode) -> Response {
    let title = status.canonical_reason().unwrap_or_default();
    (status, axum::response::Html(format!("<h1>{title}</h1>"))).into_response()
}
