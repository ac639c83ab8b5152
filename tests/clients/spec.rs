//! The providers' own OpenAPI documents, where they lie beside the repo.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

const METHODS_WITH_BODY: [&str; 4] = ["post", "put", "patch", "delete"];

/// One provider's document.
pub(crate) struct Spec {
    document: Value,
}

impl Spec {
    /// `../shared/specs/NAME.json`; none, said aloud, where it is not there.
    pub(crate) fn load(name: &str) -> Option<Arc<Self>> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../shared/specs")
            .join(format!("{name}.json"));
        match std::fs::read(&path) {
            Ok(text) => {
                let document = serde_json::from_slice(&text).expect("a specification in JSON");
                Some(Arc::new(Self { document }))
            }
            Err(_) => {
                eprintln!("SKIPPED: no ../shared/specs/{name}.json, bodies are not validated");
                None
            }
        }
    }

    /// The template that a path is of, `/servers/{id}` for `/servers/7`; the most literal one wins.
    fn template(&self, path: &str) -> Option<&str> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let fits = |template: &&str| {
            let wanted: Vec<&str> = template.trim_matches('/').split('/').collect();
            let greedy = wanted.last().is_some_and(|last| matches!(*last, "{path}" | "{ref}"));
            (wanted.len() == parts.len() || greedy && parts.len() > wanted.len())
                && wanted.iter().zip(&parts).all(|(w, p)| w.starts_with('{') || w == p)
        };
        let paths = self.document["paths"].as_object()?;
        paths.keys().map(String::as_str).filter(fits).min_by_key(|t| t.matches('{').count())
    }

    /// What is wrong with a request, if anything.
    pub(crate) fn fault(&self, method: &str, path: &str, body: &[u8]) -> Option<String> {
        let method = method.to_lowercase();
        let Some(template) = self.template(path) else {
            return Some(format!("{path} is not in the specification"));
        };
        let operation = &self.document["paths"][template][&method];
        if operation.is_null() {
            return Some(format!("{method} {template} is not in the specification"));
        }
        if body.is_empty() || !METHODS_WITH_BODY.contains(&method.as_str()) {
            let required = operation["requestBody"]["required"] == json!(true);
            return (required && body.is_empty()).then(|| format!("{method} {template}: no body"));
        }
        let body: Value = match serde_json::from_slice(body) {
            Ok(body) => body,
            Err(error) => return Some(format!("{method} {template}: {error}")),
        };
        let pointer = template.replace('~', "~0").replace('/', "~1");
        let pointer = pointer.replace('{', "%7B").replace('}', "%7D");
        let schema = json!({ "$ref": format!(
            "urn:spec#/paths/{pointer}/{method}/requestBody/content/application~1json/schema"
        ) });
        let registry = jsonschema::Registry::new()
            .add("urn:spec", &self.document)
            .expect("the specification registers")
            .prepare()
            .expect("the specification resolves");
        let validator = jsonschema::options()
            .with_registry(&registry)
            .build(&schema)
            .expect("the body's schema compiles");
        let faults: Vec<String> = validator.iter_errors(&body).map(|e| e.to_string()).collect();
        (!faults.is_empty()).then(|| format!("{method} {template}: {}", faults.join("; ")))
    }

    /// An answer to a read, made from the specification alone: everything that may be there, or
    /// only what must be.
    pub(crate) fn answer(&self, path: &str, full: bool) -> Option<Value> {
        let template = self.template(path)?;
        let content = &self.document["paths"][template]["get"]["responses"]["200"]["content"];
        let schema = &content["application/json"]["schema"];
        (!schema.is_null()).then(|| self.instance(schema, full, 0))
    }

    fn instance(&self, schema: &Value, full: bool, depth: usize) -> Value {
        if let Some(target) = schema["$ref"].as_str() {
            let pointer = target.trim_start_matches('#').replace("%7B", "{").replace("%7D", "}");
            let schema = self.document.pointer(&pointer).expect("a $ref leads somewhere");
            return self.instance(schema, full, depth);
        }
        let kinds: Vec<&str> = match &schema["type"] {
            Value::String(kind) => vec![kind],
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if depth > 12 || !full && kinds.contains(&"null") {
            return Value::Null;
        }
        if schema["properties"].is_object() {
            return self.object(schema, full, depth);
        }
        if let Some(all) = schema["allOf"].as_array() {
            let mut merged = Map::new();
            for part in all {
                if let Value::Object(part) = self.instance(part, full, depth + 1) {
                    merged.extend(part);
                }
            }
            return Value::Object(merged);
        }
        for choice in ["oneOf", "anyOf"] {
            if let Some(first) = schema[choice].as_array().and_then(|choices| choices.first()) {
                return self.instance(first, full, depth + 1);
            }
        }
        if kinds.contains(&"array") {
            return json!([self.instance(&schema["items"], full, depth + 1)]);
        }
        let example = &schema["example"];
        match kinds.first() {
            _ if !example.is_null() => example.clone(),
            Some(&"string") => schema["enum"].get(0).cloned().unwrap_or(json!("text")),
            Some(&"integer" | &"number") => json!(1),
            Some(&"boolean") => json!(false),
            Some(&"object") => json!({}),
            _ => Value::Null,
        }
    }

    fn object(&self, schema: &Value, full: bool, depth: usize) -> Value {
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let mut object = Map::new();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            // The envelope's one field is never marked as required, and always there.
            if full || depth == 0 || required.contains(&json!(name)) {
                object.insert(name.clone(), self.instance(property, full, depth + 1));
            }
        }
        Value::Object(object)
    }
}
