//! Sandbox VMs: what a cloud's server is here. Each has an address of its own, a private root
//! directory, the agent as a process, containers as processes, and a proxy in front of them.

mod cloud_init;
mod container;
mod disk;
mod docker;
mod engine;
mod events;
mod machine;
mod proxy;
mod shell;
mod spawner;
mod sshd;
mod units;
mod upload;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rand::Rng;

pub use container::{ContainerInfo, ContainerSpec, Image, LogEntry, LogStream, Mount};
pub use disk::Disk;
pub use docker::Docker;
pub use machine::{Machine, MachineOrder};
pub use proxy::Proxy;
pub use sshd::{SshKnobs, SshVisit};

use crate::SandboxError;
use crate::lab::Lab;
use spawner::Spawner;

/// How many blocks of 127.77.0.0/16 are tried before giving up.
const BLOCK_TRIES: u32 = 200;
/// The port whose listener reserves a block for one sandbox.
const RESERVATION_PORT: u16 = 47_077;
/// Where the VMs' SSH servers are if they cannot be at port 22.
const OTHER_SSH_PORT: u16 = 4_722;

/// All VMs of one sandbox. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Machines(Arc<Inner>);

/// Where a VM will be.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) address: IpAddr,
    pub(crate) root: PathBuf,
}

struct Inner {
    exe: PathBuf,
    dir: tempfile::TempDir,
    spawner: Spawner,
    lab: Option<Lab>,
    block: Block,
    next: AtomicU32,
    folders: AtomicU32,
    agents_start: AtomicBool,
    ssh_port: u16,
    /// No machine is made any more.
    stopped: AtomicBool,
    machines: Mutex<BTreeMap<IpAddr, Machine>>,
    /// Addresses that lead to the machine at another one.
    also: Mutex<BTreeMap<IpAddr, IpAddr>>,
    /// The addresses that nobody else gets, and whether each outlives its machine.
    taken: Mutex<BTreeMap<IpAddr, bool>>,
}

/// One /24 of 127.77.0.0/16, held by a listener so that sandboxes running at once do not collide.
struct Block {
    third: u8,
    _held: TcpListener,
}

impl Block {
    fn reserve() -> Result<Self, SandboxError> {
        for _ in 0..BLOCK_TRIES {
            let third: u8 = rand::rng().random();
            let at = (Ipv4Addr::new(127, 77, third, 255), RESERVATION_PORT);
            if let Ok(held) = TcpListener::bind(at) {
                return Ok(Self { third, _held: held });
            }
        }
        Err(SandboxError::NoAddress)
    }

    /// 22 where it can be had, which needs a right and that nobody has it on all addresses.
    fn ssh_port(&self) -> u16 {
        match TcpListener::bind((Ipv4Addr::new(127, 77, self.third, 255), 22)) {
            Ok(_) => 22,
            Err(_) => OTHER_SSH_PORT,
        }
    }
}

impl Machines {
    /// Whether they are a lab's containers.
    pub(crate) fn are_containers(&self) -> bool {
        self.0.lab.is_some()
    }

    /// Prepares a place for VMs; `exe` is the vmkit binary, which plays the agent, the tether and
    /// the sample app. With a lab they are its containers. Must be called inside a tokio runtime.
    pub fn new(exe: &Path, lab: Option<Lab>) -> Result<Self, SandboxError> {
        let dir = tempfile::Builder::new()
            .prefix("vmk-")
            .tempdir_in("/tmp")
            .map_err(|source| SandboxError::io("make a folder in", "/tmp", source))?;
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin)
            .and_then(|()| std::os::unix::fs::symlink(exe, bin.join("vmkit")))
            .map_err(|source| SandboxError::io("fill the folder", &bin, source))?;
        shell::make_commands(&dir.path().join("commands"))?;
        let spawner = Spawner::start(exe, dir.path())?;
        let block = Block::reserve()?;
        Ok(Self(Arc::new(Inner {
            exe: exe.to_owned(),
            spawner,
            ssh_port: if lab.is_some() { 22 } else { block.ssh_port() },
            lab,
            block,
            next: AtomicU32::new(0),
            folders: AtomicU32::new(0),
            agents_start: AtomicBool::new(true),
            stopped: AtomicBool::new(false),
            machines: Mutex::default(),
            also: Mutex::default(),
            taken: Mutex::default(),
            dir,
        })))
    }

    /// The folder that holds everything of this sandbox, such as `/tmp/vmk-a1b2c3`. It goes with it.
    pub fn dir(&self) -> &Path {
        self.0.dir.path()
    }

    /// The port of the VMs' SSH servers: 22 where this process may use it.
    pub fn ssh_port(&self) -> u16 {
        self.0.ssh_port
    }

    /// The vmkit binary that plays the agent and the sample app.
    pub fn exe(&self) -> &Path {
        &self.0.exe
    }

    /// Whether agents are started on machines made from now on; `false` plays a broken bootstrap.
    pub fn let_agents_start(&self, start: bool) {
        self.0.agents_start.store(start, Ordering::SeqCst);
    }

    /// Chooses the address and the folder of a VM that will be made. The address goes with the
    /// machine, unless [`Machines::hold`] says otherwise.
    pub(crate) fn reserve(&self) -> Place {
        let mut taken = crate::lock(&self.0.taken);
        let free = || {
            if let Some(lab) = &self.0.lab {
                return lab.address();
            }
            let number = self.0.next.fetch_add(1, Ordering::SeqCst) + 1;
            let host = u8::try_from(number % 253).unwrap_or(0) + 1;
            IpAddr::V4(Ipv4Addr::new(127, 77, self.0.block.third, host))
        };
        let mut address = free();
        // One block has 253 addresses; a sandbox that needs more at once doubles some.
        for _ in 0..253 {
            if !taken.contains_key(&address) {
                break;
            }
            address = free();
        }
        taken.insert(address, false);
        drop(taken);
        self.place_at(address)
    }

    /// A folder of its own for a VM at an address that is held.
    pub(crate) fn place_at(&self, address: IpAddr) -> Place {
        let number = self.0.folders.fetch_add(1, Ordering::SeqCst) + 1;
        Place { address, root: self.dir().join(format!("v{number}")) }
    }

    /// A folder of its own for a copy of a VM's disk.
    pub(crate) fn disk_dir(&self) -> PathBuf {
        let number = self.0.folders.fetch_add(1, Ordering::SeqCst) + 1;
        self.dir().join(format!("s{number}"))
    }

    /// Keeps an address for its owner, whatever becomes of the machine that has it.
    pub(crate) fn hold(&self, address: IpAddr) {
        crate::lock(&self.0.taken).insert(address, true);
    }

    /// Gives an address back that was held; one that a machine has goes with the machine.
    pub(crate) fn let_go(&self, address: IpAddr) {
        if self.by_address(address).is_some() {
            crate::lock(&self.0.taken).insert(address, false);
        } else {
            crate::lock(&self.0.taken).remove(&address);
        }
    }

    /// Gives a VM that is switched off another address.
    pub(crate) fn readdress(&self, from: IpAddr, to: IpAddr) {
        let mut machines = self.lock();
        if let Some(machine) = machines.remove(&from) {
            machine.readdress(to);
            machines.insert(to, machine);
        }
        drop(machines);
        crate::lock(&self.0.taken).retain(|address, held| *address != from || *held);
    }

    /// Makes a VM and boots it: reads the user-data as cloud-init would, starts the Docker socket
    /// and the agent. Returns once it is up (the agent may not have linked yet).
    pub async fn create(&self, order: MachineOrder) -> Result<Machine, SandboxError> {
        self.create_at(self.reserve(), order).await
    }

    /// Makes a VM at a place that was reserved for it.
    pub(crate) async fn create_at(
        &self,
        place: Place,
        order: MachineOrder,
    ) -> Result<Machine, SandboxError> {
        let context = machine::Context {
            exe: self.0.exe.clone(),
            bin: self.dir().join("bin"),
            commands: self.dir().join("commands"),
            spawner: self.0.spawner.clone(),
            agents_start: self.0.agents_start.load(Ordering::SeqCst),
            ssh_port: self.0.ssh_port,
            lab: self.0.lab.clone(),
        };
        if self.is_stopped() {
            return Err(SandboxError::Stopped);
        }
        let machine = Machine::boot(context, place, order).await?;
        self.lock().insert(machine.address(), machine.clone());
        // It may have been stopped while the machine booted; then nobody else ends it.
        if self.is_stopped() {
            self.delete(machine.address()).await;
            self.remove_dir();
            return Err(SandboxError::Stopped);
        }
        Ok(machine)
    }

    /// The VM that answers at `address`, if there is one (switched off or not).
    pub fn by_address(&self, address: IpAddr) -> Option<Machine> {
        let own = crate::lock(&self.0.also).get(&address).copied().unwrap_or(address);
        self.lock().get(&own).cloned()
    }

    /// Makes `also` lead to the VM at `address`, beside what leads there already.
    pub(crate) async fn lead(&self, also: IpAddr, address: IpAddr) -> Result<(), SandboxError> {
        crate::lock(&self.0.also).insert(also, address);
        match self.by_address(address) {
            Some(machine) => machine.also_at(also).await,
            None => Ok(()),
        }
    }

    /// Makes `also` lead nowhere.
    pub(crate) fn lead_nowhere(&self, also: IpAddr) {
        if let Some(machine) = self.by_address(also) {
            machine.no_longer_at(also);
        }
        crate::lock(&self.0.also).remove(&also);
    }

    /// All VMs, by address.
    pub fn list(&self) -> Vec<Machine> {
        self.lock().values().cloned().collect()
    }

    /// Ends all processes of the VM at `address` and removes its root; absent is fine.
    pub async fn delete(&self, address: IpAddr) {
        let machine = self.lock().remove(&address);
        if let Some(machine) = machine {
            machine.delete().await;
        }
        crate::lock(&self.0.taken).retain(|own, held| *own != address || *held);
    }

    /// Deletes every VM, and the folder that held them.
    pub async fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        let all = std::mem::take(&mut *self.lock());
        for machine in all.values() {
            machine.delete().await;
        }
        self.remove_dir();
    }

    /// What [`Machines::stop`] does, as far as that goes without waiting: for a sandbox that is
    /// dropped.
    pub(crate) fn abandon(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        let all = std::mem::take(&mut *self.lock());
        for machine in all.values() {
            machine.abandon();
        }
        self.remove_dir();
    }

    fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::SeqCst)
    }

    fn remove_dir(&self) {
        if let Err(error) = std::fs::remove_dir_all(self.dir())
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %self.dir().display(), %error, "the sandbox's folder remains");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Machine>> {
        crate::lock(&self.0.machines)
    }
}
