//! Log queries: what the agent reads from the VM, united with what the cache has.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;
use serde::{Deserialize, Serialize};
use vmkit_agent_protocol::calls::{Call, Reply};
use vmkit_agent_protocol::logs::{
    LogRange, LogRangeReply, Selector, Source, Stream, SystemLog, SystemLogRange,
};

use super::FleetError;
use super::cache::{Cut, Kept, LineKey, Span};
use super::hub::Hub;
use crate::domain::clock::Millis;
use crate::domain::ids::VmId;

/// Below this two clocks count as the same: the hello's journey is in the measure too.
const SAME_CLOCK_MS: i64 = 2_000;
/// The most lines of one page.
const LINES: usize = 20_000;

/// Which lines are wanted.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// The Kamal service, or `kamal-proxy`.
    pub service: String,
    /// A log of the machine itself in the place of a service's.
    pub system: Option<SystemLog>,
    /// One role of it.
    pub role: Option<String>,
    /// From this time on.
    pub since: Option<Millis>,
    /// Before this time.
    pub until: Option<Millis>,
    /// Only lines that match.
    pub grep: Option<Regex>,
    /// The newest so many, at least 1 and at most 20,000.
    pub limit: usize,
}

/// Lines, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogPage {
    /// The newest lines that match.
    pub lines: Vec<LogLine>,
    /// From this time on, no matching line is missing.
    pub covered_from: Option<Millis>,
    /// True where older lines match too and were left out.
    pub more: bool,
    /// Lines within the query that are known to be missing; a hole in the VM's own log counts
    /// as one.
    pub dropped: u64,
    /// True where the agent answered; false where this is the cache alone.
    pub live: bool,
    /// Why it did not, where it was asked.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The container's name.
    pub container: String,
    /// The version that the container runs, where its name tells.
    pub version: Option<String>,
    /// The role, where it has one.
    pub role: Option<String>,
    /// When, by our clock where the VM's is off by 2 s or more.
    pub time: Millis,
    /// Orders the lines of one container within a millisecond; stable.
    pub seq: u64,
    /// Which output.
    pub stream: LogStream,
    /// The text: whatever the app wrote, so data from outside.
    pub text: String,
    /// True where the line goes on in the next one.
    #[serde(default)]
    pub more: bool,
}

/// Which of a container's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output, and everything of a container with a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Answers a query, from the VM too where it is `live`.
pub(super) async fn query(hub: &Hub, vm: VmId, query: &LogQuery, live: bool) -> LogPage {
    let limit = query.limit.clamp(1, LINES);
    let offset_ms = offset(hub.presence(vm).clock_offset_ms);
    let theirs = |time: Millis| time.0.saturating_sub(offset_ms);
    let span = Span {
        since_ns: query.since.map_or(i64::MIN, |at| theirs(at).saturating_mul(1_000_000)),
        until_ns: query.until.map_or(i64::MAX, |at| theirs(at).saturating_mul(1_000_000)),
    };
    let (since_ms, until_ms) = (query.since.map(theirs), query.until.map(theirs));
    let grep = query.grep.as_ref().map(|grep| grep.as_str().to_owned());
    let tail = u32::try_from(limit).unwrap_or(u32::MAX);
    let call = match query.system {
        Some(log) => Call::SystemLogs(SystemLogRange { log, since_ms, until_ms, grep, tail }),
        None => {
            let (service, role) = (Some(query.service.clone()), query.role.clone());
            let selector = Selector { service, role, container: None };
            Call::Logs(LogRange { selector, since_ms, until_ms, grep, tail })
        }
    };
    let (answer, trouble) = match live.then(|| ask(hub, vm, call)) {
        Some(asking) => match asking.await {
            Ok(answer) => (Some(answer), None),
            Err(trouble) => (None, Some(trouble)),
        },
        None => (None, None),
    };
    let fits = |text: &str| query.grep.as_ref().is_none_or(|grep| grep.is_match(text));
    // The machine's own logs have no followers: what the VM tells is all that there is.
    let cut = match query.system {
        Some(_) => Cut::default(),
        None => {
            let role = query.role.as_deref();
            hub.cache().find(vm, &query.service, role, span, limit, fits)
        }
    };

    let mut union: BTreeMap<LineKey, (Arc<Source>, Kept)> = BTreeMap::new();
    let mut more = cut.more;
    let mut dropped = cut.gaps;
    let mut covered_ns = None;
    union.extend(cut.lines.into_iter().map(|(key, source, kept)| (key, (source, kept))));
    let live = answer.is_some();
    match answer {
        Some(answer) => {
            more |= answer.more;
            covered_ns = answer.covered_from_ns;
            unite(&mut union, answer);
        }
        None => {
            dropped += cut.evicted;
            covered_ns = covered_ns.or(union.keys().next().map(|key| key.time_ns));
        }
    }
    while union.len() > limit {
        union.pop_first();
        more = true;
    }
    if more {
        covered_ns = covered_ns.max(union.keys().next().map(|key| key.time_ns));
    }
    let ours = |time_ns: i64| Millis(time_ns.div_euclid(1_000_000).saturating_add(offset_ms));
    LogPage {
        lines: union
            .into_iter()
            .map(|(key, (source, kept))| line(&key, &source, &kept, ours(key.time_ns)))
            .collect(),
        covered_from: covered_ns.map(ours).or(query.since),
        more,
        dropped,
        live,
        trouble,
    }
}

async fn ask(hub: &Hub, vm: VmId, call: Call) -> Result<LogRangeReply, String> {
    match hub.call(vm, call, hub.limits.log_wait).await {
        Ok(Reply::Logs(answer)) => Ok(answer),
        Ok(_) => Err(FleetError::NotUnderstood { vm }.to_string()),
        Err(error) => {
            tracing::debug!(%vm, code = error.code(), "logs from the cache alone: {error}");
            Err(error.to_string())
        }
    }
}

/// How far a VM's clock is behind ours, where it is far enough to count.
pub(super) fn offset(measured_ms: i64) -> i64 {
    if measured_ms.abs() < SAME_CLOCK_MS { 0 } else { measured_ms }
}

fn unite(union: &mut BTreeMap<LineKey, (Arc<Source>, Kept)>, answer: LogRangeReply) {
    for batch in answer.batches {
        let source = Arc::new(batch.source);
        let container: Arc<str> = source.container.as_str().into();
        for line in batch.lines {
            let key = LineKey {
                time_ns: line.time_ns,
                container: Arc::clone(&container),
                stream: line.stream,
                nth: line.nth,
            };
            let kept = Kept { text: line.text.into(), more: line.more };
            union.insert(key, (Arc::clone(&source), kept));
        }
    }
}

fn line(key: &LineKey, source: &Source, kept: &Kept, time: Millis) -> LogLine {
    let within_ms = u64::try_from(key.time_ns.rem_euclid(1_000_000)).unwrap_or(0);
    LogLine {
        container: source.name.clone(),
        version: source.version.clone(),
        role: source.role.clone(),
        time,
        seq: (within_ms << 32) | u64::from(key.nth),
        stream: match key.stream {
            Stream::Stderr => LogStream::Stderr,
            Stream::Stdout | Stream::Unknown => LogStream::Stdout,
        },
        text: kept.text.to_string(),
        more: kept.more,
    }
}
