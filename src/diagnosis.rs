//! From the evidence of a failed run, or of an environment in trouble, to one root cause. Pure.
//!
//! A wrong cause is worse than none. A rule is a text that only its cause prints, each voice is
//! heard only about its own matters, and where the failed step is known only that stage's rules are
//! asked: what the app or its build printed is never taken for the words of a tool.

mod app;
mod boot;
mod build;
mod config;
mod evidence;
mod lines;
mod lock;
mod proxy;
mod pull;
mod push;
mod rule;
mod ssh;
mod start;
mod state;
mod tls;
mod vm;

use std::sync::LazyLock;

use serde::Serialize;

pub use evidence::{Certificate, ContainerFacts, Evidence, NameFacts, Power, Probe, VmFacts};

use lines::{Line, Voice, cleaned};
use rule::{By, Mends, Row, Rule, Stage};

/// The most lines of evidence.
const MAX_EVIDENCE: usize = 5;
/// The most characters of one.
const EVIDENCE_CHARS: usize = 300;

/// Why a deploy failed, or what is wrong now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// The stable code, such as `health_check_failed`.
    pub code: &'static str,
    /// What happened, in a sentence without a full stop. Parts of it are data from a log.
    pub cause: String,
    /// At most five lines that show it, the most telling first, cleaned of control characters and
    /// cut at 300.
    pub evidence: Vec<String>,
    /// What to do next.
    pub fix: String,
    /// Whether a call of VMKit mends it, without anybody's work on code, an account, a VM or a name.
    pub can_fix_itself: bool,
}

impl Cause {
    fn plain(code: &'static str, cause: &str, fix: &str) -> Self {
        let (cause, fix) = (cause.to_owned(), fix.to_owned());
        Self { code, cause, evidence: vec![], fix, can_fix_itself: false }
    }

    fn of(rule: &Rule, text: &str) -> Option<Self> {
        let (cause, fix) = rule.on_text(text)?;
        let can_fix_itself = rule.mends == Mends::Vmkit;
        Some(Self { code: rule.code, cause, evidence: vec![], fix, can_fix_itself })
    }

    /// A deeper cause, with the evidence of both.
    fn because(self, mut deeper: Self) -> Self {
        deeper.evidence.extend(self.evidence);
        deeper
    }
}

/// A piece of somebody's text for a sentence of ours.
fn cut(text: &str) -> String {
    cleaned(text).trim().chars().take(200).collect()
}

/// The tables in the order in which they are asked: that of causes, not of places in a log.
const TABLES: [(Stage, &[Row]); 13] = [
    (Stage::Start, start::ROWS),
    (Stage::Build, build::ROWS),
    (Stage::Push, push::ROWS),
    (Stage::Build, build::LAST),
    (Stage::Lock, lock::ROWS),
    (Stage::Config, config::ROWS),
    (Stage::Ssh, ssh::ROWS),
    (Stage::Vm, vm::ROWS),
    (Stage::Pull, pull::ROWS),
    (Stage::Pull, push::ROWS),
    (Stage::Proxy, proxy::ROWS),
    (Stage::Tls, tls::ROWS),
    (Stage::Boot, boot::ROWS),
];

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let rules =
        |(stage, rows): (Stage, &'static [Row])| rows.iter().map(move |row| Rule::new(stage, *row));
    TABLES.into_iter().flat_map(rules).collect()
});
static NOTES: LazyLock<Vec<Rule>> =
    LazyLock::new(|| start::NOTES.iter().map(|row| Rule::new(Stage::Start, *row)).collect());

/// The lines of a job's log for a reader: cleaned, without time stamps, the last 20,000.
pub fn job_lines(log: &str) -> Vec<String> {
    lines::for_a_reader(log)
}

/// The root cause in all that is known, if a rule knows it.
pub fn diagnose(evidence: &Evidence) -> Option<Cause> {
    let lines = lines::of_job(&evidence.job_log);
    let run = evidence.conclusion.as_deref();
    let failed = !evidence.job_log.is_empty() || run.is_some_and(|run| run != "success");
    let noted = noted(evidence, run);
    // A log of a run that somebody stopped ends anywhere: nothing in it failed.
    if run == Some("cancelled") && noted.is_none() {
        return None;
    }
    let found = noted
        .or_else(|| in_job(evidence, &lines).map(|found| deeper(found, evidence, &lines)))
        .or_else(|| if failed { state::power(evidence) } else { state::at_present(evidence) })?;
    Some(finished(env_changed(found, evidence), evidence))
}

/// What GitHub says beside the log.
fn noted(evidence: &Evidence, run: Option<&str>) -> Option<Cause> {
    let has_log = !evidence.job_log.trim().is_empty();
    let note = NOTES.iter().find_map(|rule| {
        let line = evidence.annotations.iter().take(100).map(|note| cleaned(note));
        let line = line.into_iter().find(|line| rule.on_text(line).is_some())?;
        start::believed(rule.code, has_log, run).then_some(())?;
        Some(Cause { evidence: vec![line.clone()], ..Cause::of(rule, &line)? })
    });
    if note.is_some() {
        return note;
    }
    if run == Some("startup_failure") {
        let mut found = Cause::plain(
            "workflow_refused",
            "GitHub refused the workflow before any job began: the repo's or the organisation's Actions policy forbids an action of it, or its YAML is broken",
            "allow the actions in Settings, Actions, General; or call `setup_repo` again, which writes the workflow anew",
        );
        found.evidence.extend(evidence.annotations.iter().take(2).map(|note| cut(note)));
        return Some(found);
    }
    if let Some(refused) = &evidence.refused {
        let start = RULES.iter().filter(|rule| rule.stage == Stage::Start);
        let found = start.filter_map(|rule| Cause::of(rule, refused)).next()?;
        return Some(Cause { evidence: vec![cut(refused)], ..found });
    }
    let trouble = evidence.github.as_deref().filter(|_| !has_log)?;
    let mut found = Cause::plain(
        "github_down",
        "GitHub does not answer as it should",
        "wait some minutes and call `deploy` with environment `{environment}`; githubstatus.com tells of disturbances",
    );
    found.can_fix_itself = true;
    found.evidence.push(cut(trouble));
    Some(found)
}

/// The stages that the failed step can have failed at; none where everything can be.
fn stages(evidence: &Evidence) -> Option<&'static [Stage]> {
    const START: &[Stage] = &[Stage::Start];
    const BUILD: &[Stage] = &[Stage::Start, Stage::Build, Stage::Push];
    const DEPLOY: &[Stage] = &[
        Stage::Start,
        Stage::Config,
        Stage::Ssh,
        Stage::Vm,
        Stage::Pull,
        Stage::Lock,
        Stage::Proxy,
        Stage::Boot,
        Stage::App,
        Stage::Tls,
    ];
    let step = evidence.step.as_deref().unwrap_or_default().to_lowercase();
    let job = evidence.job.as_deref().unwrap_or_default().to_lowercase();
    let named = |words: &[&str]| words.iter().any(|word| step.contains(word));
    if step.is_empty() {
        return match job.as_str() {
            "build" => Some(BUILD),
            "deploy" => Some(DEPLOY),
            _ => None,
        };
    }
    if named(&["test", "lint", "check", "lock"]) {
        return Some(START);
    }
    if named(&["build and push", "log in to", "docker", "buildx", "set up pack", "build the image"])
    {
        return Some(BUILD);
    }
    Some(if named(&["kamal"]) && !named(&["install", "check out"]) { DEPLOY } else { START })
}

fn in_job(evidence: &Evidence, lines: &[Line]) -> Option<Cause> {
    let stages = stages(evidence);
    let gave_up = lines.iter().any(|line| line.last_word);
    // Where the tool says what it failed on, nothing else that it said counts.
    let counts = |rule: &Rule, line: &Line| match rule.by {
        By::Tool => line.last_word || !gave_up,
        By::Build | By::App => true,
    };
    let allowed = |rule: &&Rule| stages.is_none_or(|stages| stages.contains(&rule.stage));
    RULES.iter().filter(allowed).find_map(|rule| {
        let hit = |line: &Line| if counts(rule, line) { rule.on(line) } else { None };
        let (at, (cause, fix)) =
            lines.iter().enumerate().find_map(|(at, line)| Some((at, hit(line)?)))?;
        let can_fix_itself = rule.mends == Mends::Vmkit;
        Some(Cause { code: rule.code, cause, evidence: shown(lines, at), fix, can_fix_itself })
    })
}

/// First the line that gave the cause away; then its neighbours of the same voice, where a command
/// or a file stands, and Kamal's own last word.
fn shown(lines: &[Line], at: usize) -> Vec<String> {
    let last_word = lines.iter().position(|l| l.last_word && l.text.contains("ERROR ("));
    let near = (at.saturating_sub(1)..at).chain(at + 1..lines.len().min(at + 3));
    let near = near.filter(|place| lines[*place].voice == lines[at].voice);
    let places = std::iter::once(at).chain(near).chain(last_word);
    places.map(|place| lines[place].text.clone()).collect()
}

/// What the job's log says, seen in the light of the rest.
fn deeper(found: Cause, evidence: &Evidence, lines: &[Line]) -> Cause {
    let of_the_app = || lines.iter().filter(|line| line.voice == Voice::App);
    match found.code {
        "vm_unreachable" | "ssh_throttled" => match state::power(evidence) {
            Some(off) => found.because(off),
            None => found,
        },
        "deploy_locked" => match lock::holder(lines) {
            Some((at, who)) => {
                let cause = format!("the deploy lock is held by {}", cut(who));
                let mut held = Cause { cause, ..found.clone() };
                held.evidence = shown(lines, at);
                found.because(held)
            }
            None => found,
        },
        "hook_failed" => {
            let said: Vec<String> = of_the_app().map(|line| line.text.clone()).collect();
            let own = boot::unrunnable(&said).or_else(|| boot::release(&said, evidence));
            match own.or_else(|| app::in_log(&said)) {
                Some(deeper) => found.because(deeper),
                None => found,
            }
        }
        "disk_full" => state::with_disk(found, evidence),
        boot::HEALTH | "process_not_running" if evidence.app_log.is_empty() => {
            let said: Vec<&str> = of_the_app().map(|line| line.text.as_str()).collect();
            let with_log = Evidence { app_log: said.join("\n"), ..evidence.clone() };
            boot::refined(found, &with_log)
        }
        boot::HEALTH | "process_not_running" => boot::refined(found, evidence),
        _ => found,
    }
}

/// An env value that changed since the last good deploy, where it can be what broke the app.
fn env_changed(mut found: Cause, evidence: &Evidence) -> Cause {
    let related: &[&str] = match found.code {
        "missing_env_key"
        | "crashed_at_start"
        | "crash_loop"
        | "module_missing"
        | "app_error"
        | "env_line_too_long"
        | boot::HEALTH => &[],
        "database_unreachable" | "database_login_refused" => {
            &["DATABASE", "DB_", "PG", "POSTGRES", "MYSQL", "REDIS", "MONGO"]
        }
        "wrong_port" => &["PORT", "HOST", "BIND", "LISTEN"],
        _ => return found,
    };
    if evidence.env_changed.is_empty() {
        return found;
    }
    let changed: Vec<String> = evidence.env_changed.iter().take(10).map(|key| cut(key)).collect();
    let key_of = |changed: &str| changed.split(' ').next().unwrap_or_default().to_owned();
    let named = changed.iter().map(|one| key_of(one)).find(|key| {
        let said = found.evidence.iter().any(|line| line.contains(key.as_str()));
        !key.is_empty() && (said || related.iter().any(|word| key.contains(word)))
    });
    let since = format!("env keys that differ from the last good deploy: {}", changed.join(", "));
    let only_env = evidence.same_commit == Some(true);
    let guilty = named.or_else(|| only_env.then(|| key_of(&changed[0])));
    found.evidence.insert(found.evidence.len().min(2), since);
    match guilty {
        Some(key) if found.code != "missing_env_key" => Cause {
            code: "env_key_changed",
            cause: format!(
                "the env key {key} was changed since the last good deploy, and {}",
                found.cause
            ),
            fix: format!(
                "call `set_env` with environment `{{environment}}` to mend {key}, then `deploy` with ref `current`; or `rollback`, which takes the old values"
            ),
            ..found
        },
        Some(_) | None => found,
    }
}

/// The environment's name in the fix, and the evidence cleaned and cut.
fn finished(mut found: Cause, evidence: &Evidence) -> Cause {
    let path = evidence.environment.as_deref().unwrap_or("ENVIRONMENT");
    let name = path.rsplit('/').next().unwrap_or(path);
    found.fix = found.fix.replace("{environment}", path).replace("{name}", name);
    let mut shown: Vec<String> = Vec::new();
    for line in &found.evidence {
        let line: String = cleaned(line).trim().chars().take(EVIDENCE_CHARS).collect();
        if !line.is_empty() && !shown.contains(&line) {
            shown.push(line);
        }
    }
    shown.truncate(MAX_EVIDENCE);
    found.evidence = shown;
    found
}

#[cfg(test)]
mod tests;
