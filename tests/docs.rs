//! The documents keep up with the tree: their links lead somewhere, and the configuration that they
//! show is one that a client can read.

use std::path::Path;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The targets of all `[text](target)` in a text.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("](").filter_map(|(at, _)| text[at + 2..].split(')').next())
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]
    {
        let text = read(document);
        for target in links(&text).filter(|target| !target.contains("://")) {
            let file = target.split('#').next().unwrap_or(target);
            assert!(root().join(file).exists(), "{document}: `{target}` leads nowhere");
        }
    }
}

#[test]
fn the_example_configuration_starts_the_server_and_holds_no_token() {
    let config: Value = serde_json::from_str(&read("claude_desktop_config.example.json"))
        .expect("the example is JSON");
    let server = &config["mcpServers"]["vmkit"];
    assert_eq!(server["command"], "vmkit");
    assert_eq!(server["args"], serde_json::json!(["mcp"]));
    assert!(server.get("env").is_none(), "tokens come from `vmkit connect`: {server}");
}

#[test]
fn the_architecture_names_every_part() {
    let text = read("ARCHITECTURE.md");
    for entry in std::fs::read_dir(root().join("src")).expect("src can be read") {
        let name = entry.expect("the entry can be read").file_name();
        let name = name.to_string_lossy();
        let part = name.trim_end_matches(".rs");
        if part == "lib" {
            continue;
        }
        let named = [format!("`src/{part}.rs`"), format!("`src/{part}/`")];
        assert!(named.iter().any(|form| text.contains(form)), "`{part}` is not in ARCHITECTURE.md");
    }
}
