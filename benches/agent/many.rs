//! Thousands of linked agents: the gateway is this process, the agents are another.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use futures::future::BoxFuture;
use futures::{SinkExt, StreamExt};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use vmkit::domain::clock::Clock;
use vmkit::domain::ids::VmId;
use vmkit::domain::secret::Secret;
use vmkit::fleet::{EnrolRefusal, Fleet, Limits, Roster};
use vmkit_agent_protocol::bytes::Bytes;
use vmkit_agent_protocol::calls::{Call, Metrics, Reply};
use vmkit_agent_protocol::handshake::{Hello, agent_statement};
use vmkit_agent_protocol::messages::{Outcome, ToAgent, ToGateway};
use vmkit_agent_protocol::wire::Wire;
use vmkit_agent_protocol::{OLDEST, PROTOCOL};

use super::measure::{Report, resident};
use super::rig;

/// Agents of the bench have their VM's id for a key.
fn key(vm: &str) -> SigningKey {
    SigningKey::from_bytes(&Sha256::digest(vm).into())
}

struct Everybody;

impl Roster for Everybody {
    fn redeem(&self, _: VmId, _: Secret, _: [u8; 32]) -> BoxFuture<'_, Result<(), EnrolRefusal>> {
        Box::pin(async { Err(EnrolRefusal::UnknownToken) })
    }

    fn public_key(&self, vm: VmId) -> BoxFuture<'_, Option<[u8; 32]>> {
        Box::pin(async move { Some(key(&vm.to_string()).verifying_key().to_bytes()) })
    }
}

/// Holds so many links, with heartbeats and metrics, and reports what each costs.
pub(crate) async fn held(agents: usize, report: &mut Report) {
    allow_many_files();
    let identity = SigningKey::from_bytes(&rand::random());
    let roster: Arc<dyn Roster> = Arc::new(Everybody);
    let limits = Limits { newcomers: 1024, ..Limits::default() };
    let fleet = Fleet::local(roster, identity, Clock::wall(), limits);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = fleet.router();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let vms: Vec<VmId> = (0..agents).map(|_| VmId::generate()).collect();
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("vms");
    let names: Vec<String> = vms.iter().map(ToString::to_string).collect();
    std::fs::write(&list, names.join("\n")).unwrap();
    let before = resident(std::process::id());
    let mut other = Command::new(std::env::current_exe().unwrap())
        .arg("--be-agents")
        .arg(address.to_string())
        .arg(&list)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let timeout = Duration::from_secs(240);
    for vm in &vms {
        fleet.wait_linked(*vm, timeout).await.unwrap();
    }
    // All answer, and go on being heard.
    let asked = futures::stream::iter(&vms).map(|vm| async {
        matches!(fleet.call(*vm, Call::Metrics, rig::DEADLINE).await, Ok(Reply::Metrics(_)))
    });
    let answered =
        asked.buffer_unordered(64).filter(|ok| futures::future::ready(*ok)).count().await;
    assert_eq!(answered, agents, "all answer");
    let after = resident(std::process::id());
    let mut linked = 0;
    for vm in &vms {
        linked += usize::from(fleet.presence(*vm).await.unwrap().linked);
    }
    drop(other.kill());
    drop(other.wait());
    serving.abort();
    assert_eq!(linked, agents, "all are heard");
    let each = after.saturating_sub(before) as f64 / 1024.0 / agents as f64;
    report.at_most(&format!("{agents} linked agents, each"), each, 30.0, "KB");
}

/// The other process.
pub(crate) async fn be_agents(args: &[String]) {
    allow_many_files();
    let [address, list] = args else { panic!("an address and a list") };
    let names = std::fs::read_to_string(list).unwrap();
    let agents = futures::stream::iter(names.lines().map(str::to_owned)).map(|vm| {
        let address = address.clone();
        async move {
            let wire = link(&address, &vm).await;
            tokio::spawn(live(wire));
        }
    });
    // So many handshakes at a time; the links stay.
    agents.buffer_unordered(64).for_each(async |()| {}).await;
    std::future::pending().await
}

async fn link(address: &str, vm: &str) -> Wire {
    let stream = TcpStream::connect(address).await.unwrap();
    let url = format!("ws://{address}/agent/v1/link");
    let (socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let (sink, stream) = socket.split();
    let outgoing = sink
        .sink_map_err(|error| panic!("{error}"))
        .with(async |text: String| Ok(tokio_tungstenite::tungstenite::Message::text(text)));
    let incoming =
        stream.filter_map(async |message| Some(Ok(message.ok()?.to_text().ok()?.to_owned())));
    let mut wire = Wire { outgoing: Box::pin(outgoing), incoming: incoming.boxed() };
    let hello = Hello {
        protocol: PROTOCOL,
        oldest: OLDEST,
        vm: vm.to_owned(),
        nonce: Bytes(rand::random()),
        agent_version: "0.1.0".to_owned(),
        arch: "amd64".to_owned(),
        boot_id: "boot".to_owned(),
        time_ms: Clock::wall().now().0,
        enrolling: false,
        pins: vec![],
    };
    wire.send(&ToGateway::Hello(hello.clone())).await.unwrap();
    let ToAgent::Welcome(welcome) = wire.receive().await.unwrap() else { panic!("no welcome") };
    let statement = agent_statement(&hello.nonce, &welcome.nonce, vm);
    let signature = Bytes(key(vm).sign(&statement).to_bytes());
    wire.send(&ToGateway::Proof { signature }).await.unwrap();
    let ToAgent::Ready { .. } = wire.receive().await.unwrap() else { panic!("not let in") };
    wire
}

/// Says every 15 s that it lives, and how it does when it is asked.
async fn live(mut wire: Wire) {
    let mut beat = tokio::time::interval(Duration::from_secs(15));
    loop {
        let message = tokio::select! {
            _ = beat.tick() => ToGateway::Heartbeat { time_ms: Clock::wall().now().0 },
            heard = wire.receive::<ToAgent>() => match heard {
                Ok(ToAgent::Call { id, call: Call::Metrics, .. }) => {
                    let reply = Reply::Metrics(Box::<Metrics>::default());
                    ToGateway::Reply { id, result: Outcome::Ok { reply } }
                }
                Ok(_) => continue,
                Err(_) => return,
            },
        };
        if wire.send(&message).await.is_err() {
            return;
        }
    }
}

/// Each link is a file: as many as the machine allows.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).is_err() {
        eprintln!("no more than {:?} open files", limit.current);
    }
}
