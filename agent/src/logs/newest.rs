//! The newest lines of a range, however many come: what an answer of the agent can hold.

use std::collections::VecDeque;

use regex::{Regex, RegexBuilder};
use vmkit_agent_protocol::logs::{Batch, Line, LogRangeReply, Source, Stream};

use crate::calls::Fault;

/// What the lines of one answer may come to, in bytes as JSON: they must fit in a message.
const ANSWER_BYTES: usize = 900 * 1024;
/// The most lines of one answer.
const LINES: usize = 20_000;
/// Read beyond what was asked, so that the first moment of a cut reading can be dropped.
pub(super) const SPARE: usize = 64;
/// The largest program that a regular expression may become, in bytes.
const REGEX_BYTES: usize = 1 << 20;

/// A gateway's pattern.
pub(super) fn pattern(text: Option<&str>) -> Result<Option<Regex>, Fault> {
    text.map(|text| RegexBuilder::new(text).size_limit(REGEX_BYTES).build())
        .transpose()
        .map_err(|error| Fault::invalid(format!("the pattern is not one: {error}")))
}

/// The first time that either stream shows.
#[derive(Default)]
pub(super) struct FirstMoment {
    stdout: Option<i64>,
    stderr: Option<i64>,
}

impl FirstMoment {
    pub(super) fn holds(&mut self, line: &Line) -> bool {
        let first = match line.stream {
            Stream::Stderr => &mut self.stderr,
            Stream::Stdout | Stream::Unknown => &mut self.stdout,
        };
        *first.get_or_insert(line.time_ns) == line.time_ns
    }
}

/// The newest lines, however many come.
pub(super) struct Newest {
    limit: usize,
    sources: Vec<Source>,
    /// By source, in the order of its log.
    lines: VecDeque<(usize, Line)>,
    bytes: usize,
    left_out: bool,
}

impl Newest {
    /// Of `wanted` lines, within what an answer can hold.
    pub(super) fn new(wanted: u32) -> Self {
        let limit = usize::try_from(wanted).unwrap_or(LINES).clamp(1, LINES);
        let (sources, lines) = (Vec::new(), VecDeque::new());
        Self { limit, sources, lines, bytes: 0, left_out: false }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A place for the lines of a source.
    pub(super) fn source(&mut self, source: Source) -> usize {
        self.sources.push(source);
        self.sources.len() - 1
    }

    pub(super) fn container(&self, source: usize) -> &str {
        &self.sources[source].container
    }

    /// Something of the range is known to be missing before what comes.
    pub(super) fn leave_out(&mut self) {
        self.left_out = true;
    }

    pub(super) fn add(&mut self, source: usize, line: Line) {
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

    pub(super) fn into_reply(mut self) -> LogRangeReply {
        self.cut();
        let covered_from_ns =
            self.lines.front().map(|(_, line)| line.time_ns).filter(|_| self.left_out);
        let mut batches: Vec<Batch> =
            self.sources.into_iter().map(|source| Batch { source, ..Batch::default() }).collect();
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
