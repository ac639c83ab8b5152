//! The served link: VMKit comes to the agent's socket. Enrolment over it, several clients at once,
//! and the machine's own SSH server where there is one.

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use vmkit::domain::clock::Clock;
use vmkit::domain::ids::VmId;
use vmkit::domain::secret::Secret;
use vmkit::fleet::{Dial, Directory, Fleet, Limits};
use vmkit_agent_protocol::calls::{Call, Reply};

use super::rig::{DEADLINE, Rig, TOKEN, until};
use super::skips::skip;

/// Joins a fleet to the agent's socket, as the bridge would.
async fn attach(rig: &Rig, fleet: &Fleet) {
    let socket = rig.path("run/vmkit/agent.sock");
    let stream =
        until("the socket is served", async || UnixStream::connect(&socket).await.ok()).await;
    let fleet = fleet.clone();
    tokio::spawn(async move { drop(fleet.attach(stream).await) });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_enrols_over_the_served_link_once() {
    let rig = Rig::new().await;
    rig.configure_served(TOKEN);
    let mut agent = rig.start_agent();
    attach(&rig, &rig.fleet).await;
    rig.linked().await;
    until("the token is forgotten", async || {
        let config = std::fs::read_to_string(rig.path("etc/vmkit/agent.toml")).unwrap();
        (!config.contains(TOKEN) && config.contains("gateway_key")).then_some(())
    })
    .await;
    let socket = std::fs::metadata(rig.path("run/vmkit/agent.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o007, 0, "for the owner and one group");
    assert_eq!(socket.uid(), rustix::process::geteuid().as_raw());
    agent.kill();

    // A lost answer: the same agent comes with the same token again.
    rig.configure_served(TOKEN);
    let mut agent = rig.start_agent();
    attach(&rig, &rig.fleet).await;
    rig.linked().await;
    agent.kill();
    rig.unlinked().await;

    // A stolen user-data after enrolment: another key with the same token.
    std::fs::remove_file(rig.path("var/lib/vmkit/agent.key")).unwrap();
    rig.configure_served(TOKEN);
    let _agent = rig.start_agent();
    attach(&rig, &rig.fleet).await;
    until("the agent says that it was refused", async || {
        let log = std::fs::read_to_string(rig.path("agent.log")).unwrap();
        log.contains("enrol_token_used").then_some(())
    })
    .await;
    assert!(!rig.fleet.presence(rig.vm).await.unwrap().linked);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_not_told_to_a_gateway_with_another_identity() {
    let rig = Rig::new().await;
    rig.configure_served(TOKEN);
    let _agent = rig.start_agent();
    let stranger = ed25519_dalek::SigningKey::from_bytes(&rand::random());
    let other = Fleet::local(rig.book.clone(), stranger, Clock::wall(), Limits::default());
    attach(&rig, &other).await;
    until("the agent says so", async || {
        let log = std::fs::read_to_string(rig.path("agent.log")).unwrap();
        log.contains("does not hold the key that this VM trusts").then_some(())
    })
    .await;
    let config = std::fs::read_to_string(rig.path("etc/vmkit/agent.toml")).unwrap();
    assert!(config.contains(TOKEN), "it is still good for the right one");
    attach(&rig, &rig.fleet).await;
    rig.linked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_at_once_are_both_answered() {
    let rig = Rig::new().await;
    rig.configure_served(TOKEN);
    let _agent = rig.start_agent();
    attach(&rig, &rig.fleet).await;
    rig.linked().await;
    let other =
        Fleet::local(rig.book.clone(), rig.identity.clone(), Clock::wall(), Limits::default());
    attach(&rig, &other).await;
    other.wait_linked(rig.vm, DEADLINE).await.unwrap();
    for _ in 0..20 {
        let (one, two) = tokio::join!(
            rig.fleet.call(rig.vm, Call::HostFacts, DEADLINE),
            other.call(rig.vm, Call::Metrics, DEADLINE)
        );
        assert!(matches!(one, Ok(Reply::HostFacts(_))), "{one:?}");
        assert!(matches!(two, Ok(Reply::Metrics(_))), "{two:?}");
    }
    other.close();
    assert!(rig.fleet.presence(rig.vm).await.unwrap().linked, "the other's end is not ours");
}

/// A real `sshd` on a loopback port, with a configuration of its own; ended by its id.
struct Sshd {
    child: Child,
    address: SocketAddr,
    login: String,
}

/// One VM, behind that server.
struct One {
    vm: VmId,
    dial: Mutex<Dial>,
    met: Mutex<Vec<String>>,
}

impl Directory for One {
    fn vms(&self) -> BoxFuture<'_, Vec<VmId>> {
        Box::pin(async move { vec![self.vm] })
    }

    fn dial(&self, _: VmId) -> BoxFuture<'_, Option<Dial>> {
        Box::pin(async move { Some(self.dial.lock().unwrap().clone()) })
    }

    fn met(&self, _: VmId, host_key: String) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.met.lock().unwrap().push(host_key) })
    }

    fn agent(&self, _: VmId, _: String) -> BoxFuture<'_, Option<PathBuf>> {
        Box::pin(async { None })
    }
}

fn pair() -> (String, String) {
    let pair = ssh_key::private::Ed25519Keypair::from_seed(&rand::random());
    let key = ssh_key::PrivateKey::from(pair);
    let private = key.to_openssh(ssh_key::LineEnding::LF).unwrap().to_string();
    (private, key.public_key().to_openssh().unwrap())
}

fn private_file(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

impl Sshd {
    /// Gives the server, or says why there is none.
    async fn start(rig: &Rig, host_private: &str, login_public: &str) -> Result<Self, String> {
        let program = Path::new("/usr/sbin/sshd");
        if !program.exists() {
            return Err("/usr/sbin/sshd is not installed (`apt-get install openssh-server`)".into());
        }
        if rustix::process::geteuid().is_root() {
            // Where the server keeps the part of it that has no rights.
            std::fs::create_dir_all("/run/sshd").map_err(|error| error.to_string())?;
        }
        let whoami = Command::new("id").arg("-un").output().map_err(|error| error.to_string())?;
        let login = String::from_utf8_lossy(&whoami.stdout).trim().to_owned();
        private_file(&rig.path("etc/ssh/ssh_host_ed25519_key"), host_private);
        let command = format!(
            "{} agent bridge --root {}",
            env!("CARGO_BIN_EXE_vmkit"),
            rig.root.path().display()
        );
        let line = format!("restrict,command=\"{command}\" {login_public}\n");
        private_file(&rig.path("authorized_keys"), &line);
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let path = |inside: &str| rig.path(inside).display().to_string();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {}\nHostKey {}\nPidFile {}\nAuthorizedKeysFile {}\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nLogLevel VERBOSE\n",
            address.port(),
            path("etc/ssh/ssh_host_ed25519_key"),
            path("run/sshd.pid"),
            path("authorized_keys")
        );
        std::fs::create_dir_all(rig.path("run")).unwrap();
        std::fs::write(rig.path("sshd_config"), config).unwrap();
        let log = std::fs::File::create(rig.path("sshd.log")).unwrap();
        let child = Command::new(program)
            .args(["-D", "-e", "-f"])
            .arg(rig.path("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| error.to_string())?;
        let sshd = Self { child, address, login };
        let listens = || std::net::TcpStream::connect(address).is_ok();
        until("sshd listens", async || listens().then_some(())).await;
        Ok(sshd)
    }

    fn log(rig: &Rig) -> String {
        std::fs::read_to_string(rig.path("sshd.log")).unwrap_or_default()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_ssh_server_carries_the_link_and_takes_the_agents_host_key() {
    let rig = Rig::new().await;
    rig.configure_served(TOKEN);
    let ((host_private, host_public), (login, login_public)) = (pair(), pair());
    let sshd = match Sshd::start(&rig, &host_private, &login_public).await {
        Ok(sshd) => sshd,
        Err(reason) => return skip("the link over the machine's own sshd", &reason),
    };
    let _agent = rig.start_agent();
    until("the agent serves", async || rig.path("run/vmkit/agent.sock").exists().then_some(()))
        .await;
    let one = Arc::new(One {
        vm: rig.vm,
        dial: Mutex::new(Dial {
            address: sshd.address,
            user: sshd.login.clone(),
            key: Secret::new(login),
            host_keys: vec![pair().1],
        }),
        met: Mutex::default(),
    });
    let stop = CancellationToken::new();
    let (fleet, directory, until_then) = (rig.fleet.clone(), one.clone(), stop.clone());
    let reaching = tokio::spawn(async move { fleet.reach(directory, until_then).await });

    // A host key that is not the one we know: no login is tried.
    let message = until("it is refused", async || {
        let trouble = rig.fleet.presence(rig.vm).await.unwrap().trouble?;
        (trouble.code == "ssh_host_key").then_some(trouble.message)
    })
    .await;
    assert_eq!(message.matches("SHA256:").count(), 2, "{message}");
    let log = Sshd::log(&rig);
    assert!(!log.contains("Accepted") && !log.contains("Failed publickey"), "{log}");
    assert!(one.met.lock().unwrap().is_empty());
    stop.cancel();
    reaching.await.unwrap();

    // The right one.
    one.dial.lock().unwrap().host_keys = vec![host_public.clone()];
    let stop = CancellationToken::new();
    let (fleet, directory, until_then) = (rig.fleet.clone(), one.clone(), stop.clone());
    let reaching = tokio::spawn(async move { fleet.reach(directory, until_then).await });
    rig.linked().await;
    assert_eq!(*one.met.lock().unwrap(), std::slice::from_ref(&host_public));
    assert!(Sshd::log(&rig).contains("Accepted publickey"), "{}", Sshd::log(&rig));

    // The agent replaces it, sshd reads it again, and the link comes back on the new one.
    let prepared = rig.fleet.call(rig.vm, Call::PrepareHostKey, DEADLINE).await;
    let Ok(Reply::HostKeyPrepared { public_key }) = prepared else { panic!("{prepared:?}") };
    one.dial.lock().unwrap().host_keys.push(public_key.clone());
    let install = Call::InstallHostKey { public_key: public_key.clone() };
    let installed = rig.fleet.call(rig.vm, install, DEADLINE).await;
    assert_eq!(installed, Ok(Reply::HostKeyInstalled { changed: true }));
    // An answer means that the key is in place, not yet that the server has read it.
    until("the new host key is met", async || {
        rig.fleet.relink(rig.vm);
        one.met.lock().unwrap().contains(&public_key).then_some(())
    })
    .await;
    one.dial.lock().unwrap().host_keys = vec![public_key];
    rig.linked().await;
    let reply = rig.fleet.call(rig.vm, Call::HostFacts, DEADLINE).await;
    assert!(matches!(reply, Ok(Reply::HostFacts(_))), "{reply:?}");
    stop.cancel();
    reaching.await.unwrap();
}
