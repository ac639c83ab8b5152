//! `/containers/{id}/logs`: Docker's multiplexed frames, from a moment on, to the end or for ever.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use jiff::Timestamp;
use tokio::sync::watch;

use super::{Query, is_true, problem};
use crate::clock::rfc3339_nanos;
use crate::machines::container::{LogEntry, LogStream};
use crate::machines::docker::Container;

struct Wanted {
    stdout: bool,
    stderr: bool,
    timestamps: bool,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    tail: Option<usize>,
    follow: bool,
}

pub(super) fn answer(container: &Arc<Container>, query: &Query) -> Response {
    let flag = |key: &str| query.get(key).is_some_and(|value| is_true(value));
    let wanted = Wanted {
        stdout: flag("stdout"),
        stderr: flag("stderr"),
        timestamps: flag("timestamps"),
        since: query.get("since").and_then(|text| time(text)),
        until: query.get("until").and_then(|text| time(text)),
        tail: query.get("tail").and_then(|text| text.parse().ok()),
        follow: flag("follow"),
    };
    if !wanted.stdout && !wanted.stderr {
        let text = "Bad parameters: you must choose at least one stream";
        return problem(StatusCode::BAD_REQUEST, text);
    }
    let reader = Reader::new(container, wanted);
    let frames = futures::stream::unfold(reader, |mut reader| async move {
        let frames = reader.next().await?;
        Some((Ok::<_, std::convert::Infallible>(frames), reader))
    });
    let kind = "application/vnd.docker.multiplexed-stream";
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(frames)).into_response()
}

/// Docker's moments: seconds since 1970 with an optional fraction, or RFC 3339. 0 is none.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let Ok(seconds) = seconds.parse::<i64>() else { return text.parse().ok() };
    let nanos = format!("{fraction:0<9}").get(..9).and_then(|digits| digits.parse().ok());
    let time = Timestamp::new(seconds, nanos.unwrap_or(0)).ok()?;
    (seconds != 0).then_some(time)
}

struct Reader {
    container: Arc<Container>,
    wanted: Wanted,
    changes: watch::Receiver<u64>,
    /// Frames that are ready to go.
    ready: VecDeque<Bytes>,
    next: u64,
}

impl Reader {
    fn new(container: &Arc<Container>, wanted: Wanted) -> Self {
        let changes = container.changes.subscribe();
        let (ready, next) = {
            let state = container.state();
            let kept: Vec<&LogEntry> =
                state.log.since(0).filter(|entry| wanted.takes(entry)).collect();
            let skip = wanted.tail.map_or(0, |tail| kept.len().saturating_sub(tail));
            let ready = kept[skip..].iter().map(|entry| wanted.frame(entry)).collect();
            (ready, state.log.next_sequence())
        };
        Self { container: container.clone(), wanted, changes, ready, next }
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            if !self.wanted.follow {
                return None;
            }
            self.changes.mark_unchanged();
            let running = {
                let state = self.container.state();
                let new = state.log.since(self.next).filter(|entry| self.wanted.takes(entry));
                self.ready.extend(new.map(|entry| self.wanted.frame(entry)));
                self.next = state.log.next_sequence();
                state.running
            };
            // The whole log is there before the container counts as ended.
            if self.ready.is_empty() && (!running || self.changes.changed().await.is_err()) {
                return None;
            }
        }
    }
}

impl Wanted {
    fn takes(&self, entry: &LogEntry) -> bool {
        let stream = match entry.stream {
            LogStream::Stdout => self.stdout,
            LogStream::Stderr => self.stderr,
        };
        stream
            && self.since.is_none_or(|since| entry.time >= since)
            && self.until.is_none_or(|until| entry.time <= until)
    }

    fn frame(&self, entry: &LogEntry) -> Bytes {
        let time =
            if self.timestamps { format!("{} ", rfc3339_nanos(entry.time)) } else { String::new() };
        let length = u32::try_from(time.len() + entry.bytes.len()).unwrap_or(u32::MAX);
        let kind = match entry.stream {
            LogStream::Stdout => 1,
            LogStream::Stderr => 2,
        };
        let mut frame = vec![kind, 0, 0, 0];
        frame.extend(length.to_be_bytes());
        frame.extend(time.as_bytes());
        frame.extend(&entry.bytes);
        frame.into()
    }
}
