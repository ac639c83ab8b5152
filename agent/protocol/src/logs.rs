//! Log lines, what selects them, and how a stream of them is resumed.
//!
//! A line is known by container, stream, time in nanoseconds, and its number among the lines of
//! that container and stream with that very time: so the same line is the same line whichever
//! way it was read, and a union of two readings neither loses nor doubles one.

use serde::{Deserialize, Serialize};

/// Which of a container's two outputs a line came from.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output; everything, where the container has a terminal.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
    /// From a newer agent.
    #[serde(other)]
    Unknown,
}

/// The containers whose lines are wanted; what is absent is not asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Selector {
    /// The Kamal service, or `kamal-proxy` for the proxy's own container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The Kamal role within the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// One container by id or name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

/// Where the lines of a batch come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Source {
    /// The container's full id.
    pub container: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its service; its name where it has no label `service`.
    #[serde(default)]
    pub service: String,
    /// Its role, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Its version, where its name or environment tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Nanoseconds since 1970, as Docker stamped it.
    #[serde(rename = "t")]
    pub time_ns: i64,
    /// Its number, from 0, among the lines of this container and stream with this time.
    #[serde(rename = "n", default, skip_serializing_if = "is_zero")]
    pub nth: u32,
    /// Which output.
    #[serde(rename = "s", default, skip_serializing_if = "is_stdout")]
    pub stream: Stream,
    /// The text, without the line's end.
    #[serde(rename = "x")]
    pub text: String,
    /// True where the line goes on in the next one: it is longer than [`LINE_MAX_BYTES`].
    #[serde(rename = "m", default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// Longer lines are split, in bytes: as Docker keeps them.
pub const LINE_MAX_BYTES: usize = 16 * 1024;

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn is_none(n: &u64) -> bool {
    *n == 0
}

fn is_stdout(stream: &Stream) -> bool {
    *stream == Stream::Stdout
}

/// Lines of one container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Batch {
    /// Where they come from.
    pub source: Source,
    /// In the order of the container's log.
    pub lines: Vec<Line>,
    /// True where lines before the first of these are known to be gone from the VM (rotated away
    /// while nobody followed).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gap: bool,
    /// How many lines before the first of these were dropped, since the gateway took nothing for
    /// long and the agent keeps only the newest.
    #[serde(default, skip_serializing_if = "is_none")]
    pub dropped: u64,
    /// The time of the last line that was dropped, in nanoseconds since 1970, where no line follows:
    /// a container that has said nothing since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_to_ns: Option<i64>,
}

/// The last line that the gateway has of one container and stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumePoint {
    /// The container's full id.
    pub container: String,
    /// Which output.
    #[serde(default)]
    pub stream: Stream,
    /// The last line's time, in nanoseconds since 1970.
    pub time_ns: i64,
    /// How many lines with that time the gateway has; at least 1.
    pub count: u32,
}

/// What to follow, and from where.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FollowLogs {
    /// Which containers, those to come included. Nothing set: every container with a label
    /// `service`, and the proxy.
    #[serde(default)]
    pub selector: Selector,
    /// Where the gateway stands.
    #[serde(default)]
    pub resume: Vec<ResumePoint>,
    /// How many lines at most of a container that exists already and has no resume point.
    #[serde(default)]
    pub backfill: u32,
    /// How many batches the agent may send before it is given [`crate::messages::ToAgent::Credit`];
    /// absent from a gateway that takes them as they come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<u32>,
}

/// Logs of the machine itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SystemLog {
    /// What the first boot printed (cloud-init).
    Boot,
    /// The agent itself.
    #[default]
    Agent,
    /// The kernel.
    Kernel,
    /// The SSH server.
    Ssh,
    /// The Docker engine.
    Docker,
    /// What Docker runs containers with.
    Containerd,
    /// Security upgrades.
    Upgrades,
    /// systemd: what started, stopped and failed.
    Systemd,
    /// From a newer gateway.
    #[serde(other)]
    Unknown,
}

/// A range of lines of the machine itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SystemLogRange {
    /// Which log.
    pub log: SystemLog,
    /// From this time on, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
    /// Only lines that match this regular expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grep: Option<String>,
    /// The newest so many.
    pub tail: u32,
}

/// A range of lines.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogRange {
    /// Which containers.
    #[serde(default)]
    pub selector: Selector,
    /// From this time on, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
    /// Only lines that match this regular expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grep: Option<String>,
    /// The newest so many; the agent returns fewer where a message would become too long.
    pub tail: u32,
}

/// The lines of a range.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogRangeReply {
    /// By container.
    pub batches: Vec<Batch>,
    /// True where older lines of the range were left out.
    #[serde(default)]
    pub more: bool,
    /// The time from which on nothing was left out, where `more`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covered_from_ns: Option<i64>,
}
