//! The names of env variables that the app reads. Values are never looked at.

use std::collections::BTreeMap;

use super::{Evidence, files};
use crate::domain::names::EnvKey;

const EXAMPLES: &[&str] =
    &[".env.example", ".env.sample", ".env.template", ".env.dist", "env.example"];

/// What bundlers write into files for browsers.
const BUILD_PREFIXES: &[&str] =
    &["NEXT_PUBLIC_", "VITE_", "REACT_APP_", "GATSBY_", "PUBLIC_", "EXPO_PUBLIC_"];

/// Set by VMKit, by the platform, or of no use on a VM.
const NOT_ASKED_FOR: &[&str] = &[
    "PORT",
    "HOST",
    "NODE_ENV",
    "APP_ENV",
    "PATH",
    "HOME",
    "PWD",
    "CI",
    "TZ",
    "DEBUG",
    "VMKIT_REPO_SLUG",
    "VMKIT_ENV_SLUG",
];

/// Collects the names, each with the first file that has it.
pub(super) fn look(evidence: &mut Evidence<'_>) {
    let mut found: BTreeMap<EnvKey, String> = BTreeMap::new();
    for file in EXAMPLES {
        for key in evidence.text(file).map(listed).unwrap_or_default() {
            found.entry(key).or_insert_with(|| (*file).to_owned());
        }
    }
    for (path, text) in evidence.texts.iter().filter(|(path, _)| files::is_code(path)) {
        for key in read_in_code(text) {
            found.entry(key).or_insert_with(|| (*path).to_owned());
        }
    }
    found.retain(|key, _| {
        !NOT_ASKED_FOR.contains(&key.as_str()) && !key.as_str().starts_with("KAMAL_")
    });
    for (key, file) in found {
        let build = BUILD_PREFIXES.iter().any(|prefix| key.as_str().starts_with(prefix));
        evidence.found(if build { "build_env" } else { "env" }, key.as_str(), &file);
        let keys = &mut evidence.scan.env_keys;
        if build { keys.build.push(key) } else { keys.runtime.push(key) }
    }
    if !evidence.scan.env_keys.build.is_empty() && evidence.scan.build.is_some() {
        let text = "some values are read while the image is built, which VMKit does not pass on yet; give them in the Dockerfile or as the code's own defaults";
        evidence.check("build_env", false, text, None);
    }
}

/// `KEY=...` and `export KEY=...` lines.
fn listed(text: &str) -> Vec<EnvKey> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.strip_prefix("export ").unwrap_or(line).split_once('='))
        .filter_map(|(key, _)| key.trim().parse().ok())
        .collect()
}

/// `process.env.KEY`, `import.meta.env.KEY`, `os.environ["KEY"]`, `os.getenv("KEY")`, ...
fn read_in_code(text: &str) -> Vec<EnvKey> {
    let pattern = concat!(
        r#"(?:process\.env\.|import\.meta\.env\.|process\.env\[["']|os\.environ\[["']"#,
        r#"|os\.environ\.get\(\s*["']|os\.getenv\(\s*["']|\benv(?:\.\w+)?\(\s*["'])([A-Z][A-Z0-9_]{1,80})\b"#
    );
    let pattern = regex::Regex::new(pattern).expect("a fixed pattern");
    pattern.captures_iter(text).filter_map(|hit| hit[1].parse().ok()).collect()
}
