//! The machine's journal, read by its own `journalctl`: it has what units said, and what containers
//! said that are gone by now.

use std::process::Stdio;

use futures::StreamExt;
use serde::Deserialize;
use serde_json::Value;
use tokio_util::codec::{FramedRead, LinesCodec};
use vmkit_agent_protocol::logs::Stream;

use crate::calls::Fault;
use crate::host::Host;

/// The longest entry that is read, in bytes: a message of 16 KiB may be an array of numbers.
const ENTRY_BYTES: usize = 1 << 20;
/// Asked for, so that nothing else is written out.
const FIELDS: &str = "MESSAGE,PRIORITY,SYSLOG_TIMESTAMP,CONTAINER_ID_FULL,CONTAINER_NAME,\
                      CONTAINER_PARTIAL_MESSAGE,SYSLOG_IDENTIFIER";

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// As Docker's own reading of the journal stamps it.
    pub(super) time_ns: i64,
    pub(super) stream: Stream,
    /// Without the end of the line.
    pub(super) text: Vec<u8>,
    /// The line goes on in the next entry.
    pub(super) partial: bool,
    /// The id and the name of the container that said it.
    pub(super) container: Option<(String, String)>,
    /// The program, as it calls itself.
    pub(super) program: String,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "MESSAGE", default)]
    message: Value,
    #[serde(rename = "PRIORITY", default)]
    priority: Value,
    #[serde(rename = "SYSLOG_TIMESTAMP", default)]
    syslog: Value,
    #[serde(rename = "__REALTIME_TIMESTAMP", default)]
    realtime: Value,
    #[serde(rename = "CONTAINER_ID_FULL", default)]
    container: Value,
    #[serde(rename = "CONTAINER_NAME", default)]
    name: Value,
    #[serde(rename = "CONTAINER_PARTIAL_MESSAGE", default)]
    partial: Value,
    #[serde(rename = "SYSLOG_IDENTIFIER", default)]
    program: Value,
}

/// Whether this machine has a journal that can be read.
pub(super) fn is_there(host: &Host) -> bool {
    host.program("journalctl").is_some()
}

/// Gives each entry that `args` select to `each`, oldest first.
pub(super) async fn entries(
    host: &Host,
    args: &[String],
    mut each: impl FnMut(Entry),
) -> Result<(), Fault> {
    let mut all = vec!["--output=json".to_owned(), format!("--output-fields={FIELDS}")];
    all.extend_from_slice(args);
    lines(host, &all, |line| {
        // What is no entry is a word of journalctl's own.
        if let Some(entry) = serde_json::from_str(line).ok().and_then(entry) {
            each(entry);
        }
    })
    .await
}

/// All values that a field has in the journal.
pub(super) async fn values(host: &Host, field: &str) -> Result<Vec<String>, Fault> {
    let mut values = Vec::new();
    lines(host, &[format!("--field={field}")], |line| values.push(line.to_owned())).await?;
    Ok(values)
}

async fn lines(host: &Host, args: &[String], mut each: impl FnMut(&str)) -> Result<(), Fault> {
    let absent = || Fault::absent_here("`journalctl` is not on this machine");
    let path = host.program("journalctl").ok_or_else(absent)?;
    let failed = |error: std::io::Error| Fault::files(&error);
    // `--all`: otherwise what is long or not printable is left out.
    let mut child = tokio::process::Command::new(path)
        .args(["--no-pager", "--quiet", "--all"])
        .args(args)
        .env_clear()
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(stdout) = child.stdout.take() {
        let codec = LinesCodec::new_with_max_length(ENTRY_BYTES);
        let mut lines = FramedRead::new(stdout, codec);
        while let Some(line) = lines.next().await {
            // One that is too long, or not text, is left out; the codec goes on behind it.
            match line {
                Ok(line) => each(&line),
                Err(tokio_util::codec::LinesCodecError::MaxLineLengthExceeded) => {}
                Err(tokio_util::codec::LinesCodecError::Io(error)) => return Err(failed(error)),
            }
        }
    }
    // It says 1 where nothing matches.
    child.wait().await.map(|_| ()).map_err(failed)
}

fn entry(fields: Fields) -> Option<Entry> {
    let micros = |value: &Value| text(value)?.parse::<i64>().ok()?.checked_mul(1000);
    let written = || {
        let time: jiff::Timestamp = text(&fields.syslog)?.parse().ok()?;
        i64::try_from(time.as_nanosecond()).ok()
    };
    // In this order, since that is how Docker reads it: the same line has the same time both ways.
    let time_ns = written().or_else(|| micros(&fields.realtime))?;
    let container = text(&fields.container).zip(text(&fields.name));
    // The journald driver writes standard error with the priority of errors.
    let errs = container.is_some() && text(&fields.priority).as_deref() == Some("3");
    Some(Entry {
        time_ns,
        stream: if errs { Stream::Stderr } else { Stream::Stdout },
        text: bytes(&fields.message),
        partial: text(&fields.partial).as_deref() == Some("true"),
        container,
        program: text(&fields.program).unwrap_or_default(),
    })
}

/// A field's text; of several values the last.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(values) => values.last().and_then(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Object(_) => None,
    }
}

/// journalctl writes what is not UTF-8 as an array of numbers.
fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.clone().into_bytes(),
        Value::Array(values) if values.iter().all(Value::is_u64) => {
            values.iter().filter_map(|value| u8::try_from(value.as_u64()?).ok()).collect()
        }
        Value::Array(values) => values.last().map(bytes).unwrap_or_default(),
        Value::Number(number) => number.to_string().into_bytes(),
        Value::Null | Value::Bool(_) | Value::Object(_) => Vec::new(),
    }
}
