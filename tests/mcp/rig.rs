//! A state of its own for each test, and the processes on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rmcp::ErrorData;
use rmcp::model::{CallToolRequestParams, CallToolResult, ProtocolVersion};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt, RoleClient, RunningService};
use rmcp::transport::TokioChildProcess;
use serde_json::Value;
use vmkit::mcp::ToolError;

/// How long a condition may take; far more than it needs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Both eras of the protocol.
pub(crate) fn eras() -> [ClientLifecycleMode; 2] {
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    [ClientLifecycleMode::Initialize, ClientLifecycleMode::Discover { preferred_versions }]
}

/// A state's folder. Workers on it end half a second after the last face.
pub(crate) struct Rig {
    folder: tempfile::TempDir,
}

pub(crate) type Client = RunningService<RoleClient, ()>;

impl Rig {
    pub(crate) fn new() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn home(&self) -> &Path {
        self.folder.path()
    }

    /// The program on this state, with nothing of this process's environment but PATH.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmkit"));
        let path = std::env::vars_os().filter(|(name, _)| name == "PATH");
        command.env_clear().envs(path).env("VMKIT_HOME", self.home());
        command.env("VMKIT_WORKER_IDLE_SECONDS", "0.5").args(args);
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program runs")
    }

    /// `vmkit mcp` as a child process, with a real client.
    pub(crate) async fn mcp(&self, lifecycle: ClientLifecycleMode) -> Client {
        let mut command = self.command(&["mcp"]);
        command.stdin(Stdio::piped());
        let child = TokioChildProcess::new(tokio::process::Command::from(command));
        ().serve_with_lifecycle(child.expect("a child"), lifecycle).await.expect("a session")
    }

    /// The ids of the workers on this state.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let home = self.home().display().to_string();
        let ids = fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
            let id: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let line = fs::read(PathBuf::from(format!("/proc/{id}/cmdline"))).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            (line.contains(&home) && line.contains(" worker ")).then_some(id)
        });
        ids.collect()
    }
}

/// Calls a tool.
pub(crate) async fn call(client: &Client, tool: &'static str, arguments: Value) -> CallToolResult {
    let Value::Object(arguments) = arguments else { panic!("an object") };
    let request = CallToolRequestParams::new(tool).with_arguments(arguments);
    client.call_tool(request).await.expect("an answer")
}

/// The error that a tool answered with.
pub(crate) fn error(result: &CallToolResult) -> ToolError {
    ToolError::of(result).unwrap_or_else(|| panic!("no error: {result:?}"))
}

/// The text of an answer.
pub(crate) fn text(result: &CallToolResult) -> &str {
    result.content[0].as_text().map(|text| text.text.as_str()).expect("text")
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waited).await.is_ok(), "in vain: {what}");
}

/// What a protocol error says.
pub(crate) fn refusal(error: rmcp::service::ServiceError) -> ErrorData {
    match error {
        rmcp::service::ServiceError::McpError(error) => error,
        other => panic!("{other:?}"),
    }
}
