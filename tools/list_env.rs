//! `list_env`: what is set, and what the running containers have of it. Secrets are never shown.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::mcp::{Answer, Call, Parameters, Server, ToolError, line};
use crate::operations::env::{Differs, between};
use crate::queries::env::{EnvList, list};

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging.
    environment: String,
    /// Another environment: also say which keys differ.
    compare: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    variables: Vec<Line>,
    unset_pending: Vec<String>,
    revision: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    live_revision: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differences: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
struct Line {
    key: String,
    class: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    changed_at: String,
    applied: bool,
}

#[tool_router(router = list_env_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "list_env",
        title = "Env variables",
        description = "Env variables of an environment: class, fingerprint, when changed, whether the running containers have them. Values of secrets are never shown.",
        output_schema = schema_for_output::<Output>(),
        annotations(read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = false)
    )]
    async fn list_env(
        &self,
        Parameters(input): Parameters<Input>,
        call: Call,
    ) -> Result<Answer<Output>, ToolError> {
        let other = match input.compare {
            Some(other) => Some(self.other_environment(&call, &other).await?),
            None => None,
        };
        let path = self.environment(&input.environment).await?;
        let context = self.context();
        let mut facts = facts(list(&context.store, &context.vault, &path).await?);
        if let Some(other) = other {
            let keys = between(&context.store, &path, &other).await?;
            let one = |(key, differs)| match differs {
                Differs::Added => format!("{key}: not in {other}"),
                Differs::Changed => format!("{key}: another value or class than in {other}"),
                Differs::Removed => format!("{key}: only in {other}"),
            };
            facts.differences = keys.into_iter().map(one).collect();
            if facts.differences.is_empty() {
                facts.differences.push(format!("the keys and values are those of {other}"));
            }
        }
        Ok(Answer::facts(text(&facts), facts))
    }
}

fn facts(list: EnvList) -> Output {
    let lines = list.lines.into_iter().map(|one| Line {
        key: one.row.key.to_string(),
        class: one.row.class.as_str().to_owned(),
        value: one.value.map(|value| line(&value, 500)),
        fingerprint: one.row.mark,
        changed_at: one.row.changed_at.rfc3339(),
        applied: one.applied,
    });
    Output {
        variables: lines.collect(),
        unset_pending: list.unset_pending.iter().map(ToString::to_string).collect(),
        revision: list.environment.env_revision,
        live_revision: list.live_revision,
        differences: Vec::new(),
    }
}

fn text(facts: &Output) -> String {
    let mut lines: Vec<String> = facts
        .variables
        .iter()
        .map(|one| {
            let value = match (&one.value, &one.fingerprint) {
                (Some(value), _) => format!("= {value}"),
                (None, Some(mark)) => format!("is set (fingerprint {mark})"),
                (None, None) => "is set".to_owned(),
            };
            let applied = if one.applied { "applied" } else { "NOT APPLIED" };
            format!("{} {value}, {}, {applied}, changed {}", one.key, one.class, one.changed_at)
        })
        .collect();
    if lines.is_empty() {
        lines.push("no variable is set".to_owned());
    }
    if !facts.unset_pending.is_empty() {
        lines.push(format!(
            "unset, but still in the containers: {}",
            facts.unset_pending.join(", ")
        ));
    }
    lines.extend(facts.differences.iter().cloned());
    let pending = facts.variables.iter().any(|one| !one.applied) || !facts.unset_pending.is_empty();
    if pending && facts.live_revision.is_some() {
        lines.push("to apply: `deploy` with ref `current`".to_owned());
    }
    lines.join("\n")
}
