//! What stands before every request: the token, the rate limit, and the headers of each answer.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, header};
use rand::Rng;

use super::Hetzner;
use super::errors::{ApiError, Code};
use super::listing::WholePath;
use crate::clock;

/// Refilled by as many in an hour, one by one.
const PER_HOUR: u32 = 3600;

/// The project's rate limit.
pub(super) struct Limit {
    left: f64,
    at: Instant,
}

impl Limit {
    pub(super) fn full() -> Self {
        Self { left: f64::from(PER_HOUR), at: Instant::now() }
    }

    /// Takes one; returns how many are left, and false where there was none.
    fn take(&mut self) -> (u32, bool) {
        let now = Instant::now();
        let refill = now.duration_since(self.at).as_secs_f64() * f64::from(PER_HOUR) / 3600.0;
        self.left = (self.left + refill).min(f64::from(PER_HOUR));
        self.at = now;
        if self.left < 1.0 {
            return (0, false);
        }
        self.left -= 1.0;
        let left = (0..=PER_HOUR).rev().find(|whole| f64::from(*whole) <= self.left);
        (left.unwrap_or(0), true)
    }
}

pub(super) async fn pass(
    State(hetzner): State<Hetzner>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = WholePath(request.uri().path().to_owned());
    request.extensions_mut().insert(path);
    let (left, free) = crate::lock(&hetzner.0.limit).take();
    let mut response = match hetzner.refusal(&request) {
        _ if !free => ApiError::new(
            Code::RateLimitExceeded,
            format!("limit of {PER_HOUR} requests per hour reached"),
        )
        .into_response(),
        Some(error) => error.into_response(),
        None => next.run(request).await,
    };
    let full_in = i64::from(PER_HOUR - left.min(PER_HOUR));
    let reset = clock::now().as_second() + full_in;
    let correlation: [u8; 8] = rand::rng().random();
    let headers = response.headers_mut();
    for (name, value) in [
        ("ratelimit-limit", PER_HOUR.to_string()),
        ("ratelimit-remaining", left.to_string()),
        ("ratelimit-reset", reset.to_string()),
        ("x-correlation-id", hex::encode(correlation)),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.entry(name).or_insert(value);
        }
    }
    response
}

impl Hetzner {
    fn refusal(&self, request: &Request) -> Option<ApiError> {
        let given = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        if given != Some(&self.0.token) {
            return Some(ApiError::new(Code::Unauthorized, "unable to authenticate"));
        }
        let writes = request.method() != Method::GET && request.method() != Method::HEAD;
        (writes && self.knobs().read_only_token).then(|| {
            ApiError::new(Code::TokenReadonly, "the token is only allowed to perform GET requests")
        })
    }
}
