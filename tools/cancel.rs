//! `cancel`: stops an operation, a running deploy included, and takes back what it had done.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::ids::OperationId;
use crate::mcp::{Answer, Call, Parameters, Server, ToolError, Word, Work};
use crate::operations::cancel::cancel;
use crate::queries::operation::operation;

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// The id, such as op_01jc...; get_overview lists running ones.
    operation: String,
    /// Only say what would be stopped.
    dry_run: Option<bool>,
    #[schemars(range(min = 0, max = 50))]
    wait_seconds: Option<u32>,
    #[expect(dead_code, reason = "the audit log keeps it, and a repeat means the same anyway")]
    idempotency_key: Option<String>,
    #[expect(dead_code, reason = "the audit log keeps it")]
    reason: Option<String>,
}

#[tool_router(router = cancel_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "cancel",
        title = "Cancel an operation",
        description = "Stops a running operation and undoes what it had done. For a deploy: cancels the Actions run; what served before serves on, and the answer names the version that really runs.",
        output_schema = schema_for_output::<Work>(),
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = true, open_world_hint = true)
    )]
    async fn cancel(
        &self,
        Parameters(input): Parameters<Input>,
        mut call: Call,
    ) -> Result<Answer<Work>, ToolError> {
        let id: OperationId = input.operation.parse().map_err(|error| {
            ToolError::new("bad_id", format!("in the field `operation`: {error}"))
                .fix("`get_overview` lists running operations")
        })?;
        if input.dry_run == Some(true) {
            let view = operation(&self.context().store, id).await?;
            let state = view.row.state.as_str();
            let text = match view.row.state.is_ended() {
                true => format!(
                    "{} {id} has ended ({state}); there is nothing to cancel",
                    view.row.kind
                ),
                false => format!("{} {id} ({state}) would be stopped and undone", view.row.kind),
            };
            return Ok(Answer::deed(Word::NotExecuted, text.clone(), Work::said(text)));
        }
        cancel(self.context(), id).await?;
        self.follow_cancel(&mut call, id, input.wait_seconds).await
    }
}
