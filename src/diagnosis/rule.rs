//! A row of the tables: who says what, what it means, and what to do about it.

use regex::Regex;

use super::lines::{Line, Voice};

/// At which point of a deploy a cause lies. The order is that of a deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Start,
    Build,
    Push,
    Config,
    Ssh,
    Vm,
    Pull,
    Lock,
    Proxy,
    Boot,
    App,
    Tls,
}

/// Who can mend a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mends {
    /// A call of VMKit, as it is.
    Vmkit,
    /// A person: code, an account, a VM, a name.
    Person,
}

/// Whose words a row knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// A tool's.
    Tool,
    /// Those of a command of the build, or of the tool that says that it failed.
    Build,
    /// The app's.
    App,
}

/// Code, whose words, pattern, cause, fix, who mends it, where the text is from: the table of
/// failure texts of the pipeline's facts (`table`), a run that was looked at (`seen`), or the
/// tool's own source or manual (`tool`). `$1` is the pattern's first group; `{environment}` and
/// `{name}` are the environment's path and name.
pub(super) type Row =
    (&'static str, By, &'static str, &'static str, &'static str, Mends, &'static str);

/// A row with its pattern compiled.
pub(super) struct Rule {
    pub(super) stage: Stage,
    pub(super) code: &'static str,
    pub(super) by: By,
    pub(super) fix: &'static str,
    pub(super) mends: Mends,
    cause: &'static str,
    pattern: Regex,
}

impl Rule {
    pub(super) fn new(stage: Stage, row: Row) -> Self {
        let (code, by, pattern, cause, fix, mends, _source) = row;
        let pattern =
            Regex::new(pattern).expect("the patterns are fixed, and a test compiles them");
        Self { stage, code, by, fix, mends, cause, pattern }
    }

    /// The cause and the fix as sentences, if the line gives it away.
    pub(super) fn on(&self, line: &Line) -> Option<(String, String)> {
        let heard = match (self.by, line.voice) {
            (By::Tool, Voice::Tool)
            | (By::Build, Voice::Build | Voice::Process)
            | (By::App, Voice::App) => true,
            (
                By::Tool | By::Build | By::App,
                Voice::Tool | Voice::Process | Voice::Build | Voice::App,
            ) => false,
        };
        if heard { self.on_text(&line.text) } else { None }
    }

    /// The same of a text whose voice is known.
    pub(super) fn on_text(&self, text: &str) -> Option<(String, String)> {
        let groups = self.pattern.captures(text)?;
        let filled = |template: &str| {
            let mut text = template.to_owned();
            for at in (1..groups.len()).rev() {
                let group: String =
                    groups.get(at).map_or("", |m| m.as_str()).chars().take(200).collect();
                // What a log says cannot name another group.
                text = text.replace(&format!("${at}"), &group.trim().replace('$', "\u{ff04}"));
            }
            text.trim_end_matches([' ', ':', '.']).replace('\u{ff04}', "$")
        };
        Some((filled(self.cause), filled(self.fix)))
    }
}
