//! `destroy`: an environment with its VM and its data, first as a plan that a person approves.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::mcp::{Answer, Call, Parameters, Server, ToolError, Work, ask, plan_id, planned};
use crate::operations::destroy::{plan, start};

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging.
    environment: String,
    /// True: for good, without a way back.
    purge: Option<bool>,
    /// From an earlier call, once the user has agreed to the plan.
    plan_id: Option<String>,
    #[schemars(range(min = 0, max = 50))]
    wait_seconds: Option<u32>,
    idempotency_key: Option<String>,
    reason: Option<String>,
}

#[tool_router(router = destroy_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "destroy",
        title = "Destroy an environment",
        description = "Removes an environment with its VM and ALL ITS DATA, for good. Without plan_id it removes nothing and returns the plan; with it, a person still has to approve.",
        output_schema = schema_for_output::<Work>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn destroy(
        &self,
        Parameters(input): Parameters<Input>,
        mut call: Call,
    ) -> Result<Answer<Work>, ToolError> {
        let path = self.environment(&input.environment).await?;
        let context = self.context();
        let Some(given) = input.plan_id else {
            let plan = plan(context, &path, input.purge == Some(true)).await?;
            return Ok(planned(&plan, "destroy"));
        };
        let plan = plan_id(&given)?;
        let ask = ask(&call, input.reason, input.idempotency_key);
        self.carry_out(&mut call, input.wait_seconds, || start(context, &path, plan, ask.clone()))
            .await
    }
}
