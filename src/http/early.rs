//! The head of a slow answer, sent early: rmcp holds it back until the tool says something, and
//! clients and proxies take a silent minute for a dead server.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};

/// How long an answer may take to begin before its head is sent without it.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How often a comment says that we live, until the answer's own begin.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// The largest answer that is not a stream and is turned into one event.
const ANSWER_MAX: usize = 16 << 20;

/// Answers 200 with an event stream after [`PATIENCE`], then pipes the real answer into it. A
/// client that goes away still cancels the call: dropping our stream drops the call's future.
pub(super) async fn early_sse(request: Request, next: Next) -> Response {
    if !takes_events(&request) {
        return next.run(request).await;
    }
    let mut answer: BoxFuture<'static, Response> = Box::pin(next.run(request));
    tokio::select! {
        response = &mut answer => return response,
        () = tokio::time::sleep(PATIENCE) => {}
    }
    let events = stream::unfold(Stage::Waiting(answer), step);
    let mut response = Response::new(Body::from_stream(events));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn takes_events(request: &Request) -> bool {
    let accepts = request.headers().get_all(ACCEPT).iter();
    request.method() == Method::POST
        && accepts.filter_map(|v| v.to_str().ok()).any(|v| v.contains("text/event-stream"))
}

enum Stage {
    Waiting(BoxFuture<'static, Response>),
    Piping(BoxStream<'static, Result<Bytes, axum::Error>>),
    Over,
}

type Piece = Result<Bytes, Infallible>;

async fn step(stage: Stage) -> Option<(Piece, Stage)> {
    match stage {
        Stage::Waiting(mut answer) => {
            let response = tokio::select! {
                response = &mut answer => response,
                () = tokio::time::sleep(SIGN_OF_LIFE) => {
                    let comment = Bytes::from_static(b": still working\n\n");
                    return Some((Ok(comment), Stage::Waiting(answer)));
                }
            };
            let kind = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
            if kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
                let body = response.into_body().into_data_stream().boxed();
                return Some((Ok(Bytes::from_static(b": begun\n\n")), Stage::Piping(body)));
            }
            // The status is sent already; the body still says what happened, as JSON-RPC.
            let body = axum::body::to_bytes(response.into_body(), ANSWER_MAX).await;
            Some((Ok(event(&body.unwrap_or_default())), Stage::Over))
        }
        Stage::Piping(mut body) => match body.next().await {
            Some(Ok(piece)) => Some((Ok(piece), Stage::Piping(body))),
            Some(Err(_)) | None => None,
        },
        Stage::Over => None,
    }
}

/// One event with `body` as its data, line by line as the format wants.
fn event(body: &[u8]) -> Bytes {
    let text = String::from_utf8_lossy(body);
    let data: String = text.lines().map(|line| format!("data: {line}\n")).collect();
    Bytes::from(format!("event: message\n{data}\n"))
}
