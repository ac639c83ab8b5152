//! The command line: one file per subcommand.

mod approve;
mod backup;
mod call;
mod connect;
mod demo;
mod doctor;
mod eject;
mod env;
mod keys;
mod life;
mod mcp;
mod rotate_identity;
mod sandbox;
mod serve;
mod setup;
mod tools;
mod worker;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::{Environment, Flags, Settings, SettingsError};
use crate::domain::clock::Clock;
use crate::installation::{self, InstallationError, Part};
use crate::mcp::ToolError;
use crate::operations::{Context, OpError};

const MORE: &str = "\
Settings: flags beat VMKIT_* variables, which beat vmkit.toml in the state's folder, which beats \
what `vmkit connect` stored. The variables:
  VMKIT_HOME                  the state's folder
  VMKIT_HETZNER_TOKEN         Hetzner Cloud token          VMKIT_HETZNER_URL  its API, with /v1
  VMKIT_DIGITALOCEAN_TOKEN    DigitalOcean token           VMKIT_DIGITALOCEAN_URL  its API
  VMKIT_GITHUB_TOKEN          GitHub token                 VMKIT_GITHUB_URL   its API
  VMKIT_GITHUB_APP_ID         a GitHub App in place of a token; VMKIT_GITHUB_APP_KEY  its key or file
  VMKIT_CLOUDFLARE_TOKEN      Cloudflare token  VMKIT_CLOUDFLARE_URL  its API, with /client/v4
  VMKIT_REGISTRY_URL          the registry that answers for ghcr.io
  VMKIT_GITHUB_WRITE_SECONDS  how long two changes at GitHub are apart; it asks for 1
  VMKIT_RESOLVER              name server asked in place of the authoritative ones, ip:port
  VMKIT_GATEWAY_KEY           the key with which `vmkit mcp --gateway` calls a gateway
  VMKIT_MASTER_KEY            the vault's key, instead of the key file
  VMKIT_PUBLIC_URL            where agents and clients reach this installation
  VMKIT_AGENT_LISTEN          where the local worker listens for agents
  VMKIT_AGENT_DIR             folder with vmkit-agent-amd64 and vmkit-agent-arm64
  VMKIT_AGENT_AMD64           where to fetch the agent for such VMs: https://...#sha256=...
  VMKIT_AGENT_ARM64           the same for arm64
  VMKIT_REGISTRY_MIRROR       a mirror of Docker Hub that the Docker of new VMs asks first
  VMKIT_SSH_PORT              port of the VMs' SSH servers, in a sandbox that may not use 22
  VMKIT_OWNER_KEY             your SSH public key, or its file (else ~/.ssh/id_ed25519.pub)
  VMKIT_STEADY_SECONDS        how long a version must run to count as live (20)
  VMKIT_WORKER_IDLE_SECONDS   how long an idle worker stays (600)
  VMKIT_TETHER                Unix socket whose closing ends this process
  VMKIT_LOG                   what goes to stderr, such as info or vmkit=debug

Also: `vmkit agent ...` is the agent of a VM (see `vmkit agent --help`); `vmkit sample-app` and \
`vmkit tethered` are parts of the sandbox.";

/// Puts your GitHub repo on a VM of your own, from an AI assistant or from here.
#[derive(Debug, Parser)]
#[command(name = "vmkit", version, about, after_help = MORE, max_term_width = 100)]
pub struct Cli {
    /// The folder of the state: database, master key, vmkit.toml.
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,
    /// What is logged to stderr, such as `info` or `vmkit=debug`.
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Setup(setup::Setup),
    Mcp(mcp::Mcp),
    Serve(serve::Serve),
    Worker(worker::Worker),
    Connect(connect::Connect),
    Call(call::Call),
    Tools(tools::Tools),
    Keys(keys::Keys),
    Approve(approve::Approve),
    Doctor(doctor::Doctor),
    Env(env::Env),
    Backup(backup::Backup),
    Eject(eject::Eject),
    RotateIdentity(rotate_identity::RotateIdentity),
    Sandbox(sandbox::Sandbox),
}

/// Why a subcommand ended badly.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub(crate) struct CliError {
    code: String,
    message: String,
    fix: String,
    /// 1: it did not work; 2: it was asked for wrongly.
    exit: u8,
}

impl CliError {
    fn new(code: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code: code.to_owned(), message, fix: String::new(), exit: 1 }
    }

    fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }

    fn usage(self) -> Self {
        Self { exit: 2, ..self }
    }

    fn io(doing: &str, error: &std::io::Error) -> Self {
        Self::new("io", format!("{doing}: {error}"))
    }
}

impl From<SettingsError> for CliError {
    fn from(error: SettingsError) -> Self {
        Self::new(error.code(), with_causes(&error))
    }
}

impl From<InstallationError> for CliError {
    fn from(error: InstallationError) -> Self {
        Self::new(error.code(), with_causes(&error)).fix(error.fix().unwrap_or_default())
    }
}

impl From<OpError> for CliError {
    fn from(error: OpError) -> Self {
        Self::new(error.code(), with_causes(&error)).fix(error.fix())
    }
}

impl From<ToolError> for CliError {
    fn from(error: ToolError) -> Self {
        Self::new(&error.code, error.message.clone()).fix(error.fix)
    }
}

/// The person at the terminal owns the machine: they may see the innermost cause too.
fn with_causes(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    let innermost = std::iter::successors(error.source(), |cause| cause.source()).last();
    match innermost.map(ToString::to_string) {
        Some(cause) if !text.contains(&cause) => format!("{text} ({cause})"),
        _ => text,
    }
}

/// What every subcommand starts from.
pub(crate) struct Start {
    settings: Settings,
    environment: Environment,
    clock: Clock,
    /// Whether somebody said which folder of the state is meant.
    home_is_chosen: bool,
}

impl Start {
    /// The installation, as one of its parts.
    async fn open(&self, part: Part) -> Result<Context, InstallationError> {
        installation::open(&self.settings, part, self.clock.clone()).await
    }

    /// The installation, whichever kind it is; a new one is local.
    async fn open_any(&self) -> Result<Context, InstallationError> {
        match self.open(Part::Face).await {
            Err(InstallationError::OtherMode { .. }) => self.open(Part::Gateway).await,
            opened => opened,
        }
    }
}

/// Runs the command line. `args` begins with the program's name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout and are no failure.
            let code = if error.use_stderr() { 2 } else { 0 };
            return if error.print().is_ok() { ExitCode::from(code) } else { ExitCode::FAILURE };
        }
    };
    match start(cli) {
        Ok(code) => code,
        Err(error) => {
            tell(&error);
            ExitCode::from(error.exit)
        }
    }
}

fn start(cli: Cli) -> Result<ExitCode, CliError> {
    let environment = Environment::of_process();
    let home_is_chosen = cli.home.is_some() || environment.path("VMKIT_HOME").is_some();
    let flags = Flags { home: cli.home, log: cli.log };
    let settings = Settings::resolve(&flags, &environment)?;
    log_to_stderr(&settings);
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::io("the runtime cannot be started", &error))?;
    let start = Start { settings, environment, clock: Clock::wall(), home_is_chosen };
    let done = runtime.block_on(run_command(cli.command, start));
    // A read of stdin that nobody will answer must not keep the process.
    runtime.shutdown_background();
    done
}

async fn run_command(command: Command, start: Start) -> Result<ExitCode, CliError> {
    match command {
        Command::Demo(command) => Ok(command.run().await),
        Command::Setup(command) => command.run(start).await,
        Command::Mcp(command) => command.run(start).await,
        Command::Serve(command) => command.run(start).await,
        Command::Worker(command) => command.run(start).await,
        Command::Connect(command) => command.run(start).await,
        Command::Call(command) => command.run(start).await,
        Command::Tools(command) => command.run(),
        Command::Keys(command) => command.run(start).await,
        Command::Approve(command) => command.run(start).await,
        Command::Doctor(command) => command.run(start).await,
        Command::Env(command) => command.run(start).await,
        Command::Backup(command) => command.run(start).await,
        Command::Eject(command) => command.run(start).await,
        Command::RotateIdentity(command) => command.run(start).await,
        Command::Sandbox(command) => command.run().await,
    }
}

/// Logs go to stderr, always: stdout belongs to MCP and to results.
fn log_to_stderr(settings: &Settings) {
    let filter = EnvFilter::try_new(&settings.log).unwrap_or_else(|_| EnvFilter::new("warn"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let subscriber = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_ansi(colours)
        .finish();
    // A second subscriber is only ever set by tests.
    drop(tracing::subscriber::set_global_default(subscriber));
}

/// What went wrong and what to do next, on stderr.
fn tell(error: &CliError) {
    let fix = if error.fix.is_empty() { String::new() } else { format!("; {}", error.fix) };
    say(&format!("vmkit: {error}{fix}"));
}

/// A line for the person, on stderr. Nobody can be told that stderr is closed.
fn say(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// All of stdin.
fn piped() -> Result<String, CliError> {
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|error| CliError::io("stdin cannot be read", &error))?;
    Ok(text)
}

/// A result, on stdout.
fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.map_err(|error| CliError::io("the result cannot be written to stdout", &error))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::VARIABLES;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Chain(&'static str, #[source] Option<Box<Chain>>);

    #[test]
    fn of_many_causes_the_innermost_is_shown() {
        let inner = Chain("connection refused", None);
        let middle = Chain("error sending request", Some(Box::new(inner)));
        let outer = Chain("GitHub cannot be reached", Some(Box::new(middle)));
        assert_eq!(with_causes(&outer), "GitHub cannot be reached (connection refused)");
        assert_eq!(with_causes(&Chain("alone", None)), "alone");
        let same = Chain("it is locked", Some(Box::new(Chain("locked", None))));
        assert_eq!(with_causes(&same), "it is locked");
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_variable() {
        for (name, _) in VARIABLES {
            assert!(MORE.contains(name), "{name} is not in the help");
        }
    }

    #[test]
    fn every_command_and_flag_says_what_it_is_for() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "`{}` has no help", command.get_name());
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{}: {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
