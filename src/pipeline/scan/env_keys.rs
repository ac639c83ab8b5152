//! The names of env variables that the app reads. Values are never looked at.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

use super::{Evidence, files};
use crate::domain::names::EnvKey;

const EXAMPLES: &[&str] =
    &[".env.example", ".env.sample", ".env.template", ".env.dist", "env.example"];

/// Files that are no code and name variables as `${KEY}` or with ERB.
const CONFIGS: &[&str] = &[
    "src/main/resources/application.properties",
    "src/main/resources/application.yml",
    "src/main/resources/application.yaml",
    "src/main/resources/application.conf",
    "config/database.yml",
    "config/cable.yml",
    "config/storage.yml",
];

/// What bundlers write into files for browsers.
const BUILD_PREFIXES: &[&str] =
    &["NEXT_PUBLIC_", "VITE_", "REACT_APP_", "GATSBY_", "PUBLIC_", "EXPO_PUBLIC_", "NUXT_PUBLIC_"];

/// Set by VMKit, by the platform, or of no use on a VM.
const NOT_ASKED_FOR: &[&str] = &[
    "PORT",
    "HOST",
    "HOSTNAME",
    "NODE_ENV",
    "APP_ENV",
    "RAILS_ENV",
    "RACK_ENV",
    "MIX_ENV",
    "BUNDLE_GEMFILE",
    "RAILS_MAX_THREADS",
    "WEB_CONCURRENCY",
    "PIDFILE",
    "JAVA_OPTS",
    "DJANGO_SETTINGS_MODULE",
    "PATH",
    "HOME",
    "PWD",
    "CI",
    "TZ",
    "DEBUG",
    "VMKIT_REPO_SLUG",
    "VMKIT_ENV_SLUG",
];

/// The most names of each kind that are kept.
const KEYS_MAX: usize = 100;

static READS: LazyLock<Regex> = LazyLock::new(|| {
    let before = [
        // JavaScript
        r"process\.env\.",
        r"import\.meta\.env\.",
        r#"process\.env\[["']"#,
        r#"Deno\.env\.get\(\s*["']"#,
        // Python
        r#"os\.environ\[["']"#,
        r#"(?:os\.)?environ\.get\(\s*["']"#,
        r#"(?:os\.)?getenv\(\s*["']"#,
        r#"\benv(?:\.\w+)?\(\s*["']"#,
        r#"\bconfig\(\s*["']"#,
        // Ruby
        r#"ENV(?:\.fetch\(|\[)\s*["']"#,
        // Go, Rust, JVM, .NET, PHP, Elixir
        r#"os\.(?:Getenv|LookupEnv)\(\s*""#,
        r#"env::var(?:_os)?\(\s*""#,
        r#"\benv!\(\s*""#,
        r#"System\.getenv\(\s*""#,
        r#"GetEnvironmentVariable\(\s*""#,
        r#"\$_ENV\[["']"#,
        r#"System\.(?:get_env|fetch_env!?)\(\s*""#,
        // Prisma reads it so too.
    ];
    let pattern = format!(r"(?:{})([A-Z][A-Z0-9_]{{1,80}})\b", before.join("|"));
    Regex::new(&pattern).expect("a fixed pattern")
});

static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r#"(?:\$\{\??|ENV(?:\.fetch\(|\[)\s*["'])([A-Z][A-Z0-9_]{1,80})\b"#;
    Regex::new(pattern).expect("a fixed pattern")
});

/// Collects the names, each with the first file that has it.
pub(super) fn look(evidence: &mut Evidence<'_>) {
    let mut found: BTreeMap<EnvKey, String> = BTreeMap::new();
    for file in EXAMPLES {
        for key in evidence.text(file).map(listed).unwrap_or_default() {
            found.entry(key).or_insert_with(|| (*file).to_owned());
        }
    }
    for (path, text) in evidence.code.iter().filter(|(path, _)| !files::is_aside(path)) {
        for key in named(&READS, text) {
            found.entry(key).or_insert_with(|| (*path).to_owned());
        }
    }
    for path in CONFIGS.iter().chain(&["prisma/schema.prisma"]) {
        let Some(text) = evidence.text(path) else { continue };
        let text: String = uncommented(text);
        for key in named(&PLACEHOLDER, &text).chain(named(&READS, &text)) {
            found.entry(key).or_insert_with(|| (*path).to_owned());
        }
    }
    let of_frameworks = std::mem::take(&mut evidence.scan.env_keys.runtime);
    for key in of_frameworks {
        found.entry(key).or_default();
    }
    found.retain(|key, _| {
        !NOT_ASKED_FOR.contains(&key.as_str()) && !key.as_str().starts_with("KAMAL_")
    });
    for (key, file) in found {
        let build = BUILD_PREFIXES.iter().any(|prefix| key.as_str().starts_with(prefix));
        if !file.is_empty() {
            evidence.found(if build { "build_env" } else { "env" }, key.as_str(), &file);
        }
        let keys = &mut evidence.scan.env_keys;
        let keys = if build { &mut keys.build } else { &mut keys.runtime };
        if !keys.contains(&key) && keys.len() < KEYS_MAX {
            keys.push(key);
        }
    }
    evidence.scan.env_keys.build.sort();
    if !evidence.scan.env_keys.build.is_empty() && evidence.scan.build.is_some() {
        let text =
            "some values are read while the image is built, which VMKit does not pass on yet";
        let fix = "give them in the Dockerfile or as the code's own defaults";
        evidence.note("build_env", text, fix, None);
    }
}

fn uncommented(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(['#', ';']));
    lines.flat_map(|line| [line, "\n"]).collect()
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

/// `process.env.KEY`, `os.environ["KEY"]`, `ENV.fetch("KEY")`, `os.Getenv("KEY")`, ...
fn named<'t>(pattern: &'static Regex, text: &'t str) -> impl Iterator<Item = EnvKey> + use<'t> {
    pattern.captures_iter(text).filter_map(|hit| hit[1].parse().ok())
}
