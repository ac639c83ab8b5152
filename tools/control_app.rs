//! `control_app`: an app's containers restarted, stopped and started, and a stale lock broken.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::mcp::{Answer, Call, Parameters, Server, ToolError, Work, ask, plan_id, planned};
use crate::operations::control_app::{Action, needs_plan, plan, start};

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging.
    environment: String,
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
#[schemars(inline)]
enum Do {
    Restart,
    Stop,
    Start,
    BreakLock,
}

impl From<Do> for Action {
    fn from(given: Do) -> Self {
        match given {
            Do::Restart => Self::Restart,
            Do::Stop => Self::Stop,
            Do::Start => Self::Start,
            Do::BreakLock => Self::BreakLock,
        }
    }
}

#[tool_router(router = control_app_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "control_app",
        title = "Restart, stop or start an app",
        description = "Restarts, stops (over reboots too) or starts an app's containers; break_lock frees a deploy lock that a dead run left. A person's lock, and stop or break_lock on a protected environment, first return a plan.",
        output_schema = schema_for_output::<Work>(),
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = true, open_world_hint = true)
    )]
    async fn control_app(
        &self,
        Parameters(input): Parameters<Input>,
        mut call: Call,
    ) -> Result<Answer<Work>, ToolError> {
        let path = self.environment(&input.environment).await?;
        let (context, action) = (self.context(), Action::from(input.action));
        let given = input.plan_id.as_deref().map(plan_id).transpose()?;
        let only_plan = input.dry_run == Some(true)
            || (given.is_none() && needs_plan(context, &path, action).await?);
        if only_plan {
            return Ok(planned(&plan(context, &path, action).await?, "control_app"));
        }
        let ask = ask(&call, input.reason, input.idempotency_key);
        let begin = || start(context, &path, action, given, ask.clone());
        self.carry_out(&mut call, input.wait_seconds, begin).await
    }
}
