//! `vmkit call`: one tool call, for scripts.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use rmcp::ServiceExt;
use rmcp::model::{CallToolRequestParams, CallToolResult};
use serde_json::{Map, Value, json};

use super::{CliError, Start, life};
use crate::access::Audit;
use crate::installation::Part;
use crate::mcp::{Server, ToolError, serve_stdio};

/// Call one tool; JSON on stdout. Exit code 0, or 1 the tool failed, or 2 bad usage.
#[derive(Debug, Args)]
pub(crate) struct Call {
    /// The tool, such as get_overview; `vmkit tools` lists them.
    tool: String,
    /// Its arguments as a JSON object; `-` reads them from stdin.
    arguments: Option<String>,
}

impl Call {
    pub(super) async fn run(self, start: Start) -> Result<ExitCode, CliError> {
        let arguments = self.arguments()?;
        if !crate::mcp::tools().iter().any(|tool| tool.name == self.tool) {
            let message = format!("there is no tool `{}`", self.tool);
            return Err(CliError::new("unknown_tool", message).fix("run `vmkit tools`").usage());
        }
        let context = start.open(Part::Face).await?;
        let _hold = life::hold_worker(&start.settings)?;
        let audit = Audit::new(context.store.clone(), context.clock.clone());
        let server = Server::new(audit, Arc::new(context));
        let result = through_a_client(server, self.tool, arguments).await?;
        let error = ToolError::of(&result);
        super::print(&shown(&result, error.as_ref()))?;
        Ok(match error {
            None => ExitCode::SUCCESS,
            Some(error) if error.code == "bad_arguments" => ExitCode::from(2),
            Some(_) => ExitCode::FAILURE,
        })
    }

    fn arguments(&self) -> Result<Map<String, Value>, CliError> {
        let text = match self.arguments.as_deref() {
            None => return Ok(Map::new()),
            Some("-") => super::piped()?,
            Some(text) => text.to_owned(),
        };
        serde_json::from_str(&text).map_err(|error| {
            CliError::new("bad_arguments", format!("the arguments are no JSON object: {error}"))
                .fix("such as '{\"environment\": \"shop/staging\"}'")
                .usage()
        })
    }
}

/// The same way that an assistant goes: nothing is checked twice or differently.
pub(super) async fn through_a_client(
    server: Server,
    tool: String,
    arguments: Map<String, Value>,
) -> Result<CallToolResult, CliError> {
    let lost = |error: &dyn std::error::Error| CliError::new("internal", error.to_string());
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (read, write) = tokio::io::split(theirs);
    let closing = server.closing().clone();
    let serving = tokio::spawn(serve_stdio(server, closing, read, write));
    let client = ().serve(ours).await.map_err(|error| lost(&error))?;
    let request = CallToolRequestParams::new(tool).with_arguments(arguments);
    let result = client.call_tool(request).await.map_err(|error| lost(&error))?;
    drop(client.cancel().await);
    drop(serving.await);
    Ok(result)
}

/// What a tool says in words.
pub(super) fn texts(result: &CallToolResult) -> String {
    let texts = result.content.iter().filter_map(|block| block.as_text());
    let texts: Vec<&str> = texts.map(|text| text.text.as_str()).collect();
    texts.join("\n")
}

fn shown(result: &CallToolResult, error: Option<&ToolError>) -> String {
    let value = match (error, &result.structured_content) {
        (Some(error), _) => json!({ "error": error }),
        (None, Some(data)) => data.clone(),
        (None, None) => json!({ "text": texts(result) }),
    };
    serde_json::to_string_pretty(&value).unwrap_or_else(|_| value.to_string())
}
