//! The newest lines of a range, of one or several containers.

use std::collections::VecDeque;

use bollard::Docker;
use bollard::query_parameters::{ListContainersOptionsBuilder, LogsOptionsBuilder};
use futures::StreamExt;
use regex::{Regex, RegexBuilder};
use vmkit_agent_protocol::logs::{Batch, Line, LogRange, LogRangeReply, Source, Stream};

use super::lines::Assembler;
use super::{source, wanted};
use crate::calls::Fault;
use crate::calls::containers::is_absent;
use crate::docker::Engine;

/// What the lines of one answer may come to, in bytes as JSON: they must fit in a message.
const ANSWER_BYTES: usize = 900 * 1024;
/// The most lines of one answer.
const LINES: usize = 20_000;
/// Read beyond what was asked, so that the first moment of a cut reading can be dropped.
const SPARE: usize = 64;
/// The largest program that a regular expression may become, in bytes.
const REGEX_BYTES: usize = 1 << 20;

pub(crate) async fn read(engine: &Engine, range: LogRange) -> Result<LogRangeReply, Fault> {
    let grep = range
        .grep
        .as_deref()
        .map(|text| RegexBuilder::new(text).size_limit(REGEX_BYTES).build())
        .transpose()
        .map_err(|error| Fault::invalid(format!("the pattern is not one: {error}")))?;
    let docker = engine.get().await.map_err(|error| Fault::docker(&error))?;
    let all = ListContainersOptionsBuilder::new().all(true).build();
    let listed = docker.list_containers(Some(all)).await.map_err(|error| Fault::docker(&error))?;
    let mut newest = Newest::new(usize::try_from(range.tail).unwrap_or(LINES).clamp(1, LINES));
    for summary in listed {
        let source = source(&summary);
        if wanted(&range.selector, &summary, &source) {
            let before = newest.sources.len();
            newest.sources.push(source);
            match read_one(&docker, before, &range, grep.as_ref(), &mut newest).await {
                Ok(()) => {}
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(Fault::docker(&error)),
            }
        }
    }
    Ok(newest.into_reply())
}

async fn read_one(
    docker: &Docker,
    source: usize,
    range: &LogRange,
    grep: Option<&Regex>,
    newest: &mut Newest,
) -> Result<(), bollard::errors::Error> {
    let mut options = LogsOptionsBuilder::new().stdout(true).stderr(true).timestamps(true);
    if let Some(since_ms) = range.since_ms {
        options = options.since(seconds(since_ms.div_euclid(1000)));
    }
    // Docker counts its tail before it looks at the end, and knows no patterns.
    let tail = newest.limit + SPARE;
    let cut_possible = grep.is_none() && range.until_ms.is_none();
    if cut_possible {
        options = options.tail(&tail.to_string());
    }
    if let Some(until_ms) = range.until_ms {
        options = options.until(seconds(until_ms.div_euclid(1000) + 1));
    }
    let id = newest.sources[source].container.clone();
    let mut frames = docker.logs(&id, Some(options.build()));
    let (mut assembler, mut count) = (Assembler::default(), 0);
    let mut lines = Vec::new();
    let mut first = FirstMoment::default();
    let since_ns = range.since_ms.map_or(i64::MIN, |ms| ms.saturating_mul(1_000_000));
    let until_ns = range.until_ms.map_or(i64::MAX, |ms| ms.saturating_mul(1_000_000));
    let mut keep = |line: Line, newest: &mut Newest| {
        let inside = (since_ns..until_ns).contains(&line.time_ns);
        let at_first = cut_possible && first.holds(&line);
        if inside && grep.is_none_or(|grep| grep.is_match(&line.text)) {
            if at_first {
                lines.push(line);
            } else {
                newest.add(source, line);
            }
        }
    };
    while let Some(frame) = frames.next().await {
        count += 1;
        assembler.push(&frame?, |line| keep(line, newest));
    }
    assembler.finish(false, |line| keep(line, newest));
    if cut_possible && count >= tail {
        // The reading may begin in the middle of a moment, where lines cannot be numbered.
        newest.left_out = true;
    } else {
        for line in lines {
            newest.add(source, line);
        }
    }
    Ok(())
}

/// Docker takes whole seconds.
fn seconds(seconds: i64) -> i32 {
    i32::try_from(seconds.max(0)).unwrap_or(i32::MAX)
}

/// The first time that either stream shows.
#[derive(Default)]
struct FirstMoment {
    stdout: Option<i64>,
    stderr: Option<i64>,
}

impl FirstMoment {
    fn holds(&mut self, line: &Line) -> bool {
        let first = match line.stream {
            Stream::Stderr => &mut self.stderr,
            Stream::Stdout | Stream::Unknown => &mut self.stdout,
        };
        *first.get_or_insert(line.time_ns) == line.time_ns
    }
}

/// The newest lines, however many come.
struct Newest {
    limit: usize,
    sources: Vec<Source>,
    /// By source, in the order of its log.
    lines: VecDeque<(usize, Line)>,
    bytes: usize,
    left_out: bool,
}

impl Newest {
    fn new(limit: usize) -> Self {
        let (sources, lines) = (Vec::new(), VecDeque::new());
        Self { limit, sources, lines, bytes: 0, left_out: false }
    }

    fn add(&mut self, source: usize, line: Line) {
        self.bytes += cost(&line);
        self.lines.push_back((source, line));
        // Twice the limit, then sorted and cut: a line costs little, and memory stays bounded.
        if self.lines.len() > 2 * self.limit || self.bytes > 2 * ANSWER_BYTES {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.lines.make_contiguous().sort_by_key(|(_, line)| line.time_ns);
        while self.lines.len() > self.limit || self.bytes > ANSWER_BYTES {
            let Some((_, line)) = self.lines.pop_front() else { break };
            self.bytes -= cost(&line);
            self.left_out = true;
        }
    }

    fn into_reply(mut self) -> LogRangeReply {
        self.cut();
        let covered_from_ns =
            self.lines.front().map(|(_, line)| line.time_ns).filter(|_| self.left_out);
        let mut batches: Vec<Batch> = self
            .sources
            .into_iter()
            .map(|source| Batch { source, lines: Vec::new(), gap: false })
            .collect();
        for (source, line) in self.lines {
            batches[source].lines.push(line);
        }
        batches.retain(|batch| !batch.lines.is_empty());
        LogRangeReply { batches, more: self.left_out, covered_from_ns }
    }
}

/// About what a line costs as JSON, in bytes.
fn cost(line: &Line) -> usize {
    let escaped = line.text.bytes().filter(|&byte| byte < 0x20).count() * 5
        + line.text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
    line.text.len() + escaped + 64
}
