//! What stands before every request: the token, its scopes, the rate limits, and the headers of
//! each answer.

use std::collections::VecDeque;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, header};

use super::DigitalOcean;
use super::errors::ApiError;
use crate::clock;

const HOUR_MS: i64 = 60 * 60 * 1000;
const MINUTE_MS: i64 = 60 * 1000;

/// When the requests of the last hour came, the oldest first.
#[derive(Default)]
pub(super) struct Limit(VecDeque<i64>);

/// Where a request stands in the limits.
struct Standing {
    left: usize,
    /// When the oldest request of the hour no longer counts, in seconds since 1970.
    reset: i64,
    /// In how many seconds there is room again, where the minute's limit was hit.
    burst: Option<i64>,
    refused: bool,
}

impl Limit {
    fn take(&mut self, per_hour: usize, per_minute: usize) -> Standing {
        let now = clock::now_ms();
        while self.0.front().is_some_and(|at| now - at >= HOUR_MS) {
            self.0.pop_front();
        }
        let recent = self.0.len() - self.0.partition_point(|at| now - at >= MINUTE_MS);
        let hour_full = self.0.len() >= per_hour;
        let minute_full = recent >= per_minute;
        let burst = minute_full.then(|| {
            let oldest = self.0.get(self.0.len().saturating_sub(per_minute.max(1)));
            oldest.map_or(60, |at| (at + MINUTE_MS - now).max(0) / 1000 + 1)
        });
        if !hour_full && !minute_full {
            self.0.push_back(now);
        }
        let oldest = self.0.front().copied().unwrap_or(now);
        Standing {
            left: per_hour.saturating_sub(self.0.len()),
            reset: (oldest + HOUR_MS) / 1000,
            burst,
            refused: hour_full || minute_full,
        }
    }
}

pub(super) async fn pass(
    State(cloud): State<DigitalOcean>,
    request: Request,
    next: Next,
) -> Response {
    let knobs = cloud.knobs();
    let standing = crate::lock(&cloud.0.limit).take(knobs.per_hour, knobs.per_minute);
    let mut response = match cloud.refusal(&request) {
        _ if standing.refused => ApiError::too_many().into_response(),
        Some(error) => error.into_response(),
        None => next.run(request).await,
    };
    let mut headers = vec![
        ("ratelimit-limit", knobs.per_hour.to_string()),
        ("ratelimit-remaining", standing.left.to_string()),
        ("ratelimit-reset", standing.reset.to_string()),
        ("x-request-id", super::project::uuid()),
    ];
    headers.extend(standing.burst.map(|seconds| ("retry-after", seconds.to_string())));
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().entry(name).or_insert(value);
        }
    }
    response
}

impl DigitalOcean {
    fn refusal(&self, request: &Request) -> Option<ApiError> {
        let given = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        if given != Some(&self.0.token) {
            return Some(ApiError::unauthorized());
        }
        let scopes = self.knobs().scopes?;
        let needed = scope(request.method(), request.uri().path());
        (!scopes.contains(&needed)).then(ApiError::forbidden)
    }
}

/// The scope that a request needs, such as `droplet:create`.
fn scope(method: &Method, path: &str) -> String {
    let parts: Vec<&str> = path.trim_start_matches("/v2/").split('/').collect();
    let resource = match parts.as_slice() {
        ["account", "keys", ..] => "ssh_key",
        ["account" | "customers", ..] => "account",
        [one @ ("actions" | "sizes" | "regions"), ..] => one,
        [plural, ..] => plural.trim_end_matches('s'),
        [] => "",
    };
    let part = parts.len() > 2 && parts[0] != "account" && parts[0] != "domains";
    let verb = match *method {
        Method::GET | Method::HEAD => "read",
        Method::POST if !part => "create",
        Method::DELETE if !part => "delete",
        _ => "update",
    };
    format!("{resource}:{verb}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_its_scope() {
        for (method, path, expected) in [
            (Method::POST, "/v2/droplets", "droplet:create"),
            (Method::POST, "/v2/droplets/1/actions", "droplet:update"),
            (Method::GET, "/v2/account/keys/1", "ssh_key:read"),
            (Method::DELETE, "/v2/reserved_ips/192.0.2.1", "reserved_ip:delete"),
            (Method::GET, "/v2/sizes", "sizes:read"),
        ] {
            assert_eq!(scope(&method, path), expected);
        }
    }

    #[test]
    fn the_minute_fills_before_the_hour() {
        let mut limit = Limit::default();
        assert!(!limit.take(5, 2).refused);
        assert_eq!(limit.take(5, 2).left, 3);
        let third = limit.take(5, 2);
        assert!(third.refused && third.burst.is_some_and(|seconds| (1..=61).contains(&seconds)));
        assert_eq!((third.left, limit.take(2, 9).burst), (3, None));
    }
}
