//! `vmkit approve`: a person lets a plan run.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;

use super::{CliError, Start};
use crate::config::coding_agent;
use crate::domain::ids::{BadId, PlanId};
use crate::mcp::{clean, told};
use crate::operations::plans;

/// Approve a plan that only a person may approve: shows it and asks you to type a name.
#[derive(Debug, Args)]
pub(crate) struct Approve {
    /// The plan's id, as the assistant was told it, such as plan_01jc...
    plan: String,
}

impl Approve {
    pub(super) async fn run(self, start: Start) -> Result<ExitCode, CliError> {
        if let Some(agent) = coding_agent(&start.environment) {
            let message = format!("this shell belongs to {agent}, and only a person may approve");
            return Err(CliError::new("not_a_person", message)
                .fix("run it in a terminal that you opened yourself"));
        }
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            let message = "there is no terminal here, and only a person may approve";
            return Err(CliError::new("no_terminal", message)
                .fix("run it in a terminal that you opened yourself"));
        }
        let id: PlanId = self.plan.parse().map_err(|error: BadId| {
            CliError::new("bad_id", error.to_string())
                .fix("`vmkit call get_overview` lists plans")
                .usage()
        })?;
        let context = start.open_any().await?;
        let plan = plans::find(&context, id).await?;
        super::say(&clean(&told(&plan.body)));
        let wanted = plan.body.confirm_with.as_str();
        let typed = ask(&format!("\nType {wanted} to approve, anything else to leave it: "))?;
        if typed.trim() != wanted {
            super::say("not approved; nothing was done");
            return Ok(ExitCode::FAILURE);
        }
        plans::approve(&context, id, "a person at a terminal").await?;
        super::say("approved; the assistant can now make its call again with this plan_id");
        Ok(ExitCode::SUCCESS)
    }
}

/// One line from the terminal.
pub(super) fn ask(question: &str) -> Result<String, CliError> {
    let failed = |error: std::io::Error| CliError::io("the terminal cannot be read", &error);
    let mut out = std::io::stderr();
    write!(out, "{question}").and_then(|()| out.flush()).map_err(failed)?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(failed)?;
    Ok(line)
}
