//! Several apps in one repo: the folders to choose from.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Evidence, Flag, files};

/// The most folders that are named.
const ROOTS_MAX: usize = 12;
/// Files by which a folder is taken to be an app.
const SIGNS: &[&str] = &[
    "Dockerfile",
    "requirements.txt",
    "pyproject.toml",
    "Pipfile",
    "Gemfile",
    "config.ru",
    "composer.json",
    "main.go",
    "mix.exs",
    "Procfile",
];

/// Asks for the app's folder where the top is only what holds several apps together.
pub(super) fn look(evidence: &mut Evidence<'_>) -> bool {
    let Some(file) = workspace(evidence) else { return false };
    let roots = roots(evidence);
    if roots.is_empty() {
        return false;
    }
    ask(evidence, roots, Some(file));
    true
}

/// Asks for the app's folder where nothing was found at the top.
pub(super) fn choose(evidence: &mut Evidence<'_>) -> bool {
    let roots = roots(evidence);
    let some = !roots.is_empty();
    if some {
        ask(evidence, roots, None);
    }
    some
}

fn ask(evidence: &mut Evidence<'_>, roots: Vec<String>, file: Option<&str>) {
    let names: Vec<String> = roots.iter().map(|root| format!("`{root}`")).collect();
    let names = names.join(", ");
    if let Some(file) = file {
        evidence.is("monorepo", file);
        evidence.flag(Flag::Monorepo, file);
    }
    let text = format!("the app is not at the top of the repo, but apps are in {names}");
    evidence.block("choose_root", text, "name one of these folders as `root`", file);
    evidence.scan.roots = roots;
}

/// The file that makes the top a workspace without an app of its own.
fn workspace(evidence: &Evidence<'_>) -> Option<&'static str> {
    let package: Option<Value> =
        evidence.text("package.json").and_then(|text| serde_json::from_str(text).ok());
    if let Some(package) = &package {
        let dependencies = package["dependencies"].as_object().map_or(0, |some| some.len());
        let many = !package["workspaces"].is_null();
        let tool = ["pnpm-workspace.yaml", "turbo.json", "nx.json", "lerna.json"]
            .into_iter()
            .find(|file| evidence.has(file));
        // An app at the top has dependencies of its own.
        if dependencies == 0 {
            return tool.or(many.then_some("package.json"));
        }
        return None;
    }
    if evidence.has("go.work") && !evidence.has("main.go") {
        return Some("go.work");
    }
    let cargo = evidence.text("Cargo.toml")?;
    (cargo.contains("[workspace]") && !cargo.contains("[package]")).then_some("Cargo.toml")
}

fn roots(evidence: &Evidence<'_>) -> Vec<String> {
    let folders: BTreeSet<&str> = evidence
        .paths
        .iter()
        .filter(|path| path.matches('/').count() <= 3 && !files::is_aside(path))
        .filter_map(|path| {
            let (folder, name) = path.rsplit_once('/')?;
            let app = SIGNS.contains(&name)
                || name.ends_with(".csproj")
                || (name == "package.json" && starts(evidence, path))
                || (name == "main.rs" && folder.ends_with("/src"));
            app.then(|| folder.strip_suffix("/src").unwrap_or(folder))
        })
        .collect();
    folders.into_iter().take(ROOTS_MAX).map(|folder| evidence.full(folder)).collect()
}

/// Whether a package of a workspace is one that runs; one that was not read may be.
fn starts(evidence: &Evidence<'_>, path: &str) -> bool {
    let Some(text) = evidence.text(path) else { return true };
    let Ok(package) = serde_json::from_str::<Value>(text) else { return true };
    package["scripts"]["start"].is_string()
}
