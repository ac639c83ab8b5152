//! What every request passes: the token, the permissions, the rate limit, ETags.

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use sha2::{Digest, Sha256};

use super::answer::Refusal;
use super::{GitHub, permissions};
use crate::clock;

/// Requests in an hour.
const LIMIT: u64 = 5000;
/// The largest answer.
const BODY_BYTES_MAX: usize = 128 * 1024 * 1024;

/// The layer around all routes.
pub(super) async fn pass(State(hub): State<GitHub>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let wanted = request.headers().get(header::IF_NONE_MATCH).cloned();
    let needed = permissions::needed(&method, request.uri().path());
    let path = request.uri().path().to_owned();
    let mut response = match hub.check(request.headers(), &method, &path, needed.as_deref()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    if method == Method::GET && response.status() == StatusCode::OK {
        response = tagged(response, wanted.as_ref()).await;
    }
    let costs = response.status() != StatusCode::NOT_MODIFIED;
    hub.add_headers(response.headers_mut(), needed.as_deref(), costs);
    response
}

impl GitHub {
    fn check(
        &self,
        headers: &HeaderMap,
        method: &Method,
        path: &str,
        needed: Option<&str>,
    ) -> Result<(), Refusal> {
        let text = |name: HeaderName| {
            headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        if text(header::USER_AGENT).is_empty() {
            let message = "Request forbidden by administrative rules. Please make sure your request has a User-Agent header";
            return Err(Refusal::new(StatusCode::FORBIDDEN, message));
        }
        let version = text(HeaderName::from_static("x-github-api-version"));
        if !matches!(version, "" | "2022-11-28" | "2026-03-10") {
            let message = format!("\"{version}\" is not a supported version of the REST API.");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
        }
        let given = text(header::AUTHORIZATION);
        let token = given
            .strip_prefix("Bearer ")
            .or(given.strip_prefix("token "))
            .or(given.strip_prefix("bearer "));
        match token {
            None => return Err(Refusal::new(StatusCode::UNAUTHORIZED, "Requires authentication")),
            Some(token) if token != self.0.token => {
                self.admit_app(token, method, path, needed)?;
            }
            Some(_) if path == "/app" || path.starts_with("/app/") => {
                let message = "A JSON web token could not be decoded";
                return Err(Refusal::new(StatusCode::UNAUTHORIZED, message));
            }
            Some(_) => {}
        }
        let state = self.state();
        if state.knobs.requests_left == Some(0) {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "API rate limit exceeded for user ID 1.",
            ));
        }
        if let Some(seconds) = state.knobs.secondary_limit_seconds {
            return Err(Refusal::secondary_limit(seconds));
        }
        match needed.filter(|needed| state.knobs.missing_permissions.contains(*needed)) {
            Some(needed) => Err(Refusal::permission(needed)),
            None => Ok(()),
        }
    }

    fn add_headers(&self, headers: &mut HeaderMap, needed: Option<&str>, costs: bool) {
        let mut state = self.state();
        if costs {
            state.requests_used += 1;
            if let Some(left) = &mut state.knobs.requests_left {
                *left = left.saturating_sub(1);
            }
        }
        let remaining = state
            .knobs
            .requests_left
            .unwrap_or_else(|| LIMIT.saturating_sub(state.requests_used).max(100));
        drop(state);
        let reset = (clock::now().as_second() / 3600 + 1) * 3600;
        let values = [
            ("x-ratelimit-limit", LIMIT.to_string()),
            ("x-ratelimit-remaining", remaining.to_string()),
            ("x-ratelimit-used", (LIMIT - remaining.min(LIMIT)).to_string()),
            ("x-ratelimit-reset", reset.to_string()),
            ("x-ratelimit-resource", "core".to_owned()),
            ("x-github-request-id", format!("{:016X}", rand::random::<u64>())),
            ("x-github-api-version-selected", "2026-03-10".to_owned()),
            (
                "x-accepted-github-permissions",
                needed.unwrap_or("allows_permissionless_access=true").to_owned(),
            ),
        ];
        for (name, value) in values {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.entry(HeaderName::from_static(name)).or_insert(value);
            }
        }
    }

    /// The limit as `GET /rate_limit` shows it: (limit, remaining, reset).
    pub(super) fn rate(&self) -> (u64, u64, i64) {
        let state = self.state();
        let remaining = state
            .knobs
            .requests_left
            .unwrap_or_else(|| LIMIT.saturating_sub(state.requests_used).max(100));
        (LIMIT, remaining, (clock::now().as_second() / 3600 + 1) * 3600)
    }
}

/// Gives an answer its ETag, or answers 304 where the client has it already.
async fn tagged(response: Response, wanted: Option<&HeaderValue>) -> Response {
    let (mut head, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, BODY_BYTES_MAX).await else {
        return Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "Server Error").into_response();
    };
    let tag = format!("W/\"{}\"", hex::encode(Sha256::digest(&bytes)));
    if let Ok(value) = HeaderValue::from_str(&tag) {
        head.headers.insert(header::ETAG, value);
    }
    let has_it = wanted.and_then(|value| value.to_str().ok()).is_some_and(|given| {
        given
            .split(',')
            .any(|one| one.trim().trim_start_matches("W/") == tag.trim_start_matches("W/"))
    });
    if has_it {
        head.status = StatusCode::NOT_MODIFIED;
        head.headers.remove(header::CONTENT_TYPE);
        head.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(head, Body::empty());
    }
    Response::from_parts(head, Body::from(bytes))
}
