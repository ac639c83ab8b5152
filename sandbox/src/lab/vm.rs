//! A server of the lab: a Debian container with systemd, cloud-init, sshd and its own Docker engine.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use super::Lab;
use super::snapshot::Snapshot;
use crate::SandboxError;
use crate::machines::MachineOrder;

/// What a cloud's own image is here.
const IMAGE: &str = "vmkit-lab/vm";
/// `--privileged` is refused where a right is missing to this process itself; this is what systemd
/// and an inner engine need of it.
const RIGHTS: &[&str] = &[
    "--cap-add",
    "ALL",
    "--cap-drop",
    "SYS_RESOURCE",
    "--security-opt",
    "seccomp=unconfined",
    "--security-opt",
    "apparmor=unconfined",
    "--security-opt",
    "systempaths=unconfined",
    "--device-cgroup-rule",
    "a *:* rwm",
    "--cgroupns=private",
    "-e",
    "container=docker",
    "--tmpfs",
    "/run",
    "--tmpfs",
    "/run/lock",
    "--tmpfs",
    "/tmp",
];

/// One VM's container, its disk and its user-data.
pub(crate) struct Vm {
    lab: Lab,
    /// The folder with the seed; there is one for each VM.
    root: PathBuf,
    now: Mutex<Now>,
    limits: Mutex<Option<Limits>>,
}

/// What a size gives a VM: cores, and memory in GB.
type Limits = (u64, u64);

/// The container that stands for the VM at present; a rebuilt VM has another.
#[derive(Clone)]
struct Now {
    name: String,
    address: IpAddr,
}

impl Vm {
    /// Makes the container, and boots it unless the order says otherwise. Cloud-init goes on behind.
    pub(crate) async fn create(
        lab: Lab,
        root: PathBuf,
        address: IpAddr,
        order: MachineOrder,
    ) -> Result<Self, SandboxError> {
        let now = Now { name: lab.name("vm"), address };
        let vm = Self { lab, root, now: Mutex::new(now), limits: Mutex::new(None) };
        vm.make(&order).await?;
        Ok(vm)
    }

    /// The name of its container.
    pub(crate) fn name(&self) -> String {
        crate::lock(&self.now).name.clone()
    }

    async fn make(&self, order: &MachineOrder) -> Result<(), SandboxError> {
        let now = crate::lock(&self.now).clone();
        let seed = self.root.join(&now.name);
        write_seed(&seed, &now.name, order)?;
        let disk = order.disk.as_ref().and_then(crate::machines::Disk::snapshot);
        let volume = format!("{}-docker", now.name);
        match disk {
            Some(snapshot) => snapshot.copy_volume(&volume)?,
            None => {
                let label = self.lab.engine().label();
                self.docker(&["volume", "create", "--label", label, &volume]).await?;
            }
        }
        let image = disk.map_or(IMAGE, Snapshot::image).to_owned();
        let address = now.address.to_string();
        let (seed, volume) = (
            format!("{}:/var/lib/cloud/seed/nocloud:ro", seed.display()),
            format!("{volume}:/var/lib/docker"),
        );
        let engine = self.lab.engine();
        let mut args = vec![if order.off { "create" } else { "run" }];
        if !order.off {
            args.push("-d");
        }
        args.extend([
            "--name",
            &now.name,
            "--hostname",
            &now.name,
            "--label",
            engine.label(),
            "--network",
            engine.network(),
            "--ip",
            &address,
            "-v",
            &seed,
            "-v",
            &volume,
        ]);
        args.extend(RIGHTS);
        args.push(&image);
        self.docker(&args).await?;
        self.keep_limits().await
    }

    /// Gives it the cores and the memory in GB of a size, by its cgroup; a rebuilt one has them too.
    pub(crate) async fn limit(&self, limits: Limits) -> Result<(), SandboxError> {
        *crate::lock(&self.limits) = Some(limits);
        self.keep_limits().await
    }

    async fn keep_limits(&self) -> Result<(), SandboxError> {
        let Some((cores, memory)) = *crate::lock(&self.limits) else { return Ok(()) };
        // More cores than this machine has are refused.
        let here = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let (cores, memory) = (cores.min(here).to_string(), format!("{memory}g"));
        let limits = ["--cpus", &cores, "--memory", &memory, "--memory-swap", &memory];
        let name = self.name();
        self.docker(&[&["update"], &limits[..], &[name.as_str()]].concat()).await.map(drop)
    }

    pub(crate) async fn is_on(&self) -> bool {
        let state = self.docker(&["inspect", "-f", "{{.State.Running}}", &self.name()]).await;
        state.is_ok_and(|state| state.trim() == "true")
    }

    pub(crate) async fn power_on(&self) -> Result<(), SandboxError> {
        self.docker(&["start", &self.name()]).await.map(drop)
    }

    /// Pulls the plug.
    pub(crate) async fn power_off(&self) {
        // One that is off already refuses, and stays off.
        drop(self.docker(&["kill", &self.name()]).await);
        drop(self.docker(&["wait", &self.name()]).await);
    }

    /// What ACPI asks for: systemd ends its units; after `grace` the power goes.
    pub(crate) async fn shut_down(&self, grace: Duration) {
        let seconds = grace.as_secs().max(1).to_string();
        drop(self.docker(&["stop", "-t", &seconds, &self.name()]).await);
    }

    /// Another disk, at the same address; the next boot is a first boot.
    pub(crate) async fn rebuild(&self, order: &MachineOrder) -> Result<(), SandboxError> {
        self.delete().await;
        crate::lock(&self.now).name = self.lab.name("vm");
        self.make(order).await
    }

    /// Removes the container and its disk.
    pub(crate) async fn delete(&self) {
        let name = self.name();
        drop(self.docker(&["rm", "-fv", &name]).await);
        drop(self.docker(&["volume", "rm", "-f", &format!("{name}-docker")]).await);
    }

    /// Gives it another address; it is switched off.
    pub(crate) fn readdress(&self, to: IpAddr) {
        let name = self.name();
        let network = self.lab.engine().network();
        let connected =
            self.lab.engine().docker(&["network", "disconnect", network, &name]).and_then(|_| {
                let to = to.to_string();
                self.lab.engine().docker(&["network", "connect", "--ip", &to, network, &name])
            });
        if let Err(error) = connected {
            tracing::warn!(%name, %error, "a VM of the lab has no address now");
        }
        crate::lock(&self.now).address = to;
    }

    /// A copy of its disk as it is now; blocks.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, SandboxError> {
        Snapshot::take(&self.lab, &self.name())
    }

    /// What a file of the VM holds; empty where it is missing or the VM is off. Blocks.
    pub(crate) fn read(&self, path: &str) -> String {
        self.lab.exec(&self.name(), &["cat", path]).unwrap_or_default()
    }

    async fn docker(&self, args: &[&str]) -> Result<String, SandboxError> {
        let lab = self.lab.clone();
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let work = move || {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            lab.engine().docker(&args)
        };
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(SandboxError::Stopped))
    }
}

/// What cloud-init reads at the first boot. The instance's id is the container's name, so that a
/// rebuilt VM and one from a snapshot are new instances.
fn write_seed(seed: &Path, id: &str, order: &MachineOrder) -> Result<(), SandboxError> {
    let name = if order.name.is_empty() { id } else { &order.name };
    let mut meta = format!("instance-id: {id}\nlocal-hostname: {name}\n");
    if !order.root_keys.is_empty() {
        meta.push_str("public-keys:\n");
        for key in &order.root_keys {
            meta.push_str(&format!("  - {}\n", serde_json::Value::from(key.as_str())));
        }
    }
    let user_data =
        if order.user_data.is_empty() { "#cloud-config\n{}\n" } else { &order.user_data };
    std::fs::create_dir_all(seed)
        .and_then(|()| std::fs::write(seed.join("meta-data"), meta))
        .and_then(|()| std::fs::write(seed.join("user-data"), user_data))
        .map_err(|source| SandboxError::io("write the seed in", seed, source))
}
