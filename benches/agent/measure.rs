//! The agent's program under watch, and the report.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// A limit fails at so many times of it: the machine may be busy with other things.
const FAILS_AT: f64 = 3.0;

/// What was measured, and whether it holds.
#[derive(Default)]
pub(crate) struct Report {
    failed: Vec<String>,
}

impl Report {
    /// Something that should not be more.
    pub(crate) fn at_most(&mut self, what: &str, measured: f64, limit: f64, unit: &str) {
        self.judge(what, measured, limit, unit, measured / limit);
    }

    /// Something that should not be less.
    pub(crate) fn at_least(&mut self, what: &str, measured: f64, limit: f64, unit: &str) {
        self.judge(what, measured, limit, unit, limit / measured);
    }

    /// A figure without a limit.
    #[expect(clippy::print_stdout, reason = "a bench prints what it measured")]
    #[expect(clippy::unused_self, reason = "one way to say things")]
    pub(crate) fn tell(&mut self, what: &str, measured: f64, unit: &str) {
        println!("{what:<44} {measured:>10.2} {unit}");
    }

    #[expect(clippy::print_stdout, reason = "a bench prints what it measured")]
    fn judge(&mut self, what: &str, measured: f64, limit: f64, unit: &str, ratio: f64) {
        let word = match ratio {
            ratio if ratio <= 1.0 => "holds",
            ratio if ratio <= FAILS_AT => "MISSED",
            _ => "FAILED",
        };
        println!("{what:<44} {measured:>10.2} {unit}; limit {limit}, ratio {ratio:.2}: {word}");
        if ratio > FAILS_AT || ratio.is_nan() {
            self.failed.push(what.to_owned());
        }
    }

    pub(crate) fn end(self) -> ExitCode {
        if self.failed.is_empty() {
            return ExitCode::SUCCESS;
        }
        eprintln!("more than {FAILS_AT} times the limit: {}", self.failed.join(", "));
        ExitCode::FAILURE
    }
}

/// The agent's program, killed with the value.
pub(crate) struct Program(Child);

impl Program {
    /// The agent as a program of its own: as it is delivered, or else as it was built beside us.
    pub(crate) fn agent() -> Option<PathBuf> {
        let vmkit = Path::new(env!("CARGO_BIN_EXE_vmkit"));
        let beside = vmkit.with_file_name("vmkit-agent");
        let delivered =
            vmkit.parent().and_then(Path::parent).map(|target| target.join("agent/vmkit-agent"));
        let found = delivered.into_iter().chain([beside]).find(|program| program.exists());
        if found.is_none() {
            eprintln!("vmkit-agent is not built: `cargo build --profile agent -p vmkit-agent`");
        }
        found
    }

    pub(crate) fn start(root: &Path) -> Self {
        let mut command = match Self::agent() {
            Some(agent) => Command::new(agent),
            None => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_vmkit"));
                command.arg("agent");
                command
            }
        };
        let command = command.args(["run", "--log", "warn", "--root"]).arg(root);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    /// The share of a core that it takes over a time, and its resident memory at the end, in bytes.
    pub(crate) async fn watch(&self, time: Duration) -> (f64, u64) {
        let (begun, before) = (Instant::now(), cpu(self.0.id()));
        tokio::time::sleep(time).await;
        let share = (cpu(self.0.id()) - before).as_secs_f64() / begun.elapsed().as_secs_f64();
        (share, resident(self.0.id()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The processor time of a process.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let field = |at: usize| rest.split_whitespace().nth(at).unwrap().parse::<u64>().unwrap();
    // Clock ticks are hundredths of a second on every Linux that we know.
    Duration::from_millis((field(11) + field(12)) * 10)
}

/// The resident memory of a process, in bytes.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
