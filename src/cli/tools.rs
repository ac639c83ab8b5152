//! `vmkit tools`: the tools and what each costs a model to read.

use std::process::ExitCode;

use clap::Args;
use rmcp::model::Tool;
use serde_json::json;

use super::CliError;

/// List the tools and what each costs in tokens (bytes / 4).
#[derive(Debug, Args)]
pub(crate) struct Tools {
    /// As JSON, with descriptions and schemas.
    #[arg(long)]
    json: bool,
}

fn tokens(tool: &Tool) -> usize {
    let shown = json!({
        "name": tool.name, "title": tool.title, "description": tool.description,
        "inputSchema": tool.input_schema, "annotations": tool.annotations,
    });
    shown.to_string().len().div_ceil(4)
}

impl Tools {
    pub(super) fn run(self) -> Result<ExitCode, CliError> {
        let tools = crate::mcp::tools();
        if self.json {
            let listed: Vec<_> =
                tools.iter().map(|tool| json!({ "tokens": tokens(tool), "tool": tool })).collect();
            super::print(&serde_json::to_string_pretty(&listed).unwrap_or_default())?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut total = 0;
        for tool in &tools {
            total += tokens(tool);
            let title = tool.title.as_deref().unwrap_or_default();
            super::print(&format!("{:<20} {:>5}  {title}", tool.name, tokens(tool)))?;
        }
        super::print(&format!("{:<20} {total:>5}  of 6000 tokens", "all"))?;
        Ok(ExitCode::SUCCESS)
    }
}
