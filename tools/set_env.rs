//! `set_env`: sets and unsets env values; what runs does not change by it.

use std::collections::{BTreeMap, BTreeSet};

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::env_values::{EnvClass, parse};
use crate::domain::names::{EnvKey, EnvironmentPath};
use crate::domain::secret::Secret;
use crate::mcp::{Answer, Call, Parameters, Server, ToolError, Word, bad_name};
use crate::operations::OpError;
use crate::operations::build_env;
use crate::operations::env::{Change, Changed, copied, generated, set};

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging.
    environment: String,
    /// Names and values; others stay as they are.
    set: Option<BTreeMap<String, String>>,
    /// Names to remove.
    unset: Option<Vec<String>>,
    /// Names that get a random secret, unless set.
    generate: Option<Vec<String>>,
    /// An environment to copy from: the keys in copy, else those missing here.
    copy_from: Option<String>,
    copy: Option<Vec<String>>,
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
        description = "Sets, unsets, copies and generates env variables of an environment; merges, never replaces all. What runs keeps the old values until `deploy` with ref `current`.",
        output_schema = schema_for_output::<Output>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    async fn set_env(
        &self,
        Parameters(input): Parameters<Input>,
        call: Call,
    ) -> Result<Answer<Output>, ToolError> {
        let from = match &input.copy_from {
            Some(from) => Some(self.other_environment(&call, from).await?),
            None => None,
        };
        let path = self.environment(&input.environment).await?;
        let dry_run = input.dry_run == Some(true);
        let build = input.scope == Some(Scope::Build);
        let changes = self.changes(from, &path, input).await?;
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

impl Server {
    async fn changes(
        &self,
        from: Option<EnvironmentPath>,
        path: &EnvironmentPath,
        mut input: Input,
    ) -> Result<Vec<Change>, ToolError> {
        let names = |given: Option<Vec<String>>| -> Result<Vec<EnvKey>, ToolError> {
            let parsed: Result<_, _> =
                given.unwrap_or_default().iter().map(|name| name.parse()).collect();
            parsed.map_err(bad_name)
        };
        let copy = names(input.copy.take())?;
        let generate = names(input.generate.take())?;
        let build = input.scope == Some(Scope::Build);
        if build && (!generate.is_empty() || from.is_some()) {
            let message = "`generate` and `copy_from` are for runtime values: those of builds lie at GitHub, where nobody can read them";
            return Err(ToolError::new("bad_argument", message).fix("pass `set` with the values"));
        }
        let mut all = generated(self.context(), path, generate).await?;
        match from {
            Some(from) => {
                all.extend(copied(self.context(), path, &from, &copy).await?);
            }
            None if !copy.is_empty() => {
                let message = "`copy` names keys, and `copy_from` does not say of what environment";
                return Err(ToolError::new("bad_argument", message).fix("give `copy_from` too"));
            }
            None => {}
        }
        all.extend(given(input)?);
        let mut seen = BTreeSet::new();
        if let Some(twice) = all.iter().find(|one| !seen.insert(one.key.clone())) {
            let message = format!("`{}` is given more than once", twice.key);
            return Err(ToolError::new("bad_argument", message).fix("say one thing of each key"));
        }
        if all.is_empty() {
            let message = "none of `set`, `unset`, `generate` and `copy_from` names a variable";
            return Err(ToolError::new("nothing_to_do", message)
                .fix("pass `set` with names and values, or `unset` with names"));
        }
        Ok(all)
    }
}

fn given(input: Input) -> Result<Vec<Change>, ToolError> {
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
