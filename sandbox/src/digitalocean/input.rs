//! Request bodies: JSON read field by field, so that an error names its field.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use serde_json::{Map, Value};

use super::errors::ApiError;

/// A JSON object; an empty body is an empty object.
pub(super) struct Input(pub(super) Value);

impl<S: Send + Sync> FromRequest<S> for Input {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bad = || ApiError::bad_request("Request body could not be parsed as JSON.");
        let bytes = Bytes::from_request(request, state).await.map_err(|_| bad())?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(Value::Object(Map::new())));
        }
        match serde_json::from_slice(&bytes) {
            Ok(value @ Value::Object(_)) => Ok(Self(value)),
            _ => Err(bad()),
        }
    }
}

impl Input {
    /// A field that is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        let wrong = || ApiError::refused(format!("{name} must be a string"));
        self.get(name).map(|value| value.as_str().ok_or_else(wrong)).transpose()
    }

    pub(super) fn required_text(&self, name: &str) -> Result<&str, ApiError> {
        let text = self.text(name)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| ApiError::refused(format!("{name} is required")))
    }

    /// A slug or an id, which may be written as a number or as a string.
    pub(super) fn required_reference(&self, name: &str) -> Result<String, ApiError> {
        let found = self.get(name).and_then(reference).filter(|text| !text.is_empty());
        found.ok_or_else(|| ApiError::refused(format!("{name} is required")))
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let wrong = || ApiError::refused(format!("{name} must be a whole number"));
        self.get(name).map(|value| value.as_u64().ok_or_else(wrong)).transpose()
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        let wrong = || ApiError::refused(format!("{name} must be a boolean"));
        self.get(name).map_or(Ok(false), |value| value.as_bool().ok_or_else(wrong))
    }

    pub(super) fn list(&self, name: &str) -> Result<Vec<Value>, ApiError> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(all)) => Ok(all.clone()),
            Some(_) => Err(ApiError::refused(format!("{name} must be a list"))),
        }
    }

    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, ApiError> {
        let wrong = || ApiError::refused(format!("{name} must be a list of strings"));
        let list = self.list(name)?;
        list.iter().map(|one| one.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
    }
}

pub(super) fn reference(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
