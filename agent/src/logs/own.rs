//! The agent's own log: the newest lines stay in memory, for machines without a journal.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

use crate::time::now_ms;

/// Lines and bytes that are kept.
const LINES: usize = 1000;
const BYTES: usize = 128 * 1024;

/// A process has one log, wherever it is written from.
static KEPT: Mutex<Kept> = Mutex::new(Kept { lines: VecDeque::new(), bytes: 0 });

#[derive(Debug)]
struct Kept {
    /// When, in milliseconds since 1970, and what.
    lines: VecDeque<(i64, String)>,
    bytes: usize,
}

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is kept, oldest first.
pub(super) fn lines() -> Vec<(i64, String)> {
    kept().lines.iter().cloned().collect()
}

/// Writes to standard error, and keeps what it wrote.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writer;

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // One event is one write.
        keep(&String::from_utf8_lossy(bytes));
        io::stderr().write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

fn keep(text: &str) {
    let mut kept = kept();
    for line in text.lines().filter(|line| !line.is_empty()) {
        kept.bytes += line.len();
        kept.lines.push_back((now_ms(), line.to_owned()));
    }
    while kept.lines.len() > LINES || kept.bytes > BYTES {
        let Some((_, line)) = kept.lines.pop_front() else { return };
        kept.bytes -= line.len();
    }
}
