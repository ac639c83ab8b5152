//! Fetches the agent's program from where a release of it lies. Nothing but the one program with
//! the checksum that was set here ever comes out.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use crate::domain::agent_release::AgentRelease;
use crate::domain::size::Arch;
use crate::requests::{Api, Call, Dialect, Pace, RequestError};

/// The longest program that is taken, in bytes.
pub const BYTES_MAX: usize = 64 << 20;
/// How long one may take to arrive.
const PATIENCE: Duration = Duration::from_secs(300);

const DIALECT: Dialect = Dialect {
    name: "the agent's release",
    headers: &[],
    correlation: "x-request-id",
    refusal: |_, _| None,
};

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub enum AgentReleaseError {
    /// It cannot be fetched.
    #[error("the agent at {url} cannot be fetched: {source}")]
    Request {
        /// From where.
        url: String,
        /// Why.
        source: RequestError,
    },
    /// The server does not give it.
    #[error("the agent at {url} cannot be fetched: HTTP status {status}")]
    Status {
        /// From where.
        url: String,
        /// What it answered.
        status: u16,
    },
    /// Something else lies there.
    #[error("what lies at {url} is not the agent that was set: its SHA-256 is {found}")]
    Another {
        /// Where.
        url: String,
        /// Its sum.
        found: String,
    },
    /// It cannot be written down.
    #[error("the agent cannot be kept in {folder}: {source}")]
    NotKept {
        /// Where.
        folder: String,
        /// Why.
        source: io::Error,
    },
}

impl AgentReleaseError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Another { .. } => "agent_release_changed",
            Self::Request { .. } | Self::Status { .. } => "agent_release_unreachable",
            Self::NotKept { .. } => "agent_not_kept",
        }
    }

    /// Whether the same call may work later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Request { source, .. } => source.retryable(),
            Self::Status { status, .. } => *status >= 500,
            Self::Another { .. } | Self::NotKept { .. } => false,
        }
    }

    /// What to do next.
    pub fn fix(&self) -> String {
        match self {
            Self::Another { .. } => "set the sum that the release's makers publish; if it is that one already, do not use what lies there".into(),
            Self::Request { .. } | Self::Status { .. } => "try again, or check VMKIT_AGENT_AMD64 and VMKIT_AGENT_ARM64".into(),
            Self::NotKept { .. } => "make room there, or let VMKit write to it".into(),
        }
    }
}

/// The releases that are set, and the folder that keeps what was fetched.
#[derive(Debug)]
pub struct AgentReleases {
    known: Vec<AgentRelease>,
    keep: PathBuf,
    pace: Pace,
    /// The sums whose file this process has found right; one is looked at, or fetched, at a time.
    right: Mutex<HashSet<String>>,
}

impl AgentReleases {
    /// Keeps programs in `keep`, which need not be there yet.
    pub fn new(known: Vec<AgentRelease>, keep: PathBuf, pace: Pace) -> Self {
        Self { known, keep, pace, right: Mutex::default() }
    }

    /// No release.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        let pace = Pace::new(crate::domain::clock::Clock::hand(crate::domain::clock::Millis(0)));
        Self::new(Vec::new(), PathBuf::new(), pace)
    }

    /// The file of the program for an architecture, fetched where it is not there or is not that
    /// program any more; none where no release is set.
    ///
    /// # Errors
    /// As [`fetch`], or the file cannot be written.
    pub async fn program(&self, arch: Arch) -> Result<Option<PathBuf>, AgentReleaseError> {
        let Some(release) = self.known.iter().find(|known| known.arch == arch) else {
            return Ok(None);
        };
        let mut right = self.right.lock().await;
        let path = self.keep.join(format!("vmkit-agent-{}", release.sha256));
        if right.contains(&release.sha256) && path.is_file() {
            return Ok(Some(path));
        }
        if !std::fs::read(&path).is_ok_and(|bytes| sum(&bytes) == release.sha256) {
            let bytes = fetch(release, &self.pace).await?;
            keep(&self.keep, &path, &bytes).map_err(|source| AgentReleaseError::NotKept {
                folder: self.keep.display().to_string(),
                source,
            })?;
        }
        right.insert(release.sha256.clone());
        Ok(Some(path))
    }
}

fn sum(program: &[u8]) -> String {
    hex::encode(Sha256::digest(program))
}

/// Under its last name it is whole.
fn keep(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut part = tempfile::NamedTempFile::new_in(folder)?;
    part.write_all(bytes)?;
    part.as_file().sync_all()?;
    part.persist(path).map(drop).map_err(|error| error.error)
}

/// The program's bytes, after its checksum was found right. Redirects are followed.
///
/// # Errors
/// It cannot be had, is longer than [`BYTES_MAX`], or is another one.
pub async fn fetch(release: &AgentRelease, pace: &Pace) -> Result<Vec<u8>, AgentReleaseError> {
    let url = release.url.to_string();
    let pace = Pace { timeout: PATIENCE, ..pace.clone() };
    let call = Call::get("").leaves_host().at_most(BYTES_MAX);
    let asked = async { Api::open(&DIALECT, &release.url, pace)?.send(&call).await };
    let answer = match asked.await {
        Ok(answer) => answer,
        Err(source) => return Err(AgentReleaseError::Request { url, source }),
    };
    if !answer.is_success() {
        return Err(AgentReleaseError::Status { url, status: answer.status.as_u16() });
    }
    let found = sum(&answer.body);
    if found != release.sha256 {
        return Err(AgentReleaseError::Another { url, found });
    }
    Ok(answer.body)
}
