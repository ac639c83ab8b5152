//! `vmkit mcp`: MCP over stdin and stdout, for one client.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use rmcp::transport::io::stdio_pipes;

use super::{CliError, Start, life};
use crate::access::Audit;
use crate::installation::Part;
use crate::mcp::{Broken, Server, ToolError, serve_stdio};

/// Serve MCP over stdin and stdout, as AI clients start it. Needs no arguments.
#[derive(Debug, Args)]
pub(crate) struct Mcp {}

impl Mcp {
    pub(super) async fn run(self, start: Start) -> Result<ExitCode, CliError> {
        life::tie(&start.settings);
        let (input, output) = stdio_pipes();
        let opened = start.open(Part::Face).await.map_err(CliError::from);
        let held = opened.and_then(|context| Ok((context, life::hold_worker(&start.settings)?)));
        let served = match held {
            Ok((context, _hold)) => {
                let audit = Audit::new(context.store.clone(), context.clock.clone());
                let server = Server::new(audit, Arc::new(context));
                let closing = server.closing().clone();
                serve_stdio(server, closing, input, output).await
            }
            // A client shows nothing of a process that ends at once; a server whose every answer
            // says what is wrong reaches the person.
            Err(error) => {
                super::tell(&error);
                let error = ToolError::new(error.code, error.message).fix(error.fix);
                serve_stdio(Broken::new(error), Default::default(), input, output).await
            }
        };
        served.map_err(|error| CliError::io("the client did not speak MCP", &error))?;
        Ok(ExitCode::SUCCESS)
    }
}
