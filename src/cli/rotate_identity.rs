//! `vmkit rotate-identity`: another key by which agents know this installation.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{CliError, Start, life};
use crate::installation::{InstallationError, Part};
use crate::operations::identity::change;

/// Change the key by which agents know this installation; run it again until no VM needs the old one.
#[derive(Debug, Args)]
pub(crate) struct RotateIdentity {
    /// How long to wait for agents to take the new key.
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    wait: u16,
    /// Delete the old key even where VMs still need it: their agents link no more.
    #[arg(long)]
    cut_off: bool,
}

impl RotateIdentity {
    pub(super) async fn run(self, start: Start) -> Result<ExitCode, CliError> {
        // Agents are reached through whoever holds their links: the worker, or the gateway.
        let (context, _hold) = match start.open(Part::Face).await {
            Ok(context) => (context, Some(life::hold_worker(&start.settings)?)),
            Err(InstallationError::OtherMode { .. }) => (start.open(Part::Desk).await?, None),
            Err(error) => return Err(error.into()),
        };
        let wait = Duration::from_secs(self.wait.into());
        let changed = change(&context, wait, self.cut_off).await?;
        for (vm, why) in &changed.missing {
            super::say(&format!("{vm}: {why}"));
        }
        if !changed.over {
            let (missing, all) = (changed.missing.len(), changed.vms + changed.missing.len());
            let message =
                format!("{missing} of {all} VMs still need the old key, which stays good for them");
            return Err(CliError::new("old_key_needed", message)
                .fix("run it again once they are linked, or with --cut-off to leave them behind"));
        }
        super::print(&changed.key)?;
        super::say(&format!("{} VMs know this key, and the old one is deleted", changed.vms));
        Ok(ExitCode::SUCCESS)
    }
}
