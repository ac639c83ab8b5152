//! `resize_vm`: another size for a VM, first as a plan.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::names::{EnvironmentPath, SizeName};
use crate::mcp::{
    Answer, Call, Parameters, Server, ToolError, Word, Work, ask, bad_name, plan_id, planned,
};
use crate::operations::resize_vm::{ResizeRequest, plan, start, want};

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// Such as shop/staging; or give `vm`.
    environment: Option<String>,
    /// Such as vm_01...
    vm: Option<String>,
    /// From list_sizes; same architecture.
    size: String,
    /// The disk grows too: no smaller size ever again.
    upgrade_disk: Option<bool>,
    /// Only note the size in the environment's settings; its next deploy answers with the plan.
    later: Option<bool>,
    plan_id: Option<String>,
    /// The plan only, even with plan_id.
    dry_run: Option<bool>,
    #[schemars(range(min = 0, max = 50))]
    wait_seconds: Option<u32>,
    idempotency_key: Option<String>,
    reason: Option<String>,
}

#[tool_router(router = resize_vm_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "resize_vm",
        title = "Resize a VM",
        description = "Changes a VM's size; all its apps are down meanwhile, and it gets the old size back if they do not answer afterwards. CAN COST MORE. Without plan_id it changes nothing and returns the plan with prices and downtime.",
        output_schema = schema_for_output::<Work>(),
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = true, open_world_hint = true)
    )]
    async fn resize_vm(
        &self,
        Parameters(input): Parameters<Input>,
        mut call: Call,
    ) -> Result<Answer<Work>, ToolError> {
        let size: SizeName = input.size.parse().map_err(bad_name)?;
        let dry_run = input.dry_run == Some(true);
        if let (Some(true), Some(given)) = (input.later, &input.environment) {
            let path = self.environment(given).await?;
            return self.want_size(&path, &size, dry_run).await;
        }
        let vm = self.vm(&call, input.environment.as_deref(), input.vm.as_deref()).await?;
        let upgrade_disk = input.upgrade_disk == Some(true);
        let request = ResizeRequest { vm, size, upgrade_disk };
        let context = self.context();
        let Some(given) = input.plan_id.filter(|_| !dry_run) else {
            return Ok(planned(&plan(context, &request).await?, "resize_vm"));
        };
        let plan = plan_id(&given)?;
        let ask = ask(&call, input.reason, input.idempotency_key);
        let begin = || start(context, &request, plan, ask.clone());
        self.carry_out(&mut call, input.wait_seconds, begin).await
    }

    /// Notes a size for later.
    async fn want_size(
        &self,
        path: &EnvironmentPath,
        size: &SizeName,
        dry_run: bool,
    ) -> Result<Answer<Work>, ToolError> {
        if dry_run {
            let text = format!("`{size}` would be noted as the size of {path}");
            return Ok(Answer::deed(Word::NotExecuted, text.clone(), Work::said(text)));
        }
        let noted = want(self.context(), path, size).await?;
        let next = if noted.vm.is_some() {
            "its VM is unchanged; the next `deploy` answers with the plan of the change"
        } else {
            "next: `provision_vm`"
        };
        let text = format!("{path} wants size `{size}`; {next}");
        Ok(Answer::deed(Word::Done, text.clone(), Work::said(text)))
    }
}
