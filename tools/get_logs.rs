//! `get_logs`: an app's own output, its proxy's, its machine's, or the log of a deploy's job. Text
//! only, fenced as data from outside.

use regex::Regex;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use vmkit_agent_protocol::logs::SystemLog;

use crate::domain::clock::Millis;
use crate::domain::log_lines;
use crate::mcp::{Answer, Parameters, Server, ToolError, fence, line, when};
use crate::queries::deploy_log::{DeployLog, deploy_log};
use crate::queries::logs::{
    Cursor, LogLine, LogPage, LogSource, Wanted, clusters, logs, new_since_deploy,
};

const LINES: u32 = 100;
/// Lines that are put together, or compared.
const LINES_COMPARED: usize = 5_000;
const TOKENS: u32 = 8_000;
const LINE_MAX: usize = 2_000;
/// Kinds of lines that are shown.
const KINDS: usize = 40;

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Source {
    #[default]
    App,
    Proxy,
    Deploy,
    System,
    Agent,
    Boot,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Unit {
    Kernel,
    Ssh,
    Docker,
    Upgrades,
    Systemd,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Level {
    Error,
    Warn,
    Info,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum View {
    Lines,
    Clusters,
    NewSinceDeploy,
}

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging.
    environment: String,
    /// deploy: the newest deploy's failed (else last) job, with grep and limit only.
    source: Option<Source>,
    /// Of source system; all by default.
    unit: Option<Unit>,
    /// From this age (15m, 2h) or time on.
    since: Option<String>,
    /// Before this age or time.
    until: Option<String>,
    /// Regular expression.
    grep: Option<String>,
    /// At least as bad.
    level: Option<Level>,
    /// Such as web.
    role: Option<String>,
    /// clusters: like lines counted together.
    view: Option<View>,
    /// The newest; 100 by default.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
    /// From an earlier answer: the lines before.
    cursor: Option<String>,
    #[schemars(range(min = 200, max = 20000))]
    max_tokens: Option<u32>,
}

#[tool_router(router = get_logs_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "get_logs",
        title = "Logs",
        description = "Log lines of an environment, newest last: its app, proxy, a deploy's job, or its VM. Says from when on nothing is missing.",
        annotations(
            read_only_hint = true,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = true
        )
    )]
    async fn get_logs(
        &self,
        Parameters(input): Parameters<Input>,
    ) -> Result<Answer<()>, ToolError> {
        let path = self.environment(&input.environment).await?;
        let context = self.context();
        let bytes_max = input.max_tokens.unwrap_or(TOKENS) as usize * 4;
        if input.source == Some(Source::Deploy) {
            only_grep_and_limit(&input)?;
            let grep = input.grep.as_deref().map(pattern).transpose()?;
            let limit = input.limit.unwrap_or(LINES) as usize;
            let log = deploy_log(context, &path, grep.as_ref(), limit).await?;
            return Ok(Answer::text(job_text(&log, bytes_max)));
        }
        let wanted = wanted(&input, context.clock.now())?;
        let page = logs(&context.store, &context.vault, &context.fleet, &path, wanted).await?;
        let environment = path.to_string();
        Ok(Answer::text(match input.view.unwrap_or(View::Lines) {
            View::Lines => lines_text(&page, &environment, bytes_max),
            View::Clusters => {
                let kinds = clusters(page.lines.iter());
                let what = format!("{} kinds in {} lines of", kinds.len(), page.lines.len());
                let head = format!("{what} {environment}; {}", notes(&page).join("; "));
                kinds_text(&head, &kinds, bytes_max)
            }
            View::NewSinceDeploy => match new_since_deploy(&page.lines) {
                Some(new) => {
                    let head = format!(
                        "{} kinds of lines are new in version {}, by {} of its lines and {} of those before; {}",
                        new.clusters.len(),
                        line(&new.version, 12),
                        new.compared.0,
                        new.compared.1,
                        notes(&page).join("; ")
                    );
                    kinds_text(&head, &new.clusters, bytes_max)
                }
                None => format!(
                    "there are lines of one version of {environment} only: nothing to compare; set `since` to before the deploy"
                ),
            },
        }))
    }
}

fn only_grep_and_limit(input: &Input) -> Result<(), ToolError> {
    let others = input.since.is_some()
        || input.until.is_some()
        || input.role.is_some()
        || input.level.is_some()
        || input.cursor.is_some()
        || input.unit.is_some()
        || input.view.is_some();
    if !others {
        return Ok(());
    }
    Err(ToolError::new(
        "bad_argument",
        "with source `deploy` only `grep` and `limit` mean something",
    )
    .fix("leave the others out"))
}

fn wanted(input: &Input, now: Millis) -> Result<Wanted, ToolError> {
    let time = |field: &str, text: &Option<String>| {
        text.as_deref().map(|text| when(field, text, now)).transpose()
    };
    let lines = input.view.is_none_or(|view| view == View::Lines);
    let limit = if lines { input.limit.unwrap_or(LINES) as usize } else { LINES_COMPARED };
    Ok(Wanted {
        source: source(input)?,
        role: input.role.clone(),
        since: time("since", &input.since)?,
        until: time("until", &input.until)?,
        grep: input.grep.as_deref().map(pattern).transpose()?,
        level: input.level.map(|level| match level {
            Level::Error => log_lines::Level::Error,
            Level::Warn => log_lines::Level::Warn,
            Level::Info => log_lines::Level::Info,
        }),
        cursor: input.cursor.as_deref().map(cursor).transpose()?,
        limit,
    })
}

fn source(input: &Input) -> Result<LogSource, ToolError> {
    let source = input.source.unwrap_or_default();
    if input.unit.is_some() && source != Source::System {
        return Err(ToolError::new("bad_argument", "`unit` belongs to source `system`")
            .fix("set source to `system`, or leave `unit` out"));
    }
    let unit = |unit| match unit {
        Unit::Kernel => SystemLog::Kernel,
        Unit::Ssh => SystemLog::Ssh,
        Unit::Docker => SystemLog::Docker,
        Unit::Upgrades => SystemLog::Upgrades,
        Unit::Systemd => SystemLog::Systemd,
    };
    Ok(match source {
        Source::App | Source::Deploy => LogSource::App,
        Source::Proxy => LogSource::Proxy,
        Source::Agent => LogSource::System(vec![SystemLog::Agent]),
        Source::Boot => LogSource::System(vec![SystemLog::Boot]),
        Source::System => LogSource::System(match input.unit {
            Some(one) => vec![unit(one)],
            None => [Unit::Kernel, Unit::Ssh, Unit::Docker, Unit::Upgrades, Unit::Systemd]
                .map(unit)
                .to_vec(),
        }),
    })
}

fn pattern(text: &str) -> Result<Regex, ToolError> {
    Regex::new(text).map_err(|error| {
        let reason = line(&error.to_string(), 200);
        ToolError::new(
            "bad_pattern",
            format!("the field `grep` is no regular expression: {reason}"),
        )
        .fix("escape characters such as ( [ . * with a backslash")
    })
}

/// As [`lines_text`] writes it: the time in milliseconds, and how many lines of it were shown.
fn cursor(text: &str) -> Result<Cursor, ToolError> {
    let parsed = text.split_once('-').and_then(|(time, shown)| {
        Some(Cursor { time: Millis(time.parse().ok()?), shown: shown.parse().ok()? })
    });
    parsed.ok_or_else(|| {
        ToolError::new("bad_argument", format!("the field `cursor` is `{}`", line(text, 40)))
            .fix("give the cursor of an earlier answer as it stood there")
    })
}

fn job_text(log: &DeployLog, bytes_max: usize) -> String {
    let mut kept: Vec<String> = Vec::new();
    let mut bytes = 0;
    for said in log.lines.iter().rev() {
        let said: String = said.chars().take(LINE_MAX).collect();
        bytes += said.len() + 1;
        if bytes > bytes_max {
            break;
        }
        kept.push(said);
    }
    let older = log.more || kept.len() < log.lines.len();
    kept.reverse();
    let older = if older { "; older lines match too, narrow with grep" } else { "" };
    let head = format!("{} lines of {}, {}{older}", kept.len(), log.what, log.url);
    if kept.is_empty() { head } else { format!("{head}\n{}", fence("logs", &kept.join("\n"))) }
}

fn lines_text(page: &LogPage, environment: &str, bytes_max: usize) -> String {
    let mut kept: Vec<(&LogLine, String)> = Vec::new();
    let mut bytes = 0;
    for one in page.lines.iter().rev() {
        let version = one.version.as_deref().map(|v| v.chars().take(7).collect::<String>());
        let from = one.role.clone().unwrap_or_else(|| one.container.clone());
        let said: String = one_line(&one.text).chars().take(LINE_MAX).collect();
        let goes_on = if one.more || said.len() < one.text.len() { " […]" } else { "" };
        let version = version.unwrap_or_default();
        let shown = format!("{} {from} {version} {said}{goes_on}", one.time.rfc3339());
        bytes += shown.len() + 1;
        if bytes > bytes_max {
            break;
        }
        kept.push((one, shown));
    }
    let older = kept.len() < page.lines.len() || page.more;
    let mut head = vec![match kept.len() {
        0 => format!("no lines of {environment} match"),
        1 => format!("1 line of {environment}"),
        many => format!("{many} lines of {environment}"),
    }];
    head.extend(notes(page));
    if older && let Some((oldest, _)) = kept.last() {
        let shown = kept.iter().filter(|(one, _)| one.time == oldest.time).count();
        head.push(format!("older lines match too: cursor {}-{shown}", oldest.time.0));
    }
    let head = head.join("; ");
    if kept.is_empty() {
        return head;
    }
    let texts: Vec<String> = kept.into_iter().rev().map(|(_, shown)| shown).collect();
    format!("{head}\n{}", fence("logs", &texts.join("\n")))
}

/// What stands in one line stays in one: else an app could write lines that look like ours.
fn one_line(text: &str) -> String {
    text.replace(['\r', '\n', '\u{2028}', '\u{2029}'], " ")
}

fn kinds_text(head: &str, kinds: &[log_lines::Cluster], bytes_max: usize) -> String {
    let mut bytes = 0;
    let shown: Vec<String> = kinds
        .iter()
        .take(KINDS)
        .map(|kind| {
            let example: String = one_line(&kind.example).chars().take(LINE_MAX / 4).collect();
            let (first, last) = (kind.first.rfc3339(), kind.last.rfc3339());
            format!("{} × from {first} to {last}: {example}", kind.count)
        })
        .take_while(|text| {
            bytes += text.len() + 1;
            bytes <= bytes_max
        })
        .collect();
    if shown.is_empty() {
        head.to_owned()
    } else {
        format!("{head}\n{}", fence("logs", &shown.join("\n")))
    }
}

fn notes(page: &LogPage) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    notes.extend(
        page.covered_from.map(|from| format!("nothing is missing since {}", from.rfc3339())),
    );
    if page.dropped > 0 {
        notes.push(format!("{} lines were lost", page.dropped));
    }
    if !page.live {
        let why = page.trouble.as_ref().map(|why| format!(" ({})", line(why, 200)));
        let why = why.unwrap_or_default();
        notes.push(format!("the VM did not tell{why}, so this is what was kept of earlier"));
    }
    notes
}
