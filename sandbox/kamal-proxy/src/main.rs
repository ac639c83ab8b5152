//! The lab's stand-in for kamal-proxy: what Kamal 2 asks of it, and no more. It answers by host,
//! checks a target's health before it switches, drains the old one, gets certificates by ACME on
//! demand, and logs the lines of the real one. `kamal-proxy run` serves; `deploy`, `remove`, `list`
//! talk to it through a Unix socket in the same container.

mod certificates;
mod control;
mod flags;
mod health;
mod log;
mod requests;
mod routes;
mod server;

use std::io::Write;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let done = match command.as_str() {
        "run" => server::run().await,
        "version" | "--version" => Ok("v0.9.2\n".to_owned()),
        _ => control::ask(&command, args.collect()).await,
    };
    match done {
        Ok(text) => {
            drop(std::io::stdout().write_all(text.as_bytes()));
            ExitCode::SUCCESS
        }
        Err(why) => {
            drop(writeln!(std::io::stderr(), "Error: {why}"));
            ExitCode::FAILURE
        }
    }
}
