//! A gateway, a cable that can be cut, and the agent's program.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use vmkit::domain::clock::Clock;
use vmkit::domain::ids::VmId;
use vmkit::domain::secret::Secret;
use vmkit::fleet::{EnrolRefusal, Fleet, Limits, Roster};
use vmkit_agent_protocol::bytes::Bytes;

/// How long a condition may take to come true.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `condition` gives something.
pub(crate) async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(begun.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Tokens and keys in memory.
#[derive(Default)]
pub(crate) struct Book {
    rows: Mutex<HashMap<VmId, Row>>,
    /// The gateway's keys, the newest first; where there is none the fleet's own counts.
    pub(crate) identities: Mutex<Vec<SigningKey>>,
}

#[derive(Default, Clone)]
struct Row {
    token: Option<String>,
    key: Option<[u8; 32]>,
}

impl Book {
    pub(crate) fn expect(&self, vm: VmId, token: &str) {
        let row = Row { token: Some(token.to_owned()), key: None };
        self.rows.lock().unwrap().insert(vm, row);
    }

    pub(crate) fn trust(&self, vm: VmId, key: [u8; 32]) {
        self.rows.lock().unwrap().insert(vm, Row { token: None, key: Some(key) });
    }
}

impl Roster for Book {
    fn redeem(
        &self,
        vm: VmId,
        token: Secret,
        public_key: [u8; 32],
    ) -> BoxFuture<'_, Result<(), EnrolRefusal>> {
        let mut rows = self.rows.lock().unwrap();
        let outcome = match rows.get_mut(&vm) {
            Some(row) if row.token.as_deref() == Some(token.expose()) => match row.key {
                Some(key) if key != public_key => Err(EnrolRefusal::Used),
                _ => {
                    row.key = Some(public_key);
                    Ok(())
                }
            },
            _ => Err(EnrolRefusal::UnknownToken),
        };
        Box::pin(async move { outcome })
    }

    fn public_key(&self, vm: VmId) -> BoxFuture<'_, Option<[u8; 32]>> {
        let key = self.rows.lock().unwrap().get(&vm).and_then(|row| row.key);
        Box::pin(async move { key })
    }

    fn identities(&self) -> BoxFuture<'_, Vec<SigningKey>> {
        let keys = self.identities.lock().unwrap().clone();
        Box::pin(async move { keys })
    }
}

/// A gateway with a path prefix, and one VM that it expects.
pub(crate) struct Rig {
    pub(crate) fleet: Fleet,
    pub(crate) book: Arc<Book>,
    pub(crate) vm: VmId,
    pub(crate) identity: SigningKey,
    pub(crate) cable: Cable,
    pub(crate) root: tempfile::TempDir,
    stop: CancellationToken,
}

pub(crate) const TOKEN: &str = "token-for-tests";

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(Clock::wall(), Limits::default()).await
    }

    pub(crate) async fn with(clock: Clock, limits: Limits) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let identity = SigningKey::from_bytes(&rand::random());
        let book = Arc::new(Book::default());
        let vm = VmId::generate();
        book.expect(vm, TOKEN);
        let fleet = Fleet::local(book.clone(), identity.clone(), clock, limits);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = listener.local_addr().unwrap();
        let router = axum::Router::new().nest("/kit", fleet.router());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            let serving = axum::serve(listener, router);
            tokio::select! {
                served = serving => served.unwrap(),
                () = stopped.cancelled() => {}
            }
        });
        let cable = Cable::to(gateway).await;
        let root = tempfile::Builder::new().prefix("vmk-").tempdir().unwrap();
        let rig = Self { fleet, book, vm, identity, cable, root, stop };
        rig.configure(Some(TOKEN), &rig.identity);
        rig
    }

    /// The agent's configuration with another URL of the same gateway.
    pub(crate) fn configure_url(&self, url: &str) {
        let path = self.path("etc/vmkit/agent.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text.replace(&self.gateway_url(), url)).unwrap();
    }

    pub(crate) fn gateway_url(&self) -> String {
        format!("http://{}/kit/", self.cable.address)
    }

    /// Writes the agent's configuration as the user-data would.
    pub(crate) fn configure(&self, token: Option<&str>, gateway: &SigningKey) {
        let mut text = format!(
            "gateway = \"{}\"\nvm = \"{}\"\ngateway_key = \"{}\"\n",
            self.gateway_url(),
            self.vm,
            Bytes(gateway.verifying_key().to_bytes())
        );
        if let Some(token) = token {
            text.push_str(&format!("enrolment_token = \"{token}\"\n"));
        }
        let path = self.path("etc/vmkit/agent.toml");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Writes it as for a VM that VMKit comes to.
    pub(crate) fn configure_served(&self, token: &str) {
        self.configure(Some(token), &self.identity);
        let path = self.path("etc/vmkit/agent.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("gateway =")).collect();
        std::fs::write(path, kept.join("\n")).unwrap();
    }

    pub(crate) fn path(&self, inside: &str) -> std::path::PathBuf {
        self.root.path().join(inside)
    }

    pub(crate) fn start_agent(&self) -> Agent {
        Agent::start(self.root.path())
    }

    pub(crate) async fn linked(&self) {
        if let Err(error) = self.fleet.wait_linked(self.vm, DEADLINE).await {
            panic!("{error}");
        }
    }

    /// Where the clock stands still, nothing tells when an agent was heard again.
    pub(crate) async fn linked_by_poll(&self) {
        until("the agent is heard", async || {
            self.fleet.presence(self.vm).await.unwrap().linked.then_some(())
        })
        .await;
    }

    pub(crate) async fn unlinked(&self) {
        until("the link is down", async || {
            (!self.fleet.presence(self.vm).await.unwrap().linked).then_some(())
        })
        .await;
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
        self.fleet.close();
    }
}

/// The agent's program; killed with the value.
pub(crate) struct Agent(Child);

impl Agent {
    pub(crate) fn start(root: &Path) -> Self {
        Self::start_trusting(root, None)
    }

    /// A program of the test's own that is the agent, with more arguments.
    pub(crate) fn start_program(program: &Path, root: &Path, more: &[&str]) -> Self {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(root.join("agent.log"))
            .unwrap();
        let child = Command::new(program)
            .args(["run", "--heartbeat-ms", "500", "--root"])
            .arg(root)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }

    /// With a certificate authority of the test's own in the place of the machine's.
    pub(crate) fn start_trusting(root: &Path, authority: Option<&Path>) -> Self {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(root.join("agent.log"))
            .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmkit"));
        if let Some(authority) = authority {
            command.env("SSL_CERT_FILE", authority).env_remove("SSL_CERT_DIR");
        }
        let child = command
            .args(["agent", "run", "--heartbeat-ms", "500", "--sample-ms", "200", "--root"])
            .arg(root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }

    /// With the rhythm of a VM, by a clock of the test's own: `faketime` is what libfaketime's
    /// variables say of it. The error is why there can be no such clock here.
    pub(crate) fn start_at(root: &Path, faketime: &[(&str, &str)]) -> Result<Self, String> {
        let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let mut libraries = folders.map(|one| one.path().join("faketime/libfaketimeMT.so.1"));
        let library = libraries.find(|path| path.exists());
        let library = library.ok_or("`libfaketime` is not installed")?;
        let log = std::fs::File::create(root.join("agent.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_vmkit"))
            .args(["agent", "run", "--root"])
            .arg(root)
            .env("LD_PRELOAD", library)
            .env("FAKETIME_NO_CACHE", "1")
            .envs(faketime.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Ok(Self(child))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// What the agent has in memory that is its own, in KiB: pages of its program, which here is not
    /// the small one of a release, come and go as the kernel likes.
    pub(crate) fn own_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let own = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        own.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// `kill -9`, and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn ask_to_end(&self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        until("the agent has ended", async || self.0.try_wait().unwrap()).await
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A TCP forwarder between agent and gateway that can be cut.
pub(crate) struct Cable {
    pub(crate) address: SocketAddr,
    current: Arc<Mutex<CancellationToken>>,
    plugged: Arc<AtomicBool>,
    stalled: Arc<AtomicBool>,
    /// The same for what comes from the gateway.
    deaf: Arc<AtomicBool>,
    /// Bytes from the agent until all is cut; 0 for never.
    cut_after: Arc<AtomicUsize>,
    whole: CancellationToken,
}

impl Cable {
    async fn to(gateway: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let current = Arc::new(Mutex::new(CancellationToken::new()));
        let plugged = Arc::new(AtomicBool::new(true));
        let stalled = Arc::new(AtomicBool::new(false));
        let deaf = Arc::new(AtomicBool::new(false));
        let cut_after = Arc::new(AtomicUsize::new(0));
        let whole = CancellationToken::new();
        let cable = Self {
            stalled: stalled.clone(),
            deaf: deaf.clone(),
            cut_after: cut_after.clone(),
            address,
            current: current.clone(),
            plugged: plugged.clone(),
            whole: whole.clone(),
        };
        tokio::spawn(async move {
            loop {
                let near = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = whole.cancelled() => return,
                };
                if !plugged.load(Ordering::SeqCst) {
                    continue;
                }
                let cut = current.lock().unwrap().clone();
                let (stalled, deaf) = (stalled.clone(), deaf.clone());
                let cut_after = cut_after.clone();
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(gateway).await else { return };
                    let (near_in, near_out) = near.into_split();
                    let (far_in, far_out) = far.into_split();
                    let never = AtomicUsize::new(0);
                    tokio::select! {
                        () = forward(near_in, far_out, &stalled, &cut_after) => {}
                        () = forward(far_in, near_out, &deaf, &never) => {}
                        () = cut.cancelled() => {}
                    }
                });
            }
        });
        cable
    }

    /// Ends all connections; new ones go through.
    pub(crate) fn cut(&self) {
        let mut current = self.current.lock().unwrap();
        current.cancel();
        *current = CancellationToken::new();
    }

    /// Ends all connections once so many more bytes have come from the agent.
    pub(crate) fn cut_after(&self, bytes: usize) {
        self.cut_after.store(bytes, Ordering::SeqCst);
    }

    /// Ends all connections, and lets none through until it is plugged in again.
    pub(crate) fn unplug(&self) {
        self.plugged.store(false, Ordering::SeqCst);
        self.cut();
    }

    /// Takes nothing more from the agent, and closes nothing.
    pub(crate) fn stall(&self) {
        self.stalled.store(true, Ordering::SeqCst);
    }

    /// Takes nothing more from the gateway, and closes nothing.
    pub(crate) fn deafen(&self) {
        self.deaf.store(true, Ordering::SeqCst);
    }

    pub(crate) fn flow(&self) {
        self.stalled.store(false, Ordering::SeqCst);
        self.deaf.store(false, Ordering::SeqCst);
    }

    pub(crate) fn plug(&self) {
        self.plugged.store(true, Ordering::SeqCst);
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    stalled: &AtomicBool,
    cut_after: &AtomicUsize,
) {
    let mut bytes = vec![0; 1 << 16];
    loop {
        while stalled.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        match from.read(&mut bytes).await {
            Ok(count) if (1..=count).contains(&cut_after.load(Ordering::SeqCst)) => {
                let left = cut_after.swap(0, Ordering::SeqCst);
                drop(to.write_all(&bytes[..left]).await);
                return;
            }
            Ok(count) if count > 0 && to.write_all(&bytes[..count]).await.is_ok() => {}
            _ => return,
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.whole.cancel();
        self.cut();
    }
}
