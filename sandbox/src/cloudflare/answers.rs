//! Cloudflare's envelope, its errors with the status of each, and its pages.

use std::ops::RangeInclusive;

use axum::extract::{FromRequestParts, Json};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use serde_json::{Value, json};

/// A refusal: status, code, message.
#[derive(Debug)]
pub(super) struct ApiError(StatusCode, u32, String);

impl ApiError {
    pub(super) fn new(status: StatusCode, code: u32, message: impl Into<String>) -> Self {
        Self(status, code, message.into())
    }

    /// One of the many codes of a record that cannot be written.
    pub(super) fn record(code: u32, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(super) fn no_route() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            7003,
            "Could not route to this path, perhaps your object identifier is invalid?",
        )
    }

    pub(super) fn no_zone() -> Self {
        Self::new(StatusCode::FORBIDDEN, 9109, "Unauthorized to access requested resource")
    }

    pub(super) fn no_record() -> Self {
        Self::new(StatusCode::NOT_FOUND, 81044, "Record does not exist.")
    }

    pub(super) fn bad_header() -> Self {
        Self::new(StatusCode::BAD_REQUEST, 6003, "Invalid request headers")
    }

    pub(super) fn bad_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, 1000, "Invalid API Token")
    }

    pub(super) fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, 10000, "Authentication error")
    }

    pub(super) fn limited() -> Self {
        let message = "More than 1200 requests per 300 seconds reached. Please wait and consider throttling your request speed";
        Self::new(StatusCode::TOO_MANY_REQUESTS, 10100, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self(status, code, message) = self;
        let errors = json!([{"code": code, "message": message}]);
        let body = json!({"success": false, "errors": errors, "messages": [], "result": null});
        (status, Json(body)).into_response()
    }
}

/// A good answer.
pub(super) fn ok(result: Value) -> Value {
    json!({"success": true, "errors": [], "messages": [], "result": result})
}

/// One page, with the default size and the sizes that are taken.
pub(super) fn page(
    query: &Query,
    items: Vec<Value>,
    (default, sizes): (usize, RangeInclusive<usize>),
) -> Result<Response, ApiError> {
    let number = |name: &str, default: usize| match query.get(name) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| {
            ApiError::new(StatusCode::BAD_REQUEST, 1002, format!("Invalid value for {name}"))
        }),
    };
    let (page, per_page) = (number("page", 1)?.max(1), number("per_page", default)?);
    if !sizes.contains(&per_page) {
        let message = format!("per_page must be between {} and {}", sizes.start(), sizes.end());
        return Err(ApiError::new(StatusCode::BAD_REQUEST, 1002, message));
    }
    let total = items.len();
    let shown: Vec<Value> =
        items.into_iter().skip((page - 1).saturating_mul(per_page)).take(per_page).collect();
    let info = json!({
        "page": page, "per_page": per_page, "count": shown.len(), "total_count": total,
        "total_pages": total.div_ceil(per_page),
    });
    let mut body = ok(shown.into());
    body["result_info"] = info;
    Ok(Json(body).into_response())
}

/// A request's query.
pub(super) struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

impl Query {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}
