//! What an agent has to survive: Docker in trouble, gateways that are slow, hostile, newer or not
//! ours, and containers that mean harm.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use vmkit::fleet::LogQuery;
use vmkit_agent_protocol::PROTOCOL;
use vmkit_agent_protocol::bytes::Hidden;
use vmkit_agent_protocol::calls::{Call, EnvFile, Reply};
use vmkit_agent_protocol::messages::{Outcome, ToAgent};

use super::docker::engine;
use super::fake_agent::FakeAgent;
use super::fake_gateway::FakeGateway;
use super::rig::{DEADLINE, Rig, until};

#[tokio::test(flavor = "multi_thread")]
async fn docker_floods_leave_a_stalled_gateway_the_newest_lines_and_the_number_of_the_others() {
    let Some(engine) = engine("a flood") else { return };
    let rig = Rig::new().await;
    rig.configure_served(super::rig::TOKEN);
    engine.serve(&rig);
    let agent = rig.start_agent();
    let mut gateway = FakeGateway::link(&rig).await;
    // Other tests have containers on the same engine, whose lines are not ours to count.
    gateway.follow(&engine.service(), 0).await;
    // Escape sequences and what looks like our own words first; then far more than 8 MiB.
    let script = r#"
        yes "$(printf '\033[2J2026-11-01T09:30:00Z web v2 \033]0;x\007 {"type":"reply"} \377')" |
            head -n 1000
        seq 300000
        echo the end
    "#;
    let before = agent.own_kib();
    let mut most = before;
    // Docker takes its time, and an agent that hears nothing meanwhile gives the gateway up.
    let mut flooding = tokio::task::spawn_blocking(move || {
        let name = engine.run("v1", &["--log-driver", "json-file"], script);
        engine.docker(&["wait", &name]);
        engine
    });
    let mut beat = tokio::time::interval(Duration::from_millis(200));
    let _engine = loop {
        tokio::select! {
            engine = &mut flooding => break engine.unwrap(),
            _ = beat.tick() => {
                most = most.max(agent.own_kib());
                gateway.heartbeat().await;
            }
        }
    };
    let (mut place, mut dropped, mut ended) = (0, 0, false);
    until("the agent gives up waiting", async || {
        gateway.heartbeat().await;
        most = most.max(agent.own_kib());
        let log = std::fs::read_to_string(rig.path("agent.log")).unwrap();
        log.contains("takes no lines").then_some(())
    })
    .await;
    gateway.grant(u32::MAX).await;
    while !ended {
        let batch = gateway.batch().await;
        most = most.max(agent.own_kib());
        dropped += batch.dropped;
        place += batch.dropped;
        for line in batch.lines {
            place += 1;
            // Each line is where it stands in the container's log: none is lost, doubled, or both
            // here and counted as dropped.
            if let Ok(number) = line.text.parse::<u64>() {
                assert_eq!(1_000 + number, place, "of {dropped} dropped");
            }
            ended = line.text == "the end";
        }
    }
    let more_kib = most - before;
    eprintln!("{place} lines, {dropped} of them dropped, {more_kib} KiB more");
    assert_eq!(place, 301_001);
    assert!(dropped > 0);
    // 8 MiB of lines, what is on its way to the gateway, and Docker's answer.
    assert!(more_kib < 20 * 1024, "{more_kib} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_hostile_gets_nothing_but_the_closed_list() {
    let rig = Rig::new().await;
    rig.configure_served(super::rig::TOKEN);
    let _agent = rig.start_agent();

    // Not ours: it is told nothing, and the log says so aloud.
    let other = SigningKey::from_bytes(&rand::random());
    assert!(FakeGateway::link_as(&rig, &other, PROTOCOL).await.is_err());
    let log = || std::fs::read_to_string(rig.path("agent.log")).unwrap();
    until("it is said", async || {
        log().contains("does not hold the key that this VM trusts").then_some(())
    })
    .await;

    // Newer: what it says beyond us is unsupported or nothing.
    let mut gateway = FakeGateway::link_as(&rig, &rig.identity, PROTOCOL + 7).await.unwrap();
    for (id, call) in [
        (2, serde_json::json!({"name": "run_command", "argv": ["/bin/sh", "-c", "id > /tmp/x"]})),
        (3, serde_json::json!({"name": "shell", "text": "$(reboot)"})),
    ] {
        let text = serde_json::json!({"type": "call", "id": id, "call": call, "timeout_ms": 1000});
        gateway.wire.send(&text).await.unwrap();
        let Outcome::Fault(fault) = gateway.outcome(id).await else { panic!("it was done") };
        assert_eq!(fault.code, "unsupported");
    }
    gateway.wire.send(&serde_json::json!({"type": "sing", "verse": {"deep": [1]}})).await.unwrap();
    // Credit for nobody, and more than there is.
    for (id, items) in [(99, 1), (1, u32::MAX), (1, u32::MAX)] {
        gateway.wire.send(&ToAgent::Credit { id, items }).await.unwrap();
    }
    // More calls than an agent does at a time: the rest are told so, and it goes on.
    for id in 1000..1200 {
        gateway.call(id, Call::FollowLogs(vmkit_agent_protocol::logs::FollowLogs::default())).await;
    }
    let Outcome::Fault(fault) = gateway.outcome(1199).await else { panic!("200 at a time") };
    assert_eq!(fault.code, "busy");
    for id in 1000..1200 {
        gateway.wire.send(&ToAgent::Cancel { id }).await.unwrap();
    }
    until("it does calls again", async || {
        gateway.call(2000, Call::HostFacts).await;
        matches!(gateway.outcome(2000).await, Outcome::Ok { reply: Reply::HostFacts(_) })
            .then_some(())
    })
    .await;

    // What is no message ends the link, and only that.
    drop(gateway.wire.send(&"x".repeat(2 << 20)).await);
    let mut again = FakeGateway::link(&rig).await;
    again.call(1, Call::HostFacts).await;
    assert!(matches!(again.outcome(1).await, Outcome::Ok { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_agents_with_one_identity_the_newer_stays_and_the_other_is_told() {
    let rig = Rig::new().await;
    let mut first = FakeAgent::attach(&rig);
    first.greet().await.unwrap();
    rig.linked().await;
    // As from a copy of the VM's disk.
    let mut second = FakeAgent::attach_with(&rig, first.key.clone());
    second.greet().await.unwrap();
    let told = until("the first is told", async || match first.wire.receive().await {
        Ok(ToAgent::Refused(refusal)) => Some(refusal.code),
        Ok(_) => None,
        Err(error) => panic!("it was closed without a word: {error}"),
    })
    .await;
    assert_eq!(told, "replaced");
    assert!(first.wire.receive::<ToAgent>().await.is_err());
    let (answer, _) = tokio::join!(
        rig.fleet.call(rig.vm, Call::HostFacts, std::time::Duration::from_millis(200)),
        second.asked()
    );
    assert!(answer.is_err_and(|error| error.code() == "agent_timed_out"), "the second was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_cut_in_the_middle_of_a_message_is_made_again() {
    let rig = Rig::new().await;
    let _agent = rig.start_agent();
    for _ in 0..3 {
        rig.linked().await;
        let before = rig.fleet.presence(rig.vm).await.unwrap().since;
        rig.cable.cut_after(rand::random_range(1..40));
        // An answer is some hundred bytes long: it never comes whole.
        let cut = rig.fleet.call(rig.vm, Call::HostFacts, DEADLINE).await;
        assert!(cut.is_err(), "{cut:?}");
        until("another link is up", async || {
            let presence = rig.fleet.presence(rig.vm).await.unwrap();
            (presence.linked && presence.since != before).then_some(())
        })
        .await;
        assert!(rig.fleet.call(rig.vm, Call::HostFacts, DEADLINE).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_that_is_absent_forbidden_or_comes_later_is_said_and_found() {
    let Some(engine) = engine("an engine that comes later") else { return };
    let rig = Rig::new().await;
    let _agent = rig.start_agent();
    rig.linked().await;
    let trouble = async || {
        until("Docker's trouble is known", async || {
            let Ok(Reply::Metrics(now)) = rig.fleet.call(rig.vm, Call::Metrics, DEADLINE).await
            else {
                panic!("no metrics")
            };
            now.docker_trouble
        })
        .await
    };
    assert!(!trouble().await.is_empty());
    let listed = rig.fleet.call(rig.vm, Call::Containers, DEADLINE).await.unwrap_err();
    assert!(listed.to_string().contains("docker_unavailable"), "{listed}");
    // A socket that nobody serves, or nobody may use, is no reason to stop either.
    std::fs::create_dir_all(rig.path("run")).unwrap();
    let socket = rig.path("run/docker.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o000)).unwrap();
    assert!(!trouble().await.is_empty());
    std::fs::remove_file(&socket).unwrap();
    let name = engine.run("v1", &[], "echo here; sleep 1000");
    engine.serve(&rig);
    let query = LogQuery { service: engine.service(), limit: 10, ..LogQuery::default() };
    let line = until("the container is followed", async || {
        let page = rig.fleet.cached_logs(rig.vm, query.clone()).await.unwrap();
        page.lines.into_iter().next()
    })
    .await;
    assert_eq!((line.text.as_str(), line.container), ("here", name));
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_logs_that_are_truncated_or_deleted_under_docker_do_not_stop_what_comes() {
    let Some(engine) = engine("truncated logs") else { return };
    let rig = Rig::new().await;
    engine.serve(&rig);
    let _agent = rig.start_agent();
    rig.linked().await;
    let script = "n=0; while :; do n=$((n + 1)); echo \"line $n\"; usleep 20000; done";
    let name = engine.run("v1", &["--log-driver", "json-file"], script);
    let path = engine.docker(&["inspect", "-f", "{{.LogPath}}", &name]);
    let Ok(log) = std::fs::OpenOptions::new().write(true).open(path.trim()) else {
        super::skips::skip("truncated logs", "the engine's files are not ours to see");
        return;
    };
    let query = LogQuery { service: engine.service(), limit: 20_000, ..LogQuery::default() };
    let newest = async || {
        let page = rig.fleet.cached_logs(rig.vm, query.clone()).await.unwrap();
        let last = page.lines.last()?.text.strip_prefix("line ")?.parse::<u64>().ok();
        let mut seen = std::collections::BTreeSet::new();
        assert!(page.lines.iter().all(|line| seen.insert(line.text.clone())), "nothing twice");
        last
    };
    let grown = async |by: u64| {
        let before = newest().await.unwrap_or(0);
        until("more lines come", async || newest().await.filter(|now| *now >= before + by)).await
    };
    grown(20).await;
    log.set_len(0).unwrap();
    rig.cable.cut();
    grown(40).await;
    std::fs::remove_file(path.trim()).unwrap();
    rig.cable.cut();
    // What Docker has no file for any more cannot be read, by nobody; a restart makes a new one.
    engine.docker(&["restart", "-t", "0", &name]);
    until("the new file's lines come", async || {
        let page = rig.fleet.cached_logs(rig.vm, query.clone()).await.unwrap();
        let ones = page.lines.iter().filter(|line| line.text == "line 1").count();
        (ones == 2).then_some(())
    })
    .await;
}

/// Between the agent and the engine; what goes through it can be ended, and refused for a while.
struct Hatch {
    socket: std::path::PathBuf,
    engine: std::path::PathBuf,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl Hatch {
    fn open(&mut self) {
        let listener = tokio::net::UnixListener::bind(&self.socket).unwrap();
        let engine = self.engine.clone();
        self.serving = Some(tokio::spawn(async move {
            // Dropped with this task, and every connection with it.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let engine = engine.clone();
                connections.spawn(async move {
                    let mut far = tokio::net::UnixStream::connect(engine).await?;
                    tokio::io::copy_bidirectional(&mut near, &mut far).await
                });
            }
        }));
    }

    async fn shut(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        drop(serving.await);
        std::fs::remove_file(&self.socket).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_that_is_restarted_under_a_container_loses_and_doubles_no_line() {
    let Some(engine) = engine("a restarted engine") else { return };
    let rig = Rig::new().await;
    std::fs::create_dir_all(rig.path("run")).unwrap();
    let (socket, engine_socket) = (rig.path("run/docker.sock"), engine.socket());
    let mut hatch = Hatch { socket, engine: engine_socket, serving: None };
    hatch.open();
    let _agent = rig.start_agent();
    rig.linked().await;
    // As with live-restore: the container goes on while its engine is away.
    let script = "n=0; while :; do n=$((n + 1)); echo \"$n\"; usleep 10000; done";
    let name = engine.run("v1", &[], script);
    let query = LogQuery { service: engine.service(), limit: 20_000, ..LogQuery::default() };
    let numbers = async || {
        let page = rig.fleet.cached_logs(rig.vm, query.clone()).await.unwrap();
        page.lines.iter().map(|line| line.text.parse().unwrap()).collect::<Vec<u64>>()
    };
    until("lines come", async || (numbers().await.len() > 20).then_some(())).await;
    hatch.shut().await;
    until("it is said", async || match rig.fleet.call(rig.vm, Call::Metrics, DEADLINE).await {
        Ok(Reply::Metrics(now)) => now.docker_trouble,
        other => panic!("no metrics: {other:?}"),
    })
    .await;
    hatch.open();
    engine.docker(&["kill", &name]);
    let last = engine.docker(&["logs", &name]).lines().count() as u64;
    until("the last line is there", async || (numbers().await.last() == Some(&last)).then_some(()))
        .await;
    assert_eq!(numbers().await, (1..=last).collect::<Vec<_>>(), "each once, and in order");
}

/// A file system of its own, so small that it can be filled; unmounted with the value.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: std::path::PathBuf, size: &str) -> Result<Self, String> {
        std::fs::create_dir_all(&at).unwrap();
        let options = format!("size={size},mode=0755");
        let mut mount = std::process::Command::new("mount");
        let done = mount.args(["-t", "tmpfs", "-o", &options, "vmkit-test"]).arg(&at).output();
        let done = done.map_err(|error| error.to_string())?;
        if done.status.success() {
            Ok(Self(at))
        } else {
            Err(String::from_utf8_lossy(&done.stderr).trim().to_owned())
        }
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        let piece = [7; 512];
        while std::io::Write::write_all(&mut file, &piece).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_leaves_the_old_file_whole_and_the_agent_at_work() {
    let rig = Rig::new().await;
    let disks = [("etc/vmkit/env", "256k"), ("var/lib/vmkit", "4m")]
        .map(|(path, size)| SmallDisk::mount(rig.path(path), size));
    let disks: Vec<SmallDisk> = match disks.into_iter().collect() {
        Ok(disks) => disks,
        Err(reason) => return super::skips::skip("a full disk", &reason),
    };
    let mut agent = rig.start_agent();
    rig.linked().await;
    let long = "A=".to_owned() + &"x".repeat(8_000) + "\n";
    let write = async |revision: u32, content: &str| {
        let file = EnvFile {
            app: "shop".to_owned(),
            environment: "staging".to_owned(),
            revision,
            content: Hidden(content.to_owned()),
        };
        rig.fleet.call(rig.vm, Call::WriteEnvFile(file), DEADLINE).await
    };
    write(1, "A=1\n").await.unwrap();
    let (folder, target) =
        (rig.path("etc/vmkit/env/shop"), rig.path("etc/vmkit/env/shop/staging.env"));
    for disk in &disks {
        disk.fill();
        let refused = write(2, &long).await.unwrap_err();
        assert!(refused.to_string().contains("No space left"), "{refused}");
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "A=1\n");
        let names = std::fs::read_dir(&folder).unwrap().count();
        assert_eq!(names, 1, "nothing half is left to take room");
        assert!(rig.fleet.call(rig.vm, Call::HostFacts, DEADLINE).await.is_ok());
        // What it writes by itself (the metrics' minutes) does not end it, nor keep it from starting.
        agent.kill();
        rig.unlinked().await;
        agent = rig.start_agent();
        rig.linked().await;
        assert!(rig.fleet.call(rig.vm, Call::Metrics, DEADLINE).await.is_ok());
        disk.empty();
    }
    let written = write(2, &long).await;
    assert_eq!(written, Ok(Reply::EnvFileWritten { revision: 2, changed: true }));
    assert_eq!(std::fs::read_to_string(&target).unwrap(), long);
}
