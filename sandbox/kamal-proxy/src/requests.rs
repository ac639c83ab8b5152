//! One request through the proxy: to the target of its host, with the real one's time-out, buffering
//! and log line.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;

use crate::certificates::Certificates;
use crate::log;
use crate::routes::{Open, Routes};

type Body = BoxBody<Bytes, hyper::Error>;

/// Headers that belong to one connection.
const HOP_BY_HOP: [header::HeaderName; 5] =
    [header::CONNECTION, header::TE, header::TRAILER, header::TRANSFER_ENCODING, header::UPGRADE];
const CHALLENGE: &str = "/.well-known/acme-challenge/";

/// One of the two ports.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) routes: Routes,
    pub(crate) certificates: Certificates,
    pub(crate) tls: bool,
    pub(crate) port: u16,
}

/// Answers a request, whatever happens to its target.
pub(crate) async fn answer(
    front: Front,
    from: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let began = Instant::now();
    let path = request.uri().path().to_owned();
    if let Some(token) = path.strip_prefix(CHALLENGE)
        && let Some(said) = front.certificates.challenge(token)
    {
        return Ok(full(StatusCode::OK, said));
    }
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let host = header(header::HOST).unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let agent = header(header::USER_AGENT).unwrap_or_default().to_owned();
    let (method, query) =
        (request.method().to_string(), request.uri().query().unwrap_or_default().to_owned());
    let (mut service, mut target) = (String::new(), String::new());
    let response = match front.routes.open(&host) {
        None => full(StatusCode::NOT_FOUND, "<h1>Not Found</h1>".to_owned()),
        Some(open) => {
            let deploy = &open.service().deploy;
            (service, target) = (deploy.service.clone(), deploy.target.clone());
            if deploy.tls && deploy.tls_redirect && !front.tls {
                let to = request.uri().path_and_query().map_or("/", |path| path.as_str());
                redirect(&format!("https://{host}{to}"))
            } else {
                pass(request, open, &front, from).await
            }
        }
    };
    let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let scheme = if front.tls { "https" } else { "http" };
    let details = json!({
        "host": host, "port": front.port, "path": path, "query": query,
        "status": response.status().as_u16(), "service": service, "target": target,
        "duration": nanos, "method": method, "client_addr": from.ip(), "client_port": from.port(),
        "remote_addr": from.ip(), "user_agent": agent, "proto": "HTTP/1.1", "scheme": scheme,
    });
    log::note("INFO", "Request", details);
    Ok(response)
}

async fn pass(
    request: Request<Incoming>,
    open: Open,
    front: &Front,
    from: SocketAddr,
) -> Response<Body> {
    let deploy = open.service().deploy.clone();
    let forwarded = forward(request, &deploy.target, deploy.forward_headers, front, from);
    let response = match tokio::time::timeout(deploy.target_timeout, forwarded).await {
        Err(_) => return full(StatusCode::GATEWAY_TIMEOUT, "<h1>Gateway Timeout</h1>".to_owned()),
        Ok(None) => return full(StatusCode::BAD_GATEWAY, "<h1>Bad Gateway</h1>".to_owned()),
        Ok(Some(response)) => response,
    };
    let (mut parts, body) = response.into_parts();
    clean(&mut parts.headers);
    let streams = parts
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if deploy.buffer_responses && !streams {
        // All of it is held back until it is whole.
        return match body.collect().await {
            Ok(whole) => {
                let whole = Full::new(whole.to_bytes()).map_err(|never| match never {});
                Response::from_parts(parts, whole.boxed())
            }
            Err(_) => full(StatusCode::BAD_GATEWAY, "<h1>Bad Gateway</h1>".to_owned()),
        };
    }
    let body = body.map_frame(move |frame| {
        // The request is open as long as its answer flows.
        let _open = &open;
        frame
    });
    Response::from_parts(parts, body.boxed())
}

/// None where the target cannot be reached or gives no answer.
async fn forward(
    request: Request<Incoming>,
    target: &str,
    keep: bool,
    front: &Front,
    from: SocketAddr,
) -> Option<Response<Incoming>> {
    let stream = TcpStream::connect(target).await.ok()?;
    drop(stream.set_nodelay(true));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    // It ends with the target's answer or with the client.
    tokio::spawn(connection);
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    parts.uri = path.parse().ok()?;
    parts.version = http::Version::HTTP_11;
    clean(&mut parts.headers);
    let host = parts.headers.get(header::HOST).cloned();
    let scheme = if front.tls { "https" } else { "http" };
    let own = [
        ("x-forwarded-for", HeaderValue::from_str(&from.ip().to_string()).ok()),
        ("x-forwarded-proto", Some(HeaderValue::from_static(scheme))),
        ("x-forwarded-host", host),
    ];
    for (name, value) in own {
        if let Some(value) = value
            && !(keep && parts.headers.contains_key(name))
        {
            parts.headers.insert(name, value);
        }
    }
    sender.send_request(Request::from_parts(parts, body)).await.ok()
}

fn clean(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn full(status: StatusCode, text: String) -> Response<Body> {
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn redirect(to: &str) -> Response<Body> {
    let mut response = full(StatusCode::MOVED_PERMANENTLY, String::new());
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}
