//! What a line of a log says of itself: how bad it is, and which others are like it.

use std::collections::HashMap;

use serde_json::Value;

use super::clock::Millis;

/// How bad a line is, by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// For whoever develops it.
    Debug,
    /// All is well; also what does not say.
    Info,
    /// Something to look at.
    Warn,
    /// Something went wrong.
    Error,
}

/// How far into a line its level is looked for, in bytes: what follows is what it is about.
const HEAD_BYTES: usize = 160;
/// The longest pattern that lines are put together by, in bytes.
const PATTERN_BYTES: usize = 200;

/// A line's level; none where it does not say.
pub fn level(text: &str) -> Option<Level> {
    let trimmed = text.trim_start();
    if trimmed.starts_with('{')
        && let Some(level) = of_json(trimmed)
    {
        return Some(level);
    }
    if ["Traceback (most recent call last)", "panic:", "thread '", "Uncaught ", "Unhandled "]
        .iter()
        .any(|begin| trimmed.starts_with(begin))
    {
        return Some(Level::Error);
    }
    let head = head(trimmed);
    let words = head.split(|c: char| !c.is_ascii_alphabetic());
    words.filter(|word| word.len() >= 3).find_map(|word| {
        let shouted = word.bytes().all(|byte| byte.is_ascii_uppercase());
        // In small letters it is a level only where it stands as one: `level=error`, `[error]`.
        let marked = || {
            let at = word.as_ptr() as usize - head.as_ptr() as usize;
            let (before, after) = (&head[..at], &head[at + word.len()..]);
            before.ends_with(['=', '[', '<']) || after.starts_with([']', ':', '>'])
        };
        let named = named(word)?;
        (shouted || marked()).then_some(named)
    })
}

/// True for a line that belongs to the one before: a stack trace's.
pub fn continues(text: &str) -> bool {
    text.starts_with([' ', '\t']) || text.starts_with("Caused by") || text.is_empty()
}

fn head(text: &str) -> &str {
    let end = (0..=HEAD_BYTES.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

fn named(word: &str) -> Option<Level> {
    match word.to_ascii_lowercase().as_str() {
        "error" | "err" | "fatal" | "panic" | "critical" | "crit" | "alert" | "emerg"
        | "severe" => Some(Level::Error),
        "warn" | "warning" => Some(Level::Warn),
        "info" | "notice" => Some(Level::Info),
        "debug" | "trace" => Some(Level::Debug),
        _ => None,
    }
}

fn of_json(text: &str) -> Option<Level> {
    let line: Value = serde_json::from_str(text).ok()?;
    let level = ["level", "severity", "lvl", "log.level"].iter().find_map(|key| line.get(key))?;
    match level {
        Value::String(word) => named(word),
        // Pino's and Bunyan's numbers.
        Value::Number(number) => match number.as_u64()? {
            50.. => Some(Level::Error),
            40..50 => Some(Level::Warn),
            30..40 => Some(Level::Info),
            _ => Some(Level::Debug),
        },
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What lines of the same kind have in common: words that hold a digit are `#`.
pub fn pattern(text: &str) -> String {
    let mut pattern = String::new();
    for word in text.split_whitespace() {
        if !pattern.is_empty() {
            pattern.push(' ');
        }
        let mut parts = word.split_inclusive(|c: char| !c.is_alphanumeric());
        let mut hidden = false;
        for part in &mut parts {
            let (run, mark) = match part.char_indices().next_back() {
                Some((at, c)) if !c.is_alphanumeric() => part.split_at(at),
                _ => (part, ""),
            };
            if run.chars().any(|c| c.is_ascii_digit()) {
                // `1a-2b-3c` is one thing, and so is `10.0.0.1`.
                if !hidden {
                    pattern.push('#');
                }
                hidden = true;
                if !matches!(mark, "-" | "." | ":") {
                    pattern.push_str(mark);
                    hidden = false;
                }
            } else {
                hidden = false;
                pattern.push_str(part);
            }
        }
        if pattern.len() > PATTERN_BYTES {
            break;
        }
    }
    pattern
}

/// Lines of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// What they have in common.
    pub pattern: String,
    /// How many there are.
    pub count: usize,
    /// When the first and the last came.
    pub first: Millis,
    /// See `first`.
    pub last: Millis,
    /// The last of them.
    pub example: String,
    /// How bad they are.
    pub level: Option<Level>,
}

/// Puts lines of the same kind together: the worst first, then the most frequent.
pub fn cluster<'a>(lines: impl Iterator<Item = (Millis, &'a str)>) -> Vec<Cluster> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut clusters: Vec<Cluster> = Vec::new();
    for (time, text) in lines {
        let pattern = pattern(text);
        let place = *places.entry(pattern.clone()).or_insert(clusters.len());
        if place == clusters.len() {
            let level = level(text);
            let example = String::new();
            clusters.push(Cluster { pattern, count: 0, first: time, last: time, example, level });
        }
        let cluster = &mut clusters[place];
        cluster.count += 1;
        cluster.first = cluster.first.min(time);
        if time >= cluster.last {
            cluster.last = time;
            text.clone_into(&mut cluster.example);
        }
    }
    clusters.sort_by_key(|kind| std::cmp::Reverse((kind.level, kind.count, kind.last)));
    clusters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_lines_own_word_and_not_what_it_is_about() {
        for (text, wanted) in [
            ("2026-11-01T09:30:00Z ERROR boot: no database", Some(Level::Error)),
            ("time=\"x\" level=warning msg=\"error rate is 0\"", Some(Level::Warn)),
            ("[error] 12#12: upstream", Some(Level::Error)),
            ("error: cannot connect", Some(Level::Error)),
            ("{\"level\":\"info\",\"msg\":\"no ERROR here\"}", Some(Level::Info)),
            ("{\"level\":50,\"msg\":\"x\"}", Some(Level::Error)),
            ("{\"severity\":\"WARNING\"}", Some(Level::Warn)),
            ("Traceback (most recent call last):", Some(Level::Error)),
            ("thread 'main' panicked at src/main.rs", Some(Level::Error)),
            ("E, [2026-11-01] FATAL -- : x", Some(Level::Error)),
            ("GET /errors/error 200", None),
            ("the error page was shown", None),
            ("", None),
        ] {
            assert_eq!(level(text), wanted, "{text}");
        }
        assert!(continues("    at f (x.js:1)") && !continues("ERROR"));
    }

    #[test]
    fn lines_of_one_kind_differ_in_their_numbers_only() {
        assert_eq!(pattern("took 35ms for /orders/1234?x=9"), "took # for /orders/#?x=#");
        assert_eq!(pattern("from 10.0.0.1:443 at 09:30:00.125"), "from # at #");
        assert_eq!(pattern("id=550e8400-e29b-41d4-a716-446655440000 ok"), "id=# ok");
        let lines = [
            (Millis(1), "GET /a took 3ms"),
            (Millis(2), "ERROR order 7 failed"),
            (Millis(3), "GET /a took 5ms"),
            (Millis(4), "GET /a took 9ms"),
        ];
        let clusters = cluster(lines.into_iter());
        let shown: Vec<_> = clusters.iter().map(|c| (c.pattern.as_str(), c.count)).collect();
        assert_eq!(shown, [("ERROR order # failed", 1), ("GET /a took #", 3)]);
        assert_eq!((clusters[1].first, clusters[1].last), (Millis(1), Millis(4)));
        assert_eq!(clusters[1].example, "GET /a took 9ms");
    }
}
