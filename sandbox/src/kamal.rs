//! Plays `kamal` as the workflow's steps call it: reads the same files, checks what the real one
//! would trip over in the same order, and ends with the same texts and exit codes.

mod accessory;
mod boot;
mod config;
mod exec;
mod hooks;
mod secrets;
mod ssh;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_util::sync::CancellationToken;

use crate::build::Registry;
use crate::machines::{Machine, Machines};
use crate::workflow::shell::{Output, Programs, Shell};
use config::Config;

/// The version that is played.
const VERSION: &str = "2.12.0";

/// What a failing `kamal` prints last: `  ERROR (CLASS): MESSAGE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    class: &'static str,
    message: String,
}

impl Failure {
    fn new(class: &'static str, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }

    fn config(message: impl Into<String>) -> Self {
        Self::new("Kamal::ConfigurationError", message)
    }

    /// A command that failed on the VM.
    fn command(host: &str, code: i32, stdout: &str, stderr: &str) -> Self {
        let shown = |text: &str| {
            if text.is_empty() { "Nothing written".to_owned() } else { text.trim_end().to_owned() }
        };
        let message = format!(
            "Exception while executing on host {host}: docker exit status: {code}\ndocker stdout: {}\ndocker stderr: {}",
            shown(stdout),
            shown(stderr)
        );
        Self::new("SSHKit::Command::Failed", message)
    }
}

/// Kamal, with the VMs and the registry that it reaches.
#[derive(Clone)]
pub struct Kamal {
    /// The VMs.
    pub machines: Machines,
    /// `ghcr.io`.
    pub registry: Registry,
    /// How long an app may take to answer at all before it counts as unhealthy, however long the
    /// config allows: sandbox time is short.
    pub patience: Duration,
    /// The runner's files that may be run, by absolute path.
    pub executable: Arc<BTreeSet<String>>,
}

/// The words of a call.
struct Call {
    words: Vec<String>,
    config: String,
    version: Option<String>,
    skip_push: bool,
    skip_hooks: bool,
    lock_wait: bool,
}

impl Call {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut call = Self {
            words: Vec::new(),
            config: "config/deploy.yml".to_owned(),
            version: None,
            skip_push: false,
            skip_hooks: false,
            lock_wait: false,
        };
        let mut rest = arguments.iter();
        while let Some(word) = rest.next() {
            let (flag, value) = word
                .split_once('=')
                .map_or((word.as_str(), None), |(flag, value)| (flag, Some(value)));
            match flag {
                "-c" | "--config-file" | "--version" => {
                    let value = value.map(str::to_owned).or_else(|| rest.next().cloned());
                    let value =
                        value.ok_or_else(|| format!("No value provided for option '{flag}'"))?;
                    if flag == "--version" {
                        call.version = Some(value)
                    } else {
                        call.config = value
                    }
                }
                "-P" | "--skip-push" => call.skip_push = true,
                "--lock-wait" => call.lock_wait = true,
                "-H" | "--skip-hooks" => call.skip_hooks = true,
                // There is one host to each environment.
                "-v" | "--verbose" | "-q" | "--quiet" | "-p" | "--primary" => {}
                flag if flag.starts_with('-') => {
                    return Err(format!("Unknown switches \"{flag}\""));
                }
                _ => call.words.push(word.clone()),
            }
        }
        Ok(call)
    }
}

/// One `kamal` at work: its output so far.
struct Session<'a> {
    kamal: &'a Kamal,
    shell: &'a Shell,
    /// What a hook may call.
    programs: &'a dyn Programs,
    config: Config,
    hooks: hooks::Hooks,
    out: String,
}

impl Kamal {
    /// Runs `kamal ARGUMENTS` on a runner. Cancelling stops it at once, as SIGINT does: the lock
    /// and a half-started container stay.
    pub async fn run(
        &self,
        arguments: &[String],
        shell: &Shell,
        programs: &dyn Programs,
        cancelled: &CancellationToken,
    ) -> Output {
        let call = match Call::parse(arguments) {
            Ok(call) => call,
            Err(reason) => {
                return Output::fail(1, format!("ERROR: \"kamal\" was called wrongly: {reason}\n"));
            }
        };
        let words: Vec<&str> = call.words.iter().map(String::as_str).collect();
        if words == ["version"] {
            return Output::ok(format!("{VERSION}\n"));
        }
        let config = match Config::read(shell, &call.config) {
            Ok(config) => config,
            Err(failure) => return ended(String::new(), Err(failure)),
        };
        let hooks = hooks::Hooks::of(&call, &words);
        let mut session =
            Session { kamal: self, shell, programs, config, hooks, out: String::new() };
        let playing = async {
            match words.as_slice() {
                ["deploy" | "redeploy"] => session.deploy(&call).await,
                ["accessory", "boot", name] => session.accessory_boot(name).await,
                ["accessory", "reboot", name] => session.accessory_reboot(name).await,
                ["lock", "status"] => session.lock_status().await,
                ["lock", "release"] => session.lock_release().await,
                ["server", "exec", line] => session.server_exec(line).await,
                ["config"] => Ok(()),
                other => Err(Failure::new(
                    "NotImplementedError",
                    format!("the sandbox does not play `kamal {}`", other.join(" ")),
                )),
            }
        };
        let result = tokio::select! {
            result = playing => Some(result),
            () = cancelled.cancelled() => None,
        };
        match result {
            Some(result) => ended(session.out, result),
            None => Output { code: 130, out: session.out, err: "Interrupt\n".to_owned() },
        }
    }
}

fn ended(mut out: String, result: Result<(), Failure>) -> Output {
    match result {
        Ok(()) => Output::ok(out),
        Err(failure) => {
            out.push_str(&format!("  ERROR ({}): {}\n", failure.class, failure.message));
            Output { code: 1, out, err: String::new() }
        }
    }
}

impl Session<'_> {
    fn say(&mut self, line: impl AsRef<str>) {
        self.out.push_str(line.as_ref());
        self.out.push('\n');
    }

    async fn lock_status(&mut self) -> Result<(), Failure> {
        let (_, machine) = self.primary().await?;
        match self.lock_details(&machine) {
            Some(details) => self.say(details),
            None => self.say("There is no deploy lock"),
        }
        Ok(())
    }

    async fn lock_release(&mut self) -> Result<(), Failure> {
        let (host, machine) = self.primary().await?;
        let folder = machine.path(&self.lock_folder());
        if std::fs::remove_dir_all(&folder).is_err() {
            let text = format!(
                "rm: cannot remove '.kamal/lock-{}/details': No such file or directory",
                self.config.service
            );
            return Err(Failure::command(&host, 1, "", &text));
        }
        self.say("Released the deploy lock");
        Ok(())
    }

    fn lock_folder(&self) -> String {
        format!("/home/{}/.kamal/lock-{}", self.config.ssh_user, self.config.service)
    }

    /// The lock's text, if somebody holds it.
    fn lock_details(&self, machine: &Machine) -> Option<String> {
        let folder = machine.path(&self.lock_folder());
        if !folder.is_dir() {
            return None;
        }
        let text = std::fs::read_to_string(folder.join("details")).unwrap_or_default();
        let bytes =
            STANDARD.decode(text.split_whitespace().collect::<String>()).unwrap_or_default();
        Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    fn take_lock(&mut self, host: &str, machine: &Machine, version: &str) -> Result<(), Failure> {
        self.hooks.version = version.to_owned();
        self.say("Acquiring the deploy lock...");
        let folder = machine.path(&self.lock_folder());
        if let Some(parent) = folder.parent() {
            // The user's home and `.kamal` are made by the bootstrap of a real VM.
            drop(std::fs::create_dir_all(parent));
        }
        if std::fs::create_dir(&folder).is_err() {
            self.say("Deploy lock already in place!");
            let details = self.lock_details(machine).unwrap_or_default();
            self.say(details);
            return Err(Failure::new(
                "Kamal::Cli::LockError",
                "Deploy lock found. Run 'kamal lock help' for more information",
            ));
        }
        let holder = self.shell.git.get("user.name").map_or("runner", String::as_str);
        let at = crate::clock::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        let details = format!(
            "Locked by: {holder} at {at}\nVersion: {version}\nMessage: Automatic deploy lock\n"
        );
        let written = std::fs::write(folder.join("details"), STANDARD.encode(details));
        written.map_err(|error| Failure::command(host, 1, "", &error.to_string()))?;
        self.hooks.locked = true;
        Ok(())
    }

    fn release_lock(&mut self, machine: &Machine) {
        self.say("Releasing the deploy lock...");
        self.hooks.locked = false;
        drop(std::fs::remove_dir_all(machine.path(&self.lock_folder())));
    }

    /// The first host, logged in.
    async fn primary(&mut self) -> Result<(String, Machine), Failure> {
        let hosts = self.config.hosts();
        let Some(host) = hosts.first() else {
            return Err(Failure::config("servers: no hosts are given"));
        };
        self.pre_connect().await?;
        let machine = self.log_in(host).await?;
        Ok((host.clone(), machine))
    }
}
