//! The agent's next version. It comes in pieces over the link, signed by the key that this VM has
//! pinned; it lies beside the old one, tests itself, and then has to link while the old one waits
//! and watches. Only a program that has linked takes the old one's place, by one rename: wherever
//! the power goes, the one that starts is whole and has linked before.

use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use vmkit_agent_protocol::care::{
    AGENT_PIECE_BYTES, MAX_AGENT_BYTES, NewAgent, Piece, UpgradeReport, UpgradeStage,
    agent_binary_statement,
};

use crate::agent::Agent;
use crate::calls::{Fault, blocking, facts};
use crate::files;
use crate::host::Host;
use crate::time::now_ms;

/// The program that systemd starts.
const PROGRAM: &str = "usr/local/bin/vmkit-agent";
/// The next one, beside it: a rename within one file system is whole or not at all.
const NEXT: &str = "usr/local/bin/.vmkit-agent.next";
/// The one before, for a person's hands.
const BEFORE: &str = "usr/local/bin/.vmkit-agent.before";
/// How long its own test may take.
const SELF_TEST: Duration = Duration::from_secs(20);
/// What a program says that passed it.
pub(crate) const SELF_TEST_WORD: &str = "vmkit-agent is well: ";
/// What a program on trial says when it has linked.
pub(crate) const LINKED_WORD: &str = "linked";
/// The answer to the call gets away before its link ends.
const ANSWER: Duration = Duration::from_millis(300);
/// How much of the story is kept.
const LINES: usize = 40;

/// Where an upgrade stands, on the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    wanted: String,
    bytes: u64,
    stage: UpgradeStage,
    transcript: Vec<String>,
}

impl Record {
    fn read(host: &Host) -> io::Result<Self> {
        match std::fs::read(file(host)) {
            // One that cannot be read is of no use, and an upgrade may begin anew.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn say(&mut self, host: &Host, line: String) -> io::Result<()> {
        tracing::info!("upgrade: {line}");
        let time = jiff::Timestamp::from_millisecond(now_ms()).map_err(io::Error::other)?;
        self.transcript.push(format!("{time:.3} {line}"));
        let surplus = self.transcript.len().saturating_sub(LINES);
        self.transcript.drain(..surplus);
        self.write(host)
    }

    fn write(&self, host: &Host) -> io::Result<()> {
        let file = file(host);
        host.make_dir(file.parent().unwrap_or(host.root()), 0o700)?;
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        files::write_whole(&file, &text, files::PRIVATE)
    }

    fn report(self, host: &Host) -> UpgradeReport {
        let received = std::fs::metadata(host.path(NEXT)).map_or(0, |there| there.len());
        UpgradeReport {
            installed: sha256_of(&host.path(PROGRAM)).unwrap_or_default(),
            wanted: self.wanted,
            stage: self.stage,
            received: if self.stage == UpgradeStage::Receiving { received } else { 0 },
            transcript: self.transcript,
        }
    }
}

/// Work on the record and the files, off the async threads.
async fn on_files<T: Send + 'static>(
    agent: &Agent,
    work: impl FnOnce(&Host) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let host = agent.host().clone();
    blocking(move || work(&host)).await?
}

fn failed(error: io::Error) -> Fault {
    Fault::files(&error)
}

pub(crate) async fn state(agent: &Agent) -> Result<UpgradeReport, Fault> {
    on_files(agent, |host| Ok(Record::read(host).map_err(failed)?.report(host))).await
}

/// Takes note of the next program, if this installation's key vouches for it. One that is already
/// half here goes on.
pub(crate) async fn begin(agent: &Agent, wanted: NewAgent) -> Result<UpgradeReport, Fault> {
    let pinned = agent.pinned().iter().any(|key| {
        let statement = agent_binary_statement(&wanted.arch, wanted.bytes, &wanted.sha256);
        let signature = Signature::from_bytes(&wanted.signature.0);
        VerifyingKey::from_bytes(&key.0)
            .is_ok_and(|key| key.verify_strict(&statement, &signature).is_ok())
    });
    if !pinned {
        let text = "the program is not signed by the key that this VM trusts; nothing was taken";
        return Err(Fault::not_signed(text.to_owned()));
    }
    if wanted.arch != facts::arch() {
        let (theirs, ours) = (wanted.arch, facts::arch());
        return Err(Fault::invalid(format!("the program is for {theirs}, and this VM is {ours}")));
    }
    if wanted.bytes == 0 || wanted.bytes > MAX_AGENT_BYTES {
        let text = format!("a program has at most {MAX_AGENT_BYTES} bytes, not {}", wanted.bytes);
        return Err(Fault::invalid(text));
    }
    on_files(agent, move |host| {
        let mut record = Record::read(host).map_err(failed)?;
        if record.stage == UpgradeStage::Trial {
            return Err(Fault::busy());
        }
        let half = record.stage == UpgradeStage::Receiving && record.wanted == wanted.sha256;
        if sha256_of(&host.path(PROGRAM)).as_ref() == Some(&wanted.sha256) {
            let stage = UpgradeStage::Done;
            record = Record { wanted: wanted.sha256, bytes: wanted.bytes, stage, ..record };
            record.write(host).map_err(failed)?;
        } else if !half {
            let next = host.path(NEXT);
            host.make_dir(next.parent().unwrap_or(host.root()), 0o755).map_err(failed)?;
            remove(&next).map_err(failed)?;
            record = Record {
                wanted: wanted.sha256.clone(),
                bytes: wanted.bytes,
                stage: UpgradeStage::Receiving,
                transcript: Vec::new(),
            };
            let line = format!(
                "taking {} bytes with the SHA-256 {}, signed by this installation",
                wanted.bytes, wanted.sha256
            );
            record.say(host, line).map_err(failed)?;
        }
        Ok(record.report(host))
    })
    .await
}

pub(crate) async fn piece(agent: &Agent, piece: Piece) -> Result<UpgradeReport, Fault> {
    let bytes =
        STANDARD.decode(&piece.base64).ok().filter(|bytes| bytes.len() <= AGENT_PIECE_BYTES);
    let Some(bytes) = bytes else {
        return Err(Fault::invalid("that is no piece of a program".to_owned()));
    };
    on_files(agent, move |host| {
        let record = Record::read(host).map_err(failed)?;
        let next = host.path(NEXT);
        let there = std::fs::metadata(&next).map_or(0, |there| there.len());
        let end = piece.offset.saturating_add(bytes.len() as u64);
        let fits = piece.offset == there && end <= record.bytes;
        if record.stage != UpgradeStage::Receiving || !fits {
            let text = format!("no piece is wanted at {}; {there} bytes are here", piece.offset);
            return Err(Fault::invalid(text));
        }
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&next)
            .map_err(failed)?;
        file.write_all(&bytes).map_err(failed)?;
        Ok(record.report(host))
    })
    .await
}

/// Checks what came, has it test itself, and lets its trial begin.
pub(crate) async fn attempt(agent: &Arc<Agent>) -> Result<UpgradeReport, Fault> {
    // A gateway that lost the link asks again, and must not find the same program tried twice.
    let _one = agent.upkeep().lock().await;
    let next = agent.host().path(NEXT);
    let record = on_files(agent, |host| {
        let mut record = Record::read(host).map_err(failed)?;
        let next = host.path(NEXT);
        if record.stage != UpgradeStage::Receiving {
            return Err(Fault::invalid("no program waits for a trial".to_owned()));
        }
        if sha256_of(&next).as_ref() != Some(&record.wanted) {
            give_up(host, &mut record, "what came is not the program that was announced")?;
            return Err(Fault::not_signed(
                "what came is not the program that was announced".to_owned(),
            ));
        }
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&next, mode)
            .and_then(|()| std::fs::File::open(&next)?.sync_all())
            .map_err(failed)?;
        record.say(host, "all of it is here, and its sum is right".to_owned()).map_err(failed)?;
        Ok(record)
    })
    .await?;
    let tested = self_test(&next).await;
    let report = on_files(agent, move |host| {
        let mut record = record;
        match tested {
            Ok(version) => {
                record.stage = UpgradeStage::Trial;
                let line = format!("its own test passed: {version}; now it has to link");
                record.say(host, line).map_err(failed)?;
                Ok(record.report(host))
            }
            Err(why) => {
                give_up(host, &mut record, &why)?;
                Ok(record.report(host))
            }
        }
    })
    .await?;
    if report.stage == UpgradeStage::Trial {
        let agent = Arc::clone(agent);
        tokio::spawn(async move {
            tokio::time::sleep(ANSWER).await;
            agent.begin_trial();
        });
    }
    Ok(report)
}

/// The old one goes on; what came is thrown away.
fn give_up(host: &Host, record: &mut Record, why: &str) -> Result<(), Fault> {
    remove(&host.path(NEXT)).map_err(failed)?;
    record.stage = UpgradeStage::RolledBack;
    record.say(host, format!("{why}; the old program goes on")).map_err(failed)
}

/// Runs the program's own test: it starts on this machine, and says so.
async fn self_test(next: &Path) -> Result<String, String> {
    let testing = Command::new(next)
        .arg("self-test")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(SELF_TEST, testing).await {
        Err(_) => Err(format!("its own test took longer than {} s", SELF_TEST.as_secs())),
        Ok(Err(error)) => Err(format!("it does not start on this machine: {error}")),
        Ok(Ok(ended)) => {
            let said = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
            let passed = ended.status.success().then(|| said.strip_prefix(SELF_TEST_WORD));
            passed.flatten().map(str::to_owned).ok_or_else(|| {
                let code = ended.status.code().unwrap_or(-1);
                format!("its own test failed with {code}")
            })
        }
    }
}

/// How a trial ended.
pub(crate) enum Trial {
    /// This program is installed; it goes on in this process's place.
    Linked(PathBuf),
    /// The old one goes on.
    Failed,
}

/// The trial, while this agent has no links: the new program runs as a child of this one, which
/// puts it in place once it has linked, and ends it otherwise.
pub(crate) async fn trial(agent: &Agent, limit: Duration, stop: &CancellationToken) -> Trial {
    let host = agent.host().clone();
    let linked = try_link(&host, agent.heartbeat(), limit, stop).await;
    let ended = blocking(move || -> Result<Trial, Fault> {
        let mut record = Record::read(&host).map_err(failed)?;
        if let Err(why) = linked {
            give_up(&host, &mut record, &why)?;
            return Ok(Trial::Failed);
        }
        record.say(&host, "it linked".to_owned()).map_err(failed)?;
        swap(&host).map_err(failed)?;
        record.stage = UpgradeStage::Done;
        record.say(&host, "it is in the old one's place".to_owned()).map_err(failed)?;
        Ok(Trial::Linked(host.path(PROGRAM)))
    });
    match ended.await {
        Ok(Ok(ended)) => ended,
        Ok(Err(fault)) | Err(fault) => {
            tracing::error!(fault.message, "the upgrade could not be finished");
            Trial::Failed
        }
    }
}

async fn try_link(
    host: &Host,
    heartbeat: Duration,
    limit: Duration,
    stop: &CancellationToken,
) -> Result<(), String> {
    let mut child =
        start(host, heartbeat).map_err(|error| format!("it does not start: {error}"))?;
    let stdout = child.stdout.take();
    let linking = async {
        let Some(stdout) = stdout else { return false };
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if line.trim() == LINKED_WORD {
                return true;
            }
        }
        false
    };
    let linked = tokio::select! {
        linked = tokio::time::timeout(limit, linking) => match linked {
            Ok(true) => Ok(()),
            Ok(false) => Err("it ended before it linked".to_owned()),
            Err(_) => Err(format!("it did not link within {} s", limit.as_secs_f32())),
        },
        () = stop.cancelled() => Err("the agent was told to end during the trial".to_owned()),
    };
    // It has shown what it can; one of the two goes on alone.
    drop(child.kill().await);
    linked
}

fn start(host: &Host, heartbeat: Duration) -> io::Result<Child> {
    let heartbeat_ms = heartbeat.as_millis().to_string();
    Command::new(host.path(NEXT))
        .args(["run", "--trial", "--heartbeat-ms", &heartbeat_ms, "--root"])
        .arg(host.root())
        // systemd hears from this process, not from that one.
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
}

/// The one before keeps a name of its own; between the two there is always one to start.
fn swap(host: &Host) -> io::Result<()> {
    let (program, before) = (host.path(PROGRAM), host.path(BEFORE));
    remove(&before)?;
    match std::fs::hard_link(&program, &before) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::rename(host.path(NEXT), &program)?;
    std::fs::File::open(program.parent().unwrap_or(host.root()))?.sync_all()
}

/// What a power cut left: a trial that did not end is over, and the program in place says how.
pub(crate) fn settle(host: &Host) -> io::Result<()> {
    let mut record = Record::read(host)?;
    if record.stage != UpgradeStage::Trial {
        return Ok(());
    }
    let swapped = sha256_of(&host.path(PROGRAM)).as_ref() == Some(&record.wanted);
    record.stage = if swapped { UpgradeStage::Done } else { UpgradeStage::RolledBack };
    remove(&host.path(NEXT))?;
    let line = match swapped {
        true => "the agent ended after the new program took the old one's place; it runs",
        false => "the agent ended during the trial; the old program goes on",
    };
    record.say(host, line.to_owned())
}

/// In hex; none where it cannot be read.
fn sha256_of(path: &Path) -> Option<String> {
    let mut sum = Sha256::new();
    io::copy(&mut std::fs::File::open(path).ok()?, &mut sum).ok()?;
    Some(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn file(host: &Host) -> PathBuf {
    host.path("var/lib/vmkit/care/upgrade.json")
}
