//! The rules about the source: which part may know which, and what only some files may do.
//!
//! A new part, or a new arrow between two parts, is a change of design: it is written down here
//! first, with ARCHITECTURE.md beside it.

use crate::imports::{self, Named, Path};

/// Each part of `src/` and the parts that it may know. Every part knows itself.
const ARROWS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("config", &["domain"]),
    ("vault", &["domain"]),
    ("store", &["domain"]),
    ("requests", &["domain"]),
    ("clouds", &["requests", "domain"]),
    ("dns", &["requests", "domain"]),
    ("github", &["requests", "domain"]),
    ("agent_releases", &["requests", "domain"]),
    ("pipeline", &["domain"]),
    ("bootstrap", &["domain"]),
    ("diagnosis", &["domain"]),
    ("fleet", &["domain"]),
    ("access", &["store", "domain"]),
    // Which credential speaks to whom: it opens tokens and makes the clients, so that nobody above
    // holds one.
    ("accounts", &["clouds", "dns", "github", "store", "vault", "domain"]),
    // One look at an app from outside.
    ("probe", &["domain"]),
    ("operations", WORK),
    // A question shares its words and its lookups with what changes the world.
    ("queries", READ),
    ("tools", FACE),
    // `mcp` and `tools` are one part: a tool is an `impl` block of the server.
    ("mcp", FACE),
    ("http", FACE),
    // Where the parts meet. Only the command line uses it.
    (
        "installation",
        &[
            "accounts",
            "agent_releases",
            "config",
            "dns",
            "fleet",
            "operations",
            "requests",
            "store",
            "vault",
            "domain",
        ],
    ),
    // A subcommand may start either server.
    (
        "cli",
        &[
            "installation",
            "http",
            "mcp",
            "tools",
            "operations",
            "queries",
            "access",
            "domain",
            "config",
        ],
    ),
];

/// What reads the world: all that changes it, and that itself.
const READ: &[&str] = &[
    "operations",
    "accounts",
    "probe",
    "clouds",
    "dns",
    "github",
    "pipeline",
    "diagnosis",
    "fleet",
    "store",
    "vault",
    "domain",
];

/// What changes the world.
const WORK: &[&str] = &[
    "accounts",
    "probe",
    "agent_releases",
    "clouds",
    "dns",
    "github",
    "pipeline",
    "bootstrap",
    "diagnosis",
    "fleet",
    "store",
    "vault",
    "access",
    "domain",
];

/// What a person or an assistant sees. `http` carries MCP, hence `mcp`.
const FACE: &[&str] = &["mcp", "tools", "operations", "queries", "access", "domain", "config"];

/// Files of the root package that build everything: no arrow holds for them.
const BUILDERS: &[&str] = &["src/main.rs", "src/lib.rs"];

/// Crates that only the named places may know.
const CRATES: &[(&str, &[&str])] = &[
    ("aes_gcm", &["src/vault"]),
    ("rusqlite", &["src/store"]),
    ("vmkit_sandbox", &["src/cli", "src/main.rs", "sandbox"]),
];

/// Where environment variables may be read. The sample app is an app: it is told its port so.
const ENVIRONMENT: &[&str] = &[
    "src/config",
    "agent/src/cli",
    "sandbox/src/sample_app",
    "sandbox/src/sample_service",
    "sandbox/src/faults/keep",
];

/// Where a secret may be taken out of its wrapping: to seal it, to send it, to render the one file
/// that carries it. Unit tests may look too.
const EXPOSE: &[&str] = &[
    "src/cli/env.rs",
    // The key that a gateway is called with.
    "src/mcp/relay.rs",
    "src/domain/secret.rs",
    "src/domain/env_values.rs",
    "src/domain/service.rs",
    "src/vault",
    "src/access",
    "src/requests",
    "src/clouds/digitalocean/droplets.rs",
    "src/clouds/hetzner/servers.rs",
    // The user-data of a rebuild.
    "src/clouds/hetzner/changes.rs",
    "src/github",
    "src/bootstrap",
    "src/fleet",
    "src/operations/agents.rs",
    "src/operations/deploy/steps.rs",
    "src/operations/build_env.rs",
    // The bundle that a person takes along, on request.
    "src/operations/eject.rs",
    "src/operations/env.rs",
    // The key that agents know an installation by.
    "src/operations/identity.rs",
    "src/operations/provision_vm.rs",
    // What GitHub signs its webhooks with.
    "src/operations/webhooks.rs",
    "src/operations/services/files.rs",
];

/// Longer files want to be two.
const LINES_MAX: usize = 600;

/// A file as the rules see it: its path from the root of the repository, with `/`, and its text.
pub(crate) type File = (String, String);

/// Every fault in these files, one line each, beginning with the place.
pub(crate) fn faults(files: &[File]) -> Vec<String> {
    files.iter().flat_map(|(path, text)| faults_in(path, text)).collect()
}

fn faults_in(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if let Err(fault) = known_part(path) {
        faults.push(fault);
    }
    if !path.ends_with(".rs") {
        return faults;
    }
    if !text.starts_with("//!") {
        faults.push(format!("{path}:1: begins without a `//!` line that says what it is for"));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        faults.push(format!("{path}: has {lines} lines; more than {LINES_MAX} want two files"));
    }
    match imports::read(text) {
        Err(message) => faults.push(format!("{path}: {message}")),
        Ok(named) => {
            faults.extend(arrows(path, &named));
            faults.extend(reserved(path, &named));
            faults.extend(bans(path, &named));
        }
    }
    faults
}

/// The part that a file of the root package belongs to: `None` for a builder, for other packages
/// and for tests; an error for a part that the list does not know.
fn known_part(path: &str) -> Result<Option<&str>, String> {
    if BUILDERS.contains(&path) {
        return Ok(None);
    }
    if path.starts_with("tools/") {
        return Ok(Some("tools"));
    }
    let Some(below) = path.strip_prefix("src/") else { return Ok(None) };
    let first = below.split('/').next().unwrap_or(below);
    let part = first.strip_suffix(".rs").unwrap_or(first);
    if is_part(part) {
        return Ok(Some(part));
    }
    Err(format!(
        "{path}: `{part}` is no part that tests/layout/rules.rs knows; add its arrows there"
    ))
}

fn is_part(name: &str) -> bool {
    ARROWS.iter().any(|(part, _)| *part == name)
}

/// The module that a file of the root package is, from the crate's root.
fn module_of(path: &str) -> Vec<String> {
    let below = match path.strip_prefix("src/") {
        Some(below) => below.to_owned(),
        None if path == "tools/registry.rs" => "tools".to_owned(),
        None => path.to_owned(),
    };
    below.trim_end_matches(".rs").split('/').map(str::to_owned).collect()
}

/// Imports of parts that this file's part may not know. Unit tests build what they need.
fn arrows(path: &str, named: &Named) -> Vec<String> {
    if is_test(path) {
        return Vec::new();
    }
    let Ok(Some(part)) = known_part(path) else { return Vec::new() };
    let module = module_of(path);
    let allowed = ARROWS.iter().find(|(name, _)| *name == part).map_or(&[][..], |(_, to)| *to);
    named
        .paths
        .iter()
        .filter(|named| !named.in_unit_tests())
        .filter_map(|named| {
            let target = target(named, &module)?;
            let line = named.line;
            let written = named.segments.join("::");
            if target == part || allowed.contains(&target.as_str()) {
                return None;
            }
            Some(if is_part(&target) {
                format!("{path}:{line}: `{part}` may not know `{target}` (`{written}`)")
            } else {
                format!("{path}:{line}: `{written}` names no part; name the part that it is in")
            })
        })
        .collect()
}

/// The part that a path leads to, if it leads through the root of our own crate.
fn target(path: &Path, module: &[String]) -> Option<String> {
    let first = path.segments.first()?.as_str();
    if first == "crate" || first == "vmkit" {
        return path.segments.get(1).cloned();
    }
    let ups = path.segments.iter().take_while(|word| *word == "super").count();
    let depth = module.len() + path.inside.len();
    (ups > 0 && ups == depth).then(|| path.segments.get(ups).cloned()).flatten()
}

/// Whether a file stands in one of these places: a folder, a file, or a file and its folder both.
fn stands_in(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| {
        path == *place
            || path.strip_prefix(place).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    })
}

fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// What only the listed places may do.
fn reserved(path: &str, named: &Named) -> Vec<String> {
    let mut faults = Vec::new();
    for at in &named.paths {
        let line = at.line;
        for (name, places) in CRATES {
            if at.segments[0] == *name && !is_test(path) && !stands_in(path, places) {
                faults.push(format!("{path}:{line}: only {} may know `{name}`", places.join(", ")));
            }
        }
        if reads_environment(at) && !is_test(path) && !stands_in(path, ENVIRONMENT) {
            faults.push(format!("{path}:{line}: only src/config.rs reads environment variables"));
        }
        if exposes(at) && ours(path) && !at.in_unit_tests() && !stands_in(path, EXPOSE) {
            faults.push(format!(
                "{path}:{line}: is not in the list of files that may expose a secret"
            ));
        }
    }
    for (line, words) in &named.attributes {
        let by_clap = words.first().is_some_and(|word| word == "arg")
            && words.iter().any(|word| word == "env");
        if by_clap && !stands_in(path, ENVIRONMENT) {
            faults.push(format!("{path}:{line}: only src/config.rs reads environment variables"));
        }
    }
    faults
}

fn reads_environment(path: &Path) -> bool {
    ["var", "var_os", "vars", "vars_os"].iter().any(|name| path.contains(&["env", name]))
}

fn exposes(path: &Path) -> bool {
    path.segments.last().is_some_and(|word| word == "expose" || word == "expose_secret")
}

fn ours(path: &str) -> bool {
    (path.starts_with("src/") || path.starts_with("tools/")) && !is_test(path)
}

/// What no file may do.
fn bans(path: &str, named: &Named) -> Vec<String> {
    let mut faults = Vec::new();
    for at in named.paths.iter().filter(|at| at.contains(&["thread", "sleep"])) {
        faults.push(format!("{path}:{}: waits a fixed time; wait on a condition", at.line));
    }
    for (line, words) in &named.attributes {
        let first = words.first().map(String::as_str);
        let conditional = first == Some("cfg_attr") && words.iter().any(|word| word == "ignore");
        if first == Some("ignore") || conditional {
            faults.push(format!("{path}:{line}: a test that is ignored proves nothing"));
        }
        if first == Some("should_panic") {
            faults.push(format!("{path}:{line}: assert on the error, not on a panic"));
        }
    }
    faults
}
