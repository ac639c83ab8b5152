//! `vmkit eject`: a bundle to go on with by hand.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{CliError, Start};
use crate::domain::names::EnvironmentPath;
use crate::operations::eject::{BundleFile, bundle};

/// Write what a person needs to go on without VMKit: Kamal config, host key, commands to run by hand.
#[derive(Debug, Args)]
pub(crate) struct Eject {
    /// The environment, such as shop/staging.
    #[arg(value_name = "APP/ENV")]
    environment: EnvironmentPath,
    /// The tar archive to write; it must not exist yet, and only you may read it.
    file: PathBuf,
    /// Put the env values in clear into the bundle.
    #[arg(long)]
    with_secrets: bool,
}

impl Eject {
    pub(super) async fn run(self, start: Start) -> Result<ExitCode, CliError> {
        let context = start.open_any().await?;
        let files = bundle(&context, &self.environment, self.with_secrets).await?;
        let seconds = u64::try_from(context.clock.now().0 / 1_000).unwrap_or(0);
        let packed = pack(&files, seconds)
            .map_err(|error| CliError::io("the bundle cannot be packed", &error))?;
        // 0600 from the first byte on, and never over something that is there.
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.file)
            .and_then(|mut file| file.write_all(&packed).and_then(|()| file.sync_all()))
            .map_err(|error| {
                CliError::io(&format!("`{}` cannot be written", self.file.display()), &error)
            })?;
        let secrets = if self.with_secrets { ", env values in clear" } else { "" };
        super::print(&format!(
            "{}: {} files for {}{secrets}; README.md in it says how to go on",
            self.file.display(),
            files.len(),
            self.environment
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn pack(files: &[BundleFile], seconds: u64) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(file.content.len()).unwrap_or(u64::MAX));
        header.set_mode(file.mode);
        header.set_mtime(seconds);
        archive.append_data(&mut header, &file.path, file.content.as_slice())?;
    }
    archive.into_inner()
}
