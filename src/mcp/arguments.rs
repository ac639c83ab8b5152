//! Arguments held against a tool's schema, with messages that name the field and say what to give.

use rmcp::handler::server::common::FromContextPart;
use rmcp::handler::server::tool::ToolCallContext;
use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Server;
use super::error::ToolError;

/// A tool's input. The name is the one that rmcp's `#[tool]` looks for to find the schema.
#[derive(Debug, Clone)]
pub struct Parameters<T>(pub T);

impl<T: JsonSchema> JsonSchema for Parameters<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        T::json_schema(generator)
    }
}

impl<T: DeserializeOwned> FromContextPart<ToolCallContext<'_, Server>> for Parameters<T> {
    fn from_context_part(
        context: &mut ToolCallContext<'_, Server>,
    ) -> Result<Self, rmcp::ErrorData> {
        let arguments = context.arguments.take().unwrap_or_default();
        // What the schema allows and the type does not is a fault of ours, and still told well.
        serde_json::from_value(Value::Object(arguments)).map(Self).map_err(|error| {
            ToolError::new("bad_arguments", format!("the arguments cannot be used: {error}"))
                .into_protocol()
        })
    }
}

/// Holds `arguments` against the tool's normalised schema. A null for what may be absent counts as absent.
pub(super) fn check(
    tool: &str,
    schema: &JsonObject,
    arguments: &mut JsonObject,
) -> Result<(), ToolError> {
    let mut problems = Vec::new();
    check_object("", schema, arguments, &mut problems);
    if problems.is_empty() {
        return Ok(());
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let names: Vec<&str> =
        properties.map(|known| known.keys().map(String::as_str).collect()).unwrap_or_default();
    let fix = if names.is_empty() {
        format!("call `{tool}` without arguments")
    } else {
        format!("correct that and call `{tool}` again; its fields: {}", names.join(", "))
    };
    Err(ToolError::new("bad_arguments", problems.join("; ")).fix(fix))
}

fn check_object(path: &str, schema: &JsonObject, given: &mut JsonObject, out: &mut Vec<String>) {
    let nothing = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&nothing);
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    given.retain(|name, value| !value.is_null() || required.contains(&name.as_str()));
    for name in &required {
        if !given.contains_key(*name) {
            let what = properties.get(*name).and_then(|p| p.get("description"));
            let hint = what.and_then(Value::as_str).map(hint);
            out.push(format!("the field `{path}{name}` is missing{}", hint.unwrap_or_default()));
        }
    }
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    for (name, value) in given.iter_mut() {
        match properties.get(name) {
            Some(property) => check_value(&format!("{path}{name}"), property, value, out),
            None if closed => {
                let near = nearest(name, properties.keys());
                let hint = near.map(|near| format!("; did you mean `{near}`?"));
                out.push(format!("there is no field `{path}{name}`{}", hint.unwrap_or_default()));
            }
            None => {
                if let Some(rule @ Value::Object(_)) = schema.get("additionalProperties") {
                    check_value(&format!("{path}{name}"), rule, value, out);
                }
            }
        }
    }
}

/// A description as an aside: ` (such as shop/staging)`.
fn hint(description: &str) -> String {
    let mut rest = description.trim_end_matches('.').chars();
    let first = rest.next().map(|c| c.to_lowercase().to_string()).unwrap_or_default();
    format!(" ({first}{})", rest.as_str())
}

fn check_value(path: &str, schema: &Value, given: &mut Value, out: &mut Vec<String>) {
    let Some(schema) = schema.as_object() else { return };
    let wanted = schema.get("type").and_then(Value::as_str).unwrap_or_default();
    let fits = match wanted {
        "string" => given.is_string(),
        "integer" => given.is_i64() || given.is_u64(),
        "number" => given.is_number(),
        "boolean" => given.is_boolean(),
        "array" => given.is_array(),
        "object" => given.is_object(),
        _ => true,
    };
    if !fits {
        let shown = shorten(&given.to_string());
        let article = if wanted.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" };
        out.push(format!("the field `{path}` is {shown} and must be {article} {wanted}"));
        return;
    }
    if let Some(Value::Array(words)) = schema.get("enum")
        && !words.contains(given)
    {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let shown = shorten(&given.to_string());
        out.push(format!("the field `{path}` is {shown} and must be one of {}", words.join(", ")));
    }
    check_range(path, schema, given, out);
    match given {
        Value::Object(fields) => check_object(&format!("{path}."), schema, fields, out),
        Value::Array(items) => {
            if let Some(rule) = schema.get("items") {
                for (index, item) in items.iter_mut().enumerate() {
                    check_value(&format!("{path}[{index}]"), rule, item, out);
                }
            }
        }
        _ => {}
    }
}

fn check_range(path: &str, schema: &JsonObject, given: &Value, out: &mut Vec<String>) {
    let Some(number) = given.as_f64() else { return };
    let bound = |word: &str| schema.get(word).and_then(Value::as_f64);
    if let Some(least) = bound("minimum").filter(|least| number < *least) {
        out.push(format!("the field `{path}` is {given} and must be at least {least}"));
    }
    if let Some(most) = bound("maximum").filter(|most| number > *most) {
        out.push(format!("the field `{path}` is {given} and must be at most {most}"));
    }
}

fn shorten(text: &str) -> String {
    let text = super::outside::line(text, 60);
    if text.is_empty() { "empty".to_owned() } else { format!("`{text}`") }
}

/// The known name that is close enough to be what was meant.
pub(super) fn nearest<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a String>,
) -> Option<&'a str> {
    let scored = known.into_iter().map(|name| {
        let contained = name.contains(given) || given.contains(name.as_str());
        (if contained { 1 } else { distance(given, name) }, name.as_str())
    });
    scored.min().filter(|(score, name)| *score <= 1 + name.len() / 4).map(|(_, name)| name)
}

/// How many letters have to be added, taken away or changed.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(arguments: Value) -> String {
        let schema = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["environment"],
            "properties": {
                "environment": {"type": "string", "description": "Such as shop/staging."},
                "wait_seconds": {"type": "integer", "minimum": 0, "maximum": 50},
                "scope": {"type": "string", "enum": ["runtime", "build"]},
                "set": {"type": "object", "additionalProperties": {"type": "string"}},
                "unset": {"type": "array", "items": {"type": "string"}},
            }
        });
        let (Value::Object(schema), Value::Object(mut arguments)) = (schema, arguments) else {
            panic!("objects");
        };
        check("set_env", &schema, &mut arguments)
            .map_or_else(|error| error.text(), |()| "ok".into())
    }

    #[test]
    fn every_problem_is_named_at_once_with_what_to_give() {
        let text =
            problems(json!({"enviroment": "shop/staging", "wait_seconds": "5", "scope": "all"}));
        assert_eq!(
            text,
            "bad_arguments: the field `environment` is missing (such as shop/staging); \
             there is no field `enviroment`; did you mean `environment`?; \
             the field `wait_seconds` is `\"5\"` and must be an integer; \
             the field `scope` is `\"all\"` and must be one of \"runtime\", \"build\"; \
             correct that and call `set_env` again; its fields: environment, wait_seconds, scope, set, unset"
        );
    }

    #[test]
    fn what_lies_deeper_is_named_by_its_path() {
        let text = problems(json!({"environment": "a/b", "set": {"PORT": 80}, "unset": ["A", 1]}));
        assert!(text.contains("the field `set.PORT` is `80` and must be a string"), "{text}");
        assert!(text.contains("the field `unset[1]` is `1` and must be a string"), "{text}");
        let text = problems(json!({"environment": "a/b", "wait_seconds": 51}));
        assert!(text.contains("`wait_seconds` is 51 and must be at most 50"), "{text}");
    }

    #[test]
    fn a_null_counts_as_absent() {
        assert_eq!(problems(json!({"environment": "a/b", "scope": null})), "ok");
        let text = problems(json!({"environment": null}));
        assert!(text.contains("the field `environment` is `null`"), "{text}");
    }
}
