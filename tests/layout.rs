//! Holds the layout: which part may know which, what only some files may do, and no trace of the
//! machine that a file was written on. The rules are functions over texts, so that each is shown
//! to find a planted fault.

#[path = "layout/imports.rs"]
mod imports;
#[path = "layout/rules.rs"]
mod rules;
#[path = "layout/traces.rs"]
mod traces;

use std::fs;
use std::path::Path;

/// Folders and files that are not ours, or are made by tools.
const NOT_OURS: &[&str] = &[".git", "target", "node_modules", "Cargo.lock", "package-lock.json"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All text files of the repository, by path from its root.
fn repository() -> Vec<rules::File> {
    let mut files = Vec::new();
    collect(root(), &mut files);
    assert!(files.iter().any(|(path, _)| path == "src/main.rs"), "the walk found no source");
    files
}

fn collect(folder: &Path, files: &mut Vec<rules::File>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let entry = entry.expect("the entry can be read");
        if NOT_OURS.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().expect("the entry has a type");
        if kind.is_dir() {
            collect(&path, files);
        } else if kind.is_file()
            && let Ok(text) = fs::read_to_string(&path)
        {
            let relative = path.strip_prefix(root()).expect("the walk stays below the root");
            files.push((relative.to_string_lossy().replace('\\', "/"), text));
        }
    }
}

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{} faults:\n{}\n", faults.len(), faults.join("\n"));
}

/// The faults in one planted file that otherwise keeps the rules.
fn planted(path: &str, body: &str) -> Vec<String> {
    rules::faults(&[(path.to_owned(), format!("//! Planted.\n{body}\n"))])
}

#[track_caller]
fn found(path: &str, body: &str, what: &str) {
    let faults = planted(path, body);
    assert_eq!(faults.len(), 1, "{path}: {body}: {faults:?}");
    assert!(faults[0].contains(what), "{path}: {body}: {faults:?}");
}

#[track_caller]
fn passes(path: &str, body: &str) {
    assert_eq!(planted(path, body), Vec::<String>::new(), "{path}: {body}");
}

#[test]
fn the_source_keeps_the_rules() {
    none(&rules::faults(&repository()));
}

#[test]
fn no_file_names_the_machine_that_it_was_written_on() {
    let here = root().to_string_lossy();
    let faults: Vec<String> =
        repository().iter().flat_map(|(path, text)| traces::faults(path, text, &here)).collect();
    none(&faults);
}

#[test]
fn finds_a_planted_import() {
    found("src/domain/vm.rs", "use crate::store::Store;", ":2: `domain` may not know `store`");
    found("src/clouds/hetzner.rs", "use crate::vault;", "`clouds` may not know `vault`");
    found("src/operations/deploy.rs", "use crate::requests::Executor;", "may not know `requests`");
    found("src/operations/deploy.rs", "use crate::queries::status;", "may not know `queries`");
    found("tools/deploy.rs", "use crate::store::Store;", "`tools` may not know `store`");
    found("src/http/routes.rs", "fn f() { vmkit::clouds::list() }", "may not know `clouds`");
    found("src/domain.rs", "use super::store::Store;", "may not know `store`");
    found("src/domain/vm.rs", "fn f() { super::super::fleet::f() }", "may not know `fleet`");
    found("src/mcp.rs", "mod inner { use super::super::vault::open; }", "may not know `vault`");
    found("src/fleet.rs", "select! { x = crate::vault::f() => {} }", "may not know `vault`");
}

#[test]
fn finds_a_planted_import_in_a_group() {
    let faults =
        planted("src/domain/vm.rs", "use crate::{domain::ids, store::{self, Store as S}};");
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults.iter().all(|fault| fault.contains("may not know `store`")), "{faults:?}");
    found(
        "src/vault.rs",
        "use {crate::domain::ids, crate::{domain as d, fleet::Fleet}};",
        "`fleet`",
    );
}

#[test]
fn finds_an_import_that_hides_its_part() {
    found("src/vault.rs", "use crate::*;", "`crate::*` names no part");
    found("src/vault.rs", "use crate::Store;", "names no part");
}

#[test]
fn lets_allowed_imports_pass() {
    passes("src/domain/vm.rs", "use super::ids::VmId; use crate::domain::{clock, ids};");
    passes("src/operations/deploy.rs", "use crate::{clouds::Cloud, store::Store, vault::Vault};");
    passes("tools/deploy.rs", "use crate::mcp::Server; pub(crate) fn f() {}");
    passes("src/mcp.rs", "use crate::tools; mod tests { use super::*; }");
    passes("src/mcp.rs", "mod tests { use crate::store::Store; }");
    passes("src/http/tests.rs", "use crate::store::Store;");
    passes("src/http.rs", "pub(in crate::http) fn f() {}");
    passes("src/domain/vm.rs", "// use crate::store;\nconst S: &str = \"crate::store::Store\";");
    passes("src/main.rs", "use vmkit::{cli, store, vault};");
    passes("tests/story.rs", "use vmkit::store::Store; use vmkit_sandbox::Sandbox;");
}

#[test]
fn finds_a_part_that_it_does_not_know() {
    found("src/utils.rs", "", "`utils` is no part");
    found("src/misc/one.rs", "", "`misc` is no part");
    let stray = rules::faults(&[("src/notes.txt".to_owned(), String::new())]);
    assert_eq!(stray.len(), 1, "{stray:?}");
}

#[test]
fn finds_a_crate_where_it_does_not_belong() {
    found("src/access.rs", "use aes_gcm::Aes256Gcm;", "only src/vault may know `aes_gcm`");
    found("src/queries/status.rs", "fn f(c: &rusqlite::Connection) {}", "only src/store");
    found("src/mcp.rs", "use vmkit_sandbox::Sandbox;", "may know `vmkit_sandbox`");
    found("agent/src/link.rs", "use vmkit_sandbox::Sandbox;", "may know `vmkit_sandbox`");
    passes("src/vault/seal.rs", "use aes_gcm::Aes256Gcm;");
    passes("src/store.rs", "use rusqlite::Connection;");
    passes("src/cli/demo.rs", "use vmkit_sandbox::Sandbox;");
    found("src/vault_extra.rs", "", "is no part");
}

#[test]
fn finds_a_reader_of_the_environment() {
    found("src/cli/demo.rs", "fn f() { std::env::var(\"HOME\"); }", "only src/config.rs");
    found("agent/src/link.rs", "use std::env::{args, var_os};", "only src/config.rs");
    found("src/cli.rs", "#[arg(long, env = \"VMKIT_HOME\")] struct S;", "only src/config.rs");
    passes("src/config.rs", "fn f() { std::env::var_os(\"HOME\"); }");
    passes("agent/src/cli.rs", "fn f() { std::env::var_os(\"HOME\"); }");
    passes("src/cli.rs", "fn f() { std::env::current_exe(); }");
}

#[test]
fn finds_a_secret_taken_out() {
    found("tools/set_env.rs", "fn f(s: Secret) { s.expose(); }", "may expose a secret");
    found("src/mcp.rs", "fn f() { secrets.map(Secret::expose) }", "may expose a secret");
    passes("src/vault.rs", "fn f(s: Secret) { s.expose(); }");
    passes("src/mcp.rs", "mod tests { fn f(s: Secret) { s.expose(); } }");
}

#[test]
fn finds_what_no_file_may_do() {
    found("tests/story.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}", ":3: a test that is");
    found("tests/story.rs", "#[cfg_attr(windows, ignore)]\nfn f() {}", "ignored");
    found("tests/story.rs", "#[should_panic(expected = \"x\")]\nfn f() {}", "on a panic");
    found("sandbox/src/lib.rs", "fn f() { std::thread::sleep(d) }", "waits a fixed time");
    found("src/cli.rs", "use std::thread::{self, sleep};", "waits a fixed time");
    found("src/cli.rs", &"\n".repeat(600), "want two files");
    let bare = rules::faults(&[("src/cli.rs".to_owned(), "fn f() {}\n".to_owned())]);
    assert!(bare.len() == 1 && bare[0].contains("`//!` line"), "{bare:?}");
    let broken = planted("src/cli.rs", "fn f() { \"");
    assert!(broken.len() == 1 && broken[0].contains("is not Rust"), "{broken:?}");
}

#[test]
fn finds_a_trace_of_a_machine() {
    let faults = |text: &str| traces::faults("README.md", text, "/srv/checkouts/vmkit").len();
    let slashes = |words: &[&str]| format!("cd {}", words.join("/"));
    for words in [
        &["", "home", "someone", "vmkit"][..],
        &["", "Users", "someone", "vmkit"],
        &["", "work", "main"],
        &["", "srv", "checkouts", "vmkit", "src"],
        &["", "root", ".cargo", "bin"],
    ] {
        assert_eq!(faults(&slashes(words)), 1, "{words:?}");
    }
    assert_eq!(faults(&["https://crates", "io"].join(".")), 1);
    assert_eq!(faults("/home/kamal/.ssh/authorized_keys and .github/workflows/ci.yml"), 0);
    assert_eq!(faults("github.example/vmkit/work/flows"), 0);
}
