//! One container's log, reading after reading, from where the gateway stands.
//!
//! Every reading begins at a whole second a little before the last line that was passed on, and
//! drops what was passed on already. It ends when the container stops or the engine goes away;
//! the next one begins where this one ended. The log's order counts and not its times: the VM's
//! clock may have been put back since.

use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error as DockerError;
use bollard::query_parameters::LogsOptionsBuilder;
use futures::StreamExt;
use tokio::sync::watch;
use vmkit_agent_protocol::logs::{Batch, Line, Source, Stream};

use super::backlog::Backlog;
use super::lines::{self, Assembler};
use crate::backoff;
use crate::calls::containers::is_absent;
use crate::time::now_ms;

/// Frames that are taken at a time, where so many are there.
const FRAMES: usize = 128;
/// Text of one batch, in bytes; a single long line may be as long.
const BATCH_BYTES: usize = 64 * 1024;
/// How far before the last line a reading begins, in seconds: standard output and error are
/// written by two hands, and their times may be out of order by a little.
const OVERLAP_S: i64 = 2;
/// The longest wait between two readings of a container that is neither quiet nor productive.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

fn every_line() -> LogsOptionsBuilder {
    LogsOptionsBuilder::new().stdout(true).stderr(true).timestamps(true)
}

/// The whole second of a time, `later` seconds on; Docker takes no fractions.
fn whole_second(time_ns: i64, later: i64) -> i32 {
    let second = time_ns.div_euclid(1_000_000_000).saturating_add(later);
    i32::try_from(second.max(0)).unwrap_or(i32::MAX)
}

/// The last line of a stream that has been passed on: its time, and how many lines of that time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) last: Option<(i64, u32)>,
}

/// One reading's place in a stream, while it has not yet come to where the last one ended.
struct Passing {
    until: Option<(i64, u32)>,
    met: bool,
    /// The last line is known to come: whatever stands before it was passed on, even where its time
    /// is a later one.
    comes: bool,
}

impl Passing {
    fn new(position: Position, comes: bool) -> Self {
        Self { until: position.last, met: false, comes }
    }

    /// True for a line that is new. Once one was, all are.
    fn is_new(&mut self, line: &Line) -> bool {
        let Some((time_ns, count)) = self.until else { return true };
        let this = (line.time_ns, line.nth.saturating_add(1));
        if this == (time_ns, count) {
            self.met = true;
            return false;
        }
        if !self.met && (self.comes || this <= (time_ns, count)) {
            return false;
        }
        self.until = None;
        true
    }
}

pub(super) struct Reader {
    pub(super) docker: Docker,
    pub(super) source: Source,
    pub(super) stdout: Position,
    pub(super) stderr: Position,
    /// For the first reading of a container that was there before us.
    pub(super) backfill: Option<u32>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) changes: watch::Receiver<u64>,
}

/// What the engine says of a container at one moment.
#[derive(PartialEq, Eq)]
struct Moment {
    running: bool,
    started_at: Option<String>,
}

impl Reader {
    /// Reads until the container is gone; returns its id.
    pub(super) async fn run(mut self) -> String {
        let mut pause = backoff::FIRST;
        loop {
            self.changes.borrow_and_update();
            let before = self.look().await;
            if matches!(before, Ok(None)) {
                return self.source.container;
            }
            let settled = matches!(&before, Ok(Some(moment)) if !moment.running);
            let read = self.read(settled).await;
            let Ok(passed) = read else {
                self.pause(&mut pause).await;
                continue;
            };
            let after = self.look().await;
            match (before, after) {
                (_, Ok(None)) => return self.source.container,
                (Ok(Some(before)), Ok(Some(after))) if settled && before == after => {
                    // Nothing more can come until it is started again.
                    if self.changes.changed().await.is_err() {
                        return self.source.container;
                    }
                    pause = backoff::FIRST;
                }
                _ if passed => pause = backoff::FIRST,
                _ => self.pause(&mut pause).await,
            }
        }
    }

    /// Waits a little, a little longer each time, or until something changes.
    async fn pause(&mut self, pause: &mut Duration) {
        drop(tokio::time::timeout(*pause, self.changes.changed()).await);
        *pause = (*pause * 2).min(LONGEST_PAUSE);
    }

    async fn look(&self) -> Result<Option<Moment>, DockerError> {
        match self.docker.inspect_container(&self.source.container, None).await {
            Ok(found) => {
                let state = found.state.unwrap_or_default();
                let running = state.running.unwrap_or(false) || state.restarting.unwrap_or(false);
                Ok(Some(Moment { running, started_at: state.started_at }))
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One reading, to its end; true if it passed a line on. `settled` says that the container
    /// stood still when it began.
    async fn read(&mut self, settled: bool) -> Result<bool, DockerError> {
        let docker = self.docker.clone();
        let id = self.source.container.clone();
        let begin = self.begin().await?;
        let (stdout, stderr) = self.meets(&begin).await?;
        let frames = docker.logs(&id, Some(begin.follow(true).build()));
        let mut frames = std::pin::pin!(frames.ready_chunks(FRAMES));
        let mut reading = Reading {
            assembler: Assembler::default(),
            stdout: Passing::new(self.stdout, stdout),
            stderr: Passing::new(self.stderr, stderr),
            resumed: self.stdout.last.max(self.stderr.last),
            passed: false,
        };
        while let Some(chunk) = frames.next().await {
            let mut lines = Vec::new();
            let mut broken = None;
            for frame in chunk {
                match frame {
                    Ok(frame) => reading.take(&frame, &mut lines),
                    Err(error) => {
                        broken = Some(error);
                        break;
                    }
                }
            }
            self.pass_on(&mut reading, lines).await;
            if let Some(error) = broken {
                return Err(error);
            }
        }
        let mut lines = Vec::new();
        reading.finish(settled, &mut lines);
        self.pass_on(&mut reading, lines).await;
        Ok(reading.passed)
    }

    /// Where a reading begins.
    async fn begin(&self) -> Result<LogsOptionsBuilder, DockerError> {
        let options = every_line();
        if let Some((time_ns, _)) = self.stdout.last.max(self.stderr.last) {
            // By a clock that was put back, what came since is older than that: Docker would leave
            // it out.
            if time_ns.div_euclid(1_000_000) > now_ms() {
                return Ok(options);
            }
            return Ok(options.since(whole_second(time_ns, -OVERLAP_S)));
        }
        let Some(backfill) = self.backfill else { return Ok(options) };
        // A reading that is cut to its tail begins in the middle of a second, where lines cannot
        // be numbered; so a log that is longer begins with the second after.
        let oldest = self.first_time(every_line()).await?;
        let first = self.first_time(every_line().tail(&backfill.to_string())).await?;
        match first {
            Some(time_ns) if first != oldest => Ok(options.since(whole_second(time_ns, 1))),
            _ => Ok(options),
        }
    }

    /// Whether a reading that begins so comes by the last line of standard output, and of standard
    /// error, that was passed on: it is there, unless Docker rotated it away.
    async fn meets(&self, begin: &LogsOptionsBuilder) -> Result<(bool, bool), DockerError> {
        let since_ns = |second: i32| i64::from(second).saturating_mul(1_000_000_000);
        let options = begin.clone().build();
        let sought = |position: Position| {
            position.last.filter(|(time_ns, _)| *time_ns >= since_ns(options.since))
        };
        let (stdout, stderr) = (sought(self.stdout), sought(self.stderr));
        let (mut out, mut err) = (false, false);
        let mut assembler = Assembler::default();
        let mut frames = self.docker.logs(&self.source.container, Some(options.clone()));
        while (stdout.is_some() && !out) || (stderr.is_some() && !err) {
            let Some(frame) = frames.next().await else { break };
            assembler.push(&frame?, |line| {
                let this = Some((line.time_ns, line.nth.saturating_add(1)));
                match line.stream {
                    Stream::Stderr => err |= this == stderr,
                    Stream::Stdout | Stream::Unknown => out |= this == stdout,
                }
            });
        }
        Ok((out, err))
    }

    /// The time of the first line of a reading.
    async fn first_time(&self, options: LogsOptionsBuilder) -> Result<Option<i64>, DockerError> {
        let mut frames = self.docker.logs(&self.source.container, Some(options.build()));
        match frames.next().await {
            Some(frame) => Ok(lines::time_of(&frame?)),
            None => Ok(None),
        }
    }

    /// Sends lines in batches, and moves the position once they are sent.
    async fn pass_on(&mut self, reading: &mut Reading, lines: Vec<Line>) {
        let mut lines = lines.into_iter().peekable();
        while lines.peek().is_some() {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while let Some(line) =
                lines.next_if(|line| batch.is_empty() || bytes + line.text.len() <= BATCH_BYTES)
            {
                bytes += line.text.len() + 64;
                batch.push(line);
            }
            let end = |stream| {
                let last =
                    batch.iter().rev().find(|line| (line.stream == Stream::Stderr) == stream);
                last.map(|line| (line.time_ns, line.nth.saturating_add(1)))
            };
            let (stdout, stderr) = (end(false), end(true));
            let gap = reading.gap();
            let batch =
                Batch { source: self.source.clone(), lines: batch, gap, ..Batch::default() };
            self.backlog.push(batch).await;
            reading.passed = true;
            self.stdout.last = stdout.or(self.stdout.last);
            self.stderr.last = stderr.or(self.stderr.last);
        }
    }
}

/// What one reading knows.
struct Reading {
    assembler: Assembler,
    stdout: Passing,
    stderr: Passing,
    /// Where it was resumed, if it was.
    resumed: Option<(i64, u32)>,
    passed: bool,
}

impl Reading {
    fn take(&mut self, frame: &LogOutput, lines: &mut Vec<Line>) {
        let (stdout, stderr) = (&mut self.stdout, &mut self.stderr);
        self.assembler.push(frame, |line| keep(stdout, stderr, line, lines));
    }

    fn finish(&mut self, settled: bool, lines: &mut Vec<Line>) {
        let (stdout, stderr) = (&mut self.stdout, &mut self.stderr);
        self.assembler.finish(settled, |line| keep(stdout, stderr, line, lines));
    }

    /// True once, before the first new line, where the line to resume after was not met: Docker
    /// rotated it away.
    fn gap(&mut self) -> bool {
        self.resumed.take().is_some() && !self.stdout.met && !self.stderr.met
    }
}

fn keep(stdout: &mut Passing, stderr: &mut Passing, line: Line, lines: &mut Vec<Line>) {
    let passing = match line.stream {
        Stream::Stderr => stderr,
        Stream::Stdout | Stream::Unknown => stdout,
    };
    if passing.is_new(&line) {
        lines.push(line);
    }
}
