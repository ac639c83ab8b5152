//! `provision_vm`: a server for an environment, first as a plan.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::mcp::{Answer, Call, Parameters, Server, ToolError, Work, ask, plan_id, planned};
use crate::operations::provision_vm::{plan, start};

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging.
    environment: String,
    /// From an earlier call, once the user has agreed to the plan.
    plan_id: Option<String>,
    #[schemars(range(min = 0, max = 50))]
    wait_seconds: Option<u32>,
    idempotency_key: Option<String>,
    reason: Option<String>,
}

#[tool_router(router = provision_vm_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "provision_vm",
        title = "Provision a VM",
        description = "Orders the VM of an environment in the user's own cloud account and links its agent. COSTS MONEY. Without plan_id it orders nothing and returns the plan with its price; with it, the plan is carried out.",
        output_schema = schema_for_output::<Work>(),
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = true, open_world_hint = true)
    )]
    async fn provision_vm(
        &self,
        Parameters(input): Parameters<Input>,
        mut call: Call,
    ) -> Result<Answer<Work>, ToolError> {
        let path = self.environment(&input.environment).await?;
        let context = self.context();
        let Some(given) = input.plan_id else {
            return Ok(planned(&plan(context, &path).await?, "provision_vm"));
        };
        let plan = plan_id(&given)?;
        let ask = ask(&call, input.reason, input.idempotency_key);
        self.carry_out(&mut call, input.wait_seconds, || start(context, &path, plan, ask.clone()))
            .await
    }
}
