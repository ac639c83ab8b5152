//! Request bodies: JSON read field by field, so that an error names its field as Hetzner's do.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use serde_json::Value;

use super::errors::{ApiError, Code};
use super::selector;

pub(super) type Labels = BTreeMap<String, String>;

/// A JSON object; an empty body is an empty object.
pub(super) struct Input(pub(super) Value);

impl<S: Send + Sync> FromRequest<S> for Input {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bad = || ApiError::new(Code::JsonError, "the request body is no valid JSON");
        let bytes = Bytes::from_request(request, state).await.map_err(|_| bad())?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(Value::Object(serde_json::Map::new())));
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
        let wrong = || ApiError::field(name, "must be a string");
        self.get(name).map(|value| value.as_str().ok_or_else(wrong)).transpose()
    }

    pub(super) fn required_text(&self, name: &str) -> Result<&str, ApiError> {
        match self.text(name)? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(ApiError::field(name, "Missing data for required field.")),
        }
    }

    /// A name or an id, which may be written as a number.
    pub(super) fn reference(&self, name: &str) -> Result<Option<String>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(ApiError::field(name, "must be a name or an ID")),
        }
    }

    pub(super) fn required_reference(&self, name: &str) -> Result<String, ApiError> {
        let missing = || ApiError::field(name, "Missing data for required field.");
        self.reference(name)?.filter(|text| !text.is_empty()).ok_or_else(missing)
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let wrong = || ApiError::field(name, "must be a boolean");
        self.get(name).map(|value| value.as_bool().ok_or_else(wrong)).transpose()
    }

    pub(super) fn list(&self, name: &str) -> Result<Vec<Value>, ApiError> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(all)) => Ok(all.clone()),
            Some(_) => Err(ApiError::field(name, "must be a list")),
        }
    }

    /// The labels, checked.
    pub(super) fn labels(&self) -> Result<Option<Labels>, ApiError> {
        let Some(value) = self.get("labels") else { return Ok(None) };
        let labels: Labels = serde_json::from_value(value.clone())
            .map_err(|_| ApiError::field("labels", "must be an object of strings"))?;
        for (key, value) in &labels {
            if let Some(problem) = selector::label_problem(key, value) {
                return Err(ApiError::field("labels", &format!("{key}: {problem}")));
            }
        }
        Ok(Some(labels))
    }
}
