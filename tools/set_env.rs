//! `set_env`: sets and unsets env values; what runs does not change by it.

use std::collections::BTreeMap;

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::env_values::{EnvClass, parse};
use crate::domain::secret::Secret;
use crate::mcp::{Answer, Parameters, Server, ToolError, Word, bad_name};
use crate::operations::OpError;
use crate::operations::build_env;
use crate::operations::env::{Change, Changed, set};

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging.
    environment: String,
    /// Names and values; others stay as they are.
    set: Option<BTreeMap<String, String>>,
    /// Names to remove.
    unset: Option<Vec<String>>,
    /// secret (default, never shown again) or plain (readable, such as LOG_LEVEL).
    class: Option<Class>,
    /// runtime (default), or build: seen while the image is built, kept at GitHub.
    scope: Option<Scope>,
    dry_run: Option<bool>,
    #[expect(dead_code, reason = "setting the same values again changes nothing anyway")]
    idempotency_key: Option<String>,
    #[expect(dead_code, reason = "goes to the audit log only")]
    reason: Option<String>,
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Class {
    Secret,
    Plain,
}

#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Scope {
    Runtime,
    Build,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    environment: String,
    changed: Vec<String>,
    unchanged: Vec<String>,
    warnings: Vec<String>,
    revision: u32,
    applied: bool,
    apply_with: String,
}

#[tool_router(router = set_env_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "set_env",
        title = "Set env variables",
        description = "Sets and unsets env variables of an environment; merges, never replaces all. What runs keeps the old values until `deploy` with ref `current`.",
        output_schema = schema_for_output::<Output>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    async fn set_env(
        &self,
        Parameters(input): Parameters<Input>,
    ) -> Result<Answer<Output>, ToolError> {
        let path = self.environment(&input.environment).await?;
        let dry_run = input.dry_run == Some(true);
        let build = input.scope == Some(Scope::Build);
        let changes = changes(input)?;
        if dry_run {
            let keys: Vec<String> = changes.iter().map(|change| change.key.to_string()).collect();
            let text = format!("these could be changed in {path}: {}", keys.join(", "));
            let facts = Output { changed: keys, ..nothing(path.to_string()) };
            return Ok(Answer::deed(Word::NotExecuted, text, facts));
        }
        if build {
            let facts = facts(&build_env::set(self.context(), &path, changes).await?);
            let facts = Output {
                apply_with: format!("deploy with environment {path}, which builds anew"),
                ..facts
            };
            let text = format!(
                "{path}: {} kept at GitHub for builds, NOT APPLIED yet (applied: false): the next `deploy` that builds takes them",
                [facts.changed.as_slice(), facts.unchanged.as_slice()].concat().join(", ")
            );
            return Ok(Answer::deed(Word::Done, text, facts));
        }
        let facts = facts(&set(self.context(), &path, changes).await?);
        Ok(Answer::deed(Word::Done, text(&facts), facts))
    }
}

fn changes(input: Input) -> Result<Vec<Change>, ToolError> {
    let class = match input.class {
        Some(Class::Plain) => EnvClass::Plain,
        Some(Class::Secret) | None => EnvClass::Secret,
    };
    let mut changes = Vec::new();
    for (name, value) in input.set.unwrap_or_default() {
        let parsed = parse(&name, Secret::new(value), class).map_err(OpError::from)?;
        changes.push(Change { key: parsed.key, value: Some(parsed.value), class });
    }
    for name in input.unset.unwrap_or_default() {
        let key = name.parse().map_err(bad_name)?;
        changes.push(Change { key, value: None, class });
    }
    if changes.is_empty() {
        return Err(ToolError::new("nothing_to_do", "neither `set` nor `unset` names a variable")
            .fix("pass `set` with names and values, or `unset` with names"));
    }
    Ok(changes)
}

fn nothing(environment: String) -> Output {
    let apply_with = format!("deploy with environment {environment} and ref current");
    Output {
        environment,
        changed: Vec::new(),
        unchanged: Vec::new(),
        warnings: Vec::new(),
        revision: 0,
        applied: false,
        apply_with,
    }
}

fn facts(changed: &Changed) -> Output {
    Output {
        changed: changed.keys.iter().map(ToString::to_string).collect(),
        unchanged: changed.unchanged.iter().map(ToString::to_string).collect(),
        warnings: changed.warnings.iter().map(|(key, w)| format!("{key}: {}", w.text())).collect(),
        revision: changed.environment.env_revision,
        ..nothing(changed.environment.path.to_string())
    }
}

fn text(facts: &Output) -> String {
    let mut parts = Vec::new();
    if facts.changed.is_empty() {
        parts.push(format!("{}: nothing changed", facts.environment));
    } else {
        parts.push(format!(
            "{}: {} stored as revision {}, NOT APPLIED yet (applied: false): what runs keeps the old values until `deploy` with environment `{}` and ref `current`",
            facts.environment,
            facts.changed.join(", "),
            facts.revision,
            facts.environment
        ));
    }
    if !facts.unchanged.is_empty() {
        parts.push(format!("had that value already: {}", facts.unchanged.join(", ")));
    }
    if !facts.warnings.is_empty() {
        parts.push(format!("to know: {}", facts.warnings.join("; ")));
    }
    parts.join("\n")
}
