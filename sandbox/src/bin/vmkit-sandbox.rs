//! The sandbox's own programs without the rest of vmkit: what its tests take for the vmkit binary.
//!
//! `tethered ...` and `sample-app ...` as in vmkit; `serve EXE` starts a sandbox whose vmkit binary
//! is EXE, prints its settings and serves until it is killed.

use std::io::Write;
use std::process::ExitCode;

use vmkit_sandbox::{Options, Sandbox, sample_app, tether};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(|word| word.to_str()) {
        Some("tethered") => tether::run(args),
        Some("sample-app") => sample_app::run(args),
        Some("serve") => serve(args.next().unwrap_or_default().into()),
        _ => ExitCode::from(2),
    }
}

#[tokio::main]
async fn serve(exe: std::path::PathBuf) -> ExitCode {
    let sandbox = match Sandbox::start(Options { exe, ..Options::default() }).await {
        Ok(sandbox) => sandbox,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "{error}"));
            return ExitCode::FAILURE;
        }
    };
    let mut out = std::io::stdout();
    for (name, value) in sandbox.settings() {
        drop(writeln!(out, "{name}={value}"));
    }
    drop(writeln!(out, "DIR={}", sandbox.machines().dir().display()));
    drop(out.flush());
    std::future::pending().await
}
