//! `get_status`: one environment in depth.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::mcp::{Answer, Parameters, Server, ToolError, line};
use crate::operations::services::ServiceView;
use crate::queries::status::{Status, status};

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging.
    environment: String,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    environment: String,
    health: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vm: Option<String>,
    agent_linked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_deploy: Option<String>,
    containers: Vec<String>,
    services: Vec<String>,
    pending_env: Vec<String>,
    settings: String,
    operations: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

#[tool_router(router = get_status_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "get_status",
        title = "Status of an environment",
        description = "One environment in depth: URL, VM and agent, what is live, containers, env changes that are not applied yet, latest operations.",
        output_schema = schema_for_output::<Output>(),
        annotations(read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = false)
    )]
    async fn get_status(
        &self,
        Parameters(input): Parameters<Input>,
    ) -> Result<Answer<Output>, ToolError> {
        let path = self.environment(&input.environment).await?;
        let context = self.context();
        let facts = facts(status(&context.store, &context.fleet, &path).await?);
        Ok(Answer::facts(text(&facts), facts))
    }
}

fn facts(status: Status) -> Output {
    let of = &status.line;
    let settings = &of.environment.settings;
    let version = |deploy: &crate::domain::deploy::Deploy| {
        let subject = line(&deploy.subject, 80);
        format!(
            "{} {subject} ({}, env revision {})",
            deploy.commit.short(),
            deploy.id,
            deploy.env_revision
        )
    };
    let last = of.last.as_ref().filter(|last| of.live.as_ref().is_none_or(|l| l.id != last.id));
    let stopped =
        !status.containers.is_empty() && status.containers.iter().all(|c| c.state == "exited");
    Output {
        environment: of.environment.path.to_string(),
        health: match of.health() {
            "live" if stopped => "stopped".to_owned(),
            health => health.to_owned(),
        },
        url: status.url,
        vm: of.vm.as_ref().map(|row| {
            let address = row.vm.address.map_or("no address yet".to_owned(), |ip| ip.to_string());
            let (vm, state) = (&row.vm, row.vm.state.as_str());
            format!(
                "{} {state}, {} in {}, {address}, {} a month",
                vm.id, vm.size, vm.region, row.monthly
            )
        }),
        agent_linked: of.presence.as_ref().is_some_and(|presence| presence.linked),
        live: of.live.as_ref().map(version),
        last_deploy: last.map(|deploy| {
            let failure = deploy.failure.as_ref().map(|text| format!(": {}", line(text, 300)));
            let state = deploy.state.as_str();
            format!("{state} {}{}", version(deploy), failure.unwrap_or_default())
        }),
        containers: status
            .containers
            .iter()
            .map(|c| {
                let oom = if c.oom_killed { ", out of memory" } else { "" };
                format!("{} {}, {} restarts{oom}", c.name, c.state, c.restarts)
            })
            .collect(),
        services: status.services.iter().map(ServiceView::told).collect(),
        pending_env: status.pending.iter().map(ToString::to_string).collect(),
        settings: format!(
            "size {}, region {}, port {}, health {}, domain {}, {}",
            settings.size,
            settings.region,
            settings.port,
            settings.health_path,
            settings.domain.as_ref().map_or("none".to_owned(), ToString::to_string),
            if settings.protected { "protected" } else { "not protected" }
        ),
        operations: status
            .operations
            .iter()
            .map(|row| {
                format!(
                    "{} {} {}: {}",
                    row.kind,
                    row.id,
                    row.state.as_str(),
                    line(&row.progress.message, 120)
                )
            })
            .collect(),
        trouble: status.agent_trouble,
    }
}

fn text(facts: &Output) -> String {
    let mut lines = vec![format!("{}: {}", facts.environment, facts.health)];
    let mut add = |name: &str, value: &Option<String>| {
        lines.extend(value.as_ref().map(|value| format!("{name}: {value}")));
    };
    add("url", &facts.url);
    add("vm", &facts.vm);
    add("live", &facts.live);
    add("last deploy", &facts.last_deploy);
    add("trouble", &facts.trouble);
    lines.push(format!("agent linked: {}", if facts.agent_linked { "yes" } else { "no" }));
    lines.push(format!("settings: {}", facts.settings));
    let list = |name: &str, items: &[String]| {
        (!items.is_empty()).then(|| format!("{name}: {}", items.join("; ")))
    };
    lines.extend(list("containers", &facts.containers));
    lines.extend(list("services", &facts.services));
    lines.extend(list(
        "env keys not applied yet (`deploy` with ref `current` applies them)",
        &facts.pending_env,
    ));
    lines.extend(list("latest operations", &facts.operations));
    lines.join("\n")
}
