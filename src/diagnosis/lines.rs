//! The lines of a job's log that say something: without GitHub's time stamps, without colours, and
//! without the echo of the scripts that ran, in which every error text stands that they could print.
//!
//! Each line is told by whose voice speaks in it: only so what an app or a build command prints
//! cannot pass for the words of a tool. All of it is bounded: the end of a log counts.

use std::sync::LazyLock;

use regex::Regex;

/// Of a longer log the end is read: that is where a failure says why.
const LOG_MAX: usize = 1 << 20;
/// The most lines.
const LINES_MAX: usize = 20_000;
/// The most bytes of a line.
const LINE_MAX: usize = 4_000;

/// Who speaks in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    /// GitHub, Kamal, Docker, Buildx, pack, or a script of our workflow.
    Tool,
    /// The sentence in which a tool tells which command of a build failed. It quotes the command.
    Process,
    /// A command of the app's own build.
    Build,
    /// The app.
    App,
}

/// One line.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Its text, without the mark of who speaks.
    pub(super) text: String,
    /// Who speaks.
    pub(super) voice: Voice,
    /// Whether it belongs to the words with which the tool gave up; see [`of_job`].
    pub(super) last_word: bool,
    /// Buildkit's number of the build step that printed it.
    step: Option<u32>,
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a fixed pattern")
}

static ESCAPES: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]")
});
static STAMP: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^\u{feff}?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z "));
static OF_THE_APP: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^\s*(?:ERROR )?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z |\(a line of the app: read it")
});
/// Kamal's echo of a command: it holds the error texts that the command could print.
static COMMAND: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^\s*(?:INFO|DEBUG) \[[0-9a-f]+\] (?:Running |Command: )"));
/// What a command of a Dockerfile printed.
static BUILDKIT: LazyLock<Regex> = LazyLock::new(|| pattern(r"^#(\d+) \d+\.\d+ (.*)$"));
static BUILDKIT_ERROR: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^#(\d+) ERROR: process .* did not complete successfully"));
/// What a buildpack printed.
static BUILDPACK: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\[builder\] ?(.*)$"));
static TIMED: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\d+\.\d+ (.*)$"));
/// The echo of a Dockerfile: a step's head, or lines of the file with their numbers.
static DOCKERFILE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^#\d+ \[|^ > |^\s+\d+ \| |^Dockerfile\S*:\d+$"));
static PROCESS: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"process .* did not complete successfully"));
/// Kamal's last word.
static KAMAL_ERROR: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\s*ERROR \([A-Z][\w:]*\): "));
static BUILD_ERROR: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(?:ERROR: |##\[error\](?:buildx failed|ERROR)|\[(?:exporter|detector|analyzer|restorer|creator)\] ERROR: )",
    )
});

/// A text without colours and control characters, and not too long.
pub(super) fn cleaned(text: &str) -> String {
    let mut end = text.len().min(LINE_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = ESCAPES.replace_all(&text[..end], "");
    text.chars().filter(|c| !c.is_control()).collect::<String>().trim_end().to_owned()
}

/// The end of a text, beginning with a whole line.
fn end_of(text: &str) -> &str {
    let mut at = text.len().saturating_sub(LOG_MAX);
    if at == 0 {
        return text;
    }
    while !text.is_char_boundary(at) {
        at += 1;
    }
    let end = &text[at..];
    end.find('\n').map_or(end, |newline| &end[newline + 1..])
}

/// The last lines of an app's or the proxy's log, cleaned, oldest first.
pub(super) fn plain(log: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = end_of(log).lines().rev().take(most).map(cleaned).collect();
    lines.reverse();
    lines
}

/// All lines of a job's log, cleaned, without GitHub's stamps.
pub(super) fn for_a_reader(log: &str) -> Vec<String> {
    let log = end_of(log);
    let skipped = log.lines().count().saturating_sub(LINES_MAX);
    let lines = log.lines().skip(skipped);
    lines.map(|line| cleaned(&STAMP.replace(line, ""))).filter(|line| !line.is_empty()).collect()
}

/// The lines of a job's log. Where the tool says at the end what it failed on, those lines are
/// marked as its last word: what stands above may have been tried again since.
pub(super) fn of_job(log: &str) -> Vec<Line> {
    // GitHub stamps all lines; Docker stamps those of a container, which then stand second.
    let first = log.lines().find(|line| !line.trim().is_empty()).unwrap_or("");
    let stamped = STAMP.is_match(first);
    let log = end_of(log);
    let skipped = log.lines().count().saturating_sub(LINES_MAX);
    let mut reader = Reader::default();
    for line in log.lines().skip(skipped) {
        let line = if stamped { STAMP.replace(line, "") } else { line.into() };
        reader.take(cleaned(&line));
    }
    let mut lines = reader.lines;
    only_the_failed_command(&mut lines, reader.failed_step);
    mark_last_word(&mut lines);
    lines
}

#[derive(Default)]
struct Reader {
    lines: Vec<Line>,
    in_script: bool,
    in_hook: bool,
    in_summary: bool,
    failed_step: Option<u32>,
}

impl Reader {
    fn take(&mut self, text: String) {
        if text.starts_with("##[group]Run ") || text.starts_with("::group::Run ") {
            (self.in_script, self.in_hook, self.in_summary) = (true, false, false);
            return;
        }
        if text.starts_with("##[endgroup]") || text.starts_with("::endgroup::") {
            self.in_script = false;
            return;
        }
        if self.in_script || COMMAND.is_match(&text) {
            return;
        }
        if text == "------" {
            self.in_summary = !self.in_summary;
            return;
        }
        if DOCKERFILE.is_match(&text) {
            return;
        }
        if text.starts_with("##[error]") {
            self.in_hook = false;
        }
        let line = self.read(text);
        self.in_hook |= line.voice == Voice::Tool && line.text.contains("Kamal::Cli::HookError");
        self.lines.push(line);
    }

    fn read(&mut self, text: String) -> Line {
        let line = |text: String, voice| Line { text, voice, last_word: false, step: None };
        if let Some(found) = BUILDKIT_ERROR.captures(&text) {
            self.failed_step = found[1].parse().ok();
        }
        if let Some(found) = BUILDKIT.captures(&text) {
            let step = found[1].parse().ok();
            return Line { step, ..line(found[2].to_owned(), Voice::Build) };
        }
        if let Some(found) = BUILDPACK.captures(&text) {
            return line(found[1].to_owned(), Voice::Build);
        }
        if self.in_summary
            && let Some(found) = TIMED.captures(&text)
        {
            return line(found[1].to_owned(), Voice::Build);
        }
        if self.in_hook || OF_THE_APP.is_match(&text) {
            return line(text, Voice::App);
        }
        if PROCESS.is_match(&text) {
            return line(text, Voice::Process);
        }
        line(text, Voice::Tool)
    }
}

/// What the commands of a build printed counts only where one of them failed, and only of that one.
fn only_the_failed_command(lines: &mut Vec<Line>, failed: Option<u32>) {
    let command = lines.iter().any(|line| {
        line.voice == Voice::Process || line.text.contains("failed with status code: 51")
    });
    let gave_up = lines.iter().any(|line| BUILD_ERROR.is_match(&line.text));
    lines.retain(|line| match (line.voice, line.step, failed) {
        (Voice::Build, Some(step), Some(failed)) => step == failed,
        (Voice::Build, ..) => command || !gave_up,
        (Voice::Tool | Voice::Process | Voice::App, ..) => true,
    });
}

fn mark_last_word(lines: &mut [Line]) {
    let tool = |line: &Line| line.voice == Voice::Tool;
    let kamal = lines.iter().rposition(|line| tool(line) && KAMAL_ERROR.is_match(&line.text));
    match kamal {
        Some(from) => {
            for line in lines[from..].iter_mut().filter(|line| line.voice == Voice::Tool) {
                if line.text.starts_with("##[") || line.text.starts_with("Post job") {
                    break;
                }
                line.last_word = true;
            }
        }
        None => {
            for line in lines.iter_mut() {
                line.last_word = line.voice == Voice::Process
                    || (line.voice == Voice::Tool && BUILD_ERROR.is_match(&line.text));
            }
        }
    }
}
