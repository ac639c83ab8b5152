//! Processes from a Procfile.

use super::{Build, Evidence};
use crate::pipeline::check;

pub(super) const FILE: &str = "Procfile";

/// Takes the processes; a release command is named: it runs before a new version serves.
pub(super) fn look(evidence: &mut Evidence<'_>) {
    let Some(text) = evidence.text(FILE).map(str::to_owned) else { return };
    for (name, command) in parse(&text) {
        if name == "release" {
            evidence.found("migrations", command.as_str(), FILE);
            let (text, fix) = if check::is_plain_command(&command) {
                (
                    "the Procfile's `release` command runs in each new image before it serves",
                    "nothing to do; `configure_app` names another one or none",
                )
            } else {
                (
                    "the Procfile's `release` command has shell in it and is not run by a deploy",
                    "put the line into a script of the repo and name the script",
                )
            };
            evidence.scan.migrations = Some(command);
            evidence.note("release_command", text, fix, FILE);
        } else if !evidence.scan.processes.iter().any(|process| process.name == name) {
            evidence.process(&name, &command, FILE);
        }
    }
}

/// Looks at the processes once it is known how they are started.
pub(super) fn check(evidence: &mut Evidence<'_>) {
    if evidence.text(FILE).is_none() {
        return;
    }
    match evidence.scan.build.clone() {
        Some(Build::Dockerfile { .. }) => in_dockerfile(evidence),
        Some(Build::Buildpacks { .. }) => stale(evidence),
        None => {}
    }
}

/// The image's own start is its web process, and the other lines become words of a shell's.
fn in_dockerfile(evidence: &mut Evidence<'_>) {
    evidence.scan.processes.retain(|process| process.name != "web");
    let bad = evidence.scan.processes.iter().find(|process| !check::fits_a_role(process));
    if let Some(bad) = bad.map(|process| process.name.clone()) {
        let text = format!("the command of `{bad}` has quotes, `$`, pipes or other shell in it");
        let fix = "put the line into a script of the repo and name the script in the Procfile";
        evidence.block("process_command", text, fix, FILE);
    }
}

/// A Procfile beats what a buildpack would start, also when it is from another time.
fn stale(evidence: &mut Evidence<'_>) {
    let missing = evidence.scan.processes.iter().find_map(|process| {
        let script = process.command.split_whitespace().find(|word| is_script(word))?;
        let script = script.trim_start_matches("./");
        let made = ["dist/", "build/", "bin/", "target/", "vendor/", "node_modules/", "."];
        let there = evidence.has(script) || made.iter().any(|folder| script.starts_with(folder));
        (!there).then(|| (process.name.clone(), script.to_owned()))
    });
    if let Some((name, script)) = missing {
        let text = format!("the process `{name}` starts `{script}`, which is not in the repo");
        evidence.block("stale_procfile", text, "mend the line or remove it", FILE);
    }
}

fn is_script(word: &str) -> bool {
    let ends = [".js", ".mjs", ".cjs", ".ts", ".py", ".rb", ".php", ".sh"];
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    ends.iter().any(|end| word.ends_with(end)) && word.chars().all(plain) && !word.starts_with('/')
}

/// `name: command` lines; names that Kamal cannot use are made so that it can.
fn parse(text: &str) -> Vec<(String, String)> {
    let mut lines: Vec<(String, String)> = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let Some((name, command)) = line.split_once(':') else { continue };
        let name = name.trim().to_ascii_lowercase().replace('_', "-");
        let good = name.len() <= 30
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let known = lines.iter().any(|(known, _)| *known == name);
        if good && !known && !command.trim().is_empty() {
            lines.push((name, command.trim().to_owned()));
        }
    }
    lines
}

/// Says that nothing of it listens, where that is so: a Procfile without `web` is built, or the app
/// waits for work with a bot's or a queue's package and serves with none.
pub(super) fn workers(evidence: &mut Evidence<'_>) {
    let listed = evidence.text(FILE).is_some() && !evidence.scan.processes.is_empty();
    let ports = evidence.scan.findings.iter().any(|finding| finding.what == "port");
    let only = match evidence.scan.build {
        Some(Build::Buildpacks { .. }) if listed => !evidence.has_web(),
        Some(Build::Buildpacks { .. } | Build::Dockerfile { .. }) => {
            evidence.works.is_some() && evidence.framework.is_none() && !ports
        }
        None => false,
    };
    if only && !evidence.is_worker_only() {
        let file =
            if listed { FILE.to_owned() } else { evidence.works.clone().unwrap_or_default() };
        evidence.worker_only(&file);
    }
}
