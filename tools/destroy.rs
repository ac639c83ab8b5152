//! `destroy`: an environment with its VM, undoable for a while or for good, and the undo; first as
//! a plan.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

use super::manage_service::Kind;
use crate::domain::service::ServiceKind;
use crate::mcp::{Answer, Call, Parameters, Server, ToolError, Work, ask, plan_id, planned};
use crate::operations::destroy::{Wanted, plan, start};
use crate::operations::services::remove;

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging.
    environment: String,
    /// For good: ALL DATA is lost.
    purge: Option<bool>,
    /// Takes a destroy back.
    undo: Option<bool>,
    /// How it is kept; park: powered off, billed in full.
    mode: Option<Mode>,
    /// Only this service beside the app, with its data.
    service: Option<Kind>,
    /// From an earlier call, once the user has agreed to the plan.
    plan_id: Option<String>,
    #[schemars(range(min = 0, max = 50))]
    wait_seconds: Option<u32>,
    idempotency_key: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize, JsonSchema, PartialEq, Eq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Mode {
    Snapshot,
    Park,
}

#[tool_router(router = destroy_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "destroy",
        title = "Destroy an environment",
        description = "Removes an environment with its VM, or one `service`; `undo` brings it back within 7 days, except after `purge`. Without plan_id it changes nothing and returns the plan; a person may have to approve.",
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
        if let Some(kind) = input.service.map(ServiceKind::from) {
            if input.undo == Some(true) || input.mode.is_some() {
                return Err(ToolError::new(
                    "bad_arguments",
                    "a service is destroyed for good: `undo` and `mode` are for environments",
                )
                .fix("leave out `undo` and `mode`"));
            }
            let Some(given) = input.plan_id else {
                return Ok(planned(&remove::plan(context, &path, kind).await?, "destroy"));
            };
            let (plan, ask) = (plan_id(&given)?, ask(&call, input.reason, input.idempotency_key));
            let begin = || remove::start(context, &path, kind, plan, ask.clone());
            return self.carry_out(&mut call, input.wait_seconds, begin).await;
        }
        let park = input.mode == Some(Mode::Park);
        let wanted = Wanted::of(input.purge == Some(true), input.undo == Some(true), park)?;
        let Some(given) = input.plan_id else {
            let plan = plan(context, &path, wanted).await?;
            return Ok(planned(&plan, "destroy"));
        };
        let plan = plan_id(&given)?;
        let ask = ask(&call, input.reason, input.idempotency_key);
        self.carry_out(&mut call, input.wait_seconds, || {
            start(context, &path, Some(wanted), plan, ask.clone())
        })
        .await
    }
}
