//! `manage_service`: a database, a cache or a search index beside an app.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::names::EnvironmentPath;
use crate::domain::service::ServiceKind;
use crate::mcp::{Answer, Call, Parameters, Server, ToolError, Word, Work, ask};
use crate::operations::services::{Action, ServiceRequest, preview, start, views};

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging.
    environment: String,
    action: Do,
    /// All of them for status, where none is named.
    service: Option<Kind>,
    /// Exact, such as 17.6.
    version: Option<String>,
    /// Memory limit in MiB.
    memory_mb: Option<u32>,
    dry_run: Option<bool>,
    #[schemars(range(min = 0, max = 50))]
    wait_seconds: Option<u32>,
    idempotency_key: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Do {
    Add,
    Upgrade,
    Restart,
    Status,
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Kind {
    Postgres,
    Redis,
    Meilisearch,
    Qdrant,
}

impl From<Kind> for ServiceKind {
    fn from(given: Kind) -> Self {
        match given {
            Kind::Postgres => Self::Postgres,
            Kind::Redis => Self::Redis,
            Kind::Meilisearch => Self::Meilisearch,
            Kind::Qdrant => Self::Qdrant,
        }
    }
}

#[tool_router(router = manage_service_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "manage_service",
        title = "Manage a service",
        description = "Adds PostgreSQL, Redis, Meilisearch or Qdrant beside an app, upgrades or restarts it. The password is made and kept out of sight; the app gets DATABASE_URL, REDIS_URL, MEILISEARCH_URL or QDRANT_URL with its next deploy. Removal: `destroy`.",
        output_schema = schema_for_output::<Work>(),
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = false, open_world_hint = true)
    )]
    async fn manage_service(
        &self,
        Parameters(input): Parameters<Input>,
        mut call: Call,
    ) -> Result<Answer<Work>, ToolError> {
        let path = self.environment(&input.environment).await?;
        let kind = input.service.map(ServiceKind::from);
        let action = match input.action {
            Do::Add => Action::Add,
            Do::Upgrade => Action::Upgrade,
            Do::Restart => Action::Restart,
            Do::Status => return self.services(&path, kind).await,
        };
        let kind = kind.ok_or_else(|| {
            ToolError::new("bad_arguments", "the field `service` is missing (such as postgres)")
                .fix("name the service: postgres, redis, meilisearch or qdrant")
        })?;
        let request = ServiceRequest {
            environment: path,
            kind,
            action,
            version: input.version,
            memory_mb: input.memory_mb,
        };
        if input.dry_run == Some(true) {
            let text = preview(self.context(), &request).await?.join("; ");
            return Ok(Answer::deed(Word::NotExecuted, text.clone(), Work::said(text)));
        }
        let ask = ask(&call, input.reason, input.idempotency_key);
        let operation = start(self.context(), &request, ask).await?;
        self.follow(&mut call, operation, input.wait_seconds).await
    }

    async fn services(
        &self,
        path: &EnvironmentPath,
        kind: Option<ServiceKind>,
    ) -> Result<Answer<Work>, ToolError> {
        let mut views = views(self.context(), path).await?;
        views.retain(|view| kind.is_none_or(|kind| view.service.kind == kind));
        let text = match views.as_slice() {
            [] => format!("{path} has no such service; action `add` makes one"),
            views => {
                let lines: Vec<String> = views.iter().map(|view| view.told()).collect();
                lines.join("\n")
            }
        };
        Ok(Answer::deed(Word::Done, text.clone(), Work::said(text)))
    }
}
