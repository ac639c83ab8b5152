//! Keeps a link to every VM that cannot come to us: connects over SSH, brings the agent where
//! there is none yet, and connects again whenever the link ends, with pauses that no SSH server
//! takes for an attack.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vmkit_agent_protocol::messages::ToGateway;
use vmkit_agent_protocol::wire::Wire;

use super::hub::Hub;
use super::link::{self, LinkError};
use super::ssh::{self, Connection, Dial, SshError};
use crate::domain::ids::VmId;

/// How often the list of VMs is read.
const LOOK: Duration = Duration::from_millis(500);
/// How long the forced command may take to say its first line.
const FIRST_LINE: Duration = Duration::from_secs(20);
/// The longest first line: a hello is a few hundred bytes.
const FIRST_LINE_BYTES: u64 = 64 * 1024;
/// How long an upload may stand still.
const UPLOAD_STALL: Duration = Duration::from_secs(60);
/// A link that held this long was a good one: the next attempt comes at once.
const GOOD_LINK: Duration = Duration::from_secs(10);

/// The VMs that we open links to, and what we know them by.
pub trait Directory: Send + Sync + 'static {
    /// Those to which a link can be opened now.
    fn vms(&self) -> BoxFuture<'_, Vec<VmId>>;

    /// How one of them is reached; none where it is gone by now.
    fn dial(&self, vm: VmId) -> BoxFuture<'_, Option<Dial>>;

    /// The VM has proven that it holds this one of the dial's host keys.
    fn met(&self, vm: VmId, host_key: String) -> BoxFuture<'_, ()>;

    /// The agent's program with this SHA-256, if we have it.
    fn agent(&self, vm: VmId, sha256: String) -> BoxFuture<'_, Option<PathBuf>>;
}

/// Why a VM's agent is not linked, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Stable, in snake case.
    pub code: String,
    /// For a person.
    pub message: String,
}

/// How one attempt ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the link ended")]
    Link { held: Duration },
    #[error(transparent)]
    Ssh(#[from] SshError),
    #[error("the VM's first boot is at `{step}`, and its agent comes after that")]
    Booting { step: String },
    #[error("the VM's first boot stopped: {step}")]
    BootFailed { step: String },
    #[error("the agent was uploaded; the VM installs it")]
    Uploaded,
    #[error("the agent could not be uploaded")]
    Upload(#[source] std::io::Error),
    #[error(
        "the VM waits for an agent with the SHA-256 {sha256}, which is not the one that is here; put that one back"
    )]
    OtherAgent { sha256: String },
    #[error("the agent on the VM does not answer yet")]
    Quiet,
    #[error("the agent on the VM and VMKit do not know each other")]
    Unfit(#[source] LinkError),
}

impl Ended {
    fn code(&self) -> &'static str {
        match self {
            Self::Link { .. } => "link_ended",
            Self::Ssh(error) => error.code(),
            Self::Booting { .. } => "first_boot",
            Self::BootFailed { .. } => "first_boot_failed",
            Self::Uploaded => "agent_uploaded",
            Self::Upload(_) => "agent_upload_failed",
            Self::OtherAgent { .. } => "agent_other",
            Self::Quiet => "agent_quiet",
            Self::Unfit(_) => "agent_refused",
        }
    }

    /// The first pause after such an end, and the longest. OpenSSH counts penalties against an
    /// address: 5 s for a failed login and 1 s for a connection without one, and bans it once they
    /// sum up to 15 s; they wear off with time, so these pauses never let them sum up.
    fn pauses(&self) -> (Duration, Duration) {
        let (first_ms, longest_s) = match self {
            Self::Link { .. } => (250, 2),
            // The port is closed: nobody counts.
            Self::Ssh(
                SshError::Refused { .. } | SshError::NoAnswer { .. } | SshError::Unreachable { .. },
            ) => (500, 30),
            Self::Ssh(SshError::Talk { .. } | SshError::Silent { .. }) => (5_000, 300),
            Self::Ssh(SshError::HostKey { .. }) => (30_000, 600),
            Self::Ssh(SshError::Login { .. } | SshError::Keys { .. }) => (30_000, 600),
            // These logins succeeded, which costs nothing.
            Self::Booting { .. } => (2_000, 10),
            Self::Uploaded | Self::Quiet => (300, 10),
            Self::BootFailed { .. }
            | Self::Upload(_)
            | Self::OtherAgent { .. }
            | Self::Unfit(_) => (5_000, 300),
        };
        (Duration::from_millis(first_ms), Duration::from_secs(longest_s))
    }
}

/// Doubles the pause as long as attempts end in the same way.
#[derive(Debug, Default)]
struct Patience {
    last: &'static str,
    times: u32,
}

impl Patience {
    /// The pause after an attempt, where `random` is in 0..1: never less than the first one.
    fn after(&mut self, ended: &Ended, random: f64) -> Duration {
        let good = matches!(ended, Ended::Link { held } if *held >= GOOD_LINK);
        let same = self.last == ended.code() && !good;
        self.times = if same { self.times.saturating_add(1) } else { 0 };
        self.last = ended.code();
        let (first, longest) = ended.pauses();
        let doubled = first.saturating_mul(1 << self.times.min(16)).min(longest);
        doubled + first.mul_f64(random.clamp(0.0, 1.0) / 2.0)
    }
}

/// Keeps links to all VMs of the directory until `stop` is cancelled.
pub(super) async fn keep(hub: Arc<Hub>, directory: Arc<dyn Directory>, stop: CancellationToken) {
    let mut links: HashMap<VmId, (CancellationToken, JoinHandle<()>)> = HashMap::new();
    loop {
        let vms = directory.vms().await;
        links.retain(|vm, (end, task)| {
            let wanted = vms.contains(vm) && !task.is_finished();
            if !wanted {
                end.cancel();
            }
            wanted
        });
        for vm in vms {
            links.entry(vm).or_insert_with(|| {
                let end = stop.child_token();
                let (hub, directory, ended) =
                    (Arc::clone(&hub), Arc::clone(&directory), end.clone());
                let task = tokio::spawn(async move {
                    ended.run_until_cancelled(keep_one(&hub, &directory, vm)).await;
                    hub.trouble(vm, None);
                });
                (end, task)
            });
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => break,
        }
    }
    for (_, (_, task)) in links {
        drop(task.await);
    }
}

async fn keep_one(hub: &Arc<Hub>, directory: &Arc<dyn Directory>, vm: VmId) {
    let mut patience = Patience::default();
    while let Some(dial) = directory.dial(vm).await {
        let ended = attempt(hub, directory, vm, &dial).await;
        let pause = patience.after(&ended, rand::random());
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let code = ended.code();
        let message = ended.to_string();
        match &ended {
            Ended::Link { .. } => tracing::info!(%vm, pause_ms, "the link to {vm} ended"),
            Ended::Ssh(error) if error.loud() => {
                tracing::error!(%vm, code, pause_ms, "no link to {vm}: {message}");
            }
            ended => {
                let error = ended as &dyn std::error::Error;
                tracing::info!(%vm, code, pause_ms, error, "no link to {vm}: {message}");
            }
        }
        let trouble = Trouble { code: code.to_owned(), message };
        hub.trouble(vm, Some(trouble));
        tokio::time::sleep(pause).await;
    }
}

/// One connection, to its end.
async fn attempt(hub: &Arc<Hub>, directory: &Arc<dyn Directory>, vm: VmId, dial: &Dial) -> Ended {
    let connection = match ssh::connect(dial).await {
        Ok(connection) => connection,
        Err(error) => return error.into(),
    };
    directory.met(vm, connection.host_key.clone()).await;
    let (session, channel) = connection.into_parts();
    let ended = talk(hub, directory, vm, channel.into_stream()).await;
    Connection::close(session).await;
    ended
}

/// What the forced command has to say decides: an agent's hello, or the receiver's offer.
async fn talk(
    hub: &Arc<Hub>,
    directory: &Arc<dyn Directory>,
    vm: VmId,
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
) -> Ended {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = BufReader::new(reader);
    let mut first = Vec::new();
    let reading =
        async { (&mut reader).take(FIRST_LINE_BYTES).read_until(b'\n', &mut first).await };
    match tokio::time::timeout(FIRST_LINE, reading).await {
        Ok(Ok(count)) if count > 0 => {}
        _ => return Ended::Quiet,
    }
    if let Ok(ToGateway::NoAgent { sha256, bytes, step }) = serde_json::from_slice(&first) {
        if step.starts_with("failed") {
            return Ended::BootFailed { step };
        }
        if step.is_empty() {
            return Ended::Booting { step: "packages".to_owned() };
        }
        let Some(path) = directory.agent(vm, sha256.clone()).await else {
            return Ended::OtherAgent { sha256 };
        };
        return match upload(&path, bytes, &mut writer, &mut reader).await {
            Ok(()) => Ended::Uploaded,
            Err(error) => Ended::Upload(error),
        };
    }
    let whole = tokio::io::join(Cursor::new(first).chain(reader), writer);
    let begun = Instant::now();
    match link::run_for(hub, Wire::lines(whole), Some(vm)).await {
        Ok(()) | Err(LinkError::Wire(_) | LinkError::Silent(_)) => {
            Ended::Link { held: begun.elapsed() }
        }
        Err(error) => Ended::Unfit(error),
    }
}

/// Sends the program, and waits until the receiver has taken all of it.
async fn upload(
    path: &std::path::Path,
    bytes: u64,
    writer: &mut (impl tokio::io::AsyncWrite + Unpin),
    reader: &mut (impl tokio::io::AsyncRead + Unpin),
) -> std::io::Result<()> {
    let mut file = tokio::fs::File::open(path).await?;
    writer.write_all(format!("upload {bytes}\n").as_bytes()).await?;
    let mut piece = vec![0; 32 * 1024];
    loop {
        let count = file.read(&mut piece).await?;
        if count == 0 {
            break;
        }
        tokio::time::timeout(UPLOAD_STALL, writer.write_all(&piece[..count])).await??;
    }
    writer.flush().await?;
    // The receiver closes once it has put the file in place.
    let mut rest = Vec::new();
    let mut end = reader.take(FIRST_LINE_BYTES);
    tokio::time::timeout(UPLOAD_STALL, end.read_to_end(&mut rest)).await??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> std::net::SocketAddr {
        std::net::SocketAddr::from(([203, 0, 113, 7], 22))
    }

    /// What OpenSSH 9.8 and later count against a client's address, in seconds of penalty.
    fn banned(penalty_s: f64, ended: impl Fn() -> Ended) -> bool {
        let (mut patience, mut sum) = (Patience::default(), 0.0_f64);
        for _ in 0..1_000 {
            sum += penalty_s;
            if sum >= 15.0 {
                return true;
            }
            sum = (sum - patience.after(&ended(), 0.0).as_secs_f64()).max(0.0);
        }
        false
    }

    #[test]
    fn no_number_of_failures_earns_a_ban() {
        let address = address();
        assert!(!banned(5.0, || SshError::Login { address }.into()));
        let found = String::new();
        assert!(!banned(1.0, || {
            SshError::HostKey { address, found: found.clone(), wanted: found.clone() }.into()
        }));
        let source = || russh::Error::Disconnect;
        assert!(!banned(1.0, || SshError::Talk { address, source: source() }.into()));
        // A login that was cut off counts for as much as 10 s where the grace time ran out.
        assert!(!banned(10.0, || SshError::Login { address }.into()));
    }

    #[test]
    fn pauses_grow_while_it_ends_the_same_way_and_begin_anew_otherwise() {
        let address = address();
        let refused = || Ended::from(SshError::Refused { address });
        let mut patience = Patience::default();
        let pauses: Vec<u128> =
            (0..9).map(|_| patience.after(&refused(), 0.0).as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        let good = Ended::Link { held: GOOD_LINK };
        assert_eq!(patience.after(&good, 0.0).as_millis(), 250);
        assert_eq!(patience.after(&good, 0.0).as_millis(), 250);
        let short = || Ended::Link { held: Duration::ZERO };
        assert_eq!(patience.after(&short(), 0.0).as_millis(), 500);
        assert_eq!(patience.after(&short(), 1.0).as_millis(), 1_125);
    }
}
