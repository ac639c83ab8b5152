//! Schemas as every client understands them: no `$schema`, no `$ref`, no null unions, no `format`.

use std::sync::Arc;

use rmcp::model::{JsonObject, Tool};
use serde_json::{Map, Value, json};

use super::answer::{STATUS, Word};

/// Rewrites both schemas of a tool in place.
pub(super) fn normalise(tool: &mut Tool) {
    let mut input = flat(&tool.input_schema);
    input.insert("additionalProperties".to_owned(), Value::Bool(false));
    input.entry("properties").or_insert_with(|| json!({}));
    tool.input_schema = Arc::new(input);
    let changes_things =
        tool.annotations.as_ref().and_then(|hints| hints.read_only_hint) != Some(true);
    tool.output_schema = tool.output_schema.take().map(|schema| {
        let mut output = flat(&schema);
        lighten(&mut output);
        if changes_things {
            add_status(&mut output);
        }
        Arc::new(output)
    });
}

/// An output schema is read by programs, and costs tokens: it says names and types only.
fn lighten(schema: &mut JsonObject) {
    for word in ["required", "minimum", "maximum", "description"] {
        schema.remove(word);
    }
    if let Some(Value::Object(items)) = schema.get_mut("items") {
        lighten(items);
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().filter_map(Value::as_object_mut).for_each(lighten);
    }
}

/// The data of a tool that changes things begins with the word of its text.
fn add_status(output: &mut JsonObject) {
    let words: Vec<&str> = Word::ALL.iter().map(|word| word.as_str()).collect();
    let mut properties = Map::new();
    properties.insert(STATUS.to_owned(), json!({"type": "string", "enum": words}));
    if let Some(Value::Object(others)) = output.remove("properties") {
        properties.extend(others);
    }
    output.insert("properties".to_owned(), Value::Object(properties));
    output.insert("required".to_owned(), json!([STATUS]));
}

fn flat(schema: &JsonObject) -> JsonObject {
    let definitions = schema.get("$defs").cloned().unwrap_or_default();
    let mut schema = Value::Object(schema.clone());
    flatten(&mut schema, &definitions, 0);
    match schema {
        Value::Object(schema) => schema,
        _ => JsonObject::new(),
    }
}

/// References are at most this deep; a type that holds itself is cut there.
const DEPTH_MAX: usize = 8;

fn flatten(schema: &mut Value, definitions: &Value, depth: usize) {
    let Value::Object(fields) = schema else { return };
    for _ in 0..DEPTH_MAX {
        drop_null(fields);
        if !follow(fields, definitions, depth) {
            break;
        }
    }
    for word in ["$schema", "$defs", "$ref", "format"] {
        fields.remove(word);
    }
    if fields.get("default").is_some_and(Value::is_null) {
        fields.remove("default");
    }
    merge_words(fields);
    for word in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(word) {
            flatten(inner, definitions, depth + 1);
        }
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        for property in properties.values_mut() {
            flatten(property, definitions, depth + 1);
        }
    }
}

/// Puts what a reference names in its place; a description beside the reference wins.
fn follow(fields: &mut JsonObject, definitions: &Value, depth: usize) -> bool {
    let Some(Value::String(target)) = fields.remove("$ref") else { return false };
    let name = target.rsplit('/').next().unwrap_or_default();
    let Some(Value::Object(found)) = definitions.get(name).filter(|_| depth < DEPTH_MAX) else {
        return false;
    };
    for (word, value) in found {
        fields.entry(word.clone()).or_insert_with(|| value.clone());
    }
    true
}

/// `["string", "null"]` becomes `string`; a choice between something and null becomes the something.
fn drop_null(fields: &mut JsonObject) {
    if let Some(Value::Array(types)) = fields.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            fields.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(words)) = fields.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    let Some(Value::Array(choices)) = fields.get_mut("anyOf") else { return };
    choices.retain(|choice| choice.get("type") != Some(&json!("null")));
    if let [Value::Object(only)] = choices.as_slice() {
        let only = only.clone();
        fields.remove("anyOf");
        for (word, value) in only {
            fields.entry(word).or_insert(value);
        }
    }
}

/// An enum whose variants are documented comes as a list of constants: only the words are kept.
fn merge_words(fields: &mut JsonObject) {
    let Some(Value::Array(choices)) = fields.get("oneOf") else { return };
    let mut words = Vec::new();
    for choice in choices {
        match (choice.get("const"), choice.get("enum")) {
            (Some(word), _) => words.push(word.clone()),
            (None, Some(Value::Array(several))) => words.extend(several.iter().cloned()),
            _ => return,
        }
    }
    fields.remove("oneOf");
    fields.insert("type".to_owned(), json!("string"));
    fields.insert("enum".to_owned(), Value::Array(words));
}

#[cfg(test)]
mod tests {
    use rmcp::handler::server::tool::{schema_for_input, schema_for_output};
    use rmcp::model::ToolAnnotations;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Colour {
        /// As blood.
        Red,
        /// As the sky.
        Blue,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Inner {
        size: u64,
        colour: Option<Colour>,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Sample {
        /// Its name.
        name: Option<String>,
        #[serde(default)]
        inner: Option<Inner>,
        all: Vec<Inner>,
        colour: Colour,
    }

    fn sample(read_only: bool) -> Tool {
        let mut tool = Tool::new("t", "d", schema_for_input::<Sample>().expect("a schema"))
            .with_raw_output_schema(schema_for_output::<Sample>())
            .with_annotations(ToolAnnotations::new().read_only(read_only));
        normalise(&mut tool);
        tool
    }

    #[test]
    fn a_schema_has_nothing_that_a_client_stumbles_over() {
        let tool = sample(true);
        let schema = Value::Object((*tool.input_schema).clone());
        let text = schema.to_string();
        for word in ["$", "null", "format", "anyOf", "oneOf", "allOf"] {
            assert!(!text.contains(word), "{word} in {text}");
        }
        assert_eq!(
            schema["properties"]["name"],
            json!({"description": "Its name.", "type": "string"})
        );
        assert_eq!(schema["properties"]["inner"]["properties"]["size"]["type"], "integer");
        assert_eq!(
            schema["properties"]["all"]["items"]["properties"]["colour"]["enum"],
            json!(["red", "blue"])
        );
        assert_eq!(schema["additionalProperties"], false);
    }

    #[test]
    fn the_status_is_declared_where_a_tool_changes_things() {
        let output =
            |tool: &Tool| Value::Object((**tool.output_schema.as_ref().expect("one")).clone());
        assert_eq!(output(&sample(true))["properties"].get("status"), None);
        let changing = output(&sample(false));
        assert_eq!(changing["properties"]["status"]["enum"][0], "DONE");
        assert_eq!(changing["required"][0], "status");
    }
}
