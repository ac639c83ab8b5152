//! A server that can only say why it cannot work: its installation does not open.

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ListToolsResult, PaginatedRequestParams, ServerConfig,
    Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};

use super::{ToolError, Word, config, tools};

/// Lists every tool and answers each call with the same error.
#[derive(Debug, Clone)]
pub struct Broken {
    error: ToolError,
    tools: Vec<Tool>,
}

impl Broken {
    /// A server that says `error`.
    pub fn new(error: ToolError) -> Self {
        Self { error, tools: tools() }
    }
}

impl ServerHandler for Broken {
    fn get_info(&self) -> ServerConfig {
        config()
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.clone()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.tools.iter().find(|tool| tool.name == name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let hints = self.get_tool(&request.name).and_then(|tool| tool.annotations);
        let reads = hints.and_then(|hints| hints.read_only_hint) == Some(true);
        let first = (!reads).then_some(Word::Failed.as_str());
        Ok(self.error.clone().into_result(first).into())
    }
}
