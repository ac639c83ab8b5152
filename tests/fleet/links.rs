//! Enrolment, the handshake, calls, presence, and what breaks them.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use vmkit::domain::clock::{Clock, Millis};
use vmkit::domain::ids::VmId;
use vmkit::fleet::{Fleet, FleetError, Limits};
use vmkit_agent_protocol::bytes::{Bytes, Hidden};
use vmkit_agent_protocol::calls::{Call, EnvFile, Reply};
use vmkit_agent_protocol::messages::{Outcome, ToAgent, ToGateway};

use super::fake_agent::FakeAgent;
use super::rig::{DEADLINE, Rig, TOKEN, until};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_enrols_links_and_answers() {
    let rig = Rig::new().await;
    std::fs::create_dir_all(rig.path("etc/ssh")).unwrap();
    std::fs::write(rig.path("etc/hostname"), "v1\n").unwrap();
    std::fs::write(rig.path("etc/ssh/ssh_host_ed25519_key.pub"), "ssh-ed25519 AAAA root@v1\n")
        .unwrap();
    let _agent = rig.start_agent();
    rig.linked().await;

    let presence = rig.fleet.presence(rig.vm).await.unwrap();
    assert_eq!(presence.agent_version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    let Reply::HostFacts(facts) = rig.fleet.call(rig.vm, Call::HostFacts, DEADLINE).await.unwrap()
    else {
        panic!("not the facts");
    };
    assert_eq!(facts.hostname, "v1");
    assert_eq!(facts.ssh_host_keys, ["ssh-ed25519 AAAA"]);
    assert!(facts.docker.version.is_none() && facts.docker.absent_because.is_some());
    assert!(facts.cpus > 0 && facts.memory_bytes > 0 && facts.disk_bytes > 0);
    let Reply::Metrics(metrics) = rig.fleet.call(rig.vm, Call::Metrics, DEADLINE).await.unwrap()
    else {
        panic!("not the metrics");
    };
    assert!(metrics.memory_available_bytes > 0 && metrics.uptime_s > 0);

    // The token is used up and gone from the VM, and the key is for the agent alone.
    until("the token is forgotten", async || {
        let config = std::fs::read_to_string(rig.path("etc/vmkit/agent.toml")).unwrap();
        (!config.contains(TOKEN) && config.contains("gateway_key")).then_some(())
    })
    .await;
    let key = std::fs::metadata(rig.path("var/lib/vmkit/agent.key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_enrolment_answer_is_repeated_and_another_key_is_refused() {
    let rig = Rig::new().await;
    let mut agent = rig.start_agent();
    rig.linked().await;
    agent.kill();
    // As if the answer had been lost: the token is still in the configuration.
    rig.configure(Some(TOKEN), &rig.identity);
    let mut agent = rig.start_agent();
    rig.linked().await;
    agent.kill();

    std::fs::remove_file(rig.path("var/lib/vmkit/agent.key")).unwrap();
    rig.configure(Some(TOKEN), &rig.identity);
    let _agent = rig.start_agent();
    until("the agent says that it was refused", async || {
        let log = std::fs::read_to_string(rig.path("agent.log")).unwrap();
        log.contains("enrol_token_used").then_some(())
    })
    .await;
    assert!(!rig.fleet.presence(rig.vm).await.unwrap().linked);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_enrolments_get_a_code_and_a_sentence() {
    let rig = Rig::new().await;
    let url = format!("{}agent/v1/enrol", rig.gateway_url());
    let key = Bytes([5; 32]).to_string();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let vm = rig.vm.to_string();
    let huge = "x".repeat(40_000);
    for (body, status, code) in [
        (
            serde_json::json!({"token": "wrong", "vm": vm, "public_key": key}),
            403,
            "enrol_token_unknown",
        ),
        (serde_json::json!({"token": TOKEN, "vm": "env_x", "public_key": key}), 400, "bad_request"),
        (serde_json::json!({"token": TOKEN, "vm": vm, "public_key": "AAAA"}), 400, "bad_request"),
        (serde_json::json!({"token": huge, "vm": vm, "public_key": key}), 400, "bad_request"),
        (serde_json::json!([]), 400, "bad_request"),
    ] {
        let answer = client.post(&url).json(&body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{body}");
        let refusal: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(refusal["code"], code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_tells_nothing_to_a_gateway_with_another_key() {
    let rig = Rig::new().await;
    rig.configure(Some(TOKEN), &SigningKey::from_bytes(&rand::random()));
    let _agent = rig.start_agent();
    until("the agent says why it will not link", async || {
        let log = std::fs::read_to_string(rig.path("agent.log")).unwrap();
        log.contains("does not hold the key that this VM trusts").then_some(())
    })
    .await;
    assert!(!rig.fleet.presence(rig.vm).await.unwrap().linked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_refuses_a_wrong_key_an_unknown_vm_and_an_old_agent() {
    let rig = Rig::new().await;
    let mut stranger = FakeAgent::attach(&rig);
    stranger.key = SigningKey::from_bytes(&rand::random());
    let mut lost = FakeAgent::attach(&rig);
    lost.hello.vm = VmId::generate().to_string();
    let mut old = FakeAgent::attach(&rig);
    old.hello.protocol = 0;
    let mut replayed = FakeAgent::attach(&rig);
    replayed.hello.vm = "vm_'; drop".to_owned();
    for (agent, wanted) in [
        (&mut stranger, "wrong_key"),
        (&mut lost, "unknown_vm"),
        (&mut old, "peer_too_old"),
        (&mut replayed, "unknown_vm"),
    ] {
        match agent.greet().await.unwrap() {
            ToAgent::Refused(refusal) => assert_eq!(refusal.code, wanted),
            other => panic!("{wanted}: {other:?}"),
        }
    }
    assert!(!rig.fleet.presence(rig.vm).await.unwrap().linked);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_end_in_time_whatever_the_agent_does() {
    let rig = Rig::new().await;
    let fleet = rig.fleet.clone();
    let (vm, short) = (rig.vm, Duration::from_millis(50));
    assert_eq!(
        fleet.call(vm, Call::HostFacts, short).await,
        Err(FleetError::NotLinked { vm }),
        "nobody is there"
    );
    let mut agent = FakeAgent::attach(&rig);
    assert!(matches!(agent.greet().await, Ok(ToAgent::Ready { .. })));
    rig.linked().await;

    let (silent, call) = tokio::join!(fleet.call(vm, Call::HostFacts, short), agent.asked());
    assert_eq!(silent, Err(FleetError::TimedOut { vm, timeout_ms: 50 }));
    let ToAgent::Call { id, timeout_ms: 50, .. } = call else { panic!("{call:?}") };
    assert_eq!(agent.asked().await, ToAgent::Cancel { id }, "the agent is told");

    // A reply that comes too late, for nobody, and messages of a newer agent do no harm.
    let late = Outcome::Ok { reply: Reply::Unknown };
    agent.wire.send(&ToGateway::Reply { id, result: late.clone() }).await.unwrap();
    agent.wire.send(&serde_json::json!({"type": "song", "verse": 1})).await.unwrap();
    let (answer, ()) = tokio::join!(fleet.call(vm, Call::Containers, DEADLINE), async {
        let ToAgent::Call { id, .. } = agent.asked().await else { panic!("no call") };
        agent.wire.send(&ToGateway::Reply { id, result: late }).await.unwrap();
    });
    assert_eq!(answer, Err(FleetError::NotUnderstood { vm }));

    let (answer, ()) = tokio::join!(fleet.call(vm, Call::Containers, DEADLINE), async {
        agent.asked().await;
        drop(agent);
    });
    assert_eq!(answer, Err(FleetError::LinkLost { vm }));
    rig.unlinked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_agent_counts_as_away_by_the_injected_clock() {
    let clock = Clock::hand(Millis(1_000_000));
    let rig = Rig::with(clock.clone(), Limits::default()).await;
    let mut agent = FakeAgent::attach(&rig);
    agent.hello.time_ms = 900_000;
    assert!(matches!(agent.greet().await, Ok(ToAgent::Ready { time_ms: 1_000_000 })));
    rig.linked().await;
    clock.advance_ms(45_000);
    assert!(rig.fleet.presence(rig.vm).await.unwrap().linked);
    clock.advance_ms(1);
    let presence = rig.fleet.presence(rig.vm).await.unwrap();
    assert!(!presence.linked);
    assert_eq!(presence.last_seen, Some(Millis(1_000_000)));
    assert_eq!(presence.clock_offset_ms, 100_000);
    assert!(presence.complaint().unwrap().starts_with("the agent is not linked"), "{presence:?}");
    agent.wire.send(&ToGateway::Heartbeat { time_ms: 0 }).await.unwrap();
    rig.linked_by_poll().await;
    let complaint = rig.fleet.presence(rig.vm).await.unwrap().complaint();
    assert_eq!(complaint.as_deref(), Some("the VM's clock is 100 s behind"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_link_is_closed_and_a_new_one_takes_the_place_of_the_old() {
    let limits = Limits { silent_after: Duration::from_millis(400), ..Limits::default() };
    let rig = Rig::with(Clock::wall(), limits).await;
    let mut first = FakeAgent::attach(&rig);
    assert!(matches!(first.greet().await, Ok(ToAgent::Ready { .. })));
    let mut second = FakeAgent::attach(&rig);
    assert!(matches!(second.greet().await, Ok(ToAgent::Ready { .. })));
    until("the first link is closed", async || {
        first.wire.receive::<ToAgent>().await.is_err().then_some(())
    })
    .await;
    // The second says nothing more, and is closed as well.
    until("the second link is closed", async || {
        second.wire.receive::<ToAgent>().await.is_err().then_some(())
    })
    .await;
    rig.unlinked().await;
    let presence = until("it is told why", async || {
        let presence = rig.fleet.presence(rig.vm).await.unwrap();
        presence.changes.last().is_some_and(|change| !change.linked).then_some(presence)
    })
    .await;
    let linked: Vec<bool> = presence.changes.iter().map(|change| change.linked).collect();
    assert_eq!(linked, [true, true, false]);
    let complaint = presence.complaint().unwrap();
    assert!(complaint.contains("the agent was silent for"), "{complaint}");

    // One that is refused is the reason for as long as none is linked.
    let mut stranger = FakeAgent::attach(&rig);
    stranger.key = SigningKey::from_bytes(&rand::random());
    assert!(matches!(stranger.greet().await, Ok(ToAgent::Refused(_))));
    let complaint = rig.fleet.presence(rig.vm).await.unwrap().complaint().unwrap();
    assert!(complaint.contains("does not hold the key"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_comes_back_after_a_cut_and_after_the_gateway_was_away() {
    let rig = Rig::new().await;
    let _agent = rig.start_agent();
    rig.linked().await;
    for _ in 0..3 {
        let before = rig.fleet.presence(rig.vm).await.unwrap().since;
        rig.cable.cut();
        until("another link is up", async || {
            let presence = rig.fleet.presence(rig.vm).await.unwrap();
            (presence.linked && presence.since != before).then_some(())
        })
        .await;
    }
    rig.cable.unplug();
    rig.unlinked().await;
    rig.cable.plug();
    rig.linked().await;
    assert!(rig.fleet.call(rig.vm, Call::HostFacts, DEADLINE).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn env_files_are_written_once_kept_ten_times_and_never_outside() {
    let rig = Rig::new().await;
    let _agent = rig.start_agent();
    rig.linked().await;
    let write = async |app: &str, revision: u32, content: &str| {
        let file = EnvFile {
            app: app.to_owned(),
            environment: "staging".to_owned(),
            revision,
            content: Hidden(content.to_owned()),
        };
        rig.fleet.call(rig.vm, Call::WriteEnvFile(file), DEADLINE).await
    };
    let code = |outcome: Result<Reply, FleetError>| match outcome {
        Err(FleetError::Fault { code, .. }) => code,
        other => panic!("not a fault: {other:?}"),
    };
    let target = rig.path("etc/vmkit/env/shop/staging.env");

    let written = write("shop", 1, "A=1\n").await;
    assert_eq!(written, Ok(Reply::EnvFileWritten { revision: 1, changed: true }));
    let again = write("shop", 1, "A=1\n").await;
    assert_eq!(again, Ok(Reply::EnvFileWritten { revision: 1, changed: false }));
    assert_eq!(code(write("shop", 1, "A=2\n").await), "revision_conflict");
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "A=1\n");
    assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o007, 0);

    for revision in 2..=15 {
        write("shop", revision, &format!("A={revision}\n")).await.unwrap();
    }
    // A rollback brings an earlier revision back into place.
    write("shop", 7, "A=7\n").await.unwrap();
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "A=7\n");
    let history = rig.path("var/lib/vmkit/env/shop/staging");
    let kept: Vec<_> = std::fs::read_dir(&history).unwrap().map(Result::unwrap).collect();
    assert_eq!(kept.len(), 10);
    assert!(kept.iter().all(|file| file.metadata().unwrap().permissions().mode() & 0o777 == 0o600));

    for bad in ["../../etc", "Shop", "", "a/b", "shop\n"] {
        assert_eq!(code(write(bad, 1, "A=1\n").await), "invalid", "{bad:?}");
    }
    std::fs::create_dir_all(rig.path("home/kamal/.kamal/lock-shop-staging")).unwrap();
    assert_eq!(code(write("shop", 16, "A=16\n").await), "kamal_locked");
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "A=7\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_reaches_the_fleet_and_is_told_when_it_cannot() {
    let rig = Rig::new().await;
    let socket = rig.path("worker.sock");
    let remote = Fleet::remote(socket.clone());
    let error = remote.presence(rig.vm).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("worker_away", true));

    let stop = CancellationToken::new();
    let listener = UnixListener::bind(&socket).unwrap();
    let (fleet, stopped) = (rig.fleet.clone(), stop.clone());
    let serving = tokio::spawn(async move { fleet.serve_socket(listener, stopped).await });

    assert!(!remote.presence(rig.vm).await.unwrap().linked);
    let absent = remote.call(rig.vm, Call::HostFacts, Duration::from_secs(1)).await;
    assert_eq!(absent, Err(FleetError::NotLinked { vm: rig.vm }));
    let none = remote.wait_linked(rig.vm, Duration::from_millis(10)).await;
    assert_eq!(none, Err(FleetError::NotLinked { vm: rig.vm }));

    let _agent = rig.start_agent();
    remote.wait_linked(rig.vm, DEADLINE).await.unwrap();
    assert!(remote.presence(rig.vm).await.unwrap().linked);
    let reply = remote.call(rig.vm, Call::HostFacts, DEADLINE).await;
    assert!(matches!(reply, Ok(Reply::HostFacts(_))), "{reply:?}");

    remote.nudge().await.unwrap();
    tokio::time::timeout(DEADLINE, rig.fleet.nudged()).await.unwrap();
    stop.cancel();
    serving.await.unwrap();
    drop(std::fs::remove_file(&socket));
    assert_eq!(remote.nudge().await.unwrap_err().code(), "worker_away");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_link_runs_over_the_socket_and_over_the_bridge() {
    let rig = Rig::new().await;
    let mut agent = rig.start_agent();
    rig.linked().await;
    rig.cable.unplug();
    rig.unlinked().await;

    let socket = rig.path("run/vmkit/agent.sock");
    let stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
    let fleet = rig.fleet.clone();
    let attached = tokio::spawn(async move { fleet.attach(stream).await });
    rig.linked().await;
    assert!(rig.fleet.call(rig.vm, Call::HostFacts, DEADLINE).await.is_ok());
    rig.fleet.close();
    attached.await.unwrap().unwrap();
    rig.unlinked().await;

    let mut bridge = tokio::process::Command::new(env!("CARGO_BIN_EXE_vmkit"))
        .args(["agent", "bridge", "--root"])
        .arg(rig.root.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pipe = tokio::io::join(bridge.stdout.take().unwrap(), bridge.stdin.take().unwrap());
    let fleet = rig.fleet.clone();
    let attached = tokio::spawn(async move { fleet.attach(pipe).await });
    rig.linked().await;
    assert!(rig.fleet.call(rig.vm, Call::HostFacts, DEADLINE).await.is_ok());

    // The agent ends cleanly, takes its socket with it, and the bridge ends too.
    agent.ask_to_end();
    assert!(agent.ended().await.success());
    assert!(!socket.exists());
    assert!(attached.await.unwrap().is_ok());
    assert!(tokio::time::timeout(DEADLINE, bridge.wait()).await.unwrap().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_ends_well_with_an_agent_that_left_something_unread() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("run/vmkit");
    std::fs::create_dir_all(&folder).unwrap();
    let listener = tokio::net::UnixListener::bind(folder.join("agent.sock")).unwrap();
    let mut bridge = tokio::process::Command::new(env!("CARGO_BIN_EXE_vmkit"))
        .args(["agent", "bridge", "--root"])
        .arg(root.path())
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (agent, _) = listener.accept().await.unwrap();
    let mut stdin = bridge.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"unread").await.unwrap();
    agent.readable().await.unwrap();
    drop(agent);
    assert!(tokio::time::timeout(DEADLINE, bridge.wait()).await.unwrap().unwrap().success());
}
