//! Hooks: programs of the repo in `.kamal/hooks`, run on the runner at the moments and with the
//! variables of the real Kamal's.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{Call, Failure, Session, secrets};
use crate::workflow::shell::Output;

const FOLDER: &str = ".kamal/hooks";
const SECRETS: &str = ".kamal/secrets";

/// What hooks are told, and how far the command is.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    /// `--skip-hooks`.
    skipped: bool,
    command: String,
    subcommand: Option<String>,
    /// The version that is deployed; none yet where nothing is.
    pub(super) version: String,
    /// Whether this command holds the deploy lock.
    pub(super) locked: bool,
    /// Whether `pre-connect` was run: the first connection of all is the moment for it.
    connected: bool,
}

impl Hooks {
    pub(super) fn of(call: &Call, words: &[&str]) -> Self {
        let mut words = words.iter().map(|word| (*word).to_owned());
        Self {
            skipped: call.skip_hooks,
            command: words.next().unwrap_or_default(),
            subcommand: words.next(),
            version: call.version.clone().unwrap_or_default(),
            ..Self::default()
        }
    }
}

impl Session<'_> {
    pub(super) async fn pre_connect(&mut self) -> Result<(), Failure> {
        if std::mem::replace(&mut self.hooks.connected, true) {
            return Ok(());
        }
        self.hook("pre-connect", true, &[]).await
    }

    /// Runs a hook, if the repo has it. What it writes on the runner is not kept, which none of ours
    /// does.
    ///
    /// # Errors
    /// As the real Kamal's, with all that the hook said.
    pub(super) async fn hook(
        &mut self,
        name: &str,
        with_secrets: bool,
        more: &[(&str, String)],
    ) -> Result<(), Failure> {
        let path = format!("{FOLDER}/{name}");
        let Some(text) = self.shell.read(&path).filter(|_| !self.hooks.skipped) else {
            return Ok(());
        };
        self.say(format!("  INFO Running /usr/bin/env {path} on localhost"));
        let output = match self.kamal.executable.contains(&self.shell.absolute(&path)) {
            true => self.run_hook(&text, with_secrets, more).await?,
            false => Output::fail(
                126,
                format!("/usr/bin/env: \u{2018}{path}\u{2019}: Permission denied\n"),
            ),
        };
        if output.code == 0 {
            self.say("  INFO Finished in 0.1 seconds with exit status 0 (successful).");
            return Ok(());
        }
        let shown = |text: &str| match text.trim() {
            "" => "Nothing written".to_owned(),
            text => text.to_owned(),
        };
        let text = format!(
            "Hook `{name}` failed:\n{path} exit status: {}\n{path} stdout: {}\n{path} stderr: {}",
            output.code,
            shown(&output.out),
            shown(&output.err)
        );
        Err(Failure::new("Kamal::Cli::HookError", text))
    }

    async fn run_hook(
        &self,
        text: &str,
        with_secrets: bool,
        more: &[(&str, String)],
    ) -> Result<Output, Failure> {
        let mut shell = self.shell.clone();
        shell.env.extend(self.told());
        shell.env.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        if with_secrets {
            let secrets = self.shell.read(SECRETS).unwrap_or_default();
            for (name, _) in secrets.lines().filter_map(|line| line.trim().split_once('=')) {
                shell.env.insert(name.to_owned(), secrets::value(self.shell, name)?);
            }
        }
        let said = Mutex::new(Output::default());
        let sink = |output: &Output| {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            said.out.push_str(&output.out);
            said.err.push_str(&output.err);
        };
        let code = shell.program(text, self.programs, &sink).await;
        let said = said.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Output { code, ..said })
    }

    /// The variables of every hook.
    fn told(&self) -> BTreeMap<String, String> {
        let Hooks { version, command, subcommand, locked, .. } = &self.hooks;
        let service = &self.config.service;
        let short = version.get(..7).unwrap_or(version);
        let performer = self.shell.git.get("user.email").or(self.shell.git.get("user.name"));
        let mut told = BTreeMap::from([
            ("RECORDED_AT", crate::clock::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
            ("PERFORMER", performer.map_or("runner", String::as_str).to_owned()),
            ("VERSION", version.clone()),
            ("SERVICE_VERSION", format!("{service}@{short}")),
            ("SERVICE", service.clone()),
            ("HOSTS", self.config.hosts().join(",")),
            ("COMMAND", command.clone()),
            ("LOCK", locked.to_string()),
        ]);
        told.extend(subcommand.clone().map(|subcommand| ("SUBCOMMAND", subcommand)));
        told.into_iter().map(|(name, value)| (format!("KAMAL_{name}"), value)).collect()
    }
}
