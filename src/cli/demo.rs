//! `vmkit demo`: the main job on the sandbox, through a real MCP client, told step by step.
//!
//! Every step checks what it claims by a second path: a GET of its own, the simulators' own lists,
//! `/proc`. VMKit's answer alone proves nothing.

mod client;
mod eyes;
mod stage;
mod story;
mod tell;
mod witness;

use std::process::ExitCode;

use clap::Args;

use stage::Stage;
use tell::Teller;

/// The main job on the sandbox: no account, no network, nothing to clean up.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Leave everything running at the end, and print how to connect an assistant to it.
    #[arg(long)]
    keep: bool,
    /// Print one JSON object at the end instead of the story.
    #[arg(long)]
    json: bool,
}

/// Why the demo stopped: one sentence for a person.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Stopped(String);

impl Stopped {
    /// Stopped because of `why`.
    pub(crate) fn because(why: impl std::fmt::Display) -> Self {
        Self(why.to_string())
    }
}

impl Demo {
    /// Runs the demo. Exit code 0 only if every step held.
    pub(super) async fn run(self) -> ExitCode {
        let mut teller = Teller::new(self.json);
        let mut stage = match Stage::set_up(teller.progress()).await {
            Ok(stage) => stage,
            Err(stopped) => return teller.end(Err(stopped)),
        };
        let mut told = story::tell(&mut stage, &mut teller, !self.keep).await;
        if self.keep && told.is_ok() {
            teller.aside(&stage.how_to_connect());
            told = stage.serve_until_ended().await;
        }
        let ended = stage.tear_down().await;
        teller.end(told.and(ended))
    }
}
