//! `vmkit mcp`: MCP over stdin and stdout, for one client.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use rmcp::transport::io::{StdioReader, StdioWriter, stdio_pipes};

use super::{CliError, Start, life};
use crate::access::Audit;
use crate::config::parse_base_url;
use crate::installation::Part;
use crate::mcp::{Broken, Gateway, Server, ToolError, serve_stdio};

/// Serve MCP over stdin and stdout, as AI clients start it. Needs no arguments.
#[derive(Debug, Args)]
pub(crate) struct Mcp {
    /// Carry everything to this gateway, for a client that cannot speak HTTP; the key is taken
    /// from VMKIT_GATEWAY_KEY.
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
}

impl Mcp {
    pub(super) async fn run(self, start: Start) -> Result<ExitCode, CliError> {
        life::tie(&start.settings);
        let (input, output) = stdio_pipes();
        if let Some(url) = &self.gateway {
            let url = parse_base_url("--gateway", url)?;
            let gateway = Gateway::new(url, start.settings.gateway_key.clone());
            return match gateway.check().await {
                Ok(()) => gateway.relay(input, output).await,
                Err(error) => said_to_all(CliError::from(error), input, output).await,
            }
            .map(|()| ExitCode::SUCCESS)
            .map_err(|error| CliError::io("the client did not speak MCP", &error));
        }
        let opened = start.open(Part::Face).await.map_err(CliError::from);
        let held = opened.and_then(|context| Ok((context, life::hold_worker(&start.settings)?)));
        let served = match held {
            Ok((context, _hold)) => {
                let audit = Audit::new(context.store.clone(), context.clock.clone());
                let server = Server::new(audit, Arc::new(context));
                let closing = server.closing().clone();
                serve_stdio(server, closing, input, output).await
            }
            Err(error) => said_to_all(error, input, output).await,
        };
        served.map_err(|error| CliError::io("the client did not speak MCP", &error))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A client shows nothing of a process that ends at once; a server whose every answer says what is
/// wrong reaches the person.
async fn said_to_all(error: CliError, input: StdioReader, output: StdioWriter) -> io::Result<()> {
    super::tell(&error);
    let error = ToolError::new(error.code, error.message).fix(error.fix);
    serve_stdio(Broken::new(error), Default::default(), input, output).await
}
