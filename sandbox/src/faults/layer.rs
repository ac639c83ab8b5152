//! The layer around a simulator's router that plays the faults and writes the record.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request};
use serde_json::{Value, json};

use super::{Action, Exchange, Faults, Style};
use crate::clock;
use crate::serve::Vanish;

/// The largest body that is taken or recorded.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The most of a body that the record keeps.
const RECORD_BYTES_MAX: usize = 256 * 1024;

impl Faults {
    /// Puts the faults and the record in front of a simulator's routes.
    pub fn layer(&self, router: Router) -> Router {
        router.layer(from_fn_with_state(self.clone(), pass))
    }
}

async fn pass(State(faults): State<Faults>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let action = faults.take(&parts.method, parts.uri.path());
    let id = faults.record(exchange(&parts, &body, action.as_ref()));
    // A task of its own: what a server has received takes its course, whether or not the client
    // waits for the answer.
    let playing = tokio::spawn(async move {
        let response = play(faults.clone(), id, action, parts, body, next).await;
        faults.keep(id);
        response
    });
    playing.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

async fn play(
    faults: Faults,
    id: u64,
    action: Option<Action>,
    parts: request::Parts,
    body: Bytes,
    next: Next,
) -> Response {
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    match &action {
        Some(Action::Status { code, body, headers }) => {
            let body = body.clone().unwrap_or_else(|| faults.style().body(*code));
            let mut response = answer(*code, &body);
            for (name, value) in headers {
                put(&mut response, name, value);
            }
            faults.record_answer(id, *code, body);
            return response;
        }
        Some(Action::RateLimit { reset_seconds }) => {
            return faults.rate_limited(id, *reset_seconds);
        }
        Some(Action::DropBefore) => return vanish(),
        Some(Action::Latency { ms }) => tokio::time::sleep(Duration::from_millis(*ms)).await,
        Some(Action::HoldBefore) => {
            if !faults.hold(id, &method, &path, false).await {
                return vanish();
            }
        }
        Some(
            Action::HoldAfter
            | Action::DropAfter
            | Action::StatusAfter { .. }
            | Action::Garble
            | Action::SlowBody { .. },
        )
        | None => {}
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let (head, body) = response.into_parts();
    let bytes = to_bytes(body, BODY_BYTES_MAX).await.unwrap_or_default();
    faults.record_answer(id, head.status.as_u16(), readable(&bytes));
    match action {
        Some(Action::HoldAfter) if !faults.hold(id, &method, &path, true).await => vanish(),
        Some(Action::DropAfter) => vanish(),
        Some(Action::StatusAfter { code }) => answer(code, &faults.style().body(code)),
        Some(Action::Garble) => Response::from_parts(head, Body::from("<html>what?</html>")),
        Some(Action::SlowBody { ms }) => {
            let half = bytes.len() / 2;
            let (begun, rest) = (bytes.slice(..half), bytes.slice(half..));
            let later = futures::stream::once(async move {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Ok::<_, std::convert::Infallible>(rest)
            });
            let begun = futures::stream::once(async move { Ok(begun) });
            let mut head = head;
            head.headers.remove(http::header::CONTENT_LENGTH);
            Response::from_parts(head, Body::from_stream(futures::StreamExt::chain(begun, later)))
        }
        _ => Response::from_parts(head, Body::from(bytes)),
    }
}

impl Faults {
    fn rate_limited(&self, id: u64, reset_seconds: u32) -> Response {
        let code = 429;
        let body = self.style().body(code);
        let mut response = answer(code, &body);
        let reset = (clock::now().as_second() + i64::from(reset_seconds)).to_string();
        let headers = match self.style() {
            Style::Hetzner => [
                ("ratelimit-limit", "3600".to_owned()),
                ("ratelimit-remaining", "0".to_owned()),
                ("ratelimit-reset", reset),
            ],
            Style::DigitalOcean => [
                ("ratelimit-limit", "5000".to_owned()),
                ("ratelimit-remaining", "0".to_owned()),
                ("ratelimit-reset", reset),
            ],
            Style::GitHub => [
                ("x-ratelimit-limit", "5000".to_owned()),
                ("x-ratelimit-remaining", "0".to_owned()),
                ("x-ratelimit-reset", reset),
            ],
            Style::Cloudflare => [
                ("ratelimit", format!("\"default\";r=0;t={reset_seconds}")),
                ("ratelimit-policy", "\"default\";q=1200;w=300".to_owned()),
                ("retry-after", reset_seconds.to_string()),
            ],
        };
        for (name, value) in &headers {
            put(&mut response, name, value);
        }
        self.record_answer(id, code, body);
        response
    }
}

impl Style {
    /// The body that this provider would send with an error status.
    fn body(self, status: u16) -> Value {
        match self {
            Self::Hetzner => {
                let (code, message) = match status {
                    400 => ("json_error", "Invalid JSON input in your request."),
                    401 => ("unauthorized", "the token you provided is invalid"),
                    403 => ("forbidden", "insufficient permissions for this request"),
                    404 => ("not_found", "not found"),
                    409 => ("conflict", "the resource has changed, please retry"),
                    412 => ("resource_unavailable", "error during placement"),
                    423 => ("locked", "the resource is locked"),
                    429 => ("rate_limit_exceeded", "limit of 3600 requests per hour reached"),
                    502 => ("bad_gateway", "the connection to another service failed"),
                    503 => ("unavailable", "service or product is currently not available"),
                    504 => ("timeout", "the request could not be answered in time"),
                    500.. => ("server_error", "an internal server error occurred"),
                    _ => ("invalid_input", "invalid input"),
                };
                json!({"error": {"code": code, "message": message, "details": null}})
            }
            Self::DigitalOcean => {
                let (id, message) = match status {
                    400 => ("bad_request", "The request was malformed."),
                    401 => ("unauthorized", "Unable to authenticate you"),
                    403 => ("forbidden", "You are not authorized to perform this operation"),
                    404 => ("not_found", "The resource you were accessing could not be found."),
                    409 => ("conflict", "The request conflicts with another one."),
                    429 => ("too_many_requests", "API Rate limit exceeded."),
                    503 => ("service_unavailable", "The service is not available."),
                    500.. => ("server_error", "Server was unable to give you a response."),
                    _ => ("unprocessable_entity", "The request could not be processed."),
                };
                json!({"id": id, "message": message})
            }
            Self::GitHub => {
                let message = match status {
                    401 => "Bad credentials",
                    403 => "Resource not accessible by personal access token",
                    404 => "Not Found",
                    422 => "Validation Failed",
                    429 => "API rate limit exceeded for user ID 1.",
                    500.. => "Server Error",
                    _ => "Problem",
                };
                let docs = "https://docs.github.com/rest";
                json!({"message": message, "documentation_url": docs, "status": status.to_string()})
            }
            Self::Cloudflare => {
                let (code, message) = match status {
                    401 => (1000, "Invalid API Token"),
                    403 => (10000, "Authentication error"),
                    404 => (7003, "Could not route to this path"),
                    429 => (10100, "More than 1200 requests per 300 seconds reached"),
                    500.. => (1101, "An internal error has occurred"),
                    _ => (1004, "DNS Validation Error"),
                };
                json!({"success": false, "errors": [{"code": code, "message": message}],
                    "messages": [], "result": null})
            }
        }
    }
}

fn exchange(parts: &request::Parts, body: &Bytes, action: Option<&Action>) -> Exchange {
    Exchange {
        id: 0,
        time_ms: 0,
        method: Method::to_string(&parts.method),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        client: client(&parts.headers),
        body: readable(body),
        fault: action.map(kind),
        status: None,
        answer: Value::Null,
    }
}

fn client(headers: &HeaderMap) -> String {
    let named = headers.get(http::header::USER_AGENT).and_then(|name| name.to_str().ok());
    named.unwrap_or_default().to_owned()
}

fn kind(action: &Action) -> String {
    let json = serde_json::to_value(action).unwrap_or_default();
    json["kind"].as_str().unwrap_or_default().to_owned()
}

/// JSON where it is JSON, else text, cut where it is long; null where empty.
fn readable(bytes: &Bytes) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    if bytes.len() <= RECORD_BYTES_MAX
        && let Ok(json) = serde_json::from_slice(bytes)
    {
        return json;
    }
    let kept = &bytes[..bytes.len().min(RECORD_BYTES_MAX)];
    Value::String(String::from_utf8_lossy(kept).into_owned())
}

fn answer(code: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(body)).into_response()
}

fn put(response: &mut Response, name: &str, value: &str) {
    let pair = (HeaderName::try_from(name), HeaderValue::try_from(value));
    if let (Ok(name), Ok(value)) = pair {
        response.headers_mut().insert(name, value);
    }
}

fn vanish() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.extensions_mut().insert(Vanish);
    response
}
