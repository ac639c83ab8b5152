//! The demo's own MCP client, as Claude Desktop would be one: a child process over stdio.

use std::sync::{Arc, Mutex, PoisonError};

use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ClientConfig, ContentBlock, ElicitRequestParams,
    ElicitResult, ElicitationAction, Implementation, ProgressNotificationParam,
};
use rmcp::service::{NotificationContext, RequestContext, RunningService};
use rmcp::transport::TokioChildProcess;
use rmcp::{ClientHandler, ErrorData, RoleClient, ServiceExt};
use serde_json::{Value, json};
use tokio::process::Command;

use super::Stopped;
use crate::mcp::ERROR_META;

/// What the client does on behalf of the person beside it.
#[derive(Clone, Default)]
pub(super) struct Person {
    /// What the person types when they are asked; nothing means that they decline.
    types: Arc<Mutex<Option<String>>>,
    /// The questions that they were asked.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Person {
    /// From now on the person answers questions with `text`.
    pub(super) fn will_type(&self, text: &str) {
        *self.types.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.to_owned());
    }

    /// How many questions there were.
    pub(super) fn questions(&self) -> usize {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// The client's side of a session.
#[derive(Clone)]
pub(super) struct Assistant {
    person: Person,
    progress: Arc<dyn Fn(&ProgressNotificationParam) + Send + Sync>,
}

impl ClientHandler for Assistant {
    fn get_info(&self) -> ClientConfig {
        let can = ClientCapabilities::builder().enable_elicitation().build();
        ClientConfig::new(can, Implementation::new("vmkit-demo", env!("CARGO_PKG_VERSION")))
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let message = match request {
            ElicitRequestParams::FormElicitationParams { message, .. } => message,
            _ => String::new(),
        };
        self.person.asked.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        let typed = self.person.types.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(match typed {
            Some(text) => ElicitResult::new(ElicitationAction::Accept)
                .with_content(json!({ "confirm": text })),
            None => ElicitResult::new(ElicitationAction::Decline),
        })
    }

    async fn on_progress(
        &self,
        progress: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        (self.progress)(&progress);
    }
}

/// A session with a VMKit of its own.
pub(super) struct Client {
    service: RunningService<RoleClient, Assistant>,
    /// The server's process id.
    pub(super) pid: u32,
}

/// A tool's answer.
#[derive(Debug, Clone)]
pub(super) struct Said {
    /// The text.
    pub(super) text: String,
    /// The data; null where there is none.
    pub(super) facts: Value,
    /// The error's code, where it is one.
    pub(super) error: Option<String>,
}

impl Said {
    /// A text field of the data.
    pub(super) fn field(&self, name: &str) -> Result<String, Stopped> {
        let field = self.facts[name].as_str().map(str::to_owned);
        field.ok_or_else(|| Stopped::because(format!("the answer has no `{name}`: {}", self.text)))
    }

    /// The first word of the answer.
    pub(super) fn word(&self) -> &str {
        self.text.split([':', ' ', '\n']).next().unwrap_or_default()
    }
}

impl Client {
    /// Starts `command` and shakes hands with it.
    pub(super) async fn start(
        command: Command,
        log: std::fs::File,
        person: Person,
        progress: Arc<dyn Fn(&ProgressNotificationParam) + Send + Sync>,
    ) -> Result<Self, Stopped> {
        let process = TokioChildProcess::builder(command).stderr(log).spawn();
        let (process, _) = process.map_err(Stopped::because)?;
        let pid = process.id().unwrap_or_default();
        let assistant = Assistant { person, progress };
        let service = assistant.serve(process).await.map_err(Stopped::because)?;
        Ok(Self { service, pid })
    }

    /// Calls a tool.
    pub(super) async fn call(&self, tool: &str, arguments: Value) -> Result<Said, Stopped> {
        let fields = arguments.as_object().cloned().unwrap_or_default();
        let request = CallToolRequestParams::new(tool.to_owned()).with_arguments(fields);
        let result = self.service.call_tool(request).await.map_err(Stopped::because)?;
        let texts = result.content.iter().filter_map(ContentBlock::as_text);
        let text = texts.map(|text| text.text.clone()).collect::<Vec<_>>().join("\n");
        let error = result
            .meta
            .as_ref()
            .and_then(|meta| meta.0.get(ERROR_META)?["code"].as_str().map(str::to_owned));
        let failed = result.is_error == Some(true);
        let error = error.or_else(|| failed.then(|| "unnamed".to_owned()));
        Ok(Said { text, facts: result.structured_content.unwrap_or(Value::Null), error })
    }

    /// Ends the session and waits for the server's process.
    pub(super) async fn close(self) -> Result<(), Stopped> {
        self.service.cancel().await.map(drop).map_err(Stopped::because)
    }
}
