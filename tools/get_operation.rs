//! `get_operation`: the progress or the result of an operation; can wait.

use rmcp::handler::server::tool::schema_for_output;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::ids::OperationId;
use crate::domain::operation::OperationState;
use crate::mcp::{Answer, Call, Parameters, Server, ToolError, Word, line, result_text, stage};
use crate::queries::operation::OperationView;

#[derive(Deserialize, JsonSchema)]
struct Input {
    /// The id, such as op_01jc...
    operation: String,
    /// Wait so long for its end; 0 by default.
    #[schemars(range(min = 0, max = 50))]
    wait_seconds: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    operation: String,
    kind: String,
    state: String,
    step: u32,
    steps: u32,
    message: String,
    done: Vec<String>,
    result: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    started_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
}

#[tool_router(router = get_operation_router, vis = "pub(crate)")]
impl Server {
    #[tool(
        name = "get_operation",
        title = "Progress of an operation",
        description = "Progress or result of an operation that another tool started; can wait for its end.",
        output_schema = schema_for_output::<Output>(),
        annotations(read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = false)
    )]
    async fn get_operation(
        &self,
        Parameters(input): Parameters<Input>,
        mut call: Call,
    ) -> Result<Answer<Output>, ToolError> {
        let id: OperationId = input.operation.parse().map_err(|error| {
            ToolError::new("bad_id", format!("in the field `operation`: {error}"))
                .fix("`get_overview` lists running operations")
        })?;
        let view = self.watch(&mut call, id, input.wait_seconds.unwrap_or(0)).await?;
        let facts = facts(&view);
        Ok(Answer::facts(text(&view, &facts), facts))
    }
}

fn facts(view: &OperationView) -> Output {
    let row = &view.row;
    Output {
        operation: row.id.to_string(),
        kind: row.kind.clone(),
        state: row.state.as_str().to_owned(),
        step: row.progress.step,
        steps: row.progress.steps,
        message: line(&row.progress.message, 300),
        done: view
            .steps
            .iter()
            .map(|step| format!("{} {}", step.name, step.state.as_str()))
            .collect(),
        result: row.result.as_ref().and_then(Value::as_object).cloned().unwrap_or_default(),
        failure: row.failure.as_ref().map(|failure| {
            let message = line(&failure.message, 1200);
            format!("{}: {message}; {}", failure.code, failure.fix)
        }),
        started_at: row.created_at.rfc3339(),
        ended_at: row.ended_at.map(|at| at.rfc3339()),
    }
}

/// The word that the tool which started it would answer with now.
fn word(state: OperationState) -> Word {
    match state {
        OperationState::Queued | OperationState::Running => Word::Running,
        OperationState::WaitingApproval => Word::Waiting,
        OperationState::NeedsMerge => Word::NeedsMerge,
        OperationState::Succeeded => Word::Done,
        OperationState::Failed | OperationState::Cancelled | OperationState::Stuck => Word::Failed,
    }
}

fn text(view: &OperationView, facts: &Output) -> String {
    let word = word(view.row.state).as_str();
    let mut lines = vec![format!("{word} {} {} {}", facts.kind, facts.operation, facts.state)];
    if view.row.state.is_ended() {
        lines.push(format!("{}{}", facts.message, result_text(&facts.result)));
    } else {
        lines.push(stage(view));
    }
    lines.extend(facts.failure.clone());
    lines.push(format!("steps: {}", facts.done.join("; ")));
    let ended = facts.ended_at.as_ref().map(|at| format!(", ended {at}")).unwrap_or_default();
    lines.push(format!("started {}{ended}", facts.started_at));
    lines.join("\n")
}
