//! `rollback`: an earlier release with its env values as of then.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::ids::DeployId;
use crate::mcp::{Answer, Call, Parameters, Server, ToolError, Work, ask};
use crate::operations::deploy::{DeployRequest, ReleaseEnv, Version, start};

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging.
    environment: String,
    /// A deploy id from list_deploys; the last good release otherwise.
    to: Option<String>,
    /// `release` (default): the env values as of then; `newest`: those of now.
    env: Option<Env>,
    /// Only say where it would go.
    dry_run: Option<bool>,
    #[schemars(range(min = 0, max = 50))]
    wait_seconds: Option<u32>,
    idempotency_key: Option<String>,
    reason: Option<String>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Env {
    Release,
    Newest,
}

#[tool_router(router = rollback_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "rollback",
        title = "Roll back",
        description = "Brings back an earlier release with its env values as of then, without a build and without downtime.",
        output_schema = schema_for_output::<Work>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = false, open_world_hint = true)
    )]
    async fn rollback(
        &self,
        Parameters(input): Parameters<Input>,
        mut call: Call,
    ) -> Result<Answer<Work>, ToolError> {
        let environment = self.environment(&input.environment).await?;
        let to: Option<DeployId> = input.to.map(|id| id.parse()).transpose().map_err(|error| {
            ToolError::new("bad_id", format!("in the field `to`: {error}"))
                .fix("`list_deploys` names the deploys")
        })?;
        let env = match input.env {
            Some(Env::Newest) => ReleaseEnv::Newest,
            Some(Env::Release) | None => ReleaseEnv::AsOfThen,
        };
        let version = Version::Release { to, env };
        let request =
            DeployRequest { environment, version, expect_sha: None, ignore_checks: Vec::new() };
        if input.dry_run == Some(true) {
            return self.preview(&request).await;
        }
        let ask = ask(&call, input.reason, input.idempotency_key);
        let operation = start(self.context(), request, ask).await?;
        self.follow(&mut call, operation, input.wait_seconds).await
    }
}
