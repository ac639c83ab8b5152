//! Our side of an agent's first contact: its binary, its single-use token, its lasting key.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use ed25519_dalek::SigningKey;
use futures::FutureExt;
use futures::future::BoxFuture;
use sha2::{Digest, Sha256};

use super::{Context, OpError, identity};
use crate::accounts::CLOUDS;
use crate::agent_releases::AgentReleases;
use crate::domain::clock::Clock;
use crate::domain::ids::VmId;
use crate::domain::secret::Secret;
use crate::domain::size::Arch;
use crate::fleet::{EnrolRefusal, FleetError, Roster};
use crate::store::{Enrolment, Store};
use crate::vault::Vault;

/// The agents that the state file knows.
pub struct StoredRoster {
    store: Store,
    vault: Arc<Vault>,
    clock: Clock,
}

impl StoredRoster {
    /// The roster of `store`.
    pub fn new(store: Store, vault: Arc<Vault>, clock: Clock) -> Self {
        Self { store, vault, clock }
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

    fn identities(&self) -> BoxFuture<'_, Vec<SigningKey>> {
        async move {
            let keys = identity::keys(&self.store, &self.vault).await;
            keys.unwrap_or_else(|error| {
                tracing::warn!(code = error.code(), %error, "our own keys cannot be read");
                Vec::new()
            })
            .into_iter()
            .map(|(_, key)| key)
            .collect()
        }
        .boxed()
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

/// The public half of a private key in OpenSSH's form.
pub(super) fn public_line(private: &Secret) -> Result<String, OpError> {
    let read = || -> Result<String, ssh_key::Error> {
        ssh_key::PrivateKey::from_openssh(private.expose())?.public_key().to_openssh()
    };
    read().map_err(|error| OpError::KeyPair { detail: error.to_string() })
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
    /// Why it would not start on a VM, where that can be seen.
    pub fault: Option<String>,
}

/// The newest C library that every system has that VMKit makes VMs with: Ubuntu 22.04 has 2.35.
const GLIBC: (u32, u32) = (2, 34);

/// The agent that a VM of an architecture is to have: there, and able to start.
///
/// # Errors
/// [`OpError::NoAgentBinary`] or [`OpError::UnfitAgentBinary`], before anything is ordered.
pub(crate) async fn fit(context: &Context, arch: Arch) -> Result<AgentBinary, OpError> {
    let binaries = &context.agent_binaries;
    let found = binaries.find(arch).await?;
    let ours = || std::env::current_exe().is_ok_and(|program| program == found.path);
    match &found.fault {
        Some(fault) if !(ours() && simulated(context)) => {
            let path = found.path.display().to_string();
            Err(OpError::UnfitAgentBinary { path, fault: fault.clone() })
        }
        _ => Ok(found),
    }
}

/// A sandbox's VMs are processes of this very machine, where what runs here runs.
fn simulated(context: &Context) -> bool {
    CLOUDS.iter().filter_map(|name| context.accounts.url(name)).all(|url| match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    })
}

/// What keeps a program from starting on VMs: another architecture, or a C library that is newer
/// than some of them have. Nothing is said of what is no ELF file.
fn fault(program: &[u8], arch: Arch) -> Option<String> {
    if !program.starts_with(b"\x7fELF") {
        return None;
    }
    // `e_machine`: https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html
    let machine = match arch {
        Arch::Amd64 => [0x3e, 0],
        Arch::Arm64 => [0xb7, 0],
    };
    if program.get(18..20) != Some(machine.as_slice()) {
        return Some(format!("is no program for {}", arch.as_str()));
    }
    let (major, minor) = glibc(program).filter(|needs| *needs > GLIBC)?;
    Some(format!(
        "needs GLIBC_{major}.{minor}, and GLIBC_{}.{} is the most that every VM has",
        GLIBC.0, GLIBC.1
    ))
}

/// The newest version of the C library that a program asks for, by the names in its dynamic string
/// table: each stands alone between two zero bytes.
fn glibc(program: &[u8]) -> Option<(u32, u32)> {
    let version = |name: &[u8]| {
        let (major, rest) = std::str::from_utf8(name).ok()?.split_once('.')?;
        let minor = rest.split('.').next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let names = program.split(|&byte| byte == 0).filter_map(|name| name.strip_prefix(b"GLIBC_"));
    names.filter_map(version).max()
}

/// The agents that this installation can hand out. Digests are made once per file, and anew for
/// one that has another length or time.
#[derive(Debug)]
pub struct AgentBinaries {
    folder: Option<PathBuf>,
    releases: AgentReleases,
    known: Mutex<Vec<(Option<SystemTime>, AgentBinary)>>,
}

impl AgentBinaries {
    /// Looks in `folder`, then for a release, and else beside the running program, which can play
    /// the agent of its own architecture itself.
    pub fn new(folder: Option<PathBuf>, releases: AgentReleases) -> Self {
        Self { folder, releases, known: Mutex::default() }
    }

    /// Where it looks, for messages.
    pub fn place(&self) -> String {
        match &self.folder {
            Some(folder) => folder.display().to_string(),
            None => "the program's own folder".to_owned(),
        }
    }

    /// The agent for an architecture; a release is fetched where it was not before.
    ///
    /// # Errors
    /// [`OpError::NoAgentBinary`], or the release cannot be had.
    pub async fn find(&self, arch: Arch) -> Result<AgentBinary, OpError> {
        let name = format!("vmkit-agent-{}", arch.as_str());
        let missing =
            || OpError::NoAgentBinary { arch: arch.as_str().to_owned(), folder: self.place() };
        let given = self.folder.as_ref().map(|folder| folder.join(&name));
        if let Some(path) = given.filter(|path| path.is_file()) {
            return self.read(path, arch).await.ok_or_else(missing);
        }
        if let Some(path) = self.releases.program(arch).await? {
            return self.read(path, arch).await.ok_or_else(missing);
        }
        let own = std::env::current_exe().ok().filter(|_| self.folder.is_none());
        let program = own.ok_or_else(missing)?;
        let beside = program.parent().unwrap_or(Path::new(".")).join(name);
        let path = [beside].into_iter().find(|path| path.is_file());
        let path = path.or_else(|| (own_arch() == Some(arch)).then_some(program));
        self.read(path.ok_or_else(missing)?, arch).await.ok_or_else(missing)
    }

    async fn read(&self, path: PathBuf, arch: Arch) -> Option<AgentBinary> {
        let facts = std::fs::metadata(&path).ok()?;
        let written = facts.modified().ok();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let same = |(time, known): &(Option<SystemTime>, AgentBinary)| {
            *time == written && known.path == path && known.bytes == facts.len()
        };
        if let Some((_, binary)) = known.into_iter().find(same) {
            return Some(binary);
        }
        let read = path.clone();
        let bytes = tokio::task::spawn_blocking(move || std::fs::read(read)).await.ok()?.ok()?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let (sha256, fault) = (hex::encode(Sha256::digest(&bytes)), fault(&bytes, arch));
        let binary = AgentBinary { path, sha256, bytes: length, fault };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, other)| other.path != binary.path);
        known.push((written, binary.clone()));
        Some(binary)
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
