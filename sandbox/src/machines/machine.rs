//! One VM: its root directory, its identity, its agent and its engine.

use std::ffi::OsString;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::disk::Disk;
use super::docker::Docker;
use super::proxy::Proxy;
use super::shell::{Services, Shell};
use super::spawner::{Spawner, Start};
use super::sshd::{SshKnobs, SshVisit, Sshd};
use super::upload;
use super::{Place, cloud_init, engine, units};
use crate::SandboxError;
use crate::lab::Lab;
use crate::lab::vm::Vm;

/// systemd's `Restart=always` with a wait that a test can afford.
const AGENT_RESTART_WAIT: Duration = Duration::from_millis(200);

/// What a cloud knows of a server when it boots it.
#[derive(Debug, Clone, Default)]
pub struct MachineOrder {
    /// The host name where the user-data gives none.
    pub name: String,
    /// As cloud-init would read it; empty is fine.
    pub user_data: String,
    /// For root, as the cloud's own SSH keys.
    pub root_keys: Vec<String>,
    /// Installed, and left switched off.
    pub off: bool,
    /// The copy that its disk is made from, instead of the cloud's own image; a new instance all
    /// the same, so that cloud-init runs again.
    pub disk: Option<Disk>,
    /// Without Docker's command until somebody installs it.
    pub bare: bool,
}

/// What a machine needs from the sandbox.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) exe: PathBuf,
    pub(super) bin: PathBuf,
    /// The PATH of a shell on a VM.
    pub(super) commands: PathBuf,
    pub(super) spawner: Spawner,
    pub(super) agents_start: bool,
    pub(super) ssh_port: u16,
    pub(super) lab: Option<Lab>,
}

/// One VM. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Machine(Arc<Inner>);

struct Inner {
    context: Context,
    address: Address,
    root: PathBuf,
    docker: Docker,
    proxy: Proxy,
    sshd: Sshd,
    shell: Shell,
    order: Mutex<MachineOrder>,
    console: Mutex<Vec<String>>,
    power: tokio::sync::Mutex<Option<Power>>,
    session: Mutex<Option<PowerSession>>,
    /// The container that this machine is in the lab; then nothing of it runs here.
    lab: Option<Vm>,
}

/// An address that its machine, its engine and its proxy have in common; it changes only while the
/// machine is switched off.
#[derive(Clone)]
pub(super) struct Address(Arc<Mutex<IpAddr>>);

impl Address {
    pub(super) fn get(&self) -> IpAddr {
        *crate::lock(&self.0)
    }
}

/// One time that a machine is on; over once its power has gone.
#[derive(Debug, Clone)]
pub(crate) struct PowerSession(CancellationToken);

/// What runs only while the machine is switched on.
struct Power {
    off: CancellationToken,
    tasks: TaskTracker,
}

impl Machine {
    pub(super) async fn boot(
        context: Context,
        place: Place,
        order: MachineOrder,
    ) -> Result<Self, SandboxError> {
        let Place { address, root } = place;
        let lab = match &context.lab {
            None => None,
            Some(lab) => {
                let order = order.clone();
                Some(Vm::create(lab.clone(), root.clone(), address, order).await?)
            }
        };
        let home = root.join("root");
        let address = Address(Arc::new(Mutex::new(address)));
        let docker =
            Docker::new(address.clone(), context.spawner.clone(), context.bin.clone(), home);
        let services = Services::default();
        let shell = Shell { commands: context.commands.clone(), docker: docker.clone(), services };
        let machine = Self(Arc::new(Inner {
            proxy: Proxy::new(address.clone(), docker.clone()),
            sshd: Sshd::new(
                address.clone(),
                context.ssh_port,
                root.clone(),
                context.spawner.clone(),
                shell.clone(),
            ),
            shell,
            context,
            address,
            root,
            docker,
            order: Mutex::default(),
            console: Mutex::default(),
            power: tokio::sync::Mutex::default(),
            session: Mutex::default(),
            lab,
        }));
        if machine.0.lab.is_some() {
            if !order.off {
                machine.begin_lab_session();
            }
            *crate::lock(&machine.0.order) = order;
            return Ok(machine);
        }
        machine.install(order)?;
        if !machine.off_at_first() {
            machine.power_on().await?;
        }
        Ok(machine)
    }

    /// First boot: the root directory as the image (or a copy of another disk) and cloud-init would
    /// leave it.
    fn install(&self, mut order: MachineOrder) -> Result<(), SandboxError> {
        if let Some(disk) = order.disk.take() {
            disk.restore(&self.0.root)?;
            self.0.docker.restore(disk.containers())?;
            self.0.proxy.restore(disk.proxy());
        }
        let lines = cloud_init::install(&self.0.root, &order)?;
        if !order.bare {
            self.install_docker()?;
        }
        *crate::lock(&self.0.console) = lines;
        *crate::lock(&self.0.order) = order;
        Ok(())
    }

    /// Docker's command, for a shell.
    fn install_docker(&self) -> Result<(), SandboxError> {
        let command = self.0.root.join("usr/bin/docker");
        if command.symlink_metadata().is_ok() {
            return Ok(());
        }
        std::fs::create_dir_all(command.parent().unwrap_or(&self.0.root))
            .and_then(|()| symlink(self.0.context.commands.join("commands"), &command))
            .map_err(|source| SandboxError::io("link", &command, source))
    }

    fn off_at_first(&self) -> bool {
        crate::lock(&self.0.order).off
    }

    /// Its private root directory; ends with it.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Its address in 127.77.0.0/16.
    pub fn address(&self) -> IpAddr {
        self.0.address.get()
    }

    pub(super) fn readdress(&self, to: IpAddr) {
        *crate::lock(&self.0.address.0) = to;
        if let Some(vm) = &self.0.lab {
            return vm.readdress(to);
        }
        self.0.proxy.readdress();
    }

    /// Makes it answer at another address as well, as a cloud's own NAT would.
    pub(super) async fn also_at(&self, address: IpAddr) -> Result<(), SandboxError> {
        self.0.proxy.also_at(address).await
    }

    pub(super) fn no_longer_at(&self, address: IpAddr) {
        self.0.proxy.no_longer_at(address);
    }

    /// The container that it is in the lab.
    pub fn container(&self) -> Option<String> {
        self.0.lab.as_ref().map(Vm::name)
    }

    /// Its ed25519 host key as `ssh-ed25519 AAAA...`, without a comment.
    pub fn host_key(&self) -> String {
        let path = "/etc/ssh/ssh_host_ed25519_key.pub";
        let text = match &self.0.lab {
            Some(vm) => vm.read(path),
            None => std::fs::read_to_string(self.path(path)).unwrap_or_default(),
        };
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// The lines of a user's `authorized_keys`; empty where there is no such user.
    pub fn authorized_keys(&self, user: &str) -> Vec<String> {
        let home = if user == "root" { "root".to_owned() } else { format!("home/{user}") };
        let path = self.0.root.join(home).join(".ssh/authorized_keys");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect()
    }

    /// Where a path of the VM (such as `/etc/vmkit/env/shop/staging.env`) is on this machine.
    pub fn path(&self, path: &str) -> PathBuf {
        cloud_init::inside(&self.0.root, path)
    }

    /// Whether the VM has a file at `path`.
    pub fn has_file(&self, path: &str) -> bool {
        self.path(path).is_file()
    }

    /// Its containers.
    pub fn docker(&self) -> &Docker {
        &self.0.docker
    }

    /// Its kamal-proxy.
    pub fn proxy(&self) -> &Proxy {
        &self.0.proxy
    }

    /// Where its SSH server is, while the machine is on and the knobs leave the port open.
    pub fn ssh_address(&self) -> SocketAddr {
        self.0.sshd.address()
    }

    /// Makes its SSH server behave otherwise, from the next connection on.
    pub async fn set_ssh_knobs(&self, knobs: SshKnobs) {
        self.0.sshd.set_knobs(knobs).await;
    }

    /// What its SSH server was asked so far: one entry a connection.
    pub fn ssh_record(&self) -> Vec<SshVisit> {
        self.0.sshd.record()
    }

    /// Ends every SSH connection at once, as a network that goes away does.
    pub fn cut_ssh(&self) {
        self.0.sshd.cut();
    }

    /// What cloud-init said on the console.
    pub fn console(&self) -> Vec<String> {
        crate::lock(&self.0.console).clone()
    }

    /// Gives it the cores and the memory in GB of a size. Only in the lab it feels them.
    pub(crate) async fn limit(&self, cores: u64, memory: u64) -> Result<(), SandboxError> {
        match &self.0.lab {
            Some(vm) => vm.limit((cores, memory)).await,
            None => Ok(()),
        }
    }

    /// Whether it is switched on.
    pub async fn is_on(&self) -> bool {
        match &self.0.lab {
            Some(vm) => vm.is_on().await,
            None => self.0.power.lock().await.is_some(),
        }
    }

    /// Switches it on: the Docker socket, the containers that start again, the agent. Once on, it
    /// stays as it is.
    pub async fn power_on(&self) -> Result<(), SandboxError> {
        if let Some(vm) = &self.0.lab {
            vm.power_on().await?;
            self.begin_lab_session();
            return Ok(());
        }
        let mut power = self.0.power.lock().await;
        if power.is_some() {
            return Ok(());
        }
        let now = Power { off: CancellationToken::new(), tasks: TaskTracker::new() };
        self.begin_boot()?;
        let socket = self.0.root.join("run/docker.sock");
        engine::serve(&self.0.docker, &self.0.proxy, &socket, &now.off, &now.tasks)?;
        self.0.docker.power_on().await;
        self.0.proxy.power_on().await?;
        self.0.sshd.power_on().await;
        // With a receiver, VMKit brings the agent; a first boot that downloads it is past.
        let adopted = units::are_ours(&self.0.root);
        let receives = upload::expected(&self.0.root) && !adopted;
        let has_agent = !cloud_init::agent_units(&self.0.root).is_empty();
        if adopted || (!receives && !has_agent) {
            let (machine, off) = (self.clone(), now.off.clone());
            let agents_start = self.0.context.agents_start;
            now.tasks.spawn(async move {
                off.run_until_cancelled(units::play(&machine, agents_start)).await;
            });
        } else if receives {
            let (machine, off) = (self.clone(), now.off.clone());
            now.tasks.spawn(async move {
                off.run_until_cancelled(machine.receive_agent()).await;
            });
        } else if self.0.context.agents_start {
            for args in cloud_init::agent_units(&self.0.root) {
                let machine = self.clone();
                let off = now.off.clone();
                now.tasks.spawn(async move {
                    off.run_until_cancelled(machine.keep_agent(args)).await;
                });
            }
        }
        *crate::lock(&self.0.session) = Some(PowerSession(now.off.clone()));
        *power = Some(now);
        Ok(())
    }

    /// Every boot has an id of its own, where the kernel of a real VM tells it.
    fn begin_boot(&self) -> Result<(), SandboxError> {
        let path = self.0.root.join("proc/sys/kernel/random/boot_id");
        let id = format!("{:032x}\n", rand::random::<u128>());
        std::fs::create_dir_all(path.parent().unwrap_or(&self.0.root))
            // Where systemd runs there is this folder.
            .and_then(|()| std::fs::create_dir_all(self.0.root.join("run/systemd/system")))
            .and_then(|()| std::fs::write(&path, id))
            .map_err(|source| SandboxError::io("write", &path, source))
    }

    /// Pulls the plug: all its processes end at once.
    pub async fn power_off(&self) {
        if let Some(vm) = &self.0.lab {
            self.end_lab_session();
            return vm.power_off().await;
        }
        self.cut(&mut *self.0.power.lock().await).await;
    }

    /// In the lab a session is only a mark: the container is what is on.
    fn begin_lab_session(&self) {
        let mut session = crate::lock(&self.0.session);
        session.get_or_insert_with(|| PowerSession(CancellationToken::new()));
    }

    fn end_lab_session(&self) {
        if let Some(session) = crate::lock(&self.0.session).take() {
            session.0.cancel();
        }
    }

    async fn cut(&self, power: &mut Option<Power>) {
        if let Some(now) = power.take() {
            *crate::lock(&self.0.session) = None;
            now.off.cancel();
            self.0.sshd.power_off().await;
            self.0.proxy.power_off().await;
            self.0.docker.power_off().await;
            now.tasks.close();
            now.tasks.wait().await;
            drop(std::fs::remove_file(self.0.root.join("run/docker.sock")));
        }
    }

    /// The time between one power-on and the next power-off that it is in; none while it is off.
    pub(crate) fn session(&self) -> Option<PowerSession> {
        crate::lock(&self.0.session).clone()
    }

    /// What ACPI asks for: services get SIGTERM and their time (at most `grace`), then the power
    /// goes, and `off` notes it before anybody can switch the machine on again. What ran starts
    /// again with the machine. A machine that was off meanwhile has not heard of it: the button was
    /// pressed in another session.
    pub(crate) async fn shut_down(
        &self,
        session: &PowerSession,
        grace: Duration,
        off: impl FnOnce() + Send,
    ) {
        if session.0.is_cancelled() {
            return;
        }
        if let Some(vm) = &self.0.lab {
            vm.shut_down(grace).await;
            if !session.0.is_cancelled() {
                self.end_lab_session();
                off();
            }
            return;
        }
        self.0.docker.shut_down(grace).await;
        let mut power = self.0.power.lock().await;
        if !session.0.is_cancelled() {
            self.cut(&mut power).await;
            off();
        }
    }

    /// A copy of its disk as it is now, in the new folder `dir`.
    pub(crate) fn copy_disk(&self, dir: PathBuf) -> Result<Disk, SandboxError> {
        if let Some(vm) = &self.0.lab {
            return vm.snapshot().map(|snapshot| Disk::of_lab(dir, snapshot));
        }
        Disk::copy(&self.0.root, dir, self.0.docker.saved(), self.0.proxy.saved())
    }

    /// Switches it off and on again.
    pub async fn reboot(&self) -> Result<(), SandboxError> {
        self.power_off().await;
        self.power_on().await
    }

    /// A new disk, from the cloud's image or from a copy of another: everything on the old one is
    /// lost, the address and root's keys stay, the host key is another. Without user-data the one
    /// that the machine was made with is used again.
    pub async fn rebuild(
        &self,
        user_data: Option<String>,
        disk: Option<Disk>,
    ) -> Result<(), SandboxError> {
        let old = crate::lock(&self.0.order).clone();
        let user_data = user_data.unwrap_or(old.user_data);
        let order = MachineOrder { user_data, disk, off: false, ..old };
        if let Some(vm) = &self.0.lab {
            *crate::lock(&self.0.order) = order.clone();
            vm.rebuild(&order).await?;
            self.begin_lab_session();
            return Ok(());
        }
        self.power_off().await;
        self.0.docker.clear().await;
        self.0.proxy.clear();
        remove(&self.0.root);
        self.install(order)?;
        self.power_on().await
    }

    pub(super) async fn delete(&self) {
        if let Some(vm) = &self.0.lab {
            vm.delete().await;
            return remove(&self.0.root);
        }
        self.power_off().await;
        self.0.docker.clear().await;
        remove(&self.0.root);
    }

    /// Ends its processes without waiting for their end.
    pub(super) fn abandon(&self) {
        if let Ok(mut power) = self.0.power.try_lock()
            && let Some(now) = power.take()
        {
            now.off.cancel();
        }
        self.0.sshd.abandon();
        self.0.docker.abandon();
        remove(&self.0.root);
    }

    /// What the path unit of the user-data does: installs what is uploaded, and starts the agent.
    async fn receive_agent(&self) {
        let context = &self.0.context;
        if !upload::installed(&self.0.root) {
            upload::receive(&self.0.root, &context.spawner, &context.exe).await;
        }
        if context.agents_start {
            let units = cloud_init::agent_units(&self.0.root);
            futures::future::join_all(units.into_iter().map(|args| self.keep_agent(args))).await;
        }
    }

    /// Installs what was uploaded, if it is the right one.
    pub(super) async fn install_upload(&self) {
        let context = &self.0.context;
        upload::take(&self.0.root, &context.spawner, &context.exe).await;
    }

    /// Runs the agent of each unit, again and again.
    pub(super) async fn keep_agents(&self) {
        let units = cloud_init::agent_units(&self.0.root);
        futures::future::join_all(units.into_iter().map(|args| self.keep_agent(args))).await;
    }

    /// Runs what takes VMKit's things off, as its units do.
    pub(super) async fn run_leave(&self) {
        let root = &self.0.root;
        let start = Start {
            command: vec!["/bin/sh".into(), root.join("usr/local/lib/vmkit/leave").into()],
            dir: root.clone(),
            env: self.0.shell.environment(root),
            output: None,
            input: false,
        };
        match self.0.context.spawner.spawn(start).await {
            Ok(mut process) => drop(process.ended().await),
            Err(error) => tracing::warn!(%error, "`leave` cannot be started"),
        }
    }

    /// Whether the undo of an adoption is armed on it.
    pub fn is_armed(&self) -> bool {
        units::enabled(&self.0.root, "vmkit-undo.timer")
    }

    /// Lets the time of an armed undo run out, and waits until it ran.
    pub async fn fire_undo(&self) {
        if self.is_armed() {
            self.run_leave().await;
        }
    }

    /// Has a program of the owner's listen, at a port of its address; 0 picks one.
    pub async fn listen(&self, name: &str, port: u16) -> std::io::Result<u16> {
        self.0.shell.services.add(name, (self.address(), port)).await
    }

    /// Ends such a program.
    pub fn stop_listening(&self, name: &str) {
        self.0.shell.services.stop(name);
    }

    /// Runs the agent, again and again.
    async fn keep_agent(&self, args: Vec<String>) {
        loop {
            if let Err(error) = self.run_agent(&args).await {
                tracing::warn!(machine = %self.address(), %error, "the agent cannot be started");
            }
            tokio::time::sleep(AGENT_RESTART_WAIT).await;
        }
    }

    async fn run_agent(&self, args: &[String]) -> std::io::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.0.root.join("var/log/vmkit-agent.log"))?;
        let mut command: Vec<OsString> = vec![self.0.context.exe.clone().into(), "agent".into()];
        command.extend(args.iter().map(OsString::from));
        command.extend(["--root".into(), self.0.root.clone().into()]);
        let start = Start {
            command,
            dir: self.0.root.clone(),
            env: vec![
                ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
                ("HOME".into(), self.0.root.join("root").display().to_string()),
            ],
            output: Some(log),
            input: false,
        };
        let mut process = self.0.context.spawner.spawn(start).await?;
        process.ended().await;
        Ok(())
    }
}

/// Removes a root; a process that was just killed may still hold it for a moment.
fn remove(root: &Path) {
    for _ in 0..20 {
        if !root.exists() || std::fs::remove_dir_all(root).is_ok() {
            return;
        }
        std::thread::yield_now();
    }
    tracing::warn!(root = %root.display(), "a machine's folder could not be removed");
}
