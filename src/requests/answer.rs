//! What came back, with any status.

use jiff::fmt::rfc2822;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::RequestError;
use crate::domain::clock::Millis;

/// A provider's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(super) api: &'static str,
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body, whole unless the call kept only the tail.
    pub(crate) body: Vec<u8>,
    /// The provider's own id for the exchange, for its support.
    pub(crate) correlation: Option<String>,
    /// Whether another host gave it, after a redirect.
    pub(crate) foreign: bool,
}

impl Answer {
    /// Whether the provider did what was asked.
    pub(crate) fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// Whether the provider had a fault, so that the same call may work later.
    pub(crate) fn is_fault(&self) -> bool {
        self.status.is_server_error()
    }

    /// The body as `T`; `what` names it in the error.
    pub(crate) fn json<T: DeserializeOwned>(&self, what: &'static str) -> Result<T, RequestError> {
        serde_json::from_slice(&self.body).map_err(|source| RequestError::BadAnswer {
            api: self.api,
            what,
            source,
        })
    }

    /// The body as JSON of any kind; null where it is none.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A header that holds a whole number.
    pub(crate) fn header_number(&self, name: &str) -> Option<i64> {
        self.header(name)?.trim().parse().ok()
    }

    /// When the provider wants to be asked again: `Retry-After` in seconds or as a date.
    pub(crate) fn retry_after(&self, now: Millis) -> Option<Millis> {
        let text = self.header(RETRY_AFTER.as_str())?.trim();
        if let Ok(seconds) = text.parse::<u32>() {
            return Some(now.plus_ms(i64::from(seconds) * 1000));
        }
        let date = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        Some(Millis(date.as_millisecond()))
    }
}

/// Text from outside made fit to be shown: one line, no control characters, at most 300 characters.
pub(crate) fn clean(text: &str) -> String {
    let line: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    line.trim().trim_end_matches('.').to_owned()
}
