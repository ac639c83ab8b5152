//! The providers' own OpenAPI documents, where they lie beside the repo.

use std::path::Path;

use serde_json::{Value, json};
use vmkit_sandbox::faults::Exchange;

pub(crate) struct Spec {
    document: Value,
    /// What the base URL's path is.
    base: &'static str,
}

impl Spec {
    /// `../shared/specs/NAME.json`; none, said aloud, where it is not there.
    pub(crate) fn of(name: &str, base: &'static str) -> Option<Self> {
        let specs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/specs");
        match std::fs::read(specs.join(format!("{name}.json"))) {
            Ok(text) => Some(Self { document: serde_json::from_slice(&text).unwrap(), base }),
            Err(_) => {
                eprintln!("SKIPPED: no ../shared/specs/{name}.json, answers are not validated");
                None
            }
        }
    }

    /// What is wrong with an exchange: an answer must fit, and the request of a good one as well.
    pub(crate) fn faults(&self, exchange: &Exchange) -> Vec<String> {
        let path = exchange.path.trim_start_matches(self.base);
        let parts: Vec<&str> = path.split('/').collect();
        let fits = |template: &&str| {
            let wanted: Vec<&str> = template.split('/').collect();
            let same = wanted.iter().zip(&parts).all(|(w, p)| w.starts_with('{') || w == p);
            wanted.len() == parts.len() && same
        };
        let paths = self.document["paths"].as_object().unwrap();
        let fitting = paths.keys().map(String::as_str).filter(fits);
        let Some(template) = fitting.min_by_key(|template| template.matches('{').count()) else {
            return vec![format!("{path} is not in the specification")];
        };
        let method = exchange.method.to_lowercase();
        let operation = &self.document["paths"][template][&method];
        let status = exchange.status.unwrap().to_string();
        let range = format!("{}XX", &status[..1]);
        let keys = [status.as_str(), range.as_str(), "default"];
        let Some(key) = keys.iter().find(|key| !operation["responses"][**key].is_null()) else {
            return vec![format!("{method} {template} has no answer {status}")];
        };
        let mut faults = Vec::new();
        let reference = operation["responses"][*key]["$ref"].as_str();
        let response = match reference {
            Some(reference) => reference.trim_start_matches('#').to_owned(),
            None => format!("{}/responses/{key}", pointer(template, &method)),
        };
        let body = format!("{response}/content/application~1json/schema");
        if self.document.pointer(&plain(&body)).is_some() {
            faults.extend(self.errors(&body, &exchange.answer));
        } else if !exchange.answer.is_null() {
            faults.push("there should be no body".to_owned());
        }
        if status.starts_with('2') && !exchange.body.is_null() {
            let body = "requestBody/content/application~1json/schema";
            let body = format!("{}/{body}", pointer(template, &method));
            // Clients may send an empty object where nothing is asked for.
            if self.document.pointer(&plain(&body)).is_some() || exchange.body != json!({}) {
                faults.extend(self.errors(&body, &exchange.body));
            }
        }
        let name = format!("{method} {template} {status}");
        faults.into_iter().map(|fault| format!("{name}: {fault}")).collect()
    }

    fn errors(&self, pointer: &str, body: &Value) -> Vec<String> {
        let schema = json!({"$ref": format!("urn:spec#{pointer}")});
        let registry =
            jsonschema::Registry::new().add("urn:spec", &self.document).unwrap().prepare().unwrap();
        let validator =
            jsonschema::options().with_registry(&registry).build(&schema).expect("a schema");
        let show = |error: jsonschema::ValidationError<'_>| {
            format!("{} at {}", error, error.instance_path())
        };
        validator.iter_errors(body).map(show).collect()
    }
}

fn pointer(template: &str, method: &str) -> String {
    let template = template.replace('/', "~1").replace('{', "%7B").replace('}', "%7D");
    format!("/paths/{template}/{method}")
}

/// A pointer without the escapes of a URL.
fn plain(pointer: &str) -> String {
    pointer.replace("%7B", "{").replace("%7D", "}")
}
