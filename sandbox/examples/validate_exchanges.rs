//! Holds what a whole test run said to the simulators, and what they answered, against the
//! providers' own OpenAPI documents.
//!
//! `validate_exchanges FOLDER SPECS`: FOLDER holds the files that the simulators wrote (see
//! `VMKIT_SANDBOX_RECORD`), SPECS the documents. Every request of our own clients must fit, its
//! query included, and every answer that was not a planted fault. Prints the counts; exit 1 where
//! something does not fit, 2 where there is nothing to judge.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::ExitCode;

use jsonschema::{Registry, Validator};
use serde_json::{Value, json};
use vmkit_sandbox::faults::{Exchange, Kept, Style};

/// How many different faults are shown.
const SHOWN_MAX: usize = 40;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, specs] = arguments.as_slice() else {
        eprintln!("usage: validate_exchanges FOLDER SPECS");
        return ExitCode::from(2);
    };
    match judge_all(Path::new(folder), Path::new(specs)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("validate_exchanges: {message}");
            ExitCode::from(2)
        }
    }
}

fn judge_all(folder: &Path, specs: &Path) -> Result<bool, String> {
    let mut judges: HashMap<Style, Judge> = HashMap::new();
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for entry in entries {
        let path = entry.map_err(|e| e.to_string())?.path();
        let file = File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        for line in BufReader::new(file).lines() {
            let line = line.map_err(|e| format!("{}: {e}", path.display()))?;
            // A process that was killed in the middle of a write leaves half a line.
            let Ok(kept) = serde_json::from_str::<Kept>(&line) else { continue };
            let judge = match judges.entry(kept.style) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(Judge::new(kept.style, specs)?),
            };
            judge.judge(&kept.exchange);
        }
    }
    if judges.is_empty() {
        return Err(format!("{} holds no exchange", folder.display()));
    }
    let mut judges: Vec<Judge> = judges.into_values().collect();
    judges.sort_by_key(|judge| judge.name);
    for judge in &judges {
        judge.print();
    }
    Ok(judges.iter().all(|judge| judge.faults.is_empty()))
}

/// One provider's document, and what did not fit it.
struct Judge {
    name: &'static str,
    /// What the paths in the document do not have.
    prefix: &'static str,
    document: Value,
    registry: Registry<'static>,
    validators: HashMap<String, Option<Validator>>,
    requests: u64,
    answers: u64,
    planted: u64,
    /// Paths that the document does not have, with how often each was asked for.
    unknown: BTreeMap<String, u64>,
    faults: BTreeMap<String, u64>,
}

impl Judge {
    fn new(style: Style, specs: &Path) -> Result<Self, String> {
        let (name, prefix) = match style {
            Style::Hetzner => ("hetzner", "/v1"),
            Style::DigitalOcean => ("digitalocean", ""),
            Style::GitHub => ("github", ""),
            Style::Cloudflare => ("cloudflare", "/client/v4"),
        };
        let path = specs.join(format!("{name}.json"));
        let text = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let document: Value =
            serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        let registry = Registry::new()
            .add("urn:spec", document.clone())
            .and_then(|registry| registry.prepare())
            .map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self {
            name,
            prefix,
            document,
            registry,
            validators: HashMap::new(),
            requests: 0,
            answers: 0,
            planted: 0,
            unknown: BTreeMap::new(),
            faults: BTreeMap::new(),
        })
    }

    fn judge(&mut self, exchange: &Exchange) {
        let path = exchange.path.strip_prefix(self.prefix).unwrap_or(&exchange.path).to_owned();
        let method = exchange.method.to_lowercase();
        let ours = exchange.client.starts_with("vmkit/");
        let template = self.template(&path).map(str::to_owned);
        let known = template.filter(|t| !self.document["paths"][t][&method].is_null());
        let Some(template) = known else {
            *self.unknown.entry(format!("{method} {path}")).or_default() += 1;
            return;
        };
        let mut faults = Vec::new();
        if ours {
            self.requests += 1;
            faults.extend(self.request(&template, &method, exchange));
        }
        match (exchange.status, &exchange.fault) {
            (Some(status), None) => {
                self.answers += 1;
                faults.extend(self.answer(&template, &method, status, &exchange.answer));
            }
            (_, Some(_)) => self.planted += 1,
            (None, None) => {}
        }
        for fault in faults {
            *self.faults.entry(format!("{method} {template}: {fault}")).or_default() += 1;
        }
    }

    /// The template that a path is of; the most literal one wins.
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

    fn request(&mut self, template: &str, method: &str, exchange: &Exchange) -> Vec<String> {
        let mut faults = self.query(template, method, &exchange.query);
        let operation = &self.document["paths"][template][method];
        let body = format!("{}/requestBody", pointer(template, method));
        let required = operation["requestBody"]["required"] == json!(true);
        match &exchange.body {
            Value::Null if required => faults.push("a request without a body".to_owned()),
            Value::Null => {}
            given => {
                let place = format!("{body}/content/application~1json/schema");
                match self.errors(&place, given) {
                    Some(errors) => {
                        faults.extend(errors.into_iter().map(|e| format!("request: {e}")));
                    }
                    None => faults.push("a request with a body where none is foreseen".to_owned()),
                }
            }
        }
        faults
    }

    /// Names in the query that the document does not have.
    fn query(&self, template: &str, method: &str, query: &str) -> Vec<String> {
        let item = &self.document["paths"][template];
        let lists = [&item["parameters"], &item[method]["parameters"]];
        let known: BTreeSet<&str> = lists
            .iter()
            .filter_map(|list| list.as_array())
            .flatten()
            .filter_map(|parameter| self.followed(parameter)["name"].as_str())
            .collect();
        url::form_urlencoded::parse(query.as_bytes())
            .filter(|(name, _)| !known.contains(name.as_ref()))
            .map(|(name, _)| format!("the query has `{name}`, which the document does not"))
            .collect()
    }

    fn followed<'a>(&'a self, value: &'a Value) -> &'a Value {
        let target = value["$ref"].as_str().map(|target| target.trim_start_matches('#'));
        target.and_then(|target| self.document.pointer(&plain(target))).unwrap_or(value)
    }

    fn answer(&mut self, template: &str, method: &str, status: u16, body: &Value) -> Vec<String> {
        let responses = &self.document["paths"][template][method]["responses"];
        let keys = [status.to_string(), format!("{}XX", status / 100), "default".to_owned()];
        let Some(key) = keys.iter().find(|key| !responses[key.as_str()].is_null()) else {
            return if self.is_general(template, status) {
                Vec::new()
            } else {
                vec![format!("there is no answer {status}")]
            };
        };
        let place = match responses[key]["$ref"].as_str() {
            Some(reference) => reference.trim_start_matches('#').to_owned(),
            None => format!("{}/responses/{key}", pointer(template, method)),
        };
        match self.errors(&format!("{place}/content/application~1json/schema"), body) {
            Some(errors) => errors.into_iter().map(|e| format!("answer {status}: {e}")).collect(),
            None if body.is_null() => Vec::new(),
            None if (300..400).contains(&status) => Vec::new(),
            // GitHub's document has refusals without a schema (422 of a reference that is gone).
            None if self.name == "github" && (400..500).contains(&status) => Vec::new(),
            None => vec![format!("answer {status} has a body where none is foreseen")],
        }
    }

    /// What GitHub's document leaves out: the answers that every endpoint may give, and that
    /// dispatches of API version 2022-11-28 are answered without a body.
    fn is_general(&self, template: &str, status: u16) -> bool {
        let always = matches!(status, 304 | 400 | 401 | 403 | 404 | 409 | 422 | 429);
        let old = status == 204 && template.ends_with("/dispatches");
        self.name == "github" && (always || old)
    }

    /// What is wrong with a body; none where the document has no schema at that place.
    fn errors(&mut self, place: &str, body: &Value) -> Option<Vec<String>> {
        if !self.validators.contains_key(place) {
            let there = self.document.pointer(&plain(place)).is_some();
            let schema = json!({ "$ref": format!("urn:spec#{place}") });
            let built = jsonschema::options().with_registry(&self.registry).build(&schema);
            let validator = there.then(|| built.expect("a schema of the document compiles"));
            self.validators.insert(place.to_owned(), validator);
        }
        let validator = self.validators.get(place)?.as_ref()?;
        let show = |error: jsonschema::ValidationError<'_>| {
            let text = error.to_string();
            let short: String = text.chars().take(160).collect();
            format!("{short} at {}", error.instance_path())
        };
        Some(validator.iter_errors(body).map(show).collect())
    }

    #[expect(clippy::print_stdout, reason = "what this program is for")]
    fn print(&self) {
        println!(
            "{}: {} requests of ours and {} answers fit but for {}; {} planted faults left out",
            self.name,
            self.requests,
            self.answers,
            self.faults.values().sum::<u64>(),
            self.planted
        );
        for (path, times) in &self.unknown {
            println!("  not in the document, {times} times: {path}");
        }
        for (fault, times) in self.faults.iter().take(SHOWN_MAX) {
            println!("  DOES NOT FIT, {times} times: {fault}");
        }
    }
}

/// Where an operation is, as part of a `$ref`.
fn pointer(template: &str, method: &str) -> String {
    let path = template.replace('~', "~0").replace('/', "~1");
    let path = path.replace('{', "%7B").replace('}', "%7D");
    format!("/paths/{path}/{method}")
}

/// The same without the percent signs, for looking it up in the document.
fn plain(pointer: &str) -> String {
    pointer.replace("%7B", "{").replace("%7D", "}")
}
