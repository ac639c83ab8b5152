//! The proxy's own log: one JSON object a line on stdout, as the real one writes it.

use std::io::Write;

use serde_json::{Value, json};

/// Writes a line with these details.
#[expect(clippy::disallowed_methods, reason = "the proxy's one reader of the wall clock")]
pub(crate) fn note(level: &str, message: &str, details: Value) {
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string();
    let mut line = json!({"time": time, "level": level, "msg": message});
    if let (Some(line), Value::Object(details)) = (line.as_object_mut(), details) {
        line.extend(details);
    }
    drop(writeln!(std::io::stdout().lock(), "{line}"));
}
