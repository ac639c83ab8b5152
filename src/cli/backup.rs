//! `vmkit backup`: the state in one file.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{CliError, Start};

/// Write a copy of the state, while VMKit goes on working. The master key is not in it.
#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file to write; it must not exist yet, and only you may read it.
    file: PathBuf,
}

impl Backup {
    pub(super) async fn run(self, start: Start) -> Result<ExitCode, CliError> {
        // What does not exist yet is not made here, only to be copied.
        let database = start.settings.home.database();
        if !database.exists() {
            let message = format!("there is no state yet at {}", database.display());
            return Err(CliError::new("no_state", message)
                .fix("name the folder that has it with --home or VMKIT_HOME"));
        }
        let context = start.open_any().await?;
        // 0600 from the first byte on, and never over something that is there.
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.file).map_err(
            |error| CliError::io(&format!("`{}` cannot be written", self.file.display()), &error),
        )?;
        if let Err(error) = context.store.copy_to(&self.file).await {
            drop(std::fs::remove_file(&self.file));
            let message = super::with_causes(&error);
            return Err(CliError::new(error.code(), message)
                .fix(format!("nothing was left at {}", self.file.display())));
        }
        super::print(&format!(
            "{file}: the whole state\n\
             Its secrets are sealed with the key of {key} (fingerprint {fingerprint}), which is not in it: keep that too, elsewhere.\n\
             To restore: end VMKit, put this file as vmkit.db into the state's folder, give VMKit that key, and run `vmkit doctor`.",
            file = self.file.display(),
            key = context.vault.source(),
            fingerprint = context.vault.fingerprint(),
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}
