//! Reads a Dockerfile as far as the sandbox needs it: the last stage's command, its environment
//! and labels. `RUN` lines are shown and not run, except that `RUN false` and `RUN exit N` fail.

use super::{Plan, split};
use crate::github::git::Files;

const KNOWN: &[&str] = &[
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

#[derive(Default)]
struct Stage {
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    plan: Plan,
}

/// Plans the image of the Dockerfile at `path`.
pub(super) fn plan(files: &Files, path: &str) -> Result<Plan, String> {
    let Some(file) = files.get(path) else {
        return Err(format!(
            "ERROR: failed to build: failed to solve: failed to read dockerfile: open {path}: no such file or directory"
        ));
    };
    let text = String::from_utf8_lossy(&file.bytes).into_owned();
    let mut stage = Stage::default();
    let mut log = String::new();
    let mut seen_from = false;
    for (number, line) in instructions(&text) {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line.as_str(), ""));
        let (word, rest) = (word.to_ascii_uppercase(), rest.trim());
        if !KNOWN.contains(&word.as_str()) {
            return Err(format!(
                "ERROR: failed to build: failed to solve: dockerfile parse error on line {number}: unknown instruction: {word}"
            ));
        }
        if word == "FROM" {
            stage = Stage::default();
            seen_from = true;
        } else if !seen_from && word != "ARG" {
            return Err(
                "ERROR: failed to build: failed to solve: no build stage in current context"
                    .to_owned(),
            );
        }
        log.push_str(&format!("#{number} {line}\n#{number} DONE 0.0s\n"));
        apply(&mut stage, &word, rest).map_err(|error| format!("{log}{error}"))?;
    }
    if !seen_from {
        return Err("ERROR: failed to build: failed to solve: file with no instructions".to_owned());
    }
    let mut plan = stage.plan;
    plan.command = stage.entrypoint.into_iter().chain(stage.cmd).collect();
    plan.log = log;
    Ok(plan)
}

fn apply(stage: &mut Stage, word: &str, rest: &str) -> Result<(), String> {
    match word {
        "CMD" => stage.cmd = command(rest),
        "ENTRYPOINT" => {
            stage.entrypoint = command(rest);
            stage.cmd.clear();
        }
        "ENV" => stage.plan.env.extend(pairs(rest)),
        "LABEL" => stage.plan.labels.extend(pairs(rest)),
        "RUN" => {
            let code = match rest.split_once(' ') {
                None if rest == "false" => Some("1"),
                Some(("exit", code)) if code != "0" => Some(code),
                _ => None,
            };
            if let Some(code) = code {
                return Err(format!(
                    "ERROR: failed to build: failed to solve: process \"/bin/sh -c {rest}\" did not complete successfully: exit code: {code}"
                ));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Lines with their numbers, continued ones joined, comments left out.
fn instructions(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let (part, goes_on) =
            line.strip_suffix('\\').map_or((line, false), |part| (part.trim_end(), true));
        let entry = open.get_or_insert_with(|| (index + 1, String::new()));
        if !entry.1.is_empty() {
            entry.1.push(' ');
        }
        entry.1.push_str(part);
        if !goes_on {
            found.extend(open.take());
        }
    }
    found.extend(open);
    found
}

/// The exec form (a JSON list) or the shell form.
fn command(rest: &str) -> Vec<String> {
    match serde_json::from_str::<Vec<String>>(rest) {
        Ok(words) => words,
        Err(_) => vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.to_owned()],
    }
}

fn pairs(rest: &str) -> Vec<(String, String)> {
    let words = split(rest);
    if words.first().is_some_and(|word| !word.contains('=')) {
        let (key, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        return vec![(key.to_owned(), value.trim().to_owned())];
    }
    words
        .iter()
        .filter_map(|word| word.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
