//! The story as people see it: a bar on a terminal, plain lines otherwise, or one JSON object.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rmcp::model::ProgressNotificationParam;
use serde::Serialize;

use super::Stopped;

/// One step that is over.
#[derive(Debug, Serialize)]
struct Step {
    name: String,
    tool: &'static str,
    ok: bool,
    ms: u128,
    summary: String,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    ok: bool,
    steps: &'a [Step],
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Tells the story.
pub(super) struct Teller {
    json: bool,
    bar: ProgressBar,
    steps: Vec<Step>,
    began: Instant,
}

impl Teller {
    /// Tells on standard output; with `json`, nothing before the end.
    pub(super) fn new(json: bool) -> Self {
        let terminal = !json && std::io::stdout().is_terminal();
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
        if !terminal {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed:>4}") {
            bar.set_style(style);
        }
        if terminal {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Self { json, bar, steps: Vec::new(), began: Instant::now() }
    }

    /// Where progress notifications of the server go.
    pub(super) fn progress(&self) -> Arc<dyn Fn(&ProgressNotificationParam) + Send + Sync> {
        let bar = self.bar.clone();
        Arc::new(move |progress| {
            if let Some(message) = &progress.message {
                let step = progress
                    .total
                    .map(|total| format!("[{:.0}/{total:.0}] ", progress.progress.floor() + 1.0));
                bar.set_message(format!("{}{message}", step.unwrap_or_default()));
            }
        })
    }

    /// Runs a step and tells how it went.
    pub(super) async fn step(
        &mut self,
        name: &str,
        tool: &'static str,
        work: impl Future<Output = Result<String, Stopped>>,
    ) -> Result<(), Stopped> {
        let began = Instant::now();
        self.bar.set_message(name.to_owned());
        let done = work.await;
        let ms = began.elapsed().as_millis();
        let (ok, summary) = match &done {
            Ok(summary) => (true, summary.clone()),
            Err(stopped) => (false, stopped.to_string()),
        };
        let number = self.steps.len() + 1;
        let mark = if ok { "ok  " } else { "FAIL" };
        let seconds = Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)).as_secs_f32();
        self.line(&format!("{number:>2} {mark} {seconds:>5.1} s  {tool:<18} {name}"));
        for line in summary.lines() {
            self.line(&format!("                 {line}"));
        }
        self.steps.push(Step { name: name.to_owned(), tool, ok, ms, summary });
        done.map(drop)
    }

    /// Something beside the steps.
    pub(super) fn aside(&self, text: &str) {
        if self.json {
            eprintln!("{text}");
        } else {
            self.line(text);
        }
    }

    fn line(&self, text: &str) {
        if self.json {
            return;
        }
        self.bar.suspend(|| write_out(text));
    }

    /// Ends the story and says whether all held.
    pub(super) fn end(&mut self, told: Result<(), Stopped>) -> ExitCode {
        self.bar.finish_and_clear();
        let error = told.err().map(|stopped| stopped.to_string());
        let ok = error.is_none();
        if self.json {
            let report = Report { ok, steps: &self.steps, error };
            write_out(&serde_json::to_string(&report).unwrap_or_default());
        } else {
            let seconds = self.began.elapsed().as_secs_f32();
            let steps = self.steps.len();
            write_out(&match error {
                None => {
                    format!("\nAll {steps} steps held, in {seconds:.1} s. Nothing is left running.")
                }
                Some(why) => format!("\nStopped after {steps} steps, in {seconds:.1} s: {why}"),
            });
        }
        if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// A reader that went away is no reason to stop before everything is cleaned up.
fn write_out(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}
