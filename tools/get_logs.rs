//! `get_logs`: an app's own output, or the log of a deploy's job. Text only, fenced as data from outside.

use regex::Regex;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::mcp::{Answer, Parameters, Server, ToolError, fence, line, when};
use crate::queries::deploy_log::{DeployLog, deploy_log};
use crate::queries::logs::{Wanted, logs};

const LINES: u32 = 100;
/// About 8,000 tokens: what is older is left out and said so.
const BYTES_MAX: usize = 32_000;
const LINE_MAX: usize = 2_000;

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Source {
    #[default]
    App,
    Deploy,
}

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging.
    environment: String,
    /// deploy: the newest deploy's failed (else last) job, with grep and limit only.
    source: Option<Source>,
    /// From this age (15m, 2h) or time on.
    since: Option<String>,
    /// Before this age or time.
    until: Option<String>,
    /// Only lines that match this regular expression.
    grep: Option<String>,
    /// One role, such as web.
    role: Option<String>,
    /// How many lines, the newest; 100 by default.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

#[tool_router(router = get_logs_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "get_logs",
        title = "Logs",
        description = "The app's own output in an environment, newest lines last, with since, until and grep; or a deploy's job log. Says from when on nothing is missing.",
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
        let now = context.clock.now();
        let limit = input.limit.unwrap_or(LINES) as usize;
        if input.source == Some(Source::Deploy) {
            if input.since.is_some() || input.until.is_some() || input.role.is_some() {
                return Err(ToolError::new(
                    "bad_argument",
                    "with source `deploy` the fields `since`, `until` and `role` mean nothing",
                )
                .fix("leave them out; `grep` and `limit` work"));
            }
            let grep = input.grep.as_deref().map(pattern).transpose()?;
            let log = deploy_log(context, &path, grep.as_ref(), limit).await?;
            return Ok(Answer::text(job_text(&log)));
        }
        let time = |field: &str, text: Option<String>| {
            text.map(|text| when(field, &text, now)).transpose()
        };
        let wanted = Wanted {
            role: input.role,
            since: time("since", input.since)?,
            until: time("until", input.until)?,
            grep: input.grep.as_deref().map(pattern).transpose()?,
            limit,
        };
        let page = logs(&context.store, &context.vault, &context.fleet, &path, wanted).await?;
        Ok(Answer::text(text(&page, &path.to_string())))
    }
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

fn job_text(log: &DeployLog) -> String {
    let mut kept: Vec<String> = Vec::new();
    let mut bytes = 0;
    for said in log.lines.iter().rev() {
        let said: String = said.chars().take(LINE_MAX).collect();
        bytes += said.len() + 1;
        if bytes > BYTES_MAX {
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

fn text(page: &crate::queries::logs::LogPage, environment: &str) -> String {
    let mut kept = Vec::new();
    let mut bytes = 0;
    for one in page.lines.iter().rev() {
        let version = one.version.as_deref().map(|v| v.chars().take(7).collect::<String>());
        let from = one.role.clone().unwrap_or_else(|| one.container.clone());
        let said: String = one.text.chars().take(LINE_MAX).collect();
        let shown = format!("{} {from} {} {said}", one.time.rfc3339(), version.unwrap_or_default());
        bytes += shown.len() + 1;
        if bytes > BYTES_MAX {
            break;
        }
        kept.push(shown);
    }
    let left_out = page.lines.len() - kept.len();
    kept.reverse();
    let mut notes = vec![match kept.len() {
        0 => format!("no lines of {environment} match"),
        1 => format!("1 line of {environment}"),
        many => format!("{many} lines of {environment}"),
    }];
    notes.extend(
        page.covered_from.map(|from| format!("nothing is missing since {}", from.rfc3339())),
    );
    if left_out > 0 || page.more {
        notes.push("older lines match too; narrow with since, until or grep".to_owned());
    }
    if page.dropped > 0 {
        notes.push(format!("{} lines were lost", page.dropped));
    }
    if !page.live {
        notes.push("the VM's agent did not answer, so this is what was kept of earlier".to_owned());
    }
    if kept.is_empty() {
        return notes.join("; ");
    }
    format!("{}\n{}", notes.join("; "), fence("logs", &kept.join("\n")))
}
