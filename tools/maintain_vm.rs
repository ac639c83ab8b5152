//! `maintain_vm`: a VM's power and care; what is grave first as a plan.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::mcp::{Answer, Call, Parameters, Server, ToolError, Work, ask, plan_id, planned};
use crate::operations::maintain_vm::{Action, MaintainRequest, needs_plan, plan, start};

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging; or give `vm`.
    environment: Option<String>,
    /// Such as vm_01...
    vm: Option<String>,
    action: Do,
    plan_id: Option<String>,
    dry_run: Option<bool>,
    #[schemars(range(min = 0, max = 50))]
    wait_seconds: Option<u32>,
    idempotency_key: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Do {
    Reboot,
    PowerOn,
    PowerOff,
    PowerCycle,
    Harden,
    Prune,
    UpgradeAgent,
    RotateKeys,
}

impl From<Do> for Action {
    fn from(given: Do) -> Self {
        match given {
            Do::Reboot => Self::Reboot,
            Do::PowerOn => Self::PowerOn,
            Do::PowerOff => Self::PowerOff,
            Do::PowerCycle => Self::PowerCycle,
            Do::Harden => Self::Harden,
            Do::Prune => Self::Prune,
            Do::UpgradeAgent => Self::UpgradeAgent,
            Do::RotateKeys => Self::RotateKeys,
        }
    }
}

#[tool_router(router = maintain_vm_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "maintain_vm",
        title = "Maintain a VM",
        description = "Cares for a VM: reboot in order (apps drained, then proven), power (cycle cuts it, for a VM that does not answer; off is billed all the same), harden (undone by itself if the way in closes), prune (old versions and unused images, listed in a plan first), upgrade_agent, rotate_keys. Where a protected environment is touched, first a plan.",
        output_schema = schema_for_output::<Work>(),
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = false, open_world_hint = true)
    )]
    async fn maintain_vm(
        &self,
        Parameters(input): Parameters<Input>,
        mut call: Call,
    ) -> Result<Answer<Work>, ToolError> {
        let vm = self.vm(&call, input.environment.as_deref(), input.vm.as_deref()).await?;
        let request = MaintainRequest { vm, action: input.action.into() };
        let context = self.context();
        let given = input.plan_id.as_deref().map(plan_id).transpose()?;
        let only_plan = input.dry_run == Some(true)
            || (given.is_none() && needs_plan(context, &request).await?);
        if only_plan {
            return Ok(planned(&plan(context, &request).await?, "maintain_vm"));
        }
        let ask = ask(&call, input.reason, input.idempotency_key);
        let begin = || start(context, &request, given, ask.clone());
        self.carry_out(&mut call, input.wait_seconds, begin).await
    }
}
