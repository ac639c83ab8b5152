//! From Docker's log frames to lines that have an identity.

use bollard::container::LogOutput;
use vmkit_agent_protocol::logs::{Line, Stream};

/// What Docker cuts a long line into, in bytes.
const PIECE: usize = 16 * 1024;
/// The longest line that is passed on, in bytes; the rest of it stays on the VM.
const LONGEST: usize = 64 * 1024;

/// Joins frames to lines and numbers lines of the same time. A reading must begin at a whole
/// second, so that the numbers come out the same whichever reading it is.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    stdout: Pending,
    stderr: Pending,
}

#[derive(Debug, Default)]
struct Pending {
    text: Vec<u8>,
    cut: usize,
    /// Time of the unfinished line; `None` where there is none.
    time_ns: Option<i64>,
    /// How long the last piece was.
    piece: usize,
    /// Time and number of the last finished line.
    last: Option<(i64, u32)>,
}

impl Assembler {
    /// Takes a frame, and gives the lines that it finishes to `done`.
    pub(super) fn push(&mut self, frame: &LogOutput, mut done: impl FnMut(Line)) {
        let (stream, message) = match frame {
            LogOutput::StdErr { message } => (Stream::Stderr, message),
            LogOutput::StdOut { message }
            | LogOutput::Console { message }
            | LogOutput::StdIn { message } => (Stream::Stdout, message),
        };
        let pending = match stream {
            Stream::Stderr => &mut self.stderr,
            Stream::Stdout | Stream::Unknown => &mut self.stdout,
        };
        let (time_ns, text) = split(message)
            .unwrap_or_else(|| (pending.last.map_or(0, |(time_ns, _)| time_ns), message));
        // Docker gives all pieces of a line the time of its first; another time is another line
        // (the one before had no end: the last words of a process).
        if pending.time_ns.is_some_and(|begun| begun != time_ns)
            && let Some(line) = pending.finish(stream)
        {
            done(line);
        }
        let (text, ended) = match text.strip_suffix(b"\n") {
            Some(text) => (text.strip_suffix(b"\r").unwrap_or(text), true),
            None => (text, false),
        };
        pending.add(time_ns, text);
        if ended && let Some(line) = pending.finish(stream) {
            done(line);
        }
    }

    /// The lines that never got their end. With `settled` false, one of which a piece may be
    /// still to come is left out: it will be read again.
    pub(super) fn finish(&mut self, settled: bool, mut done: impl FnMut(Line)) {
        for (stream, pending) in
            [(Stream::Stdout, &mut self.stdout), (Stream::Stderr, &mut self.stderr)]
        {
            if (settled || pending.piece < PIECE)
                && let Some(line) = pending.finish(stream)
            {
                done(line);
            }
        }
    }
}

impl Pending {
    fn add(&mut self, time_ns: i64, text: &[u8]) {
        self.time_ns = Some(time_ns);
        self.piece = text.len();
        let room = LONGEST.saturating_sub(self.text.len()).min(text.len());
        self.text.extend_from_slice(&text[..room]);
        self.cut += text.len() - room;
    }

    fn finish(&mut self, stream: Stream) -> Option<Line> {
        let time_ns = self.time_ns.take()?;
        let nth = match self.last {
            Some((last, nth)) if last == time_ns => nth + 1,
            _ => 0,
        };
        self.last = Some((time_ns, nth));
        let mut text = String::from_utf8_lossy(&self.text).into_owned();
        if self.cut > 0 {
            text.push_str(&format!(" [{} more bytes of this line are on the VM]", self.cut));
        }
        self.text.clear();
        (self.cut, self.piece) = (0, 0);
        Some(Line { time_ns, nth, stream, text })
    }
}

/// When a frame was written, in nanoseconds since 1970.
pub(super) fn time_of(frame: &LogOutput) -> Option<i64> {
    split(frame.as_ref()).map(|(time_ns, _)| time_ns)
}

/// The time before the first space, and the rest.
fn split(message: &[u8]) -> Option<(i64, &[u8])> {
    let space = message.iter().take(40).position(|&byte| byte == b' ')?;
    let time: jiff::Timestamp = std::str::from_utf8(&message[..space]).ok()?.parse().ok()?;
    Some((i64::try_from(time.as_nanosecond()).ok()?, &message[space + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2026-11-01T09:30:00.000000001Z";
    const LATER: &str = "2026-11-01T09:30:00.000000002Z";

    fn lines(frames: &[(&str, String)], settled: bool) -> Vec<(u32, String)> {
        let mut assembler = Assembler::default();
        let mut lines = Vec::new();
        for (time, text) in frames {
            let message = format!("{time} {text}").into();
            assembler
                .push(&LogOutput::StdOut { message }, |line| lines.push((line.nth, line.text)));
        }
        assembler.finish(settled, |line| lines.push((line.nth, line.text)));
        lines
    }

    #[test]
    fn lines_of_the_same_time_are_numbered() {
        let frames = [(AT, "a\n".into()), (AT, "b\r\n".into()), (LATER, "c\n".into())];
        let wanted = [(0, "a".to_owned()), (1, "b".to_owned()), (0, "c".to_owned())];
        assert_eq!(lines(&frames, true), wanted);
    }

    #[test]
    fn pieces_of_a_long_line_are_joined_and_last_words_are_not() {
        let piece = "x".repeat(PIECE);
        let joined = lines(&[(AT, piece.clone()), (AT, "end\n".into())], true);
        assert_eq!(joined, [(0, format!("{piece}end"))]);
        let apart = lines(&[(AT, "last words".into()), (LATER, "first\n".into())], true);
        assert_eq!(apart, [(0, "last words".to_owned()), (0, "first".to_owned())]);
    }

    #[test]
    fn an_unfinished_piece_waits_for_the_next_reading() {
        let piece = "x".repeat(PIECE);
        assert_eq!(lines(&[(AT, piece.clone())], false), []);
        assert_eq!(lines(&[(AT, piece.clone())], true), [(0, piece)]);
        assert_eq!(lines(&[(AT, "last words".into())], false), [(0, "last words".to_owned())]);
    }

    #[test]
    fn a_line_without_end_is_cut_and_says_so() {
        let piece = "x".repeat(PIECE);
        let frames: Vec<_> = (0..5).map(|_| (AT, piece.clone())).collect();
        let cut = lines(&frames, true);
        assert_eq!(cut.len(), 1);
        assert!(cut[0].1.ends_with("x [16384 more bytes of this line are on the VM]"));
    }
}
