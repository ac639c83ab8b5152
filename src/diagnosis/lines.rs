//! The lines of a job's log that say something: without GitHub's time stamps, without colours, and
//! without the echo of the scripts that ran, in which every error text stands that they could print.

use std::sync::LazyLock;

use regex::Regex;

/// One line.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Its text.
    pub(super) text: String,
    /// Whether the app's container printed it, not a tool.
    pub(super) of_the_app: bool,
}

static ESCAPES: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")
        .expect("a fixed pattern")
});
static STAMP: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\u{feff}?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z ").expect("a fixed pattern")
});
static OF_THE_APP: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\s*(?:ERROR )?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z ").expect("a fixed pattern")
});

/// Kamal's echo of a command: it holds the error texts that the command could print.
static COMMAND: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\s*(?:INFO|DEBUG) \[[0-9a-f]+\] Running ").expect("a fixed pattern")
});

/// A text without colours and control characters.
pub(super) fn cleaned(text: &str) -> String {
    let text = ESCAPES.replace_all(text, "");
    text.chars().filter(|c| !c.is_control()).collect::<String>().trim_end().to_owned()
}

/// The lines of a job's log.
pub(super) fn of_job(log: &str) -> Vec<Line> {
    // GitHub stamps all lines; Docker stamps those of a container, which then stand second.
    let first = log.lines().find(|line| !line.trim().is_empty()).unwrap_or("");
    let stamped = STAMP.is_match(first);
    let mut in_script = false;
    let mut lines = Vec::new();
    for line in log.lines() {
        let line = if stamped { STAMP.replace(line, "") } else { line.into() };
        let text = cleaned(&line);
        if text.starts_with("##[group]Run ") || text.starts_with("::group::Run ") {
            in_script = true;
        } else if text.starts_with("##[endgroup]") || text.starts_with("::endgroup::") {
            in_script = false;
        } else if !in_script && !COMMAND.is_match(&text) {
            lines.push(Line { of_the_app: OF_THE_APP.is_match(&text), text });
        }
    }
    lines
}
