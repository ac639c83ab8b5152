//! What went wrong, as a tool's result: the model reads it and can do better.

use std::borrow::Cow;

use rmcp::handler::server::tool::IntoCallToolResult;
use rmcp::model::{CallToolResponse, CallToolResult, ContentBlock, MetaObject};
use serde::{Deserialize, Serialize};

/// Where the error lies in a result's `_meta`.
pub const ERROR_META: &str = "vmkit/error";

/// A tool's failure. Its text is `code: message; fix`, and the whole lies under
/// `_meta["vmkit/error"]`: not in `structuredContent`, which clients hold against the output schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ToolError {
    /// A stable name, such as `unknown_environment`.
    pub code: Cow<'static, str>,
    /// What is wrong with which thing.
    pub message: String,
    /// Whether the same call can work later.
    pub retryable: bool,
    /// The next thing to do; may be empty where the message says it.
    pub fix: String,
}

impl ToolError {
    /// A failure that the same call will meet again.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        let (code, message) = (code.into(), message.into());
        Self { code, message, retryable: false, fix: String::new() }
    }

    /// The next thing to do.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }

    /// Whether the same call can work later.
    #[must_use]
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// The text that a model reads.
    pub fn text(&self) -> String {
        let Self { code, message, fix, .. } = self;
        if fix.is_empty() {
            format!("{code}: {message}")
        } else {
            format!("{code}: {message}; {fix}")
        }
    }

    /// A result with `first` (a word of [`super::Word`]) before the text where the tool changes things.
    pub(super) fn into_result(self, first: Option<&str>) -> CallToolResult {
        let text = match first {
            Some(word) => format!("{word} {}", self.text()),
            None => self.text(),
        };
        let mut result = CallToolResult::error(vec![ContentBlock::text(text)]);
        let mut meta = MetaObject::new();
        if let Ok(value) = serde_json::to_value(&self) {
            meta.0.insert(ERROR_META.to_owned(), value);
        }
        result.meta = Some(meta);
        result
    }

    /// Carries it through rmcp's own error type, where a future has to end with one.
    pub(super) fn into_protocol(self) -> rmcp::ErrorData {
        let data = serde_json::to_value(&self).ok();
        rmcp::ErrorData::invalid_params(ERROR_META, data)
    }

    /// Takes out what [`ToolError::into_protocol`] put in.
    pub(super) fn from_protocol(error: &rmcp::ErrorData) -> Option<Self> {
        if error.message != ERROR_META {
            return None;
        }
        serde_json::from_value(error.data.clone()?).ok()
    }

    /// The error in a result, for clients in Rust (the CLI, the demo, tests).
    pub fn of(result: &CallToolResult) -> Option<Self> {
        if result.is_error != Some(true) {
            return None;
        }
        let value = result.meta.as_ref()?.0.get(ERROR_META)?;
        serde_json::from_value(value.clone()).ok()
    }
}

impl IntoCallToolResult for ToolError {
    fn into_call_tool_result(self) -> Result<CallToolResponse, rmcp::ErrorData> {
        Ok(self.into_result(None).into())
    }
}
