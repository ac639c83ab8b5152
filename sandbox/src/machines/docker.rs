//! The containers of one machine: processes, run and kept as Docker would.

mod run;
mod saved;
mod volumes;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use rand::Rng;
use tokio::sync::watch;

use super::container::{ContainerInfo, ContainerSpec, Image, Log, LogStream};
use super::events::{Event, Events};
use super::machine::Address;
use super::spawner::{Spawner, kill_group, terminate};
use crate::clock;

/// Ports of containers come from below the kernel's own range, so that no outgoing connection of
/// another process takes one between its choice and its use.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// How long a killed process may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);

/// The Docker engine of one machine. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Docker(Arc<Inner>);

struct Inner {
    address: Address,
    spawner: Spawner,
    bin: PathBuf,
    home: PathBuf,
    events: Events,
    containers: Mutex<Vec<Arc<Container>>>,
    /// Off: nothing starts again by itself.
    powered: AtomicBool,
}

/// One container: what was ordered, and how it is now.
pub(super) struct Container {
    pub(super) id: String,
    pub(super) created: Timestamp,
    pub(super) spec: ContainerSpec,
    pub(super) state: Mutex<State>,
    /// Counts changes of state and log, for those who follow.
    pub(super) changes: watch::Sender<u64>,
}

pub(super) struct State {
    pub(super) name: String,
    pub(super) running: bool,
    /// Between the decision to start it and its process: nobody else may start it.
    pub(super) starting: bool,
    pub(super) pid: Option<u32>,
    pub(super) exit_code: Option<i32>,
    pub(super) started_at: Timestamp,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) restarts: u32,
    /// Somebody asked for its end, so that its restart policy does not apply.
    pub(super) stop_asked: bool,
    pub(super) port: u16,
    pub(super) published: Vec<(u16, u16)>,
    pub(super) log: Log,
}

impl Container {
    fn new(spec: ContainerSpec, port: u16) -> Self {
        let id: [u8; 32] = rand::rng().random();
        let now = clock::now();
        let state = State {
            name: spec.name.clone(),
            running: false,
            starting: false,
            pid: None,
            exit_code: None,
            started_at: now,
            finished_at: None,
            restarts: 0,
            stop_asked: false,
            port,
            published: Vec::new(),
            log: Log::default(),
        };
        Self {
            id: hex::encode(id),
            created: now,
            spec,
            state: Mutex::new(state),
            changes: watch::channel(0).0,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        crate::lock(&self.state)
    }

    /// True for the one caller who is to start it now.
    fn claim_start(&self) -> bool {
        let mut state = self.state();
        let free = !state.running && !state.starting;
        state.starting |= free;
        free
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.spec.image.labels.clone();
        labels.extend(self.spec.labels.clone());
        labels
    }

    /// Adds one message to the log.
    pub(super) fn log(&self, stream: LogStream, bytes: Vec<u8>) {
        self.state().log.push(clock::now(), stream, bytes);
        self.changed();
    }

    pub(super) fn info(&self) -> ContainerInfo {
        let state = self.state();
        ContainerInfo {
            id: self.id.clone(),
            name: state.name.clone(),
            image: self.spec.image.reference.clone(),
            labels: self.labels(),
            running: state.running,
            exit_code: state.exit_code,
            port: state.port,
            started_at: state.started_at,
            finished_at: state.finished_at,
            restarts: state.restarts,
            pid: state.pid,
            published: state.published.clone(),
        }
    }

    fn event(&self, action: &'static str) -> Event {
        let state = self.state();
        let mut attributes = self.labels();
        attributes.insert("name".into(), state.name.clone());
        attributes.insert("image".into(), self.spec.image.reference.clone());
        if let (true, Some(code)) = (action == "die", state.exit_code) {
            attributes.insert("exitCode".into(), code.to_string());
        }
        Event { time: clock::now(), action, container: self.id.clone(), attributes }
    }

    /// Waits until it does not run; false where `timeout` passed first.
    async fn ended(&self, timeout: Duration) -> bool {
        let mut changes = self.changes.subscribe();
        let ended = changes.wait_for(|_| !self.state().running);
        tokio::time::timeout(timeout, ended).await.is_ok()
    }
}

impl Docker {
    pub(super) fn new(address: Address, spawner: Spawner, bin: PathBuf, home: PathBuf) -> Self {
        Self(Arc::new(Inner {
            address,
            spawner,
            bin,
            home,
            events: Events::new(),
            containers: Mutex::default(),
            powered: AtomicBool::new(true),
        }))
    }

    /// Creates a container and starts its process; returns its id. The error is Docker's text.
    pub async fn run(&self, spec: ContainerSpec) -> Result<String, String> {
        let container = {
            let mut all = self.containers();
            if let Some(other) = all.iter().find(|other| other.state().name == spec.name) {
                return Err(conflict(&spec.name, &other.id));
            }
            let container = Arc::new(Container::new(spec, free_port()?));
            all.push(container.clone());
            container
        };
        self.tell(&container, "create");
        self.start_process(&container).await?;
        Ok(container.id.clone())
    }

    /// Starts a container that has ended; one that runs is left as it is.
    pub async fn start(&self, name: &str) -> Result<(), String> {
        let container = self.find(name)?;
        if container.state().running {
            return Ok(());
        }
        self.start_process(&container).await
    }

    /// SIGTERM, and SIGKILL after `grace`. One that has ended already is fine.
    pub async fn stop(&self, name: &str, grace: Duration) -> Result<(), String> {
        let container = self.find(name)?;
        let pid = {
            let mut state = container.state();
            state.stop_asked = true;
            if !state.running {
                return Ok(());
            }
            state.pid
        };
        match pid {
            None => self.end_builtin(&container),
            Some(pid) => {
                self.tell(&container, "kill");
                terminate(pid);
                if !container.ended(grace).await {
                    kill_group(pid);
                    container.ended(KILL_TIMEOUT).await;
                }
            }
        }
        self.tell(&container, "stop");
        Ok(())
    }

    /// Waits until a container does not run; its exit code.
    pub async fn wait(&self, name: &str) -> Result<i32, String> {
        let container = self.find(name)?;
        let mut changes = container.changes.subscribe();
        // The sender lives as long as the container here.
        drop(changes.wait_for(|_| !container.state().running).await);
        let code = container.state().exit_code;
        Ok(code.unwrap_or_default())
    }

    /// SIGKILL, as by `docker kill`; its restart policy does not apply.
    pub async fn kill(&self, name: &str) -> Result<(), String> {
        let container = self.find(name)?;
        container.state().stop_asked = true;
        self.kill_process(&container).await;
        Ok(())
    }

    /// Stops and starts a container; its log goes on.
    pub async fn restart(&self, name: &str, grace: Duration) -> Result<(), String> {
        self.stop(name, grace).await?;
        self.start(name).await?;
        let container = self.find(name)?;
        self.tell(&container, "restart");
        Ok(())
    }

    /// Removes a container, ending it first where it runs (as `docker rm --force`).
    pub async fn remove(&self, name: &str) -> Result<(), String> {
        let container = self.find(name)?;
        container.state().stop_asked = true;
        self.kill_process(&container).await;
        self.containers().retain(|other| other.id != container.id);
        self.tell(&container, "destroy");
        container.changed();
        Ok(())
    }

    /// Gives a container another name.
    pub fn rename(&self, name: &str, new: &str) -> Result<(), String> {
        let container = self.find(name)?;
        {
            let all = self.containers();
            let taken =
                |other: &&Arc<Container>| other.id != container.id && other.state().name == new;
            if let Some(other) = all.iter().find(taken) {
                return Err(conflict(new, &other.id));
            }
            container.state().name = new.to_owned();
        }
        self.tell(&container, "rename");
        Ok(())
    }

    /// All containers, ended ones too, oldest first.
    pub fn list(&self) -> Vec<ContainerInfo> {
        self.containers().iter().map(|container| container.info()).collect()
    }

    /// The container of that name or id.
    pub fn get(&self, name: &str) -> Option<ContainerInfo> {
        self.find(name).ok().map(|container| container.info())
    }

    /// The last `tail` lines of a container, each as `TIME TEXT`; empty where there is none.
    pub fn logs(&self, name: &str, tail: usize) -> Vec<String> {
        self.find(name).map(|container| container.state().log.tail(tail)).unwrap_or_default()
    }

    /// A container without a process of its own: the proxy, which the sandbox plays itself.
    pub(super) fn add_builtin(&self, name: &str, image: &str, published: (u16, u16)) {
        let spec = ContainerSpec {
            name: name.to_owned(),
            image: Image { reference: image.to_owned(), ..Image::default() },
            restart: true,
            ..ContainerSpec::default()
        };
        let container = Arc::new(Container::new(spec, published.1));
        {
            let mut state = container.state();
            state.running = true;
            state.published = vec![published];
        }
        self.containers().push(container.clone());
        self.tell(&container, "create");
        self.tell(&container, "start");
    }

    /// Publishes by the container `to` what `from` has published until now.
    pub(super) fn hand_ports(&self, from: &str, to: &str) -> Result<(), String> {
        let (from, to) = (self.find(from)?, self.find(to)?);
        let published = std::mem::take(&mut from.state().published);
        to.state().published = published;
        from.changed();
        to.changed();
        Ok(())
    }

    /// Adds a line to the log of a container, if there is one of that name.
    pub(super) fn note(&self, name: &str, line: &str) {
        if let Ok(container) = self.find(name) {
            container.log(LogStream::Stdout, format!("{line}\n").into_bytes());
        }
    }

    /// Power off: every process is killed, and nothing starts again by itself.
    pub(super) async fn power_off(&self) {
        self.0.powered.store(false, Ordering::SeqCst);
        for container in self.all() {
            self.kill_process(&container).await;
        }
    }

    /// The system goes down: SIGTERM to every process, SIGKILL after `grace`. Nobody stopped them by
    /// hand, so those with a restart policy start again with the machine.
    pub(super) async fn shut_down(&self, grace: Duration) {
        self.0.powered.store(false, Ordering::SeqCst);
        let all = self.all();
        for pid in all.iter().filter_map(|container| container.state().pid) {
            terminate(pid);
        }
        let ends = all.iter().filter(|one| one.state().pid.is_some()).map(|one| one.ended(grace));
        futures::future::join_all(ends).await;
    }

    /// Power off without waiting for the end of the processes.
    pub(super) fn abandon(&self) {
        self.0.powered.store(false, Ordering::SeqCst);
        for container in self.all() {
            let pid = container.state().pid;
            pid.into_iter().for_each(kill_group);
        }
    }

    /// Power on: what ran with a restart policy and was not stopped by hand starts again.
    pub(super) async fn power_on(&self) {
        self.0.powered.store(true, Ordering::SeqCst);
        for container in self.all() {
            let wanted = {
                let state = container.state();
                container.spec.restart && !state.stop_asked && !state.running
            };
            if wanted && self.start_process(&container).await.is_err() {
                container.changed();
            }
        }
    }

    /// Ends and forgets everything.
    pub(super) async fn clear(&self) {
        self.power_off().await;
        self.containers().clear();
    }

    pub(super) fn all(&self) -> Vec<Arc<Container>> {
        self.containers().clone()
    }

    /// The machine's address.
    pub(super) fn address(&self) -> IpAddr {
        self.0.address.get()
    }

    pub(super) fn events(&self) -> &Events {
        &self.0.events
    }

    /// By name (with or without a slash), id, or the start of an id.
    pub(super) fn find(&self, name: &str) -> Result<Arc<Container>, String> {
        let wanted = name.trim_start_matches('/');
        let all = self.containers();
        let exact = |container: &&Arc<Container>| {
            container.id == wanted || container.state().name == wanted
        };
        let by_prefix =
            |container: &&Arc<Container>| wanted.len() >= 6 && container.id.starts_with(wanted);
        all.iter()
            .find(exact)
            .or_else(|| all.iter().find(by_prefix))
            .cloned()
            .ok_or_else(|| format!("No such container: {wanted}"))
    }

    fn tell(&self, container: &Container, action: &'static str) {
        self.0.events.tell(container.event(action));
    }

    fn containers(&self) -> MutexGuard<'_, Vec<Arc<Container>>> {
        crate::lock(&self.0.containers)
    }
}

fn conflict(name: &str, id: &str) -> String {
    format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You \
         have to remove (or rename) that container to be able to reuse that name."
    )
}

/// A port that nobody listens on, on any address.
fn free_port() -> Result<u16, String> {
    for _ in 0..1000 {
        let port = rand::rng().random_range(PORTS);
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no free port is left on this machine".to_owned())
}
