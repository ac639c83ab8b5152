//! A VM's SSH server: its own host key, its users' `authorized_keys`, and the one thing that it
//! does for a key with `command=`: that command, as a process that ends with the machine. A key
//! without one gets a shell.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::keys::{PrivateKey, PublicKey};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::machine::Address;
use super::shell::Shell;
use super::spawner::{Spawner, Start};

/// What a VM's SSH server is made to do.
#[derive(Debug, Clone, Default)]
pub struct SshKnobs {
    /// Nothing listens.
    pub closed: bool,
    /// Another host key than the one on the disk is shown: a fresh one.
    pub other_host_key: bool,
    /// Nobody is let in.
    pub refuses_logins: bool,
    /// How long it thinks before it says its first word.
    pub slow: Duration,
    /// Each connection breaks off after it has said so many bytes.
    pub cut_after_bytes: Option<u64>,
}

/// One connection, as the server saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SshVisit {
    /// Who tried to log in, as often as they tried.
    pub logins: Vec<String>,
    /// Who was let in.
    pub user: Option<String>,
    /// What was run, as the forced command has it.
    pub command: Option<String>,
}

#[derive(Clone)]
pub(super) struct Sshd(Arc<Inner>);

struct Inner {
    address: Address,
    port: u16,
    root: PathBuf,
    spawner: Spawner,
    shell: Shell,
    knobs: Mutex<SshKnobs>,
    visits: Mutex<Vec<SshVisit>>,
    power: tokio::sync::Mutex<Option<Power>>,
    /// Ends all connections, and is replaced then.
    cut: Mutex<CancellationToken>,
}

struct Power {
    off: CancellationToken,
    tasks: TaskTracker,
}

impl Sshd {
    pub(super) fn new(
        address: Address,
        port: u16,
        root: PathBuf,
        spawner: Spawner,
        shell: Shell,
    ) -> Self {
        Self(Arc::new(Inner {
            address,
            port,
            root,
            spawner,
            shell,
            knobs: Mutex::default(),
            visits: Mutex::default(),
            power: tokio::sync::Mutex::default(),
            cut: Mutex::default(),
        }))
    }

    pub(super) fn address(&self) -> SocketAddr {
        (self.0.address.get(), self.0.port).into()
    }

    pub(super) fn record(&self) -> Vec<SshVisit> {
        crate::lock(&self.0.visits).clone()
    }

    pub(super) async fn set_knobs(&self, knobs: SshKnobs) {
        *crate::lock(&self.0.knobs) = knobs.clone();
        let on = self.0.power.lock().await.is_some();
        if on && knobs.closed {
            self.power_off().await;
        } else if !on && !knobs.closed {
            self.power_on().await;
        }
    }

    pub(super) fn cut(&self) {
        let fresh = CancellationToken::new();
        std::mem::replace(&mut *crate::lock(&self.0.cut), fresh).cancel();
    }

    /// Listens. Where the port is somebody else's, connections are refused, as on a VM whose SSH
    /// server does not start.
    pub(super) async fn power_on(&self) {
        let mut power = self.0.power.lock().await;
        if power.is_some() || crate::lock(&self.0.knobs).closed {
            return;
        }
        let listener = match TcpListener::bind(self.address()).await {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(address = %self.address(), %error, "no SSH server");
                return;
            }
        };
        let now = Power { off: CancellationToken::new(), tasks: TaskTracker::new() };
        let (sshd, off, tasks) = (self.clone(), now.off.clone(), now.tasks.clone());
        now.tasks.spawn(async move {
            off.run_until_cancelled(sshd.serve(listener, &off, &tasks)).await;
        });
        *power = Some(now);
    }

    pub(super) async fn power_off(&self) {
        if let Some(now) = self.0.power.lock().await.take() {
            now.off.cancel();
            self.cut();
            now.tasks.close();
            now.tasks.wait().await;
        }
    }

    pub(super) fn abandon(&self) {
        if let Ok(mut power) = self.0.power.try_lock()
            && let Some(now) = power.take()
        {
            now.off.cancel();
        }
        self.cut();
    }

    async fn serve(&self, listener: TcpListener, off: &CancellationToken, tasks: &TaskTracker) {
        loop {
            let Ok((socket, _)) = listener.accept().await else { continue };
            let cut = crate::lock(&self.0.cut).clone();
            let (sshd, off) = (self.clone(), off.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = sshd.visit(socket) => {}
                    () = off.cancelled() => {}
                    () = cut.cancelled() => {}
                }
            });
        }
    }

    async fn visit(&self, mut socket: TcpStream) {
        let number = {
            let mut visits = crate::lock(&self.0.visits);
            visits.push(SshVisit::default());
            visits.len() - 1
        };
        let knobs = crate::lock(&self.0.knobs).clone();
        tokio::time::sleep(knobs.slow).await;
        let Some(key) = self.host_key(&knobs) else { return };
        let config = server::Config {
            keys: vec![key],
            auth_rejection_time: Duration::ZERO,
            inactivity_timeout: None,
            nodelay: true,
            ..server::Config::default()
        };
        let visitor = Visitor {
            sshd: self.clone(),
            number,
            refuses: knobs.refuses_logins,
            forced: None,
            inside: false,
            channel: None,
            gone: CancellationToken::new(),
        };
        let gone = visitor.gone.clone();
        // The session is a task of its own: it ends when its end of this pipe does.
        let (mut outside, inside) = tokio::io::duplex(64 * 1024);
        let session = async {
            match server::run_stream(Arc::new(config), inside, visitor).await {
                Ok(session) => {
                    if let Err(error) = session.await {
                        tracing::debug!(%error, "an SSH session ended");
                    }
                }
                Err(error) => tracing::debug!(%error, "no SSH session came about"),
            }
        };
        // The processes of a connection end with it.
        let _gone = gone.drop_guard();
        let (mut from_client, mut to_client) = socket.split();
        let (mut from_session, mut to_session) = tokio::io::split(&mut outside);
        let said = async {
            let limit = knobs.cut_after_bytes.unwrap_or(u64::MAX);
            let mut said = (&mut from_session).take(limit);
            drop(tokio::io::copy(&mut said, &mut to_client).await);
        };
        let heard = async {
            drop(tokio::io::copy(&mut from_client, &mut to_session).await);
        };
        tokio::select! {
            () = session => {}
            () = said => {}
            () = heard => {}
        }
    }

    /// Read for each connection: the agent replaces the file.
    fn host_key(&self, knobs: &SshKnobs) -> Option<PrivateKey> {
        if knobs.other_host_key {
            let pair = ssh_key::private::Ed25519Keypair::from_seed(&rand::random());
            let text = ssh_key::PrivateKey::from(pair).to_openssh(ssh_key::LineEnding::LF).ok()?;
            return PrivateKey::from_openssh(text.as_bytes()).ok();
        }
        let text = std::fs::read(self.0.root.join("etc/ssh/ssh_host_ed25519_key")).ok()?;
        PrivateKey::from_openssh(text).ok()
    }

    /// The command of a key: its path is the VM's, and its argument tells it where the VM is.
    fn forced(&self, command: &str, asked: String) -> Start {
        let root = &self.0.root;
        let program = super::cloud_init::inside(root, command);
        Start {
            command: vec!["/bin/sh".into(), program.into(), root.into()],
            dir: root.clone(),
            env: vec![
                ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
                ("SSH_ORIGINAL_COMMAND".into(), asked),
            ],
            output: None,
            input: true,
        }
    }

    fn note(&self, number: usize, change: impl FnOnce(&mut SshVisit)) {
        if let Some(visit) = crate::lock(&self.0.visits).get_mut(number) {
            change(visit);
        }
    }
}

/// One connection's state.
struct Visitor {
    sshd: Sshd,
    number: usize,
    refuses: bool,
    /// The command of the key that logged in.
    forced: Option<String>,
    /// Somebody has logged in.
    inside: bool,
    channel: Option<Channel<Msg>>,
    /// Cancelled with the connection.
    gone: CancellationToken,
}

impl server::Handler for Visitor {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: russh::server::PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        let known = !self.refuses && allowed(&self.sshd.0.root, user, offer.public_key).is_some();
        if !known {
            self.sshd.note(self.number, |visit| visit.logins.push(user.to_owned()));
        }
        Ok(if known { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        self.sshd.note(self.number, |visit| visit.logins.push(user.to_owned()));
        let found = allowed(&self.sshd.0.root, user, key.public_key);
        let Some(forced) = found.filter(|_| !self.refuses) else { return Ok(Auth::reject()) };
        self.sshd.note(self.number, |visit| visit.user = Some(user.to_owned()));
        self.forced = forced;
        self.inside = true;
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channel = Some(channel);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        asked: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let asked = String::from_utf8_lossy(asked).into_owned();
        let Some(channel) = self.channel.take().filter(|_| self.inside) else {
            return session.channel_failure(id);
        };
        session.channel_success(id)?;
        let command = self.forced.clone().unwrap_or_else(|| asked.clone());
        self.sshd.note(self.number, |visit| visit.command = Some(command.clone()));
        let start = match &self.forced {
            Some(command) => self.sshd.forced(command, asked),
            None => self.sshd.0.shell.start(&self.sshd.0.root, &asked, self.sshd.0.port),
        };
        let (sshd, gone) = (self.sshd.clone(), self.gone.clone());
        tokio::spawn(async move {
            gone.run_until_cancelled_owned(run(sshd, start, channel)).await;
        });
        Ok(())
    }
}

/// Joins a process to a channel until the process ends.
async fn run(sshd: Sshd, start: Start, mut channel: Channel<Msg>) {
    let mut process = match sshd.0.spawner.spawn(start).await {
        Ok(process) => process,
        Err(error) => {
            tracing::warn!(%error, "a command cannot be started");
            return;
        }
    };
    let (stdin, stdout) = (process.child.stdin.take(), process.child.stdout.take());
    let (Some(mut stdin), Some(mut stdout)) = (stdin, stdout) else { return };
    let stderr = process.child.stderr.take();
    let (mut to_client, mut complaints) = (channel.make_writer(), channel.make_writer_ext(Some(1)));
    let output = async {
        let said = async {
            drop(tokio::io::copy(&mut stdout, &mut to_client).await);
            drop(to_client.flush().await);
        };
        let complained = async {
            if let Some(mut stderr) = stderr {
                drop(tokio::io::copy(&mut stderr, &mut complaints).await);
                drop(complaints.flush().await);
            }
        };
        tokio::join!(said, complained);
    };
    let input = async {
        let mut reader = channel.make_reader();
        let mut piece = vec![0; 32 * 1024];
        while let Ok(count) = reader.read(&mut piece).await {
            if count == 0 || stdin.write_all(&piece[..count]).await.is_err() {
                break;
            }
        }
        drop(stdin);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = output => {}
        () = input => {}
    }
    let code = process.ended().await;
    drop(channel.exit_status(u32::try_from(code).unwrap_or(255)).await);
    drop(channel.eof().await);
    drop(channel.close().await);
}

/// Whether a key may log in as a user; and the command that it is bound to.
fn allowed(root: &Path, user: &str, key: &PublicKey) -> Option<Option<String>> {
    if user.is_empty() || !user.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let home = if user == "root" { "root".to_owned() } else { format!("home/{user}") };
    let text = std::fs::read_to_string(root.join(home).join(".ssh/authorized_keys")).ok()?;
    text.lines().find_map(|line| {
        let at = line.find("ssh-").or_else(|| line.find("ecdsa-"))?;
        let (options, rest) = line.split_at(at);
        let found = PublicKey::from_openssh(rest).ok()?;
        if found.key_data() != key.key_data() {
            return None;
        }
        let command = options.split_once("command=\"").and_then(|(_, rest)| rest.split_once('"'));
        Some(command.map(|(command, _)| command.to_owned()))
    })
}
