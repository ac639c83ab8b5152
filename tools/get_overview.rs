//! `get_overview`: everything at a glance.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::Caller;
use crate::mcp::{Answer, Call, Parameters, Server, ToolError, line};
use crate::queries::overview::{EnvironmentLine, Overview, overview};

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Part of a name, domain, address or commit.
    query: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    environments: Vec<Line>,
    apps_without_environment: Vec<String>,
    vms_without_environment: Vec<String>,
    running: Vec<String>,
    waiting_for_a_person: Vec<String>,
    monthly: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
struct Line {
    environment: String,
    health: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_deploy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<String>,
}

#[tool_router(router = get_overview_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "get_overview",
        title = "Overview",
        description = "Everything at a glance: environments and their health, what is live, cost per month, running operations, what waits for a person. Start here.",
        output_schema = schema_for_output::<Output>(),
        annotations(read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = false)
    )]
    async fn get_overview(
        &self,
        Parameters(input): Parameters<Input>,
        call: Call,
    ) -> Result<Answer<Output>, ToolError> {
        let context = self.context();
        let now = context.clock.now();
        let all = overview(&context.store, &context.fleet, input.query.as_deref(), now).await?;
        let facts = facts(all, call.caller());
        Ok(Answer::facts(text(&facts, input.query.as_deref()), facts))
    }
}

/// What the caller may see of it.
fn facts(all: Overview, caller: &Caller) -> Output {
    let whole = !caller.is_restricted();
    let seen: Vec<&EnvironmentLine> =
        all.environments.iter().filter(|line| caller.may_see(&line.environment.path)).collect();
    let mut waiting: Vec<String> = all
        .approvals
        .iter()
        .map(|plan| format!("`vmkit approve {}`: {}", plan.id, line(&plan.body.summary, 160)))
        .collect();
    waiting.extend(all.attention.iter().map(|row| {
        let message = line(&row.progress.message, 160);
        format!("{} {} is {}: {message}", row.kind, row.id, row.state.as_str())
    }));
    let running = all.running.iter().map(|row| {
        let (p, message) = (&row.progress, line(&row.progress.message, 120));
        format!("{} {}: step {} of {}, {message}", row.kind, row.id, p.step, p.steps)
    });
    Output {
        apps_without_environment: all
            .bare_apps
            .iter()
            .filter(|_| whole)
            .map(|row| format!("{} ({})", row.app.slug, row.app.repo))
            .collect(),
        vms_without_environment: all
            .idle_vms
            .iter()
            .filter(|_| whole)
            .map(|row| format!("{} ({}, {} a month)", row.vm.id, row.vm.size, row.monthly))
            .collect(),
        running: running.filter(|_| whole).collect(),
        waiting_for_a_person: if whole { waiting } else { Vec::new() },
        monthly: all.monthly.iter().filter(|_| whole).map(ToString::to_string).collect(),
        environments: seen.into_iter().map(one).collect(),
    }
}

fn one(of: &EnvironmentLine) -> Line {
    let version = |deploy: &crate::domain::deploy::Deploy| {
        format!("{} {}", deploy.commit.short(), line(&deploy.subject, 60))
    };
    let last = of.last.as_ref().filter(|last| of.live.as_ref().is_none_or(|l| l.id != last.id));
    let services: Vec<String> =
        of.services.iter().map(|one| format!("{} {}", one.kind, one.version)).collect();
    Line {
        environment: of.environment.path.to_string(),
        health: of.health().to_owned(),
        address: of.vm.as_ref().and_then(|row| row.vm.address).map(|ip| ip.to_string()),
        live: of.live.as_ref().map(version),
        last_deploy: last.map(|deploy| format!("{} {}", deploy.state.as_str(), version(deploy))),
        services: (!services.is_empty()).then(|| services.join(" and ")),
    }
}

fn text(facts: &Output, query: Option<&str>) -> String {
    let mut lines = Vec::new();
    for one in &facts.environments {
        let mut parts = vec![format!("{}: {}", one.environment, one.health)];
        parts.extend(one.address.clone());
        parts.extend(one.live.as_ref().map(|live| format!("live {live}")));
        parts.extend(one.last_deploy.as_ref().map(|last| format!("last deploy {last}")));
        parts.extend(one.services.as_ref().map(|services| format!("beside it {services}")));
        lines.push(parts.join(", "));
    }
    if lines.is_empty() {
        lines.push(match query {
            Some(query) => format!("no environment matches `{}`", line(query, 60)),
            None => "no environment yet".to_owned(),
        });
        if facts.apps_without_environment.is_empty() && query.is_none() {
            lines.push("to begin: `list_sizes`, then `scan_repo` and `setup_repo`".to_owned());
        }
    }
    let list = |name: &str, items: &[String]| {
        (!items.is_empty()).then(|| format!("{name}: {}", items.join("; ")))
    };
    lines.extend(list("apps without environment", &facts.apps_without_environment));
    lines.extend(list(
        "VMs without environment, billed all the same",
        &facts.vms_without_environment,
    ));
    lines.extend(list("running", &facts.running));
    lines.extend(list("waiting for a person", &facts.waiting_for_a_person));
    lines.extend(list("cost per month, net", &facts.monthly));
    lines.join("\n")
}
