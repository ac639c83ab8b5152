//! `vmkit tethered`: a command that dies with the process that started it, and the warden that
//! ends what a killed sandbox leaves behind.
//!
//! `tethered --parent PID -- CMD ARGS` asks the kernel for SIGKILL at its parent's death and becomes
//! CMD. The kernel watches the parent *thread*: start it from one that lives as long as it should.
//! `tethered --warden DIR` reads `+GROUP` and `-GROUP` lines on its input; when that closes it kills
//! the process groups that are left and removes DIR.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};

/// The start of the names of the folders that a warden may remove.
pub(crate) const DIR_PREFIX: &str = "vmk-";

const USAGE: &str = "usage: vmkit tethered --parent PID -- COMMAND [ARGUMENT]...";

/// Runs on `args` (without the program's and the subcommand's names). Returns only on trouble:
/// 2 bad usage, 126 the command cannot be started, 127 there is none, 1 the parent is gone.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    match Order::parse(args) {
        Some(Order::Exec { parent, command, args }) => exec(parent, &command, &args),
        Some(Order::Warden { dir }) => watch(&dir),
        None => {
            say(USAGE);
            ExitCode::from(2)
        }
    }
}

enum Order {
    Exec { parent: u32, command: OsString, args: Vec<OsString> },
    Warden { dir: PathBuf },
}

impl Order {
    fn parse(mut args: impl Iterator<Item = OsString>) -> Option<Self> {
        let mut parent = std::os::unix::process::parent_id();
        loop {
            let word = args.next()?;
            match word.to_str()? {
                "--parent" => parent = args.next()?.to_str()?.parse().ok()?,
                "--warden" => return Some(Self::Warden { dir: args.next()?.into() }),
                "--" => break,
                _ => return None,
            }
        }
        Some(Self::Exec { parent, command: args.next()?, args: args.collect() })
    }
}

fn exec(parent: u32, command: &OsString, args: &[OsString]) -> ExitCode {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        say(&format!("cannot ask for a signal at the parent's death: {error}"));
        return ExitCode::FAILURE;
    }
    // The parent may have died before the kernel was asked; then nobody would ever end us.
    if std::os::unix::process::parent_id() != parent {
        return ExitCode::FAILURE;
    }
    let name = command.to_string_lossy();
    let error = Command::new(command).args(args).exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        say(&format!("exec: \"{name}\": executable file not found in $PATH"));
        return ExitCode::from(127);
    }
    say(&format!("exec: \"{name}\": {error}"));
    ExitCode::from(126)
}

fn watch(dir: &Path) -> ExitCode {
    let mut groups = BTreeSet::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match line.split_at_checked(1) {
            Some(("+", group)) => groups.insert(group.to_owned()),
            Some(("-", group)) => groups.remove(group),
            _ => false,
        };
    }
    for group in groups.iter().filter_map(|group| group.parse().ok().and_then(Pid::from_raw)) {
        // A group that is gone already is what is wanted.
        _ = kill_process_group(group, Signal::KILL);
    }
    remove_dir(dir);
    ExitCode::SUCCESS
}

/// Removes what a sandbox made, and nothing that does not look like it.
fn remove_dir(dir: &Path) {
    let ours = dir
        .file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with(DIR_PREFIX));
    // Processes that were just killed may still be writing: a few tries are enough.
    for _ in 0..20 {
        if !ours || !dir.exists() || std::fs::remove_dir_all(dir).is_ok() {
            return;
        }
        std::thread::yield_now();
    }
}

fn say(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}
