//! `scan_repo`: what a repo is and what stands in the way of its first deploy.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::mcp::{Answer, Parameters, Server, ToolError, line};
use crate::operations::repo::{Scanned, scan};

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// The GitHub repo as owner/name.
    repo: String,
    /// Branch, tag or commit; the default branch otherwise.
    #[serde(rename = "ref")]
    git_ref: Option<String>,
    /// The app's folder in a monorepo.
    root: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    repo: String,
    commit: String,
    stack: String,
    port: u16,
    health_path: String,
    processes: Vec<String>,
    env_keys: Vec<String>,
    build_env_keys: Vec<String>,
    services: Vec<String>,
    state_on_disk: Vec<String>,
    blocking: Vec<String>,
    notes: Vec<String>,
}

#[tool_router(router = scan_repo_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "scan_repo",
        title = "Scan a repo",
        description = "Reads a few files of a GitHub repo and says how it would be built and run: stack, processes, port, health path, env keys, services, state on disk, and what blocks a first deploy. Changes nothing.",
        output_schema = schema_for_output::<Output>(),
        annotations(read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = true)
    )]
    async fn scan_repo(
        &self,
        Parameters(input): Parameters<Input>,
    ) -> Result<Answer<Output>, ToolError> {
        let repo = self.repo(&input.repo).await?;
        let root = input.root.as_deref().unwrap_or(".");
        let github = self.github().await?;
        let scanned = scan(&github, &repo, input.git_ref.as_deref(), root).await?;
        let facts = facts(scanned);
        Ok(Answer::facts(text(&facts), facts))
    }
}

/// File names and lines of a repo come from outside: each is one clean line.
fn clean(items: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
    items.into_iter().map(|item| line(item.as_ref(), 200)).collect()
}

fn facts(scanned: Scanned) -> Output {
    let Scanned { repo, commit, scan } = scanned;
    let rows = |blocking: bool| {
        let of = scan.checklist.iter().filter(move |check| check.blocking == blocking);
        clean(of.map(|check| match &check.from_file {
            Some(file) => format!("{} ({file})", check.text),
            None => check.text.clone(),
        }))
    };
    Output {
        repo: repo.full_name.to_string(),
        commit: format!("{} {}", commit.sha.short(), line(&commit.subject, 80)),
        stack: line(&scan.stack, 100),
        port: scan.port,
        health_path: line(&scan.health_path, 100),
        processes: clean(scan.processes.iter().map(|p| format!("{}: {}", p.name, p.command))),
        env_keys: clean(scan.env_keys.runtime.iter().map(|key| key.as_str())),
        build_env_keys: clean(scan.env_keys.build.iter().map(|key| key.as_str())),
        services: clean(&scan.services),
        state_on_disk: clean(&scan.state_on_disk),
        blocking: rows(true),
        notes: rows(false),
    }
}

fn text(facts: &Output) -> String {
    let mut lines = vec![
        format!("{} at {}: {}", facts.repo, facts.commit, facts.stack),
        format!("port {}, health path {}", facts.port, facts.health_path),
    ];
    let list = |name: &str, items: &[String]| {
        (!items.is_empty()).then(|| format!("{name}: {}", items.join("; ")))
    };
    lines.extend(list("processes", &facts.processes));
    lines.extend(list("env keys at run time", &facts.env_keys));
    lines.extend(list("env keys at build time", &facts.build_env_keys));
    lines.extend(list("services", &facts.services));
    lines.extend(list("state on disk", &facts.state_on_disk));
    lines.extend(list("notes", &facts.notes));
    lines.push(match list("BLOCKING", &facts.blocking) {
        Some(blocking) => blocking,
        None => "nothing blocks a first deploy; next: `setup_repo`".to_owned(),
    });
    lines.join("\n")
}
