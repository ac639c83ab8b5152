//! The agent's command line; the only reader of its environment variables.

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::agent::{self, Ended, Rhythm, Role};
use crate::calls::facts;
use crate::care;
use crate::host::Host;
use crate::notify::Notifier;
use crate::{socket, units};

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
        /// Milliseconds between two samples of the metrics.
        #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(10..))]
        sample_ms: u64,
        /// What is logged to standard error, such as `info` or `vmkit_agent=debug`.
        #[arg(long, env = "VMKIT_AGENT_LOG", default_value = "info")]
        log: String,
        /// Only shows that it can link: the agent that it is to follow starts it so.
        #[arg(long, hide = true)]
        trial: bool,
        /// Milliseconds that a next version of the agent has to link.
        #[arg(long, hide = true, default_value_t = 90_000)]
        trial_ms: u64,
        /// systemd's socket for messages; systemd sets it.
        #[arg(long, hide = true, env = "NOTIFY_SOCKET")]
        notify_socket: Option<OsString>,
        /// Microseconds within which systemd wants to hear from the agent; systemd sets it.
        #[arg(long, hide = true, env = "WATCHDOG_USEC")]
        watchdog_us: Option<u64>,
    },
    /// Joins standard input and output to the running agent's socket.
    Bridge {
        /// The machine's root directory.
        #[arg(long, default_value = "/")]
        root: PathBuf,
    },
    /// Writes the agent's systemd unit and starts the agent under it; as root.
    Install {
        /// The machine's root directory.
        #[arg(long, default_value = "/")]
        root: PathBuf,
    },
    /// Takes the agent off this machine, and leaves everything that Kamal needs; as root.
    Uninstall {
        /// The machine's root directory.
        #[arg(long, default_value = "/")]
        root: PathBuf,
    },
    /// Says that this program starts on this machine.
    SelfTest,
    /// Work that the running agent has done outside of its own unit; as root.
    Care {
        /// The machine's root directory.
        #[arg(long, default_value = "/")]
        root: PathBuf,
        #[command(subcommand)]
        job: CareJob,
    },
}

#[derive(Subcommand)]
enum CareJob {
    /// Hardens the machine, as standard input (JSON) says; prints the report (JSON). What is not
    /// kept in time is taken back.
    Harden,
    /// All is well after hardening: it stays.
    Keep,
    /// Takes back what was hardened and not kept.
    Undo,
}

impl CareJob {
    fn word(&self) -> &'static str {
        match self {
            Self::Harden => "harden",
            Self::Keep => "keep",
            Self::Undo => "undo",
        }
    }
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
        Command::Run {
            root,
            heartbeat_ms,
            sample_ms,
            log,
            trial,
            trial_ms,
            notify_socket,
            watchdog_us,
        } => {
            start_logging(&log);
            let limit = Duration::from_millis(trial_ms);
            let role = if trial { Role::OnTrial } else { Role::Agent { trial: limit } };
            let heartbeat = Duration::from_millis(heartbeat_ms);
            let rhythm = Rhythm { heartbeat, sample: Duration::from_millis(sample_ms) };
            Notifier::new(notify_socket, watchdog_us)
                .map_err(Box::from)
                .and_then(|notifier| run_agent(Host::new(root), rhythm, role, notifier))
        }
        Command::Install { root } => {
            told(async { units::install(&Host::new(root)).await.map_err(Box::from) })
        }
        Command::Uninstall { root } => {
            told(async { units::uninstall(&Host::new(root)).await.map_err(Box::from) })
        }
        Command::SelfTest => self_test(),
        Command::Care { root, job } => {
            start_logging("info");
            let input = match job {
                CareJob::Harden => io::read_to_string(io::stdin()).map_err(Box::<dyn Error>::from),
                CareJob::Keep | CareJob::Undo => Ok(String::new()),
            };
            input.and_then(|input| told(care_job(Host::new(root), job, input)))
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
        .with_writer(crate::logs::own::Writer)
        .with_ansi(false)
        .try_init();
    // A process logs to the first place that it was given.
    drop(logging);
}

fn run_agent(
    host: Host,
    rhythm: Rhythm,
    role: Role,
    notifier: Notifier,
) -> Result<(), Box<dyn Error>> {
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let stop = CancellationToken::new();
        let (mut term, mut int) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stopping = stop.clone();
        tokio::spawn(async move {
            let watched = async {
                if role == Role::OnTrial {
                    // Whoever began the trial is gone, or has seen enough.
                    drop(tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await);
                } else {
                    std::future::pending().await
                }
            };
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                () = watched => {}
            }
            stopping.cancel();
        });
        agent::run_as(host, rhythm, role, notifier, stop).await.map_err(Box::<dyn Error>::from)
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    match ended? {
        Ended::Told => Ok(()),
        Ended::Replaced(next) => {
            // The same process goes on as the next version: systemd sees no end. Where that fails
            // it sees one, and starts what is in place by now.
            let failed = std::process::Command::new(next)
                .args(std::env::args_os().skip_while(|word| word != "run"))
                .exec();
            Err(Box::new(failed))
        }
    }
}

/// Does a job and prints what it has to say, a line each.
fn told(
    job: impl Future<Output = Result<Vec<String>, Box<dyn Error>>>,
) -> Result<(), Box<dyn Error>> {
    let lines = runtime()?.block_on(job)?;
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

async fn care_job(host: Host, job: CareJob, input: String) -> Result<Vec<String>, Box<dyn Error>> {
    let done = care::job(&host, &["care", job.word()], &input).await;
    done.map(|said| vec![said]).map_err(|fault| fault.message.into())
}

/// What a program has to be able to do before it may follow another: start here, with its own
/// cryptography and its own reading of this machine.
fn self_test() -> Result<(), Box<dyn Error>> {
    drop(rustls::crypto::ring::default_provider().install_default());
    rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let line = format!(
        "{}{} for {}",
        care::upgrade::SELF_TEST_WORD,
        env!("CARGO_PKG_VERSION"),
        facts::arch()
    );
    told(async { Ok(vec![line]) })
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
