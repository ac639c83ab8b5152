//! `configure_app`: how an environment's app is built and run.

use std::collections::BTreeMap;
use std::str::FromStr;

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::names::BadName;
use crate::domain::run_settings::{ProxyKind, Release};
use crate::mcp::{Answer, Call, Parameters, Server, ToolError, Word, Work, ask, bad_name, line};
use crate::operations::configure_app::{Preview, Reset, Wanted, preview, start, web};

/// How many lines of a file's change are told.
const LINES_TOLD: usize = 120;

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging.
    environment: String,
    #[schemars(range(min = 1, max = 65535))]
    port: Option<u16>,
    /// Answers 2xx when the app is ready.
    health_path: Option<String>,
    /// Starts the web process.
    command: Option<String>,
    /// By name, such as worker.
    processes: Option<BTreeMap<String, Process>>,
    /// Names and folders that outlive a deploy, such as data: /data.
    volumes: Option<BTreeMap<String, String>>,
    /// What the app keeps on disk may be lost.
    ephemeral: Option<bool>,
    response_timeout_s: Option<u32>,
    start_timeout_s: Option<u32>,
    drain_timeout_s: Option<u32>,
    /// false where answers come piece by piece.
    buffering: Option<bool>,
    /// Runs before a new version serves, such as migrations; `none` for nothing.
    release: Option<String>,
    /// The app's folder, for all its environments.
    root: Option<String>,
    proxy: Option<Proxy>,
    /// A branch whose pushes deploy.
    push_to_deploy: Option<String>,
    /// Settings to forget: fields above, `process worker`, `volume data`.
    reset: Option<Vec<String>>,
    /// Shows the change of the files.
    dry_run: Option<bool>,
    #[schemars(range(min = 0, max = 50))]
    wait_seconds: Option<u32>,
    idempotency_key: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
struct Process {
    command: Option<String>,
    memory_mb: Option<u32>,
    off: Option<bool>,
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Proxy {
    Kamal,
    Traefik,
}

#[tool_router(router = configure_app_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "configure_app",
        title = "Configure an app",
        description = "Changes how an environment's app is built and run; merges. The files in the repo follow, by pull request unless the app takes direct commits. Takes effect with the next deploy.",
        output_schema = schema_for_output::<Work>(),
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = true, open_world_hint = true)
    )]
    async fn configure_app(
        &self,
        Parameters(input): Parameters<Input>,
        mut call: Call,
    ) -> Result<Answer<Work>, ToolError> {
        let path = self.environment(&input.environment).await?;
        let ask = ask(&call, input.reason.clone(), input.idempotency_key.clone());
        let (dry_run, wait) = (input.dry_run == Some(true), input.wait_seconds);
        let wanted = wanted(input)?;
        if dry_run {
            let text = told(&preview(self.context(), &path, &wanted).await?);
            return Ok(Answer::deed(Word::NotExecuted, text.clone(), Work::said(text)));
        }
        let operation = start(self.context(), &path, &wanted, ask).await?;
        self.follow(&mut call, operation, wait).await
    }
}

fn wanted(input: Input) -> Result<Wanted, ToolError> {
    let mut wanted = Wanted {
        port: input.port,
        health_path: input.health_path,
        ephemeral: input.ephemeral,
        response_timeout_s: input.response_timeout_s,
        start_timeout_s: input.start_timeout_s,
        drain_timeout_s: input.drain_timeout_s,
        buffering: input.buffering,
        root: input.root,
        proxy: input.proxy.map(|proxy| match proxy {
            Proxy::Kamal => ProxyKind::Kamal,
            Proxy::Traefik => ProxyKind::Traefik,
        }),
        push_to_deploy: input.push_to_deploy.as_deref().map(parsed).transpose()?,
        ..Wanted::default()
    };
    if let Some(command) = &input.command {
        wanted
            .commands
            .extend(web().map(|web| parsed(command).map(|line| (web, line))).transpose()?);
    }
    for (name, process) in input.processes.unwrap_or_default() {
        let name = parsed::<crate::domain::names::ProcessName>(&name)?;
        if let Some(command) = &process.command {
            wanted.commands.insert(name.clone(), parsed(command)?);
        }
        wanted.memory_mb.extend(process.memory_mb.map(|memory| (name.clone(), memory)));
        wanted.off.extend(process.off.map(|off| (name, off)));
    }
    for (name, folder) in input.volumes.unwrap_or_default() {
        wanted.volumes.insert(parsed(&name)?, parsed(&folder)?);
    }
    wanted.release = match input.release.as_deref() {
        None => None,
        Some("none" | "") => Some(Release::Off),
        Some(command) => Some(Release::Command(parsed(command)?)),
    };
    wanted.reset =
        input.reset.unwrap_or_default().iter().map(|one| reset(one)).collect::<Result<_, _>>()?;
    Ok(wanted)
}

fn parsed<T: FromStr<Err = BadName>>(text: &str) -> Result<T, ToolError> {
    text.parse().map_err(bad_name)
}

fn reset(text: &str) -> Result<Reset, ToolError> {
    Ok(match text.split_once(' ').unwrap_or((text, "")) {
        ("process", name) => Reset::Process(parsed(name)?),
        ("volume", name) => Reset::Volume(parsed(name)?),
        ("response_timeout_s", "") => Reset::ResponseTimeout,
        ("start_timeout_s", "") => Reset::StartTimeout,
        ("drain_timeout_s", "") => Reset::DrainTimeout,
        ("buffering", "") => Reset::Buffering,
        ("release", "") => Reset::Release,
        ("push_to_deploy", "") => Reset::PushToDeploy,
        ("command", "") => {
            Reset::Process(web().ok_or_else(|| ToolError::new("bad_arguments", "no web process"))?)
        }
        _ => {
            let message =
                format!("in the field `reset`: `{}` is not a setting to forget", line(text, 60));
            return Err(ToolError::new("bad_arguments", message).fix(
                "give process NAME, volume NAME, command, response_timeout_s, start_timeout_s, drain_timeout_s, buffering, release or push_to_deploy",
            ));
        }
    })
}

/// The change to be read alone; the lines of files are data, fenced.
fn told(preview: &Preview) -> String {
    let mut text = match preview.settings.as_slice() {
        [] => "no setting would change".to_owned(),
        lines => lines.join("; "),
    };
    if preview.files.is_empty() {
        text += "\nno file in the repo would change";
    }
    for file in &preview.files {
        let note = if file.by_hand {
            ": edited by hand in the same place, so it would be left as it is; put these lines in yourself"
        } else {
            ""
        };
        text += &format!("\n{}{note}\n```diff\n", line(&file.path, 200));
        let lines: Vec<&str> = file.diff.lines().collect();
        for one in lines.iter().take(LINES_TOLD) {
            // A fence inside would end ours.
            text += &format!("{}\n", line(one, 300).replace("```", "` ` `"));
        }
        if lines.len() > LINES_TOLD {
            text += &format!("({} more lines)\n", lines.len() - LINES_TOLD);
        }
        text += "```";
    }
    text
}
