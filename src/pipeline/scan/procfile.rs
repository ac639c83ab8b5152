//! Processes from a Procfile.

use super::{Evidence, Process};

const FILE: &str = "Procfile";

/// Takes the processes; a release command is named, since nothing runs it yet.
pub(super) fn look(evidence: &mut Evidence<'_>) {
    let Some(text) = evidence.text(FILE) else { return };
    for process in parse(text) {
        evidence.found("process", process.name.as_str(), FILE);
        if process.name == "release" {
            let text = "the Procfile's `release` command is not run by a deploy; run migrations when the app starts, or by hand";
            evidence.check("release_command", false, text, Some(FILE));
        } else {
            evidence.scan.processes.push(process);
        }
    }
}

/// `name: command` lines; names that Kamal cannot use are made so that it can.
fn parse(text: &str) -> Vec<Process> {
    let mut processes: Vec<Process> = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let Some((name, command)) = line.split_once(':') else { continue };
        let name = name.trim().to_ascii_lowercase().replace('_', "-");
        let good = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let known = processes.iter().any(|process| process.name == name);
        if good && !known && !command.trim().is_empty() {
            processes.push(Process { name, command: command.trim().to_owned() });
        }
    }
    processes
}
