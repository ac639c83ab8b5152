//! The start of the new version: what Kamal says of it, and why it did not get healthy.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::app;
use super::evidence::{ContainerFacts, Evidence};
use super::lines::{self, cleaned};
use super::rule::By::{App, Tool};
use super::rule::Mends::{Person, Vmkit};
use super::rule::{Row, Rule, Stage};
use super::{Cause, cut, state};

pub(super) const ROWS: &[Row] = &[
    (
        "env_file_missing",
        Tool,
        r"docker: open (/etc/vmkit/env/\S+?): no such file or directory",
        "the app's env file $1 is not on the VM",
        "call `deploy` with environment `{environment}`: it has the agent write the file first",
        Vmkit,
        "table",
    ),
    (
        "env_line_too_long",
        Tool,
        r"bufio\.Scanner: token too long",
        "a line of the app's env file is longer than Docker reads",
        "shorten the value below 60 KiB with `set_env`, or put it into a file",
        Person,
        "table",
    ),
    (
        "release_gone",
        Tool,
        r"The app version '(\S+)' is not available as a container",
        "the container of version $1 is no longer on the VM, so Kamal rolled nothing back",
        "call `rollback` with environment `{environment}`, which deploys the version's image",
        Vmkit,
        "table",
    ),
    (
        "command_missing",
        Tool,
        r#"exec: "([^"]+)": (?:executable file not found in \$PATH|stat \S+: no such file or directory|permission denied)"#,
        "the image has no program `$1` to start",
        "mend CMD or ENTRYPOINT of the Dockerfile, or the Procfile; a script must be executable",
        Person,
        "tool",
    ),
    (
        "wrong_architecture",
        App,
        r"exec format error",
        "the image is built for another architecture than the VM's",
        "call `setup_repo` again, so that the workflow builds for the VM's architecture; then deploy",
        Vmkit,
        "table",
    ),
    (
        "wrong_architecture",
        Tool,
        r"exec (?:user process caused|\S+): exec format error",
        "the image is built for another architecture than the VM's",
        "call `setup_repo` again, so that the workflow builds for the VM's architecture; then deploy",
        Vmkit,
        "table",
    ),
    (
        "process_not_running",
        Tool,
        r"container not ready after \d+ seconds.*\((\w+)\)",
        "a process of the app did not stay up (it is $1)",
        "read its last lines with `get_logs` and environment `{environment}`; the old version goes on serving",
        Person,
        "table",
    ),
    (
        HEALTH,
        Tool,
        r"target failed to become healthy within configured timeout",
        "the new version did not answer its health path in time",
        "read its last lines with `get_logs` and environment `{environment}`; check the port, the health path and the env values",
        Person,
        "table",
    ),
];

/// What says only that the version did not get healthy.
pub(super) const HEALTH: &str = "health_check_failed";

/// What kamal-proxy says of a target that does not get healthy.
const PROXY: &[Row] = &[
    (
        "wrong_health_path",
        Tool,
        r"unexpected status \((\d+)\)",
        "the app answered its health path with $1 instead of 2xx",
        "set the health path to one that answers 200 without a login, or mend the app",
        Person,
        "table",
    ),
    (
        "wrong_port",
        Tool,
        r"connect: connection refused",
        "nothing answered on the app's port: it listens on another one, on 127.0.0.1 only, or starts too slowly",
        "let the app listen on 0.0.0.0 and on the port in PORT",
        Person,
        "table",
    ),
    (
        "crashed_at_start",
        Tool,
        r"no such host",
        "the app ended right after its start",
        "read its last lines with `get_logs` and environment `{environment}`; a missing env value is the usual reason",
        Person,
        "table",
    ),
    (
        "health_check_slow",
        Tool,
        r"request timed out|context deadline exceeded|Client\.Timeout exceeded",
        "the app took too long to answer its health path",
        "let the health path do less, or give it more time",
        Person,
        "table",
    ),
];

static PROXY_RULES: LazyLock<Vec<Rule>> =
    LazyLock::new(|| PROXY.iter().map(|row| Rule::new(Stage::App, *row)).collect());

/// What the app says of where it listens.
static LISTENS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i)\b(?:listening|running|started|serving|server ready|ready|local:|bound|binding|http server|tomcat)\b.{0,60}?(?:(127\.0\.0\.1|localhost|\[::1\]|0\.0\.0\.0|\[::\]|\*)?:|port\(?s?\)?:?[ =]+)(\d{2,5})\b",
    )
    .expect("a fixed pattern")
});

/// Why a version did not get healthy, or does not stay up: what its containers, its own last lines
/// and the proxy say, the deeper cause first.
pub(super) fn refined(found: Cause, evidence: &Evidence) -> Cause {
    let app_lines = lines::plain(&evidence.app_log, app::LINES);
    let asked = last_health_check(&evidence.proxy_log);
    if let Some(deeper) = killed(evidence, &app_lines) {
        return found.because(deeper);
    }
    let status = asked.as_ref().filter(|(rule, ..)| rule.code == "wrong_health_path");
    let answers = status.is_some_and(|(_, line, _)| !line.contains("(5"));
    if app::met_full_disk(&app_lines)
        && let Some(deeper) = state::disk(evidence, state::DISK_LOW)
    {
        return found.because(deeper);
    }
    if !answers && let Some(deeper) = app::in_log(&app_lines) {
        return found.because(deeper);
    }
    let crashed = evidence.containers.iter().find(|one| crashed(one));
    match (asked, crashed) {
        (Some((rule, ..)), Some(one)) if rule.code != "wrong_health_path" => {
            found.because(ended_by_itself(one, &app_lines))
        }
        (Some((rule, line, said)), _) => {
            let mut deeper = Cause::of(rule, &said).unwrap_or_else(|| found.clone());
            deeper.evidence = vec![line];
            found.because(detailed(deeper, evidence, &app_lines))
        }
        (None, Some(one)) => found.because(ended_by_itself(one, &app_lines)),
        (None, None) => found,
    }
}

/// A hook that git does not keep as a program.
pub(super) fn unrunnable(hook: &[String]) -> Option<Cause> {
    static DENIED: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"/usr/bin/env: \W?(\.kamal/hooks[\w-]*/[\w-]+)\W?: Permission denied")
            .expect("a fixed pattern")
    });
    let (line, found) = hook.iter().find_map(|line| Some((line, DENIED.captures(line)?)))?;
    let path = cut(&found[1]);
    let mut found = Cause::plain(
        "hook_not_executable",
        &format!("the hook {path} is not executable in git"),
        &format!("run `git update-index --chmod=+x {path}`, commit and push it"),
    );
    found.evidence.push(line.clone());
    Some(found)
}

/// What our own hook says where the release command failed; the command's own words are on the VM.
const RELEASE: &str = "the release command failed; what it said is in the VM's journal";

/// The release command failed, by which databases are migrated: why, where it said so.
pub(super) fn release(hook: &[String], evidence: &Evidence) -> Option<Cause> {
    let told = hook.iter().find(|line| line.contains(RELEASE))?;
    let said: Vec<String> = evidence.app_log.lines().map(str::to_owned).collect();
    let mut found = Cause::plain(
        "migration_failed",
        "the release command, which migrates the database, failed before the new version started",
        "read its last lines with `get_logs` and environment `{environment}`, mend it and deploy again; the version before keeps serving",
    );
    found.evidence.extend(said.iter().rev().find(|line| !line.trim().is_empty()).cloned());
    found.evidence.push(told.clone());
    Some(match app::in_log(&said) {
        Some(deeper) => found.because(deeper),
        None => found,
    })
}

/// The image cannot run here, or the kernel ended it.
pub(super) fn killed(evidence: &Evidence, app_lines: &[String]) -> Option<Cause> {
    let vm = evidence.vm.arch.as_deref();
    let other = evidence.containers.iter().find(|one| {
        one.image_arch.as_deref().is_some_and(|image| vm.is_some_and(|vm| vm != image))
    });
    let format = app_lines.iter().find(|line| line.contains("exec format error"));
    if other.is_some() || format.is_some() {
        let mut found = Cause::plain(
            "wrong_architecture",
            "the image is built for another architecture than the VM's",
            "call `setup_repo` again, so that the workflow builds for the VM's architecture; then deploy",
        );
        found.can_fix_itself = true;
        found.evidence.extend(format.cloned());
        return Some(found);
    }
    let oom = evidence.containers.iter().find(|one| one.oom_killed)?;
    let size = match evidence.vm.memory_bytes {
        Some(bytes) => format!(" (the VM has {} MiB)", bytes >> 20),
        None => String::new(),
    };
    let mut found = Cause::plain(
        "out_of_memory",
        &format!("role `{}` was ended because it used too much memory{size}", cut(&oom.role)),
        "let the app use less memory, raise its memory limit if it has one, or take a bigger size",
    );
    found.evidence.push(told(oom));
    Some(found)
}

/// Whether a container ended by itself: not by Kamal, which stops one that did not get healthy.
pub(super) fn crashed(one: &ContainerFacts) -> bool {
    one.restarts > 0
        || one.state == "restarting"
        || one.exit_code.is_some_and(|code| !matches!(code, 0 | 137 | 143))
}

/// A container in one line.
pub(super) fn told(one: &ContainerFacts) -> String {
    let exit = one.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
    let oom = if one.oom_killed { ", ended for want of memory" } else { "" };
    format!("container {}: {}{exit}{oom}, {} restarts", one.name, one.state, one.restarts)
}

fn ended_by_itself(one: &ContainerFacts, app_lines: &[String]) -> Cause {
    let exit = one.exit_code.map(|code| format!(" with exit code {code}")).unwrap_or_default();
    let mut found = Cause::plain(
        "crashed_at_start",
        &format!("the app ended right after its start{exit}"),
        "read its last lines with `get_logs` and environment `{environment}`; a missing env value is the usual reason",
    );
    found.evidence.push(told(one));
    found.evidence.extend(app_lines.iter().rev().find(|line| !line.trim().is_empty()).cloned());
    found
}

/// The proxy's last word on a health check: rule, line, and the error in it. Only what the proxy
/// says itself counts: a request's path is a visitor's word.
fn last_health_check(proxy_log: &str) -> Option<(&'static Rule, String, String)> {
    lines::plain(proxy_log, 400).into_iter().rev().find_map(|line| {
        let said: Value = serde_json::from_str(&line).ok()?;
        if said["msg"] != "Healthcheck failed" {
            return None;
        }
        let error = cleaned(said["error"].as_str()?);
        let rule = PROXY_RULES.iter().find(|rule| rule.on_text(&error).is_some())?;
        Some((rule, line, error))
    })
}

/// Which path, and which port, as far as it is known.
fn detailed(mut found: Cause, evidence: &Evidence, app_lines: &[String]) -> Cause {
    if found.code == "wrong_health_path"
        && let Some(path) = &evidence.health_path
    {
        let path = cut(path);
        found.cause = found.cause.replace("its health path", &format!("its health path `{path}`"));
    }
    if found.code != "wrong_port" {
        return found;
    }
    let said = app_lines.iter().rev().find_map(|line| {
        let groups = LISTENS.captures(line)?;
        let port: u16 = groups[2].parse().ok()?;
        Some((groups.get(1).map(|host| host.as_str().to_owned()), port, line.clone()))
    });
    if let (Some((host, listens, line)), Some(wanted)) = (said, evidence.port) {
        let inside =
            host.is_some_and(|host| matches!(host.as_str(), "127.0.0.1" | "localhost" | "[::1]"));
        if listens != wanted {
            found.cause =
                format!("the app listens on port {listens}, and the proxy asks port {wanted}");
        } else if inside {
            found.cause =
                format!("the app listens on port {listens} for the container itself only");
        }
        found.evidence.push(line);
    }
    found
}
