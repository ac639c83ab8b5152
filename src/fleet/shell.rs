//! One command on a machine that VMKit is about to adopt, over SSH, as a user who may run any.
//!
//! Everything else that VMKit does on a VM goes through its agent.

use std::net::SocketAddr;
use std::time::Duration;

use russh::ChannelMsg;
use russh::keys::PublicKey;

use super::ssh::{self, Connection, Dial, Session, SshError};
use crate::domain::secret::Secret;

/// The most that is kept of what a command says, in bytes.
const OUTPUT_MAX: usize = 1024 * 1024;

/// What a command said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Its exit status; none where the connection ended before it.
    pub status: Option<u32>,
    /// Its output.
    pub output: String,
    /// What it complained of.
    pub complaint: String,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ShellError(#[from] SshError);

impl ShellError {
    /// Stable, in snake case.
    pub fn code(&self) -> &'static str {
        self.0.code()
    }

    /// Whether the same may go through in a moment.
    pub fn retryable(&self) -> bool {
        match self.0 {
            SshError::Refused { .. }
            | SshError::NoAnswer { .. }
            | SshError::Unreachable { .. }
            | SshError::Talk { .. }
            | SshError::Silent { .. } => true,
            SshError::HostKey { .. } | SshError::Login { .. } | SshError::Keys { .. } => false,
        }
    }

    /// Whether the machine let us come as far as the login, and no further.
    pub fn is_login_refused(&self) -> bool {
        matches!(self.0, SshError::Login { .. })
    }

    /// Whether the machine has another host key than the one that was named.
    pub fn is_other_host_key(&self) -> bool {
        matches!(self.0, SshError::HostKey { .. })
    }
}

/// The host key that a machine shows, in OpenSSH's form without a comment. Nobody logs in.
///
/// # Errors
/// There is no SSH server, or it does not talk.
pub async fn host_key(address: SocketAddr) -> Result<String, ShellError> {
    let (session, seen) = ssh::meet(address, Vec::new()).await?;
    match (seen, session) {
        (Some(key), _) => {
            let line = key.to_openssh().map_err(|_| SshError::Keys { address })?;
            Ok(line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        }
        (None, Err(source)) => Err(SshError::Talk { address, source }.into()),
        (None, Ok(_)) => Err(SshError::Keys { address }.into()),
    }
}

/// A public key's fingerprint as `ssh-keygen -l` shows it: `SHA256:` and 43 characters; none where
/// it is no key.
pub fn fingerprint(line: &str) -> Option<String> {
    PublicKey::from_openssh(line).ok().map(|key| ssh::print(&key))
}

/// Runs `command` with `input`, for at most `limit`.
///
/// # Errors
/// The machine was not reached or did not let us in. A command that fails is an answer.
pub async fn run(
    dial: &Dial,
    command: &str,
    input: &str,
    limit: Duration,
) -> Result<Said, ShellError> {
    let address = dial.address;
    let (mut session, _) = ssh::enter(dial).await?;
    let talk = async {
        let broken = |source| SshError::Talk { address, source };
        let mut channel = ssh::start(&mut session, address, command).await?;
        channel.data(input.as_bytes()).await.map_err(broken)?;
        channel.eof().await.map_err(broken)?;
        let (mut said, mut output, mut complaint) = (Said::default(), Vec::new(), Vec::new());
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => keep(&mut output, &data),
                ChannelMsg::ExtendedData { data, .. } => keep(&mut complaint, &data),
                ChannelMsg::ExitStatus { exit_status } => said.status = Some(exit_status),
                _ => {}
            }
        }
        said.output = String::from_utf8_lossy(&output).into_owned();
        said.complaint = String::from_utf8_lossy(&complaint).into_owned();
        Ok(said)
    };
    let said = tokio::time::timeout(limit, talk).await;
    Connection::close(Session(session)).await;
    said.map_err(|_| SshError::Silent { address })?
}

/// As [`run`], with an input that nobody else may see.
///
/// # Errors
/// As [`run`].
pub async fn run_secret(
    dial: &Dial,
    command: &str,
    input: &Secret,
    limit: Duration,
) -> Result<Said, ShellError> {
    run(dial, command, input.expose(), limit).await
}

fn keep(kept: &mut Vec<u8>, more: &[u8]) {
    let left = OUTPUT_MAX.saturating_sub(kept.len());
    kept.extend_from_slice(&more[..more.len().min(left)]);
}
