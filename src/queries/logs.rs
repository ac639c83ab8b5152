//! An app's own output, its proxy's, and the logs of the machine that it runs on.

use std::collections::HashSet;

use regex::Regex;
use vmkit_agent_protocol::logs::SystemLog;

use crate::domain::clock::Millis;
use crate::domain::environment::{Environment, VmState};
use crate::domain::ids::VmId;
use crate::domain::log_lines::{Cluster, Level, cluster, continues, level, pattern};
use crate::domain::names::EnvironmentPath;
use crate::fleet::{Fleet, LogQuery};
pub use crate::fleet::{LogLine, LogPage};
use crate::operations::OpError;
use crate::operations::env::Mask;
use crate::operations::environments::environment;
use crate::store::Store;
use crate::vault::Vault;

/// Kamal's proxy, one for all apps of a VM.
const PROXY: &str = "kamal-proxy";
/// Read where lines are chosen here, by what the VM cannot judge.
const LINES_MAX: usize = 20_000;

/// Whose lines are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LogSource {
    /// The app's own output.
    #[default]
    App,
    /// What the proxy says of the app.
    Proxy,
    /// Logs of the machine itself.
    System(Vec<SystemLog>),
}

/// Which lines are wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Whose.
    pub source: LogSource,
    /// Of one role only.
    pub role: Option<String>,
    /// From this time on.
    pub since: Option<Millis>,
    /// Before this time.
    pub until: Option<Millis>,
    /// Only lines that match.
    pub grep: Option<Regex>,
    /// Only lines that are at least as bad.
    pub level: Option<Level>,
    /// Lines before these, which an earlier page showed.
    pub cursor: Option<Cursor>,
    /// At most so many, the newest.
    pub limit: usize,
}

/// Where an earlier page began: its oldest line's time, and how many of its lines have that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The time.
    pub time: Millis,
    /// How many lines of that time have been shown.
    pub shown: usize,
}

/// Reads lines of an environment, its secret values hidden.
///
/// # Errors
/// The environment does not exist or has no VM, or its agent cannot be asked.
pub async fn logs(
    store: &Store,
    vault: &Vault,
    fleet: &Fleet,
    path: &EnvironmentPath,
    wanted: Wanted,
) -> Result<LogPage, OpError> {
    let environment = environment(store, path).await?;
    let vm = vm(store, &environment, path).await?;
    let mut page = read(fleet, vm, path, &wanted).await?;
    let mask = Mask::of(store, vault, environment.id).await?;
    for line in &mut page.lines {
        line.text = mask.apply(&line.text);
    }
    // A pattern that matches only inside a secret must not tell that it does.
    page.lines.retain(|line| wanted.grep.as_ref().is_none_or(|grep| grep.is_match(&line.text)));
    if wanted.source == LogSource::Proxy {
        let service = path.service();
        page.lines.retain(|line| concerns(&line.text, &service));
    }
    if let Some(least) = wanted.level {
        bad_enough(&mut page.lines, least);
    }
    let beyond = page.lines.len().saturating_sub(wanted.limit);
    if beyond > 0 {
        page.more = true;
        page.lines.drain(..beyond);
        page.covered_from = page.lines.first().map(|line| line.time).max(page.covered_from);
    }
    Ok(page)
}

/// What is new among an environment's lines since the version that runs now began.
#[derive(Debug, Clone)]
pub struct Novelty {
    /// Kinds of lines that no version before had said, the worst first.
    pub clusters: Vec<Cluster>,
    /// The version that they are of.
    pub version: String,
    /// How many lines of it, and of those before, were compared.
    pub compared: (usize, usize),
}

/// Kinds of lines that only the newest version among `lines` has said; none where there is but one.
pub fn new_since_deploy(lines: &[LogLine]) -> Option<Novelty> {
    let newest = lines.iter().rev().find_map(|line| line.version.clone())?;
    let (now, before): (Vec<&LogLine>, Vec<&LogLine>) =
        lines.iter().partition(|line| line.version.as_deref() == Some(newest.as_str()));
    let known: HashSet<String> = before.iter().map(|line| pattern(&line.text)).collect();
    let mut clusters = clusters(now.iter().copied());
    clusters.retain(|cluster| !known.contains(&cluster.pattern));
    let compared = (now.len(), before.len());
    (!before.is_empty()).then_some(Novelty { clusters, version: newest, compared })
}

/// Lines of the same kind together, the worst first.
pub fn clusters<'a>(lines: impl Iterator<Item = &'a LogLine>) -> Vec<Cluster> {
    cluster(lines.map(|line| (line.time, line.text.as_str())))
}

async fn vm(
    store: &Store,
    environment: &Environment,
    path: &EnvironmentPath,
) -> Result<VmId, OpError> {
    let no_vm = || OpError::NoVm { environment: path.to_string() };
    let vm = environment.vm.ok_or_else(no_vm)?;
    let row = store.vm(vm).await?.ok_or_else(no_vm)?;
    if row.vm.state == VmState::Ready { Ok(vm) } else { Err(no_vm()) }
}

async fn read(
    fleet: &Fleet,
    vm: VmId,
    path: &EnvironmentPath,
    wanted: &Wanted,
) -> Result<LogPage, OpError> {
    let chosen_here = wanted.level.is_some() || wanted.source == LogSource::Proxy;
    let shown = wanted.cursor.map_or(0, |cursor| cursor.shown);
    let limit = if chosen_here { LINES_MAX } else { wanted.limit + shown };
    let until = match wanted.cursor {
        // Lines of the same millisecond may be on both pages' sides.
        Some(cursor) => Some(cursor.time.plus_ms(1)),
        None => wanted.until,
    };
    let query = LogQuery {
        service: if wanted.source == LogSource::Proxy { PROXY.into() } else { path.service() },
        system: None,
        role: wanted.role.clone(),
        since: wanted.since,
        until,
        grep: wanted.grep.clone(),
        limit,
    };
    let mut page = match &wanted.source {
        LogSource::App | LogSource::Proxy => fleet.logs(vm, query).await?,
        LogSource::System(logs) => {
            let mut all = LogPage { live: true, ..LogPage::default() };
            for log in logs {
                let query = LogQuery { system: Some(*log), ..query.clone() };
                add(&mut all, fleet.logs(vm, query).await?);
            }
            all.lines.sort_by_key(|line| (line.time, line.seq));
            all
        }
    };
    if let Some(cursor) = wanted.cursor {
        let of_that_time = page.lines.iter().filter(|line| line.time == cursor.time).count();
        let gone = of_that_time.min(cursor.shown);
        page.lines.truncate(page.lines.len() - gone);
    }
    Ok(page)
}

fn add(all: &mut LogPage, page: LogPage) {
    all.lines.extend(page.lines);
    all.covered_from = all.covered_from.max(page.covered_from);
    all.more |= page.more;
    all.dropped += page.dropped;
    all.live &= page.live;
    all.trouble = all.trouble.take().or(page.trouble);
}

/// The proxy serves all apps of a VM: what it says of another one is not for this one's readers.
fn concerns(text: &str, service: &str) -> bool {
    let said: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let of = said.as_ref().and_then(|said| said.get("service")).and_then(|of| of.as_str());
    // Kamal gives the proxy the service with the role behind it.
    let ours = |of: &str| of == service || of.strip_prefix(service) == Some("-web");
    of.is_none_or(|of| of.is_empty() || ours(of))
}

/// Keeps lines that are bad enough, and those that belong to one.
fn bad_enough(lines: &mut Vec<LogLine>, least: Level) {
    let mut last: std::collections::HashMap<String, bool> = std::collections::HashMap::new();
    lines.retain(|line| {
        let before = last.get(&line.container).copied().unwrap_or(false);
        let kept = match level(&line.text) {
            Some(level) => level >= least,
            None if continues(&line.text) => before,
            None => least <= Level::Info,
        };
        last.insert(line.container.clone(), kept);
        kept
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::LogStream;

    fn line(version: &str, text: &str) -> LogLine {
        LogLine {
            container: format!("shop-staging-web-{version}"),
            version: Some(version.to_owned()),
            role: Some("web".to_owned()),
            time: Millis(1),
            seq: 0,
            stream: LogStream::Stdout,
            text: text.to_owned(),
            more: false,
        }
    }

    #[test]
    fn a_stack_trace_goes_with_its_error() {
        let texts = ["INFO up", "ERROR down", "  at f", "  at g", "plain", "  indented", "WARN x"];
        let mut lines: Vec<LogLine> = texts.iter().map(|text| line("a", text)).collect();
        bad_enough(&mut lines, Level::Error);
        let kept: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(kept, ["ERROR down", "  at f", "  at g"]);
    }

    #[test]
    fn only_what_no_version_before_said_is_new() {
        let lines = [
            line("a", "took 3ms"),
            line("a", "ERROR old 1"),
            line("b", "took 9ms"),
            line("b", "ERROR new 2"),
        ];
        let new = new_since_deploy(&lines).expect("two versions");
        assert_eq!((new.version.as_str(), new.compared), ("b", (2, 2)));
        let patterns: Vec<_> = new.clusters.iter().map(|c| c.pattern.as_str()).collect();
        assert_eq!(patterns, ["ERROR new #"]);
        assert!(new_since_deploy(&lines[..2]).is_none());
    }

    #[test]
    fn what_the_proxy_says_of_another_app_is_not_shown() {
        assert!(concerns(r#"{"msg":"Request","service":"shop-staging"}"#, "shop-staging"));
        assert!(concerns(r#"{"msg":"Request","service":"shop-staging-web"}"#, "shop-staging"));
        assert!(!concerns(r#"{"msg":"Request","service":"other-staging"}"#, "shop-staging"));
        assert!(!concerns(r#"{"msg":"Request","service":"shop-staging-b-web"}"#, "shop-staging"));
        assert!(concerns(r#"{"msg":"Server started"}"#, "shop-staging"));
        assert!(concerns("TLS handshake error", "shop-staging"));
    }
}
