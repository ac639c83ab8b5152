//! Logs of the machine itself: its journal, its first boot, the agent.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;

use regex::Regex;
use vmkit_agent_protocol::logs::{Line, LogRangeReply, Source, Stream, SystemLog, SystemLogRange};

use super::lines::Assembler;
use super::newest::{Newest, SPARE, pattern};
use super::{gone, journal, own};
use crate::agent::Agent;
use crate::calls::{Fault, blocking};
use crate::host::Host;

/// Where cloud-init writes what the first boot prints.
const BOOT: &str = "var/log/cloud-init-output.log";
/// What is read of it, in bytes: the newest.
const BOOT_BYTES: u64 = 4 << 20;

pub(crate) async fn read(agent: &Agent, range: SystemLogRange) -> Result<LogRangeReply, Fault> {
    let grep = pattern(range.grep.as_deref())?;
    let mut chosen = Chosen::new(&range, grep);
    let host = agent.host();
    let Some((name, selected)) = journal_args(range.log) else {
        return match range.log {
            SystemLog::Boot => {
                let host = host.clone();
                blocking(move || boot(&host, chosen)).await?
            }
            _ => Err(Fault::unsupported()),
        };
    };
    if range.log == SystemLog::Agent && !journal::is_there(host) {
        chosen.source(name);
        for (time_ms, text) in own::lines() {
            chosen.add(time_ms.saturating_mul(1_000_000), text.as_bytes());
        }
        return Ok(chosen.newest.into_reply());
    }
    let mut args: Vec<String> = selected.iter().map(|&arg| arg.to_owned()).collect();
    args.extend(gone::span(range.since_ms, range.until_ms));
    let tail = chosen.newest.limit() + SPARE;
    let cut = chosen.grep.is_none();
    if cut {
        args.push(format!("--lines={tail}"));
    }
    chosen.source(name);
    let mut count = 0;
    journal::entries(host, &args, |entry| {
        count += 1;
        // What containers say goes through Docker's own unit, and is not Docker's.
        if entry.container.is_none() {
            let mut text = entry.program.into_bytes();
            if !text.is_empty() {
                text.extend(b": ");
            }
            text.extend(entry.text);
            chosen.add(entry.time_ns, &text);
        }
    })
    .await?;
    if cut && count >= tail {
        chosen.newest.leave_out();
    }
    Ok(chosen.newest.into_reply())
}

/// What a log is called, and journalctl's arguments for it; none for what is not in the journal.
fn journal_args(log: SystemLog) -> Option<(&'static str, &'static [&'static str])> {
    Some(match log {
        SystemLog::Agent => ("agent", &["--unit=vmkit-agent.service"]),
        SystemLog::Kernel => ("kernel", &["_TRANSPORT=kernel"]),
        SystemLog::Ssh => ("ssh", &["--unit=ssh.service", "--unit=sshd.service", "--unit=ssh@*"]),
        SystemLog::Docker => {
            ("docker", &["_SYSTEMD_UNIT=docker.service", "SYSLOG_IDENTIFIER=dockerd"])
        }
        SystemLog::Containerd => ("containerd", &["--unit=containerd.service"]),
        SystemLog::Upgrades => {
            ("upgrades", &["--unit=unattended-upgrades.service", "--unit=apt-daily*"])
        }
        SystemLog::Systemd => ("systemd", &["_PID=1"]),
        SystemLog::Boot | SystemLog::Unknown => return None,
    })
}

/// The lines that are wanted, numbered within their time.
struct Chosen {
    newest: Newest,
    place: usize,
    grep: Option<Regex>,
    since_ns: i64,
    until_ns: i64,
    lines: Assembler,
}

impl Chosen {
    fn new(range: &SystemLogRange, grep: Option<Regex>) -> Self {
        let ns = |ms: i64| ms.saturating_mul(1_000_000);
        Self {
            newest: Newest::new(range.tail),
            place: 0,
            grep,
            since_ns: range.since_ms.map_or(i64::MIN, ns),
            until_ns: range.until_ms.map_or(i64::MAX, ns),
            lines: Assembler::default(),
        }
    }

    fn source(&mut self, name: &str) {
        let (service, name) = (format!("system:{name}"), name.to_owned());
        let container = service.clone();
        self.place = self.newest.source(Source { container, name, service, ..Source::default() });
    }

    fn add(&mut self, time_ns: i64, text: &[u8]) {
        let Self { newest, place, grep, since_ns, until_ns, lines } = self;
        // An entry of the journal may have several lines.
        for text in text.split(|&byte| byte == b'\n') {
            lines.take(Stream::Stdout, time_ns, &[text, b"\n"].concat(), |line: Line| {
                let inside = (*since_ns..*until_ns).contains(&line.time_ns);
                if inside && grep.as_ref().is_none_or(|grep| grep.is_match(&line.text)) {
                    newest.add(*place, line);
                }
            });
        }
    }
}

/// Its lines have no times of their own: all have that of the last one.
fn boot(host: &Host, mut chosen: Chosen) -> Result<LogRangeReply, Fault> {
    let file = match File::open(host.path(BOOT)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Fault::absent_here("the first boot of this machine left no log"));
        }
        Err(error) => return Err(Fault::files(&error)),
    };
    let failed = |error: std::io::Error| Fault::files(&error);
    let found = file.metadata().map_err(failed)?;
    let time_ns = found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
    let mut lines = BufReader::new(file);
    if found.len() > BOOT_BYTES {
        lines.seek(SeekFrom::Start(found.len() - BOOT_BYTES)).map_err(failed)?;
        chosen.newest.leave_out();
    }
    chosen.source("boot");
    // Bounded even where the file grows while it is read, and where it has no lines.
    let mut lines = lines.take(BOOT_BYTES);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).map_err(failed)? > 0 {
        chosen.add(time_ns, line.strip_suffix(b"\n").unwrap_or(&line));
        line.clear();
    }
    Ok(chosen.newest.into_reply())
}
