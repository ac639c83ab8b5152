//! What a tool says: a text that reads alone, and the same facts as data.

use rmcp::handler::server::tool::IntoCallToolResult;
use rmcp::model::{CallToolResponse, CallToolResult, ContentBlock, InputRequiredResult};
use serde::Serialize;
use serde_json::Value;

/// The first word of every answer of a tool that writes or destroys: a model must not be able to
/// take a plan for a deed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It is done.
    Done,
    /// It goes on; the answer names the operation.
    Running,
    /// Nothing was done: this is a plan or a dry run.
    NotExecuted,
    /// A person has to approve it.
    Waiting,
    /// Somebody has to merge a pull request.
    NeedsMerge,
    /// Something has to be set up first.
    NeedsSetup,
    /// It did not work.
    Failed,
}

impl Word {
    /// Every word, for the schema and its tests.
    pub const ALL: [Self; 7] = [
        Self::Done,
        Self::Running,
        Self::NotExecuted,
        Self::Waiting,
        Self::NeedsMerge,
        Self::NeedsSetup,
        Self::Failed,
    ];

    /// The word as it is said.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "DONE",
            Self::Running => "RUNNING",
            Self::NotExecuted => "NOT_EXECUTED",
            Self::Waiting => "WAITING",
            Self::NeedsMerge => "NEEDS_MERGE",
            Self::NeedsSetup => "NEEDS_SETUP",
            Self::Failed => "FAILED",
        }
    }
}

/// The name of the data field that repeats the first word of the text.
pub(super) const STATUS: &str = "status";

/// A tool's answer, with `Out` as its declared data.
#[derive(Debug)]
pub struct Answer<Out>(Kind<Out>);

#[derive(Debug)]
enum Kind<Out> {
    Said { word: Option<Word>, text: String, facts: Option<Out> },
    Asked(Box<InputRequiredResult>),
}

impl<Out: Serialize> Answer<Out> {
    /// The answer of a tool that only reads.
    pub fn facts(text: impl Into<String>, facts: Out) -> Self {
        Self(Kind::Said { word: None, text: text.into(), facts: Some(facts) })
    }

    /// The answer of a tool that writes or destroys. The word is set before the text and into the
    /// data, as the field `status`.
    pub fn deed(word: Word, text: impl Into<String>, facts: Out) -> Self {
        Self(Kind::Said { word: Some(word), text: text.into(), facts: Some(facts) })
    }

    /// The same facts, said otherwise.
    #[must_use]
    pub fn saying(self, first: Word, said: String) -> Self {
        match self.0 {
            Kind::Said { facts, .. } => Self(Kind::Said { word: Some(first), text: said, facts }),
            asked @ Kind::Asked(_) => Self(asked),
        }
    }

    /// A question to the person, which the client carries (2026-07-28 only).
    pub fn question(question: InputRequiredResult) -> Self {
        Self(Kind::Asked(Box::new(question)))
    }
}

impl Answer<()> {
    /// Text only, such as a log.
    pub fn text(text: impl Into<String>) -> Self {
        Self(Kind::Said { word: None, text: text.into(), facts: None })
    }
}

impl<Out: Serialize> IntoCallToolResult for Answer<Out> {
    fn into_call_tool_result(self) -> Result<CallToolResponse, rmcp::ErrorData> {
        let (word, text, facts) = match self.0 {
            Kind::Asked(question) => return Ok((*question).into()),
            Kind::Said { word, text, facts } => (word, text, facts),
        };
        let text = match word {
            Some(word) => format!("{} {text}", word.as_str()),
            None => text,
        };
        let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
        result.structured_content = facts.map(|facts| data(word, &facts)).transpose()?;
        Ok(result.into())
    }
}

fn data(word: Option<Word>, facts: &impl Serialize) -> Result<Value, rmcp::ErrorData> {
    let value = serde_json::to_value(facts).map_err(|error| {
        rmcp::ErrorData::internal_error(format!("the answer cannot be written: {error}"), None)
    })?;
    let (Some(word), Value::Object(fields)) = (word, &value) else { return Ok(value) };
    let mut with_word = serde_json::Map::new();
    with_word.insert(STATUS.to_owned(), Value::from(word.as_str()));
    with_word.extend(fields.clone());
    Ok(Value::Object(with_word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn complete(answer: impl IntoCallToolResult) -> CallToolResult {
        match answer.into_call_tool_result().expect("an answer") {
            CallToolResponse::Complete(result) => result,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_word_stands_first_in_text_and_in_data() {
        let result = complete(Answer::deed(Word::NotExecuted, "a plan", json!({"plan_id": "x"})));
        let text = result.content[0].as_text().expect("text").text.clone();
        assert_eq!(text, "NOT_EXECUTED a plan");
        let data = result.structured_content.expect("data");
        assert_eq!(data.to_string(), r#"{"status":"NOT_EXECUTED","plan_id":"x"}"#);
    }

    #[test]
    fn a_log_is_text_only() {
        assert_eq!(complete(Answer::text("lines")).structured_content, None);
    }
}
