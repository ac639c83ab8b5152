//! What a container is here: its order, its state, and its log as Docker would keep it.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use jiff::Timestamp;

/// How many entries one container's log keeps.
const LOG_ENTRIES_MAX: usize = 100_000;
/// Docker splits longer lines into several messages of this size.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// What an image is here: a folder and a command.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Such as `ghcr.io/octo/shop:4f2a...`.
    pub reference: String,
    /// The folder that the command is started in.
    pub dir: PathBuf,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// The image's own environment.
    pub env: Vec<(String, String)>,
    /// The image's labels; a container has them too.
    pub labels: BTreeMap<String, String>,
}

/// A container to run. Use `..ContainerSpec::default()` for what is not of interest.
#[derive(Debug, Clone, Default)]
pub struct ContainerSpec {
    /// Unique on the machine, such as `shop-staging-web-4f2a...`.
    pub name: String,
    /// What to run.
    pub image: Image,
    /// Added to the image's labels.
    pub labels: BTreeMap<String, String>,
    /// Added to the image's environment; `PORT` is replaced by a free port of the machine.
    pub env: Vec<(String, String)>,
    /// Instead of the image's command.
    pub command: Option<Vec<String>>,
    /// `--restart unless-stopped`: started again when it ends by itself (with Docker's doubling
    /// wait) and when the machine is switched on.
    pub restart: bool,
    /// Named volumes. The process starts in the folder of the first, which is all that it has of them.
    pub mounts: Vec<Mount>,
    /// Whether Docker looks after its health: it is well once it takes connections.
    pub health: bool,
}

/// A named volume in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The volume's name.
    pub name: String,
    /// Where it is in the container.
    pub at: String,
}

/// What is known of a container.
#[derive(Debug, Clone)]
pub struct ContainerInfo {
    /// 64 hex digits.
    pub id: String,
    /// Without a leading slash.
    pub name: String,
    /// The image's reference.
    pub image: String,
    /// The image's and its own.
    pub labels: BTreeMap<String, String>,
    /// Whether its process runs now.
    pub running: bool,
    /// How it ended last; none while it runs or before its first end. 128 + signal where killed.
    pub exit_code: Option<i32>,
    /// The port that it was given as `PORT`.
    pub port: u16,
    /// When it was started last.
    pub started_at: Timestamp,
    /// When it ended last.
    pub finished_at: Option<Timestamp>,
    /// How often it was started again by its restart policy.
    pub restarts: u32,
    /// The process id outside.
    pub pid: Option<u32>,
    /// Ports that are published on the machine's address: (in the container, on the machine).
    pub published: Vec<(u16, u16)>,
}

/// Which pipe a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One message of a container's log.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// Counts from 0 in the container's life.
    pub sequence: u64,
    /// When it was read.
    pub time: Timestamp,
    /// Where it was written.
    pub stream: LogStream,
    /// With its newline, unless it is a part of a long line or the last words of a process.
    pub bytes: Vec<u8>,
}

/// A container's log: bounded, in order, with times that never go back.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: VecDeque<LogEntry>,
    next: u64,
}

impl Log {
    pub(super) fn push(&mut self, time: Timestamp, stream: LogStream, bytes: Vec<u8>) {
        let time = self.entries.back().map_or(time, |last| time.max(last.time));
        self.entries.push_back(LogEntry { sequence: self.next, time, stream, bytes });
        self.next += 1;
        if self.entries.len() > LOG_ENTRIES_MAX {
            self.entries.pop_front();
        }
    }

    /// Entries with a sequence of at least `from`.
    pub(super) fn since(&self, from: u64) -> impl Iterator<Item = &LogEntry> {
        let first = self.entries.front().map_or(0, |entry| entry.sequence);
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        self.entries.iter().skip(skip)
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.next
    }

    /// The last `count` lines as `TIME TEXT`, as `docker logs --timestamps` prints them.
    pub(super) fn tail(&self, count: usize) -> Vec<String> {
        let skip = self.entries.len().saturating_sub(count);
        self.entries
            .iter()
            .skip(skip)
            .map(|entry| {
                let text = String::from_utf8_lossy(&entry.bytes);
                format!("{} {}", crate::clock::rfc3339_nanos(entry.time), text.trim_end())
            })
            .collect()
    }
}
