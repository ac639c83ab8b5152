//! What a Dockerfile says of the app: port, health path, user, start, values of the build.

use super::{Build, Evidence};
use crate::domain::names::EnvKey;

const FILE: &str = "Dockerfile";

/// Arguments that Docker itself gives.
const GIVEN: &[&str] = &[
    "TARGETARCH",
    "TARGETOS",
    "TARGETPLATFORM",
    "TARGETVARIANT",
    "BUILDARCH",
    "BUILDOS",
    "BUILDPLATFORM",
    "BUILDVARIANT",
    "BUILDKIT_INLINE_CACHE",
    "SOURCE_DATE_EPOCH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "DEBIAN_FRONTEND",
];

/// An instruction in upper case, and its arguments.
type Instruction = (String, String);

/// Takes the repo's own Dockerfile as the build; false where there is none that builds anything.
pub(super) fn look(evidence: &mut Evidence<'_>) -> bool {
    if !evidence.has(FILE) {
        elsewhere(evidence);
        return false;
    }
    let Some(all) = evidence.text(FILE).map(instructions) else {
        evidence.builds_with(Build::Dockerfile { path: evidence.full(FILE) });
        let text = "the Dockerfile could not be read, so port and health path are guesses";
        evidence.note("dockerfile_unread", text, "keep it under 256 KiB", FILE);
        return true;
    };
    if all.is_empty() {
        let text = "the Dockerfile holds no instruction, so it is not what builds the image";
        evidence.note("dockerfile_empty", text, "remove it, if it is of no use", FILE);
        return false;
    }
    evidence.builds_with(Build::Dockerfile { path: evidence.full(FILE) });
    evidence.found("build", "Dockerfile", FILE);
    let stage = last_stage(&all);
    listens(evidence, &stage);
    start(evidence, &all, &stage);
    if !stage.iter().any(|(word, rest)| word == "USER" && !is_root(rest)) {
        let text = "the image runs as root";
        evidence.note("runs_as_root", text, "a USER line makes a break-in worth less", FILE);
    }
    arguments(evidence, &all);
    let volumes = stage.iter().filter(|(word, _)| word == "VOLUME").map(|(_, rest)| rest);
    let volumes: Vec<String> = volumes
        .map(|rest| rest.trim_matches(|c| matches!(c, '[' | ']' | '"')).trim().to_owned())
        .collect();
    for volume in volumes {
        evidence.keeps_on_disk(&format!("volume {volume}"), FILE);
    }
    true
}

/// Dockerfiles by other names are not taken, since one may be for tests only.
fn elsewhere(evidence: &mut Evidence<'_>) {
    let other = evidence.paths.iter().copied().find(|path| {
        let name = path.rsplit('/').next().unwrap_or(path);
        let named = name == "Containerfile" || name.starts_with("Dockerfile");
        let near =
            !path.contains('/') || path.starts_with("docker/") || path.starts_with(".docker/");
        named && near
    });
    if let Some(other) = other {
        let text =
            format!("`{other}` is not used to build: only a `Dockerfile` in the app's folder is");
        evidence.note("other_dockerfile", text, "move it there if it is the one", other);
    }
}

fn is_root(user: &str) -> bool {
    let name = user.split(':').next().unwrap_or(user).trim();
    name == "root" || name == "0" || name.is_empty()
}

fn listens(evidence: &mut Evidence<'_>, stage: &[Instruction]) {
    let said = stage.iter().rev().find_map(|(word, rest)| match word.as_str() {
        "EXPOSE" => rest.split_whitespace().find_map(port),
        _ => None,
    });
    let set = || {
        stage.iter().rev().filter(|(word, _)| word == "ENV").find_map(|(_, rest)| {
            let old = rest.strip_prefix("PORT ").and_then(port);
            old.or_else(|| rest.split_whitespace().find_map(|p| port(p.strip_prefix("PORT=")?)))
        })
    };
    if let Some(port) = said.or_else(set) {
        evidence.scan.port = port;
        evidence.found("port", port.to_string(), FILE);
    }
    if let Some(path) = stage.iter().rev().find_map(|(word, rest)| health(word, rest)) {
        evidence.found("health_path", path.as_str(), FILE);
        evidence.scan.health_path = path;
    }
}

fn start(evidence: &mut Evidence<'_>, all: &[Instruction], stage: &[Instruction]) {
    if stage.iter().any(|(word, _)| starts(word)) {
        return;
    }
    // A base image may bring a start of its own; a stage of this file was looked at.
    let base = stage.iter().find(|(word, _)| word == "FROM").map_or("", |(_, rest)| image(rest));
    let blocking = all.is_empty() || base == "scratch" || base.is_empty();
    let text = "the last stage of the Dockerfile has neither CMD nor ENTRYPOINT";
    let fix = "add the line that starts the app";
    if blocking {
        evidence.block("no_start_command", text, fix, FILE);
    } else {
        evidence.note("no_start_command", text, fix, FILE);
    }
}

fn starts(word: &str) -> bool {
    matches!(word, "CMD" | "ENTRYPOINT")
}

/// Values that the build must be given.
fn arguments(evidence: &mut Evidence<'_>, all: &[Instruction]) {
    let keys: Vec<EnvKey> = all
        .iter()
        .filter(|(word, rest)| word == "ARG" && !rest.contains('='))
        .flat_map(|(_, rest)| rest.split_whitespace())
        .filter(|name| !GIVEN.contains(name))
        // One with a default elsewhere in the file is only repeated for its stage.
        .filter(|name| !all.iter().any(|(w, r)| w == "ARG" && r.starts_with(&format!("{name}="))))
        .filter_map(|name| name.parse().ok())
        .collect();
    for key in keys {
        evidence.found("build_env", key.as_str(), FILE);
        if !evidence.scan.env_keys.build.contains(&key) {
            evidence.scan.env_keys.build.push(key);
        }
    }
}

/// What holds in the image that runs: the last stage, after the stages that it begins with.
fn last_stage(all: &[Instruction]) -> Vec<Instruction> {
    let mut stages: Vec<(Option<String>, Vec<Instruction>)> = Vec::new();
    for (word, rest) in all {
        if word == "FROM" {
            let base = image(rest).to_ascii_lowercase();
            let before = stages
                .iter()
                .find(|(name, _)| name.as_deref() == Some(base.as_str()))
                .map(|(_, stage)| stage.clone());
            let words: Vec<&str> = rest.split_whitespace().collect();
            let name = words.iter().position(|w| w.eq_ignore_ascii_case("as"));
            let name = name.and_then(|at| words.get(at + 1)).map(|n| n.to_ascii_lowercase());
            // Without the line itself, where it names a stage of this file.
            let begin = before.unwrap_or_else(|| vec![(word.clone(), rest.clone())]);
            stages.push((name, begin));
        } else if let Some((_, stage)) = stages.last_mut() {
            stage.push((word.clone(), rest.clone()));
        }
        if stages.len() > 50 || stages.last().is_some_and(|(_, stage)| stage.len() > 2000) {
            break;
        }
    }
    match stages.pop() {
        Some((_, stage)) => stage,
        None => all.to_vec(),
    }
}

/// The image of a FROM line.
fn image(rest: &str) -> &str {
    rest.split_whitespace().find(|word| !word.starts_with("--")).unwrap_or("")
}

/// Instructions with their arguments; continued lines joined, comments and here-documents left out.
fn instructions(text: &str) -> Vec<Instruction> {
    let mut list = Vec::new();
    let mut open = String::new();
    let mut here: Option<String> = None;
    for line in text.lines() {
        if let Some(end) = &here {
            if line.trim() == end {
                here = None;
            }
            continue;
        }
        let line = line.trim();
        if line.starts_with('#') {
            continue;
        }
        if let Some(more) = line.strip_suffix('\\') {
            open.push_str(more);
            open.push(' ');
            continue;
        }
        open.push_str(line);
        if let Some((word, rest)) = open.trim().split_once(char::is_whitespace) {
            here = rest.split_once("<<").and_then(|(_, after)| here_document(after));
            list.push((word.to_ascii_uppercase(), rest.trim().to_owned()));
        }
        open.clear();
    }
    list
}

/// The word that ends a here-document which begins with `<<`.
fn here_document(after: &str) -> Option<String> {
    let word = after.trim_start_matches('-').split_whitespace().next()?;
    let word = word.trim_matches(['"', '\'']);
    let good = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    good.then(|| word.to_owned())
}

fn port(text: &str) -> Option<u16> {
    let text = text.trim_matches(['"', '\'']);
    let number = text.strip_suffix("/tcp").unwrap_or(text);
    number.parse().ok().filter(|port| *port != 0)
}

/// The path of the URL that a HEALTHCHECK asks.
fn health(word: &str, rest: &str) -> Option<String> {
    if word != "HEALTHCHECK" {
        return None;
    }
    let address = rest.split_once("http://")?.1;
    let end = address
        .find(|c: char| {
            !(c.is_ascii_alphanumeric()
                || matches!(c, '.' | ':' | '/' | '_' | '-' | '$' | '{' | '}'))
        })
        .unwrap_or(address.len());
    let begin = address.find('/')?;
    let path = &address[begin..end.max(begin)];
    let good = path.len() > 1 && !path.contains(['$', '{', ':']);
    good.then(|| path.to_owned())
}
