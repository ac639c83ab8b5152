//! `vmkit doctor`: is everything there that the main job needs?

use std::process::ExitCode;

use clap::Args;

use super::{CliError, Start, life};
use crate::mcp::line;
use crate::operations::Context;
use crate::queries::doctor::{Verdict, doctor};

/// Check tokens, reachability and permissions, and say what to do. Exit code 1 if something is wrong.
#[derive(Debug, Args)]
pub(crate) struct Doctor {}

impl Doctor {
    pub(super) async fn run(self, start: Start) -> Result<ExitCode, CliError> {
        let context = start.open_any().await?;
        let bad = report(&context, &start).await?;
        Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Prints a line for each thing, and tells how many are bad.
pub(super) async fn report(context: &Context, start: &Start) -> Result<u32, CliError> {
    let mut bad = 0;
    for row in doctor(context).await {
        let mark = match row.verdict {
            Verdict::Good => "ok  ",
            Verdict::Bad => "BAD ",
            Verdict::Note => "note",
        };
        bad += u32::from(row.verdict == Verdict::Bad);
        super::print(&format!("{mark}  {}: {}", row.what, line(&row.found, 400)))?;
        if let Some(fix) = row.fix {
            super::print(&format!("      -> {fix}"))?;
        }
    }
    let worker = if life::is_up(&start.settings).await { "runs" } else { "starts when needed" };
    super::print(&format!("ok    worker: {worker}"))?;
    for name in start.environment.unknown() {
        super::print(&format!("note  the variable {name} means nothing to VMKit"))?;
    }
    Ok(bad)
}
