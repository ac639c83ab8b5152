//! Our side of an agent's first contact: its binary, its single-use token, its lasting key.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use sha2::{Digest, Sha256};

use super::{Context, OpError};
use crate::domain::clock::Clock;
use crate::domain::ids::VmId;
use crate::domain::secret::Secret;
use crate::domain::size::Arch;
use crate::fleet::{EnrolRefusal, FleetError, Roster};
use crate::store::{Enrolment, Store};

/// The agents that the state file knows.
pub struct StoredRoster {
    store: Store,
    clock: Clock,
}

impl StoredRoster {
    /// The roster of `store`.
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock }
    }
}

impl Roster for StoredRoster {
    fn redeem(
        &self,
        vm: VmId,
        token: Secret,
        public_key: [u8; 32],
    ) -> BoxFuture<'_, Result<(), EnrolRefusal>> {
        async move {
            let hash = token_hash(&token);
            let now = self.clock.now();
            match self.store.enrol(vm, hash, public_key, now).await {
                Ok(Enrolment::Accepted) => Ok(()),
                Ok(Enrolment::WrongToken) => Err(EnrolRefusal::UnknownToken),
                Ok(Enrolment::Expired) => Err(EnrolRefusal::Expired),
                Ok(Enrolment::Used) => Err(EnrolRefusal::Used),
                Err(error) => {
                    tracing::warn!(code = error.code(), %error, %vm, "enrolment of {vm} failed");
                    Err(EnrolRefusal::Unavailable)
                }
            }
        }
        .boxed()
    }

    fn public_key(&self, vm: VmId) -> BoxFuture<'_, Option<[u8; 32]>> {
        async move { self.store.agent_key(vm).await.ok().flatten() }.boxed()
    }
}

/// Waits until the agent of a VM is linked. After a restart of ours it takes until its next attempt.
///
/// # Errors
/// [`OpError::AgentAway`], which is not worth another attempt at once.
pub(super) async fn linked(context: &Context, vm: VmId) -> Result<(), OpError> {
    let wait = context.pace.relink;
    match context.fleet.wait_linked(vm, wait).await {
        Err(FleetError::NotLinked { .. }) => {
            Err(OpError::AgentAway { vm, waited_s: wait.as_secs() })
        }
        linked => Ok(linked.map(drop)?),
    }
}

/// What is kept of an enrolment token.
pub(super) fn token_hash(token: &Secret) -> [u8; 32] {
    Sha256::digest(token.expose().as_bytes()).into()
}

/// An agent that can be handed to a VM.
#[derive(Debug, Clone)]
pub struct AgentBinary {
    /// The file.
    pub path: PathBuf,
    /// Its SHA-256, which the VM checks before it runs it.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

/// The agents that this installation can hand out. Digests are made once per file.
#[derive(Debug)]
pub struct AgentBinaries {
    folder: Option<PathBuf>,
    known: Mutex<Vec<(Arch, AgentBinary)>>,
}

impl AgentBinaries {
    /// Looks in `folder`, or else beside the running program, which can play the agent of its own
    /// architecture itself.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, known: Mutex::default() }
    }

    /// Where it looks, for messages.
    pub fn place(&self) -> String {
        match &self.folder {
            Some(folder) => folder.display().to_string(),
            None => "the program's own folder".to_owned(),
        }
    }

    /// The agent for an architecture, if there is one.
    pub async fn find(&self, arch: Arch) -> Option<AgentBinary> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, binary)) = known.into_iter().find(|(known, _)| *known == arch) {
            return Some(binary);
        }
        let path = self.path(arch)?;
        let read = path.clone();
        let bytes = tokio::task::spawn_blocking(move || std::fs::read(read)).await.ok()?.ok()?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let binary =
            AgentBinary { path, sha256: hex::encode(Sha256::digest(bytes)), bytes: length };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).push((arch, binary.clone()));
        Some(binary)
    }

    fn path(&self, arch: Arch) -> Option<PathBuf> {
        let name = format!("vmkit-agent-{}", arch.as_str());
        if let Some(folder) = &self.folder {
            return Some(folder.join(name)).filter(|path| path.is_file());
        }
        let program = std::env::current_exe().ok()?;
        let beside = program.parent().unwrap_or(Path::new(".")).join(name);
        if beside.is_file() {
            return Some(beside);
        }
        (own_arch() == Some(arch)).then_some(program)
    }
}

/// The architecture of this machine, where VMs have it too.
pub fn own_arch() -> Option<Arch> {
    match std::env::consts::ARCH {
        "x86_64" => Some(Arch::Amd64),
        "aarch64" => Some(Arch::Arm64),
        _ => None,
    }
}
