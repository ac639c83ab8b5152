//! The functions that an expression may call.

use serde_json::Value;

use super::{Status, as_text, equal};

/// Calls a function by its name, in any case.
pub(super) fn call(name: &str, arguments: &[Value], status: Status) -> Result<Value, String> {
    let count = |least: usize, most: usize| {
        if (least..=most).contains(&arguments.len()) {
            Ok(())
        } else {
            Err(format!("`{name}` takes {least} to {most} arguments, not {}", arguments.len()))
        }
    };
    let text = |at: usize| arguments.get(at).map(as_text).unwrap_or_default();
    let lower = |at: usize| text(at).to_lowercase();
    let value = match name.to_ascii_lowercase().as_str() {
        "success" => Value::Bool(!status.failed && !status.skipped && !status.cancelled),
        "failure" => Value::Bool(status.failed),
        "cancelled" => Value::Bool(status.cancelled),
        "always" => Value::Bool(true),
        "contains" => {
            count(2, 2)?;
            Value::Bool(match &arguments[0] {
                Value::Array(items) => items.iter().any(|item| equal(item, &arguments[1])),
                _ => lower(0).contains(&lower(1)),
            })
        }
        "startswith" => {
            count(2, 2)?;
            Value::Bool(lower(0).starts_with(&lower(1)))
        }
        "endswith" => {
            count(2, 2)?;
            Value::Bool(lower(0).ends_with(&lower(1)))
        }
        "join" => {
            count(1, 2)?;
            let separator = if arguments.len() == 2 { text(1) } else { ",".to_owned() };
            match &arguments[0] {
                Value::Array(items) => {
                    items.iter().map(as_text).collect::<Vec<_>>().join(&separator).into()
                }
                other => as_text(other).into(),
            }
        }
        "format" => {
            count(1, 255)?;
            format_text(&text(0), &arguments[1..])?.into()
        }
        "tojson" => {
            count(1, 1)?;
            serde_json::to_string_pretty(&arguments[0]).unwrap_or_default().into()
        }
        "fromjson" => {
            count(1, 1)?;
            serde_json::from_str(&text(0))
                .map_err(|_| "`fromJSON` was not given JSON".to_owned())?
        }
        "hashfiles" => "".into(),
        _ => return Err(format!("Unrecognized function: '{name}'")),
    };
    Ok(value)
}

fn format_text(pattern: &str, values: &[Value]) -> Result<String, String> {
    let mut done = String::new();
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '{' | '}' if letters.peek() == Some(&letter) => {
                letters.next();
                done.push(letter);
            }
            '{' => {
                let digits: String = letters.by_ref().take_while(|letter| *letter != '}').collect();
                let value = digits.parse::<usize>().ok().and_then(|at| values.get(at));
                done.push_str(&as_text(
                    value.ok_or_else(|| format!("`format` has no value for {{{digits}}}"))?,
                ));
            }
            _ => done.push(letter),
        }
    }
    Ok(done)
}
