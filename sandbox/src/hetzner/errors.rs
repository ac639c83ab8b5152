//! Hetzner's error codes, the HTTP status of each, and their body.

use axum::extract::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    JsonError,
    Unauthorized,
    TokenReadonly,
    ResourceLimitExceeded,
    NotFound,
    MethodNotAllowed,
    UniquenessError,
    DeprecatedApiEndpoint,
    ResourceUnavailable,
    InvalidInput,
    InvalidServerType,
    ServerNotStopped,
    ServerAlreadyAdded,
    ResourceInUse,
    MustBeUnassigned,
    PrimaryIpAssigned,
    PrimaryIpAlreadyAssigned,
    PrimaryIpVersionMismatch,
    ServerHasIpv4,
    ServerHasIpv6,
    FirewallResourceNotFound,
    Locked,
    Protected,
    RateLimitExceeded,
}

impl Code {
    fn parts(self) -> (StatusCode, &'static str) {
        match self {
            Self::JsonError => (StatusCode::BAD_REQUEST, "json_error"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::TokenReadonly => (StatusCode::UNAUTHORIZED, "token_readonly"),
            Self::ResourceLimitExceeded => (StatusCode::FORBIDDEN, "resource_limit_exceeded"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::UniquenessError => (StatusCode::CONFLICT, "uniqueness_error"),
            Self::DeprecatedApiEndpoint => (StatusCode::GONE, "deprecated_api_endpoint"),
            Self::ResourceUnavailable => (StatusCode::PRECONDITION_FAILED, "resource_unavailable"),
            Self::InvalidInput => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_input"),
            Self::InvalidServerType => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_server_type"),
            Self::ServerNotStopped => (StatusCode::UNPROCESSABLE_ENTITY, "server_not_stopped"),
            Self::ServerAlreadyAdded => (StatusCode::UNPROCESSABLE_ENTITY, "server_already_added"),
            Self::ResourceInUse => (StatusCode::UNPROCESSABLE_ENTITY, "resource_in_use"),
            Self::MustBeUnassigned => (StatusCode::UNPROCESSABLE_ENTITY, "must_be_unassigned"),
            Self::PrimaryIpAssigned => (StatusCode::UNPROCESSABLE_ENTITY, "primary_ip_assigned"),
            Self::PrimaryIpAlreadyAssigned => {
                (StatusCode::UNPROCESSABLE_ENTITY, "primary_ip_already_assigned")
            }
            Self::PrimaryIpVersionMismatch => {
                (StatusCode::PRECONDITION_FAILED, "primary_ip_version_mismatch")
            }
            Self::ServerHasIpv4 => (StatusCode::UNPROCESSABLE_ENTITY, "server_has_ipv4"),
            Self::ServerHasIpv6 => (StatusCode::UNPROCESSABLE_ENTITY, "server_has_ipv6"),
            Self::FirewallResourceNotFound => {
                (StatusCode::UNPROCESSABLE_ENTITY, "firewall_resource_not_found")
            }
            Self::Locked => (StatusCode::LOCKED, "locked"),
            Self::Protected => (StatusCode::LOCKED, "protected"),
            Self::RateLimitExceeded => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"),
        }
    }
}

#[derive(Debug)]
pub(super) struct ApiError {
    code: Code,
    message: String,
    details: Value,
}

impl ApiError {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Value::Null }
    }

    pub(super) fn with_details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    pub(super) fn not_found(kind: &str, id: &str) -> Self {
        Self::new(Code::NotFound, format!("{kind} with ID '{id}' not found"))
    }

    /// A field that is missing or has a bad value.
    pub(super) fn field(name: &str, message: &str) -> Self {
        let details = json!({"fields": [{"name": name, "messages": [message]}]});
        Self::new(Code::InvalidInput, format!("invalid input in field '{name}'"))
            .with_details(details)
    }

    /// The account may not have more of something.
    pub(super) fn limit(name: &str) -> Self {
        let details = json!({"limits": [{"name": name}]});
        Self::new(Code::ResourceLimitExceeded, format!("{name} exceeded")).with_details(details)
    }

    pub(super) fn not_unique(kind: &str, name: &str) -> Self {
        let details = json!({"fields": [{"name": name}]});
        Self::new(Code::UniquenessError, format!("{kind} {name} is already used"))
            .with_details(details)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.code.parts();
        let error = json!({"code": code, "message": self.message, "details": self.details});
        (status, Json(json!({"error": error}))).into_response()
    }
}
