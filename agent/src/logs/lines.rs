//! From Docker's log frames to lines that have an identity.

use bollard::container::LogOutput;
use vmkit_agent_protocol::logs::{LINE_MAX_BYTES, Line, Stream};

/// What Docker cuts a long line into, in bytes.
const PIECE: usize = 16 * 1024;

/// Joins frames to lines and numbers lines of the same time; a line that is too long becomes
/// several, each but the last marked. A reading must begin at a whole second, so that the numbers
/// come out the same whichever reading it is.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    stdout: Pending,
    stderr: Pending,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Pending {
    text: Vec<u8>,
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
        let (time_ns, text) = self
            .clock
            .split(message)
            .unwrap_or_else(|| (pending.last.map_or(0, |(time_ns, _)| time_ns), message));
        pending.take(stream, time_ns, text, &mut done);
    }

    /// Takes a piece of a line whose time is known.
    pub(super) fn take(
        &mut self,
        stream: Stream,
        time_ns: i64,
        text: &[u8],
        mut done: impl FnMut(Line),
    ) {
        let pending = match stream {
            Stream::Stderr => &mut self.stderr,
            Stream::Stdout | Stream::Unknown => &mut self.stdout,
        };
        pending.take(stream, time_ns, text, &mut done);
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
    fn take(&mut self, stream: Stream, time_ns: i64, text: &[u8], done: &mut impl FnMut(Line)) {
        // Docker gives all pieces of a line the time of its first; another time is another line
        // (the one before had no end: the last words of a process).
        if self.time_ns.is_some_and(|begun| begun != time_ns)
            && let Some(line) = self.finish(stream)
        {
            done(line);
        }
        let (text, ended) = match text.strip_suffix(b"\n") {
            Some(text) => (text.strip_suffix(b"\r").unwrap_or(text), true),
            None => (text, false),
        };
        self.time_ns = Some(time_ns);
        self.piece = text.len();
        self.text.extend_from_slice(text);
        // Only once more has come: a line of just that length is no long one.
        while self.text.len() > LINE_MAX_BYTES {
            let rest = self.text.split_off(boundary(&self.text));
            done(self.line(stream, time_ns, true));
            self.text = rest;
        }
        if ended && let Some(line) = self.finish(stream) {
            done(line);
        }
    }

    fn finish(&mut self, stream: Stream) -> Option<Line> {
        let time_ns = self.time_ns.take()?;
        self.piece = 0;
        Some(self.line(stream, time_ns, false))
    }

    /// What is gathered, as a line.
    fn line(&mut self, stream: Stream, time_ns: i64, more: bool) -> Line {
        let nth = match self.last {
            Some((last, nth)) if last == time_ns => nth.saturating_add(1),
            _ => 0,
        };
        self.last = Some((time_ns, nth));
        let text = String::from_utf8_lossy(&self.text).into_owned();
        self.text.clear();
        Line { time_ns, nth, stream, text, more }
    }
}

/// Where a text that is too long is cut: not within a character, where it has whole ones.
fn boundary(text: &[u8]) -> usize {
    (LINE_MAX_BYTES - 3..=LINE_MAX_BYTES)
        .rev()
        .find(|&at| text.get(at).is_none_or(|byte| byte & 0xc0 != 0x80))
        .unwrap_or(LINE_MAX_BYTES)
}

/// Reads the times before lines. Most lines are of the second of the line before, so that only
/// their fraction is to be read.
#[derive(Debug, Default)]
struct Clock {
    /// `2026-11-01T09:30:00`, and what it is in nanoseconds since 1970.
    second: Option<([u8; SECOND], i64)>,
}

/// How long a time is without its fraction and zone, in bytes.
const SECOND: usize = 19;

impl Clock {
    /// The time before the first space, and the rest.
    fn split<'a>(&mut self, message: &'a [u8]) -> Option<(i64, &'a [u8])> {
        let space = message.iter().take(40).position(|&byte| byte == b' ')?;
        let (time, rest) = (&message[..space], &message[space + 1..]);
        if let Some((known, base_ns)) = &self.second
            && let Some(fraction) = time.strip_prefix(known.as_slice())
            && let Some(nanos) = nanos(fraction)
        {
            return Some((base_ns + nanos, rest));
        }
        let parsed: jiff::Timestamp = std::str::from_utf8(time).ok()?.parse().ok()?;
        let time_ns = i64::try_from(parsed.as_nanosecond()).ok()?;
        let known = time.get(..SECOND)?.try_into().ok();
        // Only of times in UTC, which is what Docker writes.
        let utc = time.ends_with(b"Z");
        self.second =
            known.filter(|_| utc).map(|known| (known, time_ns - time_ns.rem_euclid(1_000_000_000)));
        Some((time_ns, rest))
    }
}

/// `.000000001Z`, `.5Z` or `Z` in nanoseconds.
fn nanos(fraction: &[u8]) -> Option<i64> {
    let fraction = fraction.strip_suffix(b"Z")?;
    let Some(digits) = fraction.strip_prefix(b".") else {
        return fraction.is_empty().then_some(0);
    };
    if digits.is_empty() || digits.len() > 9 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanos = 0;
    for at in 0..9 {
        nanos = nanos * 10 + digits.get(at).map_or(0, |digit| i64::from(digit - b'0'));
    }
    Some(nanos)
}

/// When a frame was written, in nanoseconds since 1970.
pub(super) fn time_of(frame: &LogOutput) -> Option<i64> {
    Clock::default().split(frame.as_ref()).map(|(time_ns, _)| time_ns)
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
                .push(&LogOutput::StdOut { message }, |line| lines.push((line.nth, shown(line))));
        }
        assembler.finish(settled, |line| lines.push((line.nth, shown(line))));
        lines
    }

    fn shown(line: Line) -> String {
        if line.more { line.text + "…" } else { line.text }
    }

    #[test]
    fn lines_of_the_same_time_are_numbered() {
        let frames = [(AT, "a\n".into()), (AT, "b\r\n".into()), (LATER, "c\n".into())];
        let wanted = [(0, "a".to_owned()), (1, "b".to_owned()), (0, "c".to_owned())];
        assert_eq!(lines(&frames, true), wanted);
    }

    #[test]
    fn a_long_line_is_split_and_marked_and_last_words_stay_apart() {
        let piece = "x".repeat(PIECE);
        let split = lines(&[(AT, piece.clone()), (AT, piece.clone()), (AT, "end\n".into())], true);
        let wanted = [(0, piece.clone() + "…"), (1, piece.clone() + "…"), (2, "end".to_owned())];
        assert_eq!(split, wanted);
        // Docker sends the end of a line of just that length by itself.
        let whole = lines(&[(AT, piece.clone()), (AT, "\n".into()), (AT, "b\n".into())], true);
        assert_eq!(whole, [(0, piece), (1, "b".to_owned())]);
        let apart = lines(&[(AT, "last words".into()), (LATER, "first\n".into())], true);
        assert_eq!(apart, [(0, "last words".to_owned()), (0, "first".to_owned())]);
    }

    #[test]
    fn a_character_is_not_cut_in_two() {
        let text = format!("x{}\n", "ü".repeat(PIECE));
        let (first, rest) = text.as_bytes().split_at(PIECE);
        let mut assembler = Assembler::default();
        let mut lines = Vec::new();
        for piece in [first, &rest[..PIECE], &rest[PIECE..]] {
            let mut message = format!("{AT} ").into_bytes();
            message.extend(piece);
            assembler.push(&LogOutput::StdOut { message: message.into() }, |line| lines.push(line));
        }
        let joined: String = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(joined + "\n", text);
        assert!(lines.iter().all(|line| line.text.len() <= LINE_MAX_BYTES));
        assert_eq!(lines.iter().map(|line| line.more).collect::<Vec<_>>(), [true, true, false]);
    }

    #[test]
    fn times_are_read_the_same_whether_the_second_is_known_or_not() {
        let mut clock = Clock::default();
        for time in [
            "2026-11-01T09:30:00.000000001Z",
            "2026-11-01T09:30:00.5Z",
            "2026-11-01T09:30:00Z",
            "2026-11-01T09:30:01.123456789Z",
            "2026-11-01T09:30:01.25+01:00",
            "2026-11-01T09:30:01.25Z",
        ] {
            let parsed: jiff::Timestamp = time.parse().expect("a time");
            let message = format!("{time} a b");
            let (time_ns, rest) = clock.split(message.as_bytes()).expect("a time");
            assert_eq!((i128::from(time_ns), rest), (parsed.as_nanosecond(), b"a b".as_slice()));
        }
        assert_eq!(clock.split(b"2026-11-01T09:30:01.x a"), None);
        assert_eq!(clock.split(b"no time at all"), None);
    }

    #[test]
    fn an_unfinished_piece_waits_for_the_next_reading() {
        let piece = "x".repeat(PIECE);
        assert_eq!(lines(&[(AT, piece.clone())], false), []);
        assert_eq!(lines(&[(AT, piece.clone())], true), [(0, piece)]);
        assert_eq!(lines(&[(AT, "last words".into())], false), [(0, "last words".to_owned())]);
    }
}
