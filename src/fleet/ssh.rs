//! One connection over SSH to a VM whose host key we know beforehand.
//!
//! The host key is compared before anything is sent that only we could send: a wrong one costs a
//! connection without a login. One login is tried in a connection; how soon the next may come is
//! the caller's care, since four failed ones get a client banned by OpenSSH.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{self, AuthResult, Handle, Msg};
use russh::keys::{
    Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate,
};
use russh::{Channel, ChannelMsg, Disconnect};
use tokio::net::TcpStream;

use crate::domain::secret::Secret;

/// How long a VM's address may take to answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long key exchange, and then login, may take.
const TALK_TIMEOUT: Duration = Duration::from_secs(20);
/// A peer that answers none of three keepalives is dead.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVES_MAX: usize = 3;
/// What we ask for; the VM's forced command is run whatever it is.
const COMMAND: &str = "vmkit-link";

/// All that it takes to reach a VM.
#[derive(Debug, Clone)]
pub struct Dial {
    /// Where the VM's SSH server is.
    pub address: SocketAddr,
    /// Whom we log in as.
    pub user: String,
    /// Our private key, in OpenSSH form.
    pub key: Secret,
    /// The host keys that are taken, in OpenSSH form: the VM's own, and one that its agent has
    /// announced.
    pub host_keys: Vec<String>,
}

/// Why a VM was not reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum SshError {
    #[error(
        "{address} refuses connections: its SSH server is not up yet, or outgoing connections to this port are blocked where you are (`vmkit doctor` tells)"
    )]
    Refused { address: SocketAddr },
    #[error(
        "{address} does not answer: the VM is off or starting, or outgoing connections to this port are blocked where you are (`vmkit doctor` tells)"
    )]
    NoAnswer { address: SocketAddr },
    #[error("{address} cannot be reached")]
    Unreachable {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the SSH host key of {address} is {found}, and {wanted} is the VM's: nothing was sent to it; the VM was rebuilt, or somebody stands in between"
    )]
    HostKey { address: SocketAddr, found: String, wanted: String },
    #[error("{address} ended the SSH connection before we could log in")]
    Talk {
        address: SocketAddr,
        #[source]
        source: russh::Error,
    },
    #[error("{address} was silent for {} s before we could log in", TALK_TIMEOUT.as_secs())]
    Silent { address: SocketAddr },
    #[error("{address} refuses VMKit's key: the user `vmkit` or its authorized_keys was changed")]
    Login { address: SocketAddr },
    #[error("the stored keys of the link to {address} cannot be read")]
    Keys { address: SocketAddr },
}

impl SshError {
    /// Stable, in snake case.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "ssh_refused",
            Self::NoAnswer { .. } => "ssh_no_answer",
            Self::Unreachable { .. } => "ssh_unreachable",
            Self::HostKey { .. } => "ssh_host_key",
            Self::Talk { .. } => "ssh_talk",
            Self::Silent { .. } => "ssh_silent",
            Self::Login { .. } => "ssh_login_refused",
            Self::Keys { .. } => "ssh_keys",
        }
    }

    /// True where a person has to look.
    pub(super) fn loud(&self) -> bool {
        match self {
            Self::HostKey { .. } | Self::Login { .. } | Self::Keys { .. } => true,
            Self::Refused { .. }
            | Self::NoAnswer { .. }
            | Self::Unreachable { .. }
            | Self::Talk { .. }
            | Self::Silent { .. } => false,
        }
    }
}

/// Ends with the connection.
pub(super) struct Session(pub(super) Handle<Watch>);

/// A connection on which we are logged in, with the forced command's input and output.
pub(super) struct Connection {
    session: Session,
    /// The host key that the VM has proven, as it stands among the dial's.
    pub(super) host_key: String,
    pub(super) channel: Channel<Msg>,
}

/// Compares the server's key with those that we take, and remembers what it saw.
pub(super) struct Watch {
    taken: Vec<PublicKey>,
    seen: Arc<Mutex<Option<PublicKey>>>,
}

impl client::Handler for Watch {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        server: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        // A certificate is somebody else's word; only keys are compared.
        let PublicKeyOrCertificate::PublicKey { key, .. } = server else { return Ok(false) };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(key.clone());
        Ok(self.taken.iter().any(|taken| taken.key_data() == key.key_data()))
    }
}

/// Connects, checks the host key, logs in once and starts the forced command.
pub(super) async fn connect(dial: &Dial) -> Result<Connection, SshError> {
    let address = dial.address;
    let (mut session, host_key) = enter(dial).await?;
    let begun = tokio::time::timeout(TALK_TIMEOUT, start(&mut session, address, COMMAND));
    let channel = begun.await.map_err(|_| SshError::Silent { address })??;
    Ok(Connection { session: Session(session), host_key, channel })
}

/// Connects, checks the host key and logs in once.
pub(super) async fn enter(dial: &Dial) -> Result<(Handle<Watch>, String), SshError> {
    let address = dial.address;
    let keys = || SshError::Keys { address };
    let taken: Result<Vec<PublicKey>, _> =
        dial.host_keys.iter().map(|line| PublicKey::from_openssh(line)).collect();
    let taken = taken.map_err(|_| keys())?;
    let login = PrivateKey::from_openssh(dial.key.expose()).map_err(|_| keys())?;
    let (session, seen) = meet(address, taken.clone()).await?;
    let met = seen.as_ref().and_then(|seen| {
        let at = taken.iter().position(|taken| taken.key_data() == seen.key_data())?;
        dial.host_keys.get(at).cloned()
    });
    let (mut session, host_key) = match (session, met) {
        (Ok(session), Some(met)) => (session, met),
        (_, None) if seen.is_some() => {
            let found = seen.map(|key| print(&key)).unwrap_or_default();
            let wanted: Vec<String> = taken.iter().map(print).collect();
            return Err(SshError::HostKey { address, found, wanted: wanted.join(" or ") });
        }
        (Err(source), _) => return Err(SshError::Talk { address, source }),
        (Ok(_), None) => return Err(keys()),
    };
    let talk = tokio::time::timeout(TALK_TIMEOUT, log_in(&mut session, dial, login));
    talk.await.map_err(|_| SshError::Silent { address })??;
    Ok((session, host_key))
}

/// Exchanges keys with whoever is there. The session is there only if the server's key is taken.
pub(super) async fn meet(
    address: SocketAddr,
    taken: Vec<PublicKey>,
) -> Result<(Result<Handle<Watch>, russh::Error>, Option<PublicKey>), SshError> {
    let socket = open(address).await?;
    let seen = Arc::new(Mutex::new(None));
    let watch = Watch { taken, seen: Arc::clone(&seen) };
    let talk = tokio::time::timeout(TALK_TIMEOUT, client::connect_stream(config(), socket, watch));
    let session = talk.await.map_err(|_| SshError::Silent { address })?;
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok((session, seen))
}

async fn open(address: SocketAddr) -> Result<TcpStream, SshError> {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address));
    let connected = connecting.await.map_err(|_| SshError::NoAnswer { address })?;
    let socket = connected.map_err(|source| match source.kind() {
        std::io::ErrorKind::ConnectionRefused => SshError::Refused { address },
        std::io::ErrorKind::TimedOut => SshError::NoAnswer { address },
        _ => SshError::Unreachable { address, source },
    })?;
    // Calls are small and wait for each other.
    drop(socket.set_nodelay(true));
    Ok(socket)
}

fn config() -> Arc<client::Config> {
    Arc::new(client::Config {
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVES_MAX,
        nodelay: true,
        ..client::Config::default()
    })
}

async fn log_in(session: &mut Handle<Watch>, dial: &Dial, key: PrivateKey) -> Result<(), SshError> {
    let address = dial.address;
    let hash = (!matches!(key.algorithm(), Algorithm::Ed25519)).then_some(HashAlg::Sha512);
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
    let answer = session.authenticate_publickey(dial.user.as_str(), key).await;
    match answer.map_err(|source| SshError::Talk { address, source })? {
        AuthResult::Success => Ok(()),
        AuthResult::Failure { .. } => Err(SshError::Login { address }),
    }
}

/// Has the server run a command.
pub(super) async fn start(
    session: &mut Handle<Watch>,
    address: SocketAddr,
    command: &str,
) -> Result<Channel<Msg>, SshError> {
    let broken = |source| SshError::Talk { address, source };
    let mut channel = session.channel_open_session().await.map_err(broken)?;
    channel.exec(true, command).await.map_err(broken)?;
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Success) => return Ok(channel),
            Some(ChannelMsg::WindowAdjusted { .. }) => {}
            _ => return Err(broken(russh::Error::Disconnect)),
        }
    }
}

impl Connection {
    /// Says goodbye, so that the server keeps no session that nobody uses.
    pub(super) async fn close(session: Session) {
        let goodbye = session.0.disconnect(Disconnect::ByApplication, "", "en");
        drop(tokio::time::timeout(Duration::from_secs(2), goodbye).await);
    }

    pub(super) fn into_parts(self) -> (Session, Channel<Msg>) {
        (self.session, self.channel)
    }
}

/// As `ssh-keygen -l` shows it.
pub(super) fn print(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}
