//! The committed surface of every tool, the rules over all of them, and what they cost in tokens.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rmcp::model::Tool;
use serde_json::{Value, json};

/// What one tool may cost: name, title, description, input schema and annotations, in bytes / 4.
const TOKENS_MAX: usize = 6_000;
const OUTPUT_BYTES_MAX: usize = 600;
/// Clients cut descriptions there.
const DESCRIPTION_MAX: usize = 2_048;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

fn surface(tool: &Tool) -> Value {
    json!({
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "annotations": tool.annotations,
        "inputSchema": tool.input_schema,
        "outputSchema": tool.output_schema,
    })
}

/// What a client puts before its model.
fn cost(tool: &Tool) -> usize {
    let shown = json!({
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": tool.input_schema,
        "annotations": tool.annotations,
    });
    shown.to_string().len()
}

#[test]
fn the_committed_schemas_are_those_of_the_tools() {
    let accept = std::env::vars().any(|(name, _)| name == "VMKIT_ACCEPT");
    fs::create_dir_all(folder()).expect("the folder");
    let mut faults = Vec::new();
    let mut wanted = BTreeSet::new();
    for tool in vmkit::mcp::tools() {
        let path = folder().join(format!("{}.json", tool.name));
        let mut text = serde_json::to_string_pretty(&surface(&tool)).expect("JSON");
        text.push('\n');
        if accept {
            fs::write(&path, &text).expect("written");
        }
        match fs::read_to_string(&path) {
            Ok(committed) if committed == text => {}
            Ok(committed) => faults.push(format!(
                "changed: {}\n{}",
                path.display(),
                difference(&committed, &text)
            )),
            Err(_) => faults.push(format!("missing: {}", path.display())),
        }
        wanted.insert(path);
    }
    for entry in fs::read_dir(folder()).expect("the folder") {
        let path = entry.expect("an entry").path();
        if wanted.contains(&path) {
            continue;
        }
        if accept {
            fs::remove_file(&path).expect("removed");
        } else {
            faults.push(format!("left over: {}", path.display()));
        }
    }
    assert!(
        faults.is_empty(),
        "{}\n\nTo accept: VMKIT_ACCEPT=1 cargo test --test schemas\n",
        faults.join("\n")
    );
}

/// The lines that only one of two texts has.
fn difference(committed: &str, now: &str) -> String {
    let before: BTreeSet<&str> = committed.lines().collect();
    let after: BTreeSet<&str> = now.lines().collect();
    let gone = before.difference(&after).map(|line| format!("- {line}"));
    let new = after.difference(&before).map(|line| format!("+ {line}"));
    gone.chain(new).collect::<Vec<_>>().join("\n")
}

#[test]
fn all_tools_together_fit_in_the_budget() {
    let tools = vmkit::mcp::tools();
    let sizes: Vec<(usize, String)> =
        tools.iter().map(|tool| (cost(tool), tool.name.to_string())).collect();
    let tokens = sizes.iter().map(|(bytes, _)| bytes).sum::<usize>() / 4;
    assert!(tokens <= TOKENS_MAX, "{tokens} tokens, and {TOKENS_MAX} are allowed: {sizes:?}");
    for tool in &tools {
        let Some(schema) = &tool.output_schema else { continue };
        let bytes = Value::Object((**schema).clone()).to_string().len();
        assert!(bytes <= OUTPUT_BYTES_MAX, "{}: its output schema has {bytes} bytes", tool.name);
        let length = tool.description.as_ref().map_or(0, |text| text.len());
        assert!(length <= DESCRIPTION_MAX, "{}: its description is too long", tool.name);
    }
}

#[test]
fn every_tool_says_what_it_does_to_the_world() {
    let tools = vmkit::mcp::tools();
    let names: BTreeSet<&str> = tools.iter().map(|tool| tool.name.as_ref()).collect();
    assert_eq!(names.len(), tools.len(), "names are unique");
    assert!(tools.len() <= 25);
    for tool in &tools {
        let name = &tool.name;
        let hints = tool.annotations.as_ref().unwrap_or_else(|| panic!("{name} has no hints"));
        let all = [
            hints.read_only_hint,
            hints.destructive_hint,
            hints.idempotent_hint,
            hints.open_world_hint,
        ];
        assert!(all.iter().all(Option::is_some), "{name}: all four hints are set on purpose");
        assert!(tool.title.is_some(), "{name} has no title");
        let reads = hints.read_only_hint == Some(true);
        let begins =
            ["get_", "list_", "scan_", "diagnose"].iter().any(|word| name.starts_with(word));
        assert_eq!(reads, begins, "{name}: what it is called and whether it only reads");
        assert!(!reads || hints.destructive_hint == Some(false), "{name}");
    }
    let destructive = |name: &str| {
        let tool = tools.iter().find(|tool| tool.name == name).expect(name);
        tool.annotations.as_ref().and_then(|hints| hints.destructive_hint)
    };
    assert_eq!(destructive("destroy"), Some(true));
    assert_eq!(destructive("deploy"), Some(false));
}

#[test]
fn every_schema_is_one_that_all_clients_take() {
    for tool in vmkit::mcp::tools() {
        let input = Value::Object((*tool.input_schema).clone());
        assert_eq!(input["type"], "object", "{}", tool.name);
        assert_eq!(input["additionalProperties"], false, "{}", tool.name);
        let mut texts = vec![input.to_string()];
        texts.extend(tool.output_schema.as_ref().map(|o| Value::Object((**o).clone()).to_string()));
        for text in texts {
            for word in
                ["$schema", "$ref", "$defs", "\"null\"", "\"format\"", "anyOf", "oneOf", "allOf"]
            {
                assert!(!text.contains(word), "{}: {word} in {text}", tool.name);
            }
        }
    }
}

#[test]
fn what_changes_things_takes_a_reason_and_says_its_status() {
    for tool in vmkit::mcp::tools() {
        let reads = tool.annotations.as_ref().and_then(|hints| hints.read_only_hint) == Some(true);
        let input = Value::Object((*tool.input_schema).clone());
        let has = |field: &str| input["properties"].get(field).is_some();
        assert_eq!(has("reason"), !reads, "{}: reason", tool.name);
        assert_eq!(has("idempotency_key"), !reads, "{}: idempotency_key", tool.name);
        assert_eq!(has("dry_run") || has("plan_id"), !reads, "{}: dry_run or plan_id", tool.name);
        let output = tool.output_schema.map(|schema| Value::Object((*schema).clone()));
        let status = output.as_ref().and_then(|output| output["properties"].get("status"));
        assert_eq!(status.is_some(), !reads, "{}: status", tool.name);
    }
}
