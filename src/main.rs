//! One binary plays every part: a match, and nothing else.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let is_agent = Path::new(&program).file_name().is_some_and(|name| name == "vmkit-agent");
    let rest: Vec<OsString> = args.collect();
    if is_agent {
        return vmkit_agent::cli::run(rest.into_iter());
    }
    match rest.first().and_then(|word| word.to_str()) {
        Some("agent") => vmkit_agent::cli::run(rest.into_iter().skip(1)),
        Some("sample-service") => vmkit_sandbox::sample_service::run(rest.into_iter().skip(1)),
        Some("sample-app") => vmkit_sandbox::sample_app::run(rest.into_iter().skip(1)),
        Some("tethered") => vmkit_sandbox::tether::run(rest.into_iter().skip(1)),
        _ => vmkit::cli::run(std::iter::once(program).chain(rest)),
    }
}
