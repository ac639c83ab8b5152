//! `list_deploys`: history, what is live, where one can go back to.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::deploy::DeployState;
use crate::domain::names::EnvironmentPath;
use crate::mcp::{Answer, Parameters, Server, ToolError, line};
use crate::queries::deploys::{Changes, History, changes, history};

const LIMIT: u32 = 10;

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging.
    environment: String,
    /// How many, the newest; 10 by default.
    #[schemars(range(min = 1, max = 50))]
    limit: Option<u32>,
    /// Two deploy ids: tells what changed from the first to the second instead.
    #[schemars(length(min = 2, max = 2))]
    compare: Option<Vec<String>>,
}

#[derive(Default, Serialize, JsonSchema)]
struct Output {
    deploys: Vec<Line>,
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rollback_to: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    commits: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env_keys: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
struct Line {
    deploy: String,
    state: String,
    commit: String,
    subject: String,
    env_revision: u32,
    at: String,
    triggered_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_url: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    took: String,
}

#[tool_router(router = list_deploys_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "list_deploys",
        title = "Deploys",
        description = "The deploys of an environment, newest first: what is live, why others failed, where `rollback` would go; or what changed between two.",
        output_schema = schema_for_output::<Output>(),
        annotations(read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = false)
    )]
    async fn list_deploys(
        &self,
        Parameters(input): Parameters<Input>,
    ) -> Result<Answer<Output>, ToolError> {
        let path = self.environment(&input.environment).await?;
        let store = &self.context().store;
        if let Some(pair) = &input.compare {
            return self.compare(&path, pair).await;
        }
        let facts = facts(history(store, &path, input.limit.unwrap_or(LIMIT)).await?);
        Ok(Answer::facts(text(&facts), facts))
    }
}

impl Server {
    async fn compare(
        &self,
        path: &EnvironmentPath,
        pair: &[String],
    ) -> Result<Answer<Output>, ToolError> {
        let wrong = |why: String| {
            ToolError::new("bad_id", format!("in the field `compare`: {why}"))
                .fix("give two deploy ids that `list_deploys` names, the earlier one first")
        };
        let [from, to] = pair else {
            return Err(wrong(format!("two deploy ids are compared, not {}", pair.len())));
        };
        let id = |given: &str| given.parse().map_err(|error| wrong(format!("{error}")));
        let found = changes(self.context(), path, id(from)?, id(to)?).await?;
        let text = told(&found);
        let facts = Output {
            commits: found.commits,
            files: found.files,
            env_keys: found.env_keys,
            ..Output::default()
        };
        Ok(Answer::facts(text, facts))
    }
}

/// What changed between two deploys, to be read alone; what the repo says is data on lines of its
/// own.
fn told(found: &Changes) -> String {
    let mut lines = vec![match (found.ahead, found.behind) {
        (0, 0) => "the same commit".to_owned(),
        (ahead, 0) => format!("{ahead} commits further"),
        (0, behind) => format!("{behind} commits back"),
        (ahead, behind) => format!("{ahead} commits further on another line, {behind} left out"),
    }];
    lines.extend(found.commits.iter().map(|commit| format!("  {}", line(commit, 100))));
    if !found.files.is_empty() {
        let more = match found.files_in_all.saturating_sub(found.files.len()) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let files: Vec<String> = found.files.iter().map(|file| line(file, 120)).collect();
        lines.push(format!("files: {}{more}", files.join("; ")));
    }
    lines.push(match found.env_keys.as_slice() {
        [] => "no env value differs".to_owned(),
        keys => format!("env keys: {}", keys.join("; ")),
    });
    lines.join("\n")
}

fn facts(history: History) -> Output {
    let both = history.deploys.iter().zip(&history.courses);
    let lines = both.map(|(deploy, course)| Line {
        deploy: deploy.id.to_string(),
        // Of all that went live, one is live now.
        state: match deploy.state {
            DeployState::Live if history.live != Some(deploy.id) => "succeeded".to_owned(),
            state => state.as_str().to_owned(),
        },
        commit: deploy.commit.to_string(),
        subject: line(&deploy.subject, 80),
        env_revision: deploy.env_revision,
        at: deploy.created_at.rfc3339(),
        failure: deploy.failure.as_ref().map(|text| line(text, 300)),
        run_url: deploy.run_url.clone(),
        triggered_by: line(&course.by, 60),
        took: course.took.clone(),
    });
    Output {
        deploys: lines.collect(),
        live: history.live.map(|id| id.to_string()),
        rollback_to: history.rollback_to.map(|id| id.to_string()),
        ..Output::default()
    }
}

fn text(facts: &Output) -> String {
    if facts.deploys.is_empty() {
        return "nothing was deployed yet; call `deploy`".to_owned();
    }
    let mut lines: Vec<String> = facts
        .deploys
        .iter()
        .map(|one| {
            let failure = one.failure.as_ref().map(|text| format!("; {text}")).unwrap_or_default();
            let run = one.run_url.as_ref().map(|url| format!("; {url}")).unwrap_or_default();
            let took =
                if one.took.is_empty() { String::new() } else { format!("; took {}", one.took) };
            let commit: String = one.commit.chars().take(7).collect();
            format!(
                "{} {} {commit} {} env revision {}, triggered by {}, {}{took}{failure}{run}",
                one.at, one.state, one.subject, one.env_revision, one.triggered_by, one.deploy
            )
        })
        .collect();
    lines.push(match &facts.rollback_to {
        Some(id) => format!("`rollback` would go to {id}"),
        None => "there is no earlier release to go back to".to_owned(),
    });
    lines.join("\n")
}
