//! The agent's command line; the only reader of its environment variables.

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::agent;
use crate::host::Host;
use crate::socket;

/// VMKit's agent on a VM: logs, metrics, env files.
#[derive(Parser)]
#[command(name = "vmkit-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Links to the gateway and serves the socket, until SIGTERM.
    Run {
        /// The machine's root directory; everything that the agent touches lies under it.
        #[arg(long, default_value = "/")]
        root: PathBuf,
        /// Milliseconds between two heartbeats.
        #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(10..))]
        heartbeat_ms: u64,
        /// What is logged to standard error, such as `info` or `vmkit_agent=debug`.
        #[arg(long, env = "VMKIT_AGENT_LOG", default_value = "info")]
        log: String,
    },
    /// Joins standard input and output to the running agent's socket.
    Bridge {
        /// The machine's root directory.
        #[arg(long, default_value = "/")]
        root: PathBuf,
    },
}

/// Runs the agent's command line on `args` (without the program's name): 0 after SIGTERM or
/// SIGINT, 1 where it cannot run, 2 for bad usage.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(std::iter::once("vmkit-agent".into()).chain(args)) {
        Ok(cli) => cli,
        Err(error) => {
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let ended = match cli.command {
        Command::Run { root, heartbeat_ms, log } => {
            start_logging(&log);
            run_agent(Host::new(root), Duration::from_millis(heartbeat_ms))
        }
        Command::Bridge { root } => run_bridge(&Host::new(root)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn start_logging(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .try_init();
    // A process logs to the first place that it was given.
    drop(logging);
}

fn run_agent(host: Host, heartbeat: Duration) -> Result<(), Box<dyn Error>> {
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let stop = CancellationToken::new();
        let (mut term, mut int) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stopping = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            stopping.cancel();
        });
        agent::run(host, heartbeat, stop).await.map_err(Box::<dyn Error>::from)
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    ended
}

fn run_bridge(host: &Host) -> Result<(), Box<dyn Error>> {
    let runtime = runtime()?;
    let ended = runtime.block_on(socket::bridge(host));
    // A blocking read of standard input cannot be called back.
    runtime.shutdown_background();
    ended.map_err(Box::from)
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

fn complain(error: &dyn Error) {
    let mut text = format!("vmkit-agent: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    eprintln!("{text}");
}
