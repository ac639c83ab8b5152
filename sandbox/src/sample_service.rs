//! `vmkit sample-service`: what the sandbox starts for every service beside an app, in place of
//! PostgreSQL and the others: a server of keys and values that keeps them in its volume. Its password
//! is, as with the real ones, that of the first start with this volume.
//!
//! A line a request: `AUTH WORD`, then `SET KEY VALUE` and `GET KEY`; a line an answer: `OK`, `DENIED`,
//! `VALUE ...` or `NONE`.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// The variables in which the services take their password.
const PASSWORDS: [&str; 4] =
    ["POSTGRES_PASSWORD", "REDIS_PASSWORD", "MEILI_MASTER_KEY", "QDRANT__SERVICE__API_KEY"];
/// How long either side may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[expect(
    clippy::disallowed_methods,
    reason = "the sample service is a program of its own, configured as services are"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Runs the service in the working directory; it takes no arguments.
pub fn run(_args: impl Iterator<Item = OsString>) -> ExitCode {
    let port = variable("PORT").and_then(|text| text.parse().ok()).unwrap_or(5432);
    let Some(password) = password() else {
        eprintln_line("Error: Database is uninitialized and superuser password is not specified.");
        return ExitCode::FAILURE;
    };
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln_line(&format!("cannot listen on port {port}: {error}"));
            return ExitCode::FAILURE;
        }
    };
    eprintln_line("database system is ready to accept connections");
    let password = Arc::new(password);
    for stream in listener.incoming().flatten() {
        let password = Arc::clone(&password);
        std::thread::spawn(move || drop(serve(stream, &password)));
    }
    ExitCode::SUCCESS
}

fn eprintln_line(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// That of the volume's first start.
fn password() -> Option<String> {
    if let Ok(kept) = std::fs::read_to_string("password") {
        return Some(kept);
    }
    let first = PASSWORDS.iter().find_map(|name| variable(name))?;
    std::fs::write("password", &first).ok()?;
    Some(first)
}

fn serve(stream: TcpStream, password: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut out = stream.try_clone()?;
    let mut known = false;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let mut words = line.splitn(3, ' ');
        let answer = match (words.next(), words.next(), words.next()) {
            (Some("AUTH"), Some(word), None) => {
                known = word == password;
                if known { "OK".to_owned() } else { "DENIED".to_owned() }
            }
            (Some("SET"), Some(key), Some(value)) if known && is_key(key) => {
                std::fs::create_dir_all("data")?;
                std::fs::write(Path::new("data").join(key), value)?;
                "OK".to_owned()
            }
            (Some("GET"), Some(key), None) if known && is_key(key) => {
                match std::fs::read_to_string(Path::new("data").join(key)) {
                    Ok(value) => format!("VALUE {value}"),
                    Err(_) => "NONE".to_owned(),
                }
            }
            _ => "DENIED".to_owned(),
        };
        writeln!(out, "{answer}")?;
    }
    Ok(())
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric())
}

/// Asks the service at `address` one thing; its answer.
///
/// # Errors
/// It cannot be reached, or does not answer.
pub fn ask(address: SocketAddr, password: &str, request: &str) -> std::io::Result<String> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut out = stream.try_clone()?;
    write!(out, "AUTH {password}\n{request}\n")?;
    let mut lines = BufReader::new(stream).lines();
    let closed = || std::io::Error::other("the service closed the connection");
    match lines.next().ok_or_else(closed)?? {
        first if first == "OK" => lines.next().ok_or_else(closed)?,
        first => Ok(first),
    }
}
