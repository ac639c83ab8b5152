//! `scan_repo`: what a repo is and what stands in the way of its first deploy.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::mcp::{Answer, Parameters, Server, ToolError, fence, line};
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
    services: Vec<String>,
    state_on_disk: Vec<String>,
    blocking: Vec<String>,
    notes: Vec<String>,
    /// `build`, `build_env_keys`, `package_manager`, `version`, `migrations`, `flags`, `roots`, as far as known.
    more: Map<String, Value>,
}

#[tool_router(router = scan_repo_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "scan_repo",
        title = "Scan a repo",
        description = "Reads a few files of a GitHub repo and says how it would be built and run: stack, processes, port, health path, env keys, services, migrations, state on disk, and a checklist of what blocks a first deploy. Changes nothing.",
        output_schema = schema_for_output::<Output>(),
        annotations(read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = true)
    )]
    async fn scan_repo(
        &self,
        Parameters(input): Parameters<Input>,
    ) -> Result<Answer<Output>, ToolError> {
        let repo = self.repo(&input.repo).await?;
        let root = input.root.as_deref().unwrap_or(".").trim_matches('/');
        let root = if root.is_empty() { "." } else { root };
        let github = self.github().await?;
        let scanned = scan(&github, &repo, input.git_ref.as_deref(), root).await?;
        let codes: Vec<String> = scanned.scan.blocking().map(|check| check.code.clone()).collect();
        let facts = facts(scanned);
        Ok(Answer::facts(text(&facts, &codes), facts))
    }
}

/// The most items of a list that are sent.
const ITEMS_MAX: usize = 40;

/// File names and lines of a repo come from outside: each is one clean line.
fn clean(items: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
    items.into_iter().take(ITEMS_MAX).map(|item| line(item.as_ref(), 300)).collect()
}

fn facts(scanned: Scanned) -> Output {
    let more = more(&scanned);
    let Scanned { repo, commit, scan } = scanned;
    let rows = |blocking: bool| {
        let of = scan.checklist.iter().filter(move |check| check.blocking == blocking);
        clean(of.map(|check| match &check.from_file {
            Some(file) => format!("{}: {} ({file})", check.code, check.told()),
            None => format!("{}: {}", check.code, check.told()),
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
        services: clean(&scan.services),
        state_on_disk: clean(&scan.state_on_disk),
        blocking: rows(true),
        notes: rows(false),
        more,
    }
}

fn more(scanned: &Scanned) -> Map<String, Value> {
    let scan = &scanned.scan;
    let mut more = Map::new();
    if let Some(built) = scanned.built() {
        more.insert("build".to_owned(), json!(line(&built, 200)));
    }
    let texts = [
        ("package_manager", &scan.package_manager),
        ("version", &scan.version),
        ("migrations", &scan.migrations),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            more.insert(name.to_owned(), json!(line(text, 200)));
        }
    }
    if !scan.env_keys.build.is_empty() {
        let keys = clean(scan.env_keys.build.iter().map(|key| key.as_str()));
        more.insert("build_env_keys".to_owned(), json!(keys));
    }
    if !scan.flags.is_empty() {
        more.insert("flags".to_owned(), json!(scan.flags));
    }
    if !scan.roots.is_empty() {
        more.insert("roots".to_owned(), json!(clean(&scan.roots)));
    }
    more
}

/// The verdict in words of ours, then what the repo says, as data.
fn text(facts: &Output, codes: &[String]) -> String {
    let short = facts.commit.split(' ').next().unwrap_or_default();
    let built = facts.more.get("build").and_then(Value::as_str);
    let how = built.map_or_else(|| "nothing builds it yet".to_owned(), |b| format!("built by {b}"));
    let verdict = match codes {
        [] => "nothing blocks a first deploy; next: `setup_repo`".to_owned(),
        codes => format!(
            "cannot deploy: {} (each row below says what to do; then push and scan again)",
            codes.join(", ")
        ),
    };
    let mut lines = vec![format!("commit: {}", facts.commit)];
    let list = |name: &str, items: &[String], between: &str| {
        (!items.is_empty()).then(|| format!("{name}: {}", items.join(between)))
    };
    lines.extend(list("BLOCKING", &facts.blocking, "\n  "));
    lines.push(format!("port {}, health path {}", facts.port, facts.health_path));
    lines.extend(list("processes", &facts.processes, "; "));
    for name in ["package_manager", "version", "migrations", "build_env_keys", "flags", "roots"] {
        if let Some(value) = facts.more.get(name) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            lines.push(format!("{}: {value}", name.replace('_', " ")));
        }
    }
    lines.extend(list("env keys at run time", &facts.env_keys, ", "));
    lines.extend(list("services", &facts.services, ", "));
    lines.extend(list("state on disk", &facts.state_on_disk, ", "));
    lines.extend(list("notes", &facts.notes, "\n  "));
    let repo = &facts.repo;
    let known = fence("repo", &lines.join("\n"));
    format!("{repo} at {short}: {}, {how}; {verdict}\n{known}", facts.stack)
}
