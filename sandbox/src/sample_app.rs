//! `vmkit sample-app`: the small web app that the sandbox deploys. What it shows, and how it
//! misbehaves, stands in `sample.toml` of the commit, so that a broken version is a commit.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

/// How long a client may take to send its request.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// What `sample.toml` says.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sample {
    /// Shown on the front page.
    text: String,
    /// Answers 200.
    health_path: String,
    /// What goes wrong, if anything.
    fault: Option<Fault>,
    /// How long the start takes.
    slow_start_ms: u64,
}

/// How this version is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Fault {
    /// It ends at its start with what looks like a stack trace.
    Crash,
    /// Its health path answers 500.
    Unhealthy,
    /// It is healthy at first, and ends at the first request for its front page.
    Fragile,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            text: "Hello".to_owned(),
            health_path: "/up".to_owned(),
            fault: None,
            slow_start_ms: 0,
        }
    }
}

/// What the app was started with.
struct Environment {
    port: u16,
    greeting: String,
    version: String,
    verbose: bool,
    /// The address of its database, with the password in it.
    database: String,
    /// Where the names of other containers are written.
    containers: String,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the sample app is a program of its own, configured as apps are"
)]
fn environment() -> Environment {
    let text = |name: &str| std::env::var(name).unwrap_or_default();
    Environment {
        port: text("PORT").parse().unwrap_or(8080),
        greeting: text("GREETING"),
        version: text("KAMAL_VERSION"),
        verbose: text("LOG_LEVEL") == "debug",
        database: text("DATABASE_URL"),
        containers: text("SANDBOX_CONTAINERS"),
    }
}

/// Runs the app in the working directory; it takes no arguments. Ends with 1 on a fault of its own.
pub fn run(_args: impl Iterator<Item = OsString>) -> ExitCode {
    let environment = environment();
    let sample = match std::fs::read_to_string("sample.toml").map(|text| toml::from_str(&text)) {
        Ok(Ok(sample)) => sample,
        Ok(Err(error)) => {
            say(&mut std::io::stderr(), &format!("sample.toml cannot be read: {error}"));
            return ExitCode::FAILURE;
        }
        Err(_) => Sample::default(),
    };
    say(&mut std::io::stdout(), &format!("booting version {}", shown(&environment.version)));
    if sample.fault == Some(Fault::Crash) {
        let mut err = std::io::stderr();
        say(&mut err, "TypeError: Cannot read properties of undefined (reading 'price')");
        say(&mut err, "    at total (/app/src/cart.js:14:23)");
        say(&mut err, "    at Object.<anonymous> (/app/src/server.js:3:1)");
        return ExitCode::FAILURE;
    }
    wait(Duration::from_millis(sample.slow_start_ms));
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, environment.port)) {
        Ok(listener) => listener,
        Err(error) => {
            say(
                &mut std::io::stderr(),
                &format!("cannot listen on port {}: {error}", environment.port),
            );
            return ExitCode::FAILURE;
        }
    };
    say(&mut std::io::stdout(), &format!("listening on port {}", environment.port));
    serve(&listener, sample, environment);
    ExitCode::SUCCESS
}

fn serve(listener: &TcpListener, sample: Sample, environment: Environment) {
    let shared = Arc::new((sample, environment));
    for stream in listener.incoming().flatten() {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || answer(stream, &shared.0, &shared.1));
    }
}

/// Waits without a timer of tokio: nothing else runs yet.
fn wait(duration: Duration) {
    let start = Instant::now();
    while let Some(left) = duration.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

fn answer(mut stream: TcpStream, sample: &Sample, environment: &Environment) {
    if stream.set_read_timeout(Some(READ_TIMEOUT)).is_err() {
        return;
    }
    let Some((method, path)) = request(&stream) else { return };
    let start = Instant::now();
    let (status, body) = match path.strip_prefix("/data/") {
        Some(rest) => data(&method, rest, environment),
        None => respond(&path, sample, environment),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let body = if method == "HEAD" { "" } else { body.as_str() };
    // A client that has gone is logged all the same.
    drop(stream.write_all(format!("{head}{body}").as_bytes()));
    if path == "/" && sample.fault == Some(Fault::Fragile) {
        say(&mut std::io::stderr(), "out of connections");
        std::process::exit(1);
    }
    let code = status.split(' ').next().unwrap_or_default();
    let took = if environment.verbose {
        format!(" {} us", start.elapsed().as_micros())
    } else {
        String::new()
    };
    say(&mut std::io::stdout(), &format!("{method} {path} {code}{took}"));
}

/// The method and the path (without a query) of a request, its headers read and left.
fn request(stream: &TcpStream) -> Option<(String, String)> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let path = target.split('?').next().unwrap_or(target).to_owned();
    // At most 100 headers.
    for line in lines.take(100) {
        if line.ok()?.is_empty() {
            return Some((method, path));
        }
    }
    None
}

fn respond(path: &str, sample: &Sample, environment: &Environment) -> (&'static str, String) {
    if path == sample.health_path {
        return match sample.fault {
            Some(Fault::Unhealthy) => ("500 Internal Server Error", "no database\n".to_owned()),
            Some(Fault::Crash | Fault::Fragile) | None => ("200 OK", "ok\n".to_owned()),
        };
    }
    if path != "/" {
        return ("404 Not Found", "not found\n".to_owned());
    }
    let body = format!(
        "{}\nversion: {}\ngreeting: {}\n",
        sample.text,
        shown(&environment.version),
        shown(&environment.greeting)
    );
    ("200 OK", body)
}

/// `GET /data/KEY` and `POST /data/KEY/VALUE`: what the app keeps in its database.
fn data(method: &str, rest: &str, environment: &Environment) -> (&'static str, String) {
    let (key, value) = rest.split_once('/').unwrap_or((rest, ""));
    let request = match method {
        "POST" => format!("SET {key} {value}"),
        _ => format!("GET {key}"),
    };
    match ask_database(&request, environment) {
        Ok(answer) => match answer.strip_prefix("VALUE ") {
            Some(value) => ("200 OK", format!("{value}\n")),
            None if answer == "OK" => ("200 OK", "kept\n".to_owned()),
            None if answer == "NONE" => ("404 Not Found", "nothing kept\n".to_owned()),
            None => ("503 Service Unavailable", "the database refused the password\n".to_owned()),
        },
        Err(reason) => ("503 Service Unavailable", format!("{reason}\n")),
    }
}

fn ask_database(request: &str, environment: &Environment) -> Result<String, String> {
    let url = url::Url::parse(&environment.database).map_err(|_| "there is no DATABASE_URL")?;
    let host = url.host_str().unwrap_or_default();
    let names = std::fs::read_to_string(&environment.containers).unwrap_or_default();
    let address = names.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (name, ip, port) = (words.next()?, words.next()?, words.next()?);
        (name == host).then(|| format!("{ip}:{port}"))
    });
    let address = address.and_then(|text| text.parse().ok());
    let address =
        address.ok_or_else(|| format!("could not translate host name \"{host}\" to address"))?;
    let password = url.password().unwrap_or_default();
    crate::sample_service::ask(address, password, request).map_err(|error| error.to_string())
}

fn shown(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

/// A line of the app's log. One that cannot be written has no reader.
fn say(out: &mut dyn Write, line: &str) {
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}
