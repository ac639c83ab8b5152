//! Expressions of GitHub Actions (`${{ ... }}`): a reader and an evaluator with GitHub's own rules,
//! where `&&` and `||` answer an operand and texts are compared without regard to case.

use serde_json::Value;

mod functions;
mod reader;

use reader::{Expression, Operator};

/// An expression that cannot be read or evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the expression `{expression}` is not valid: {reason}")]
pub struct ExpressionError {
    /// The text between the braces.
    pub expression: String,
    /// What is wrong.
    pub reason: String,
}

/// What `success()`, `failure()` and `cancelled()` look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// A needed job, or an earlier step, failed.
    pub failed: bool,
    /// A needed job was skipped (for a job's `if` only).
    pub skipped: bool,
    /// The run is being cancelled.
    pub cancelled: bool,
}

/// What an expression may look at: the contexts by name (`github`, `inputs`, ...) and the status.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// One object per context.
    pub contexts: serde_json::Map<String, Value>,
    /// The status so far.
    pub status: Status,
}

impl Scope {
    /// Puts a context in, over an older one of that name.
    pub fn set(&mut self, name: &str, value: Value) {
        self.contexts.insert(name.to_owned(), value);
    }

    /// The value of one expression, without its braces.
    ///
    /// # Errors
    /// When it cannot be read, or calls a function that does not exist.
    pub fn evaluate(&self, expression: &str) -> Result<Value, ExpressionError> {
        let fail =
            |reason: String| ExpressionError { expression: expression.trim().to_owned(), reason };
        let parsed = reader::parse(expression).map_err(fail)?;
        self.value(&parsed).map_err(fail)
    }

    /// A text with every `${{ }}` in it replaced.
    ///
    /// # Errors
    /// As [`Scope::evaluate`], or when a `${{` is not closed.
    pub fn interpolate(&self, text: &str) -> Result<String, ExpressionError> {
        let mut done = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${{") {
            done.push_str(before);
            let end = closing(after).ok_or_else(|| ExpressionError {
                expression: after.trim().chars().take(80).collect(),
                reason: "`}}` is missing".to_owned(),
            })?;
            done.push_str(&as_text(&self.evaluate(&after[..end])?));
            rest = &after[end + 2..];
        }
        done.push_str(rest);
        Ok(done)
    }

    /// Whether an `if:` holds. One that calls no status function means `success() && (...)`.
    ///
    /// # Errors
    /// As [`Scope::interpolate`].
    pub fn condition(&self, condition: Option<&str>) -> Result<bool, ExpressionError> {
        let fine = !self.status.failed && !self.status.skipped && !self.status.cancelled;
        let Some(text) = condition.map(str::trim).filter(|text| !text.is_empty()) else {
            return Ok(fine);
        };
        let bare = text.strip_prefix("${{").and_then(|inner| {
            let end = closing(inner)?;
            (end + 2 == inner.len()).then(|| &inner[..end])
        });
        let (holds, names_status) = match bare.or((!text.contains("${{")).then_some(text)) {
            Some(expression) => {
                let fail = |reason: String| ExpressionError { expression: text.to_owned(), reason };
                let parsed = reader::parse(expression).map_err(fail)?;
                (truthy(&self.value(&parsed).map_err(fail)?), parsed.calls_status())
            }
            // A text around the braces is a text that is not empty.
            None => (!self.interpolate(text)?.is_empty(), false),
        };
        Ok(holds && (names_status || fine))
    }

    fn value(&self, expression: &Expression) -> Result<Value, String> {
        Ok(match expression {
            Expression::Literal(value) => value.clone(),
            Expression::Context(name) => {
                self.lookup(name).ok_or_else(|| format!("Unrecognized named-value: '{name}'"))?
            }
            Expression::Index(of, index) => {
                let index = self.value(index)?;
                property(&self.value(of)?, &index)
            }
            Expression::Every(of) => match self.value(of)? {
                Value::Array(items) => Value::Array(items),
                Value::Object(fields) => {
                    Value::Array(fields.into_iter().map(|(_, value)| value).collect())
                }
                _ => Value::Array(Vec::new()),
            },
            Expression::Not(of) => Value::Bool(!truthy(&self.value(of)?)),
            Expression::Call(name, arguments) => {
                let values = arguments.iter().map(|argument| self.value(argument));
                functions::call(name, &values.collect::<Result<Vec<_>, _>>()?, self.status)?
            }
            Expression::Binary(operator, left, right) => self.binary(*operator, left, right)?,
        })
    }

    fn lookup(&self, name: &str) -> Option<Value> {
        let found = self.contexts.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        const KNOWN: &[&str] = &[
            "github", "env", "vars", "job", "jobs", "steps", "runner", "secrets", "strategy",
            "matrix", "needs", "inputs",
        ];
        let known = KNOWN.iter().any(|known| known.eq_ignore_ascii_case(name));
        found
            .map(|(_, value)| value.clone())
            .or(known.then(|| Value::Object(serde_json::Map::new())))
    }

    fn binary(
        &self,
        operator: Operator,
        left: &Expression,
        right: &Expression,
    ) -> Result<Value, String> {
        let left = self.value(left)?;
        Ok(match operator {
            Operator::And => {
                if truthy(&left) {
                    self.value(right)?
                } else {
                    left
                }
            }
            Operator::Or => {
                if truthy(&left) {
                    left
                } else {
                    self.value(right)?
                }
            }
            Operator::Equal => Value::Bool(equal(&left, &self.value(right)?)),
            Operator::Unequal => Value::Bool(!equal(&left, &self.value(right)?)),
            Operator::Less => Value::Bool(number(&left) < number(&self.value(right)?)),
            Operator::LessOrEqual => Value::Bool(number(&left) <= number(&self.value(right)?)),
            Operator::Greater => Value::Bool(number(&left) > number(&self.value(right)?)),
            Operator::GreaterOrEqual => Value::Bool(number(&left) >= number(&self.value(right)?)),
        })
    }
}

/// Where the `}}` of an expression stands, texts in quotes passed over.
fn closing(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut quoted = false;
    (0..bytes.len()).find(|&at| {
        if bytes[at] == b'\'' {
            quoted = !quoted;
        }
        !quoted && bytes[at..].starts_with(b"}}")
    })
}

fn property(of: &Value, index: &Value) -> Value {
    let found = match (of, index) {
        (Value::Object(fields), index) => {
            let name = as_text(index);
            fields
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(&name))
                .map(|(_, value)| value.clone())
        }
        (Value::Array(items), Value::Number(at)) => {
            at.as_f64().and_then(|at| items.get(at as usize)).cloned()
        }
        // A filter such as `needs.*.result`.
        (Value::Array(items), Value::String(_)) => Some(
            items
                .iter()
                .map(|item| property(item, index))
                .filter(|value| !value.is_null())
                .collect(),
        ),
        _ => None,
    };
    found.unwrap_or(Value::Null)
}

/// GitHub's truth: false, 0, the empty text and null are false.
pub(crate) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64().is_some_and(|number| number != 0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// How a value reads inside a text.
pub(crate) fn as_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() < 1e15 => format!("{float:.0}"),
            _ => number.to_string(),
        },
        Value::String(text) => text.clone(),
        Value::Array(_) => "Array".to_owned(),
        Value::Object(_) => "Object".to_owned(),
    }
}

fn number(value: &Value) -> f64 {
    match value {
        Value::Null => 0.0,
        Value::Bool(truth) => f64::from(u8::from(*truth)),
        Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
        Value::String(text) if text.trim().is_empty() => 0.0,
        Value::String(text) => text.trim().parse().unwrap_or(f64::NAN),
        Value::Array(_) | Value::Object(_) => f64::NAN,
    }
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::String(left), Value::String(right)) => left.to_lowercase() == right.to_lowercase(),
        (Value::Array(_) | Value::Object(_), _) | (_, Value::Array(_) | Value::Object(_)) => {
            left == right
        }
        (Value::Null, Value::Null) => true,
        _ => number(left) == number(right),
    }
}
