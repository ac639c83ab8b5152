//! `vmkit sandbox`: only the simulated APIs, for VMKit and for other clients.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use vmkit_sandbox::{Options, SandboxError};

use super::{CliError, life, with_causes};

/// Serve the simulated APIs and VMs; prints the settings that point clients at them, then serves
/// until it is ended.
#[derive(Debug, Args)]
pub(crate) struct Sandbox {
    /// The address of the first API; the others are on the next ports. Free ports otherwise.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// A folder whose OWNER/NAME folders become repos of the simulated GitHub.
    #[arg(long, value_name = "DIR")]
    repos: Option<PathBuf>,
}

impl From<SandboxError> for CliError {
    fn from(error: SandboxError) -> Self {
        Self::new(error.code(), with_causes(&error))
    }
}

impl Sandbox {
    pub(super) async fn run(self) -> Result<ExitCode, CliError> {
        let exe = std::env::current_exe()
            .map_err(|error| CliError::io("the program cannot be found", &error))?;
        let stop = life::asked_to_end()?;
        let options = Options { exe, listen: self.listen, repos: self.repos, ..Options::default() };
        let sandbox = vmkit_sandbox::Sandbox::start(options).await?;
        for (name, value) in sandbox.settings() {
            super::print(&format!("{name}={value}"))?;
        }
        stop.cancelled().await;
        sandbox.stop().await;
        Ok(ExitCode::SUCCESS)
    }
}
