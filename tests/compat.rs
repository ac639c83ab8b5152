//! What shipped versions of the agent and the gateway say to each other:
//! `tests/compat/NNNN/protocol.jsonl` holds every message as a version wrote it, and today's types
//! must read and write each unchanged. (The state file's promises are held by `src/store/tests`.)

#[path = "support/promises.rs"]
mod promises;

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use vmkit_agent_protocol::beside::{
    Control, ControlAction, Controlled, RemoveService, ServiceFile,
};
use vmkit_agent_protocol::bytes::{Bytes, Hidden};
use vmkit_agent_protocol::calls::{
    AppRemoved, Call, Container, DockerFacts, EnvFile, HostFacts, Metrics, Pressure, PublishedPort,
    RemoveApp, Reply, RetireRoles,
};
use vmkit_agent_protocol::care::{
    Care, Cared, Harden, Hardened, Hardening, KeyUser, Measure, NewAgent, Piece, Prune, Pruned,
    ReplaceKey, TrustGateway, UpgradeReport, UpgradeStage,
};
use vmkit_agent_protocol::enrol::{EnrolRequest, Refusal};
use vmkit_agent_protocol::handshake::{Hello, Welcome};
use vmkit_agent_protocol::logs::{
    Batch, FollowLogs, Line, LogRange, LogRangeReply, ResumePoint, Selector, Source, Stream,
    SystemLog, SystemLogRange,
};
use vmkit_agent_protocol::messages::{Item, Outcome, ToAgent, ToGateway};
use vmkit_agent_protocol::metrics::{
    ContainerTrend, ContainerUse, Disk, MetricsHistory, MetricsRange, Point,
};
use vmkit_agent_protocol::upkeep::{HeldLock, KamalLocks, Upkeep};
use vmkit_agent_protocol::{OLDEST, PROTOCOL};

const VM: &str = "vm_01k00000000000000000000001";
const TIME_MS: i64 = 1_800_000_000_000;
const FILE: &str = "protocol.jsonl";

fn refusal() -> Refusal {
    Refusal { code: "unsupported".to_owned(), message: "this agent does not know that".to_owned() }
}

fn selector() -> Selector {
    Selector {
        service: Some("shop-production".to_owned()),
        role: Some("web".to_owned()),
        container: Some("c1".to_owned()),
    }
}

fn system_logs() -> SystemLogRange {
    SystemLogRange {
        log: SystemLog::Kernel,
        since_ms: Some(TIME_MS),
        until_ms: None,
        grep: Some("oom".to_owned()),
        tail: 50,
    }
}

fn batch() -> Batch {
    let line = |nth, stream, text: &str| Line {
        time_ns: TIME_MS * 1_000_000,
        nth,
        stream,
        text: text.to_owned(),
        more: nth == 0,
    };
    Batch {
        source: Source {
            container: "c1".to_owned(),
            name: "shop-production-web-abc".to_owned(),
            service: "shop-production".to_owned(),
            role: Some("web".to_owned()),
            version: Some("abc".to_owned()),
        },
        lines: vec![line(0, Stream::Stdout, "hello"), line(1, Stream::Stderr, "oh \"no\"")],
        gap: true,
        dropped: 7,
        dropped_to_ns: None,
    }
}

fn upkeep() -> Upkeep {
    Upkeep { operation: "op_1".to_owned() }
}

fn held() -> HeldLock {
    HeldLock {
        service: "shop-production".to_owned(),
        by: "vmkit-run-7-1".to_owned(),
        since: "2026-11-01T10:00:00Z".to_owned(),
        version: "abc".to_owned(),
        message: "Automatic deploy lock".to_owned(),
    }
}

fn calls() -> Vec<Call> {
    let env_file = EnvFile {
        app: "shop".to_owned(),
        environment: "production".to_owned(),
        revision: 2,
        content: Hidden("GREETING=hello\n".to_owned()),
    };
    let range = LogRange {
        selector: selector(),
        since_ms: Some(TIME_MS),
        until_ms: Some(TIME_MS + 1),
        grep: Some("h.*o".to_owned()),
        tail: 100,
    };
    let resume = ResumePoint {
        container: "c1".to_owned(),
        stream: Stream::Stderr,
        time_ns: TIME_MS * 1_000_000,
        count: 1,
    };
    let follow =
        FollowLogs { selector: selector(), resume: vec![resume], backfill: 200, credit: Some(64) };
    let mut all = vec![
        Call::HostFacts,
        Call::Containers,
        Call::WriteEnvFile(env_file),
        Call::Logs(range),
        Call::FollowLogs(follow),
        Call::SystemLogs(system_logs()),
        Call::Metrics,
        Call::MetricsHistory(MetricsRange {
            since_ms: Some(TIME_MS - 3_600_000),
            until_ms: Some(TIME_MS),
            points: 12,
        }),
        Call::TakeKamalLocks(KamalLocks {
            operation: "op_1".to_owned(),
            message: "resizing the VM".to_owned(),
            services: vec!["shop-production".to_owned()],
        }),
        Call::ReleaseKamalLocks(upkeep()),
        Call::Quiesce(upkeep()),
        Call::Resume(upkeep()),
        Call::PrepareHostKey,
        Call::InstallHostKey { public_key: "ssh-ed25519 host-key-for-tests".to_owned() },
        Call::RemoveApp(RemoveApp {
            app: "shop".to_owned(),
            environment: "production".to_owned(),
            services: vec!["shop-production".to_owned(), "shop-production-db".to_owned()],
            deploy_key: Some("ssh-ed25519 deploy-key-for-tests".to_owned()),
            volumes: true,
            volume_names: vec!["shop-production-db".to_owned()],
        }),
        Call::WriteServiceFile(ServiceFile {
            app: "shop".to_owned(),
            environment: "production".to_owned(),
            beside: "db".to_owned(),
            content: Hidden("POSTGRES_DB=app\n".to_owned()),
        }),
        Call::RemoveService(RemoveService {
            app: "shop".to_owned(),
            environment: "production".to_owned(),
            beside: "db".to_owned(),
            volume: true,
            file_only: true,
        }),
        Call::Control(Control {
            app: "shop".to_owned(),
            environment: "production".to_owned(),
            beside: Some("db".to_owned()),
            action: ControlAction::Restart,
            version: Some("abc".to_owned()),
        }),
        Call::KamalLock { service: "shop-production".to_owned() },
        Call::BreakKamalLock(held()),
        Call::RetireRoles(RetireRoles {
            app: "shop".to_owned(),
            environment: "production".to_owned(),
            roles: vec!["worker".to_owned()],
        }),
    ];
    all.extend(cares().into_iter().map(Call::Care));
    for call in &all {
        // Matched without `_`, so that a new call is added above.
        match call {
            Call::HostFacts | Call::Containers | Call::WriteEnvFile(_) => {}
            Call::Logs(_) | Call::FollowLogs(_) | Call::SystemLogs(_) => {}
            Call::Metrics | Call::MetricsHistory(_) => {}
            Call::TakeKamalLocks(_) | Call::ReleaseKamalLocks(_) => {}
            Call::Quiesce(_) | Call::Resume(_) => {}
            Call::PrepareHostKey | Call::InstallHostKey { .. } => {}
            Call::WriteServiceFile(_) | Call::RemoveService(_) | Call::Control(_) => {}
            Call::KamalLock { .. } | Call::BreakKamalLock(_) => {}
            Call::RetireRoles(_) => {}
            Call::RemoveApp(_) | Call::Care(_) | Call::Unknown => {}
        }
    }
    all
}

fn host_facts() -> HostFacts {
    HostFacts {
        hostname: "vmkit-01k0".to_owned(),
        os: "Debian GNU/Linux 13 (trixie)".to_owned(),
        kernel: "6.12.0".to_owned(),
        arch: "amd64".to_owned(),
        docker: DockerFacts {
            version: Some("28.0".to_owned()),
            absent_because: Some("or why there is none".to_owned()),
        },
        ssh_host_keys: vec!["ssh-ed25519 host-key-for-tests".to_owned()],
        cpus: 2,
        memory_bytes: 4 << 30,
        disk_bytes: 80_000_000_000,
        disk_free_bytes: 70_000_000_000,
        boot_id: "boot 1".to_owned(),
        agent_version: "0.1.0".to_owned(),
    }
}

fn container() -> Container {
    Container {
        id: "c1".to_owned(),
        name: "shop-production-web-abc".to_owned(),
        image: "ghcr.example.com/octo/shop:abc".to_owned(),
        labels: BTreeMap::from([("service".to_owned(), "shop-production".to_owned())]),
        state: "exited".to_owned(),
        health: Some("healthy".to_owned()),
        exit_code: Some(137),
        oom_killed: true,
        restarts: 3,
        started_at_ms: Some(TIME_MS),
        ports: vec![PublishedPort {
            container_port: 8080,
            host_ip: "0.0.0.0".to_owned(),
            host_port: 80,
            protocol: "tcp".to_owned(),
        }],
    }
}

fn metrics() -> Metrics {
    Metrics {
        time_ms: TIME_MS,
        cpu_busy: 0.25,
        load: [0.5, 0.25, 0.125],
        memory_bytes: 4 << 30,
        memory_available_bytes: 2 << 30,
        swap_bytes: 1 << 30,
        swap_used_bytes: 1 << 20,
        disk_bytes: 80_000_000_000,
        disk_free_bytes: 70_000_000_000,
        network_received_bytes: 12,
        network_sent_bytes: 34,
        uptime_s: 3600,
        pressure: Some(Pressure { cpu: 0.5, memory: 0.25, io: 0.125 }),
        cpus: 2,
        disks: vec![Disk {
            mount: "/".to_owned(),
            bytes: 80_000_000_000,
            free_bytes: 70_000_000_000,
            inodes: 1000,
            inodes_free: 900,
            full_in_days: Some(12.5),
        }],
        containers: vec![ContainerUse {
            name: "shop-production-web-abc".to_owned(),
            service: Some("shop-production".to_owned()),
            state: "running".to_owned(),
            cpu: 0.5,
            memory_bytes: 1 << 20,
            memory_limit_bytes: Some(1 << 30),
            restarts: 1,
            health: Some("healthy".to_owned()),
            oom_killed: true,
        }],
        docker_trouble: Some("it is being restarted".to_owned()),
        kernel: "6.12.0-1-amd64".to_owned(),
        reboot_because: Some("upgraded: libc6".to_owned()),
        oom_kills: Some(3),
    }
}

fn metrics_history() -> MetricsHistory {
    MetricsHistory {
        now: metrics(),
        covered_from_ms: Some(TIME_MS),
        minutes: 60,
        cpu_mean: 0.25,
        cpu_p95: 0.5,
        memory_used_max_bytes: 1 << 30,
        swap_used_max_bytes: 1 << 20,
        points: vec![Point {
            time_ms: TIME_MS,
            cpu: 0.25,
            cpu_max: 0.75,
            load: 1.5,
            memory_used_bytes: 1 << 30,
            disk_used_bytes: 10_000_000_000,
            received_bytes_s: 12,
            sent_bytes_s: 34,
            pressure: Some(Pressure { cpu: 0.5, memory: 0.25, io: 0.125 }),
        }],
        containers: vec![ContainerTrend {
            name: "shop-production.web".to_owned(),
            cpu_mean: 0.5,
            cpu_max: 1.5,
            memory_max_bytes: 1 << 20,
        }],
    }
}

fn replies() -> Vec<Reply> {
    let logs = LogRangeReply {
        batches: vec![batch()],
        more: true,
        covered_from_ns: Some(TIME_MS * 1_000_000),
    };
    let mut all = vec![
        Reply::HostFacts(host_facts()),
        Reply::Containers { containers: vec![container()] },
        Reply::EnvFileWritten { revision: 2, changed: true },
        Reply::Logs(logs),
        Reply::Metrics(Box::new(metrics())),
        Reply::MetricsHistory(Box::new(metrics_history())),
        Reply::KamalLocks { services: vec!["shop-production".to_owned()], held: None },
        Reply::KamalLocks { services: Vec::new(), held: Some(held()) },
        Reply::Quiesced { containers: vec!["shop-production-web-abc".to_owned()] },
        Reply::Resumed {
            containers: vec!["shop-production-web-abc".to_owned()],
            missing: vec!["shop-production-db".to_owned()],
        },
        Reply::HostKeyPrepared { public_key: "ssh-ed25519 host-key-for-tests".to_owned() },
        Reply::HostKeyInstalled { changed: true },
        Reply::AppRemoved(AppRemoved {
            containers: vec!["shop-production-web-abc".to_owned()],
            route: true,
            volumes: vec!["shop-production-data".to_owned()],
            key: true,
        }),
        Reply::ServiceFileWritten { changed: true, volume: true },
        Reply::Controlled(Controlled { containers: vec![container()] }),
    ];
    all.extend(cared().into_iter().map(Reply::Cared));
    for reply in &all {
        match reply {
            Reply::HostFacts(_) | Reply::Containers { .. } | Reply::EnvFileWritten { .. } => {}
            Reply::Logs(_) | Reply::Metrics(_) | Reply::MetricsHistory(_) => {}
            Reply::AppRemoved(_) | Reply::Unknown => {}
            Reply::KamalLocks { .. } | Reply::Quiesced { .. } | Reply::Resumed { .. } => {}
            Reply::ServiceFileWritten { .. } | Reply::Controlled(_) => {}
            Reply::HostKeyPrepared { .. } | Reply::HostKeyInstalled { .. } | Reply::Cared(_) => {}
        }
    }
    all
}

fn cares() -> Vec<Care> {
    let all = vec![
        Care::Harden(Harden { operation: "op_1".to_owned(), undo_after_s: 420 }),
        Care::KeepHardened(upkeep()),
        Care::UndoHarden(upkeep()),
        Care::Prune(Prune { dry_run: true, keep: 3 }),
        Care::BeginUpgrade(NewAgent {
            sha256: "ab".repeat(32),
            bytes: 7,
            arch: "amd64".to_owned(),
            signature: Bytes([6; 64]),
        }),
        Care::UpgradePiece(Piece { offset: 4, base64: "aGVsbG8=".to_owned() }),
        Care::TryUpgrade(upkeep()),
        Care::UpgradeState,
        Care::ReplaceKey(ReplaceKey {
            user: KeyUser::Kamal,
            old: Some("ssh-ed25519 old-key-for-tests".to_owned()),
            new: Some("ssh-ed25519 new-key-for-tests".to_owned()),
        }),
        Care::TrustGateway(TrustGateway {
            keys: vec![Bytes([2; 32]), Bytes([3; 32])],
            signature: Bytes([4; 64]),
        }),
    ];
    for care in &all {
        match care {
            Care::Harden(_) | Care::KeepHardened(_) | Care::UndoHarden(_) | Care::Prune(_) => {}
            Care::BeginUpgrade(_) | Care::UpgradePiece(_) | Care::TryUpgrade(_) => {}
            Care::UpgradeState | Care::ReplaceKey(_) => {}
            Care::TrustGateway(_) | Care::Unknown => {}
        }
    }
    all
}

fn cared() -> Vec<Cared> {
    let measure = |name: &str, outcome| Measure {
        name: name.to_owned(),
        outcome,
        says: "as it should be".to_owned(),
    };
    let measures = vec![
        measure("sshd", Hardening::Changed),
        measure("sysctl", Hardening::AlreadyRight),
        measure("firewall", Hardening::NotHere),
        measure("docker", Hardening::Failed),
    ];
    let report = UpgradeReport {
        installed: "cd".repeat(32),
        wanted: "ab".repeat(32),
        stage: UpgradeStage::Receiving,
        received: 4,
        transcript: vec!["2026-11-01T10:00:00.000Z taking 7 bytes".to_owned()],
    };
    let all = vec![
        Cared::Hardened(Hardened { measures, armed: true }),
        Cared::Done { changed: true },
        Cared::Pruned(Pruned {
            containers: vec!["shop-production-web-abc".to_owned()],
            images: vec!["ghcr.example.com/octo/shop:abc".to_owned()],
            bytes: 12,
        }),
        Cared::Upgrade(report),
    ];
    for cared in &all {
        match cared {
            Cared::Hardened(_) | Cared::Done { .. } | Cared::Pruned(_) => {}
            Cared::Upgrade(_) | Cared::Unknown => {}
        }
    }
    all
}

fn to_agent() -> Vec<ToAgent> {
    let welcome = Welcome {
        protocol: PROTOCOL,
        oldest: OLDEST,
        nonce: Bytes([2; 32]),
        signature: Bytes([3; 64]),
        bound: false,
    };
    let mut all = vec![
        ToAgent::Welcome(welcome),
        ToAgent::Ready { time_ms: TIME_MS },
        ToAgent::Refused(refusal()),
        ToAgent::Cancel { id: 7 },
        ToAgent::Credit { id: 7, items: 32 },
        ToAgent::Heard { time_ms: TIME_MS },
    ];
    all.extend((1..).zip(calls()).map(|(id, call)| ToAgent::Call { id, call, timeout_ms: 10_000 }));
    for message in &all {
        match message {
            ToAgent::Welcome(_) | ToAgent::Ready { .. } | ToAgent::Refused(_) => {}
            ToAgent::Call { .. } | ToAgent::Cancel { .. } | ToAgent::Heard { .. } => {}
            ToAgent::Credit { .. } | ToAgent::Unknown => {}
        }
    }
    all
}

fn to_gateway() -> Vec<ToGateway> {
    let hello = Hello {
        protocol: PROTOCOL,
        oldest: OLDEST,
        vm: VM.to_owned(),
        nonce: Bytes([1; 32]),
        agent_version: "0.1.0".to_owned(),
        arch: "amd64".to_owned(),
        boot_id: "boot 1".to_owned(),
        time_ms: TIME_MS,
        enrolling: false,
        pins: vec![],
    };
    let mut all = vec![
        ToGateway::Hello(hello.clone()),
        ToGateway::Hello(Hello { pins: vec![Bytes([2; 32]), Bytes([3; 32])], ..hello.clone() }),
        ToGateway::Hello(Hello { enrolling: true, ..hello }),
        ToGateway::Enrol(enrolment()),
        ToGateway::NoAgent { sha256: "ab".repeat(32), bytes: 7, step: "docker".to_owned() },
        ToGateway::Proof { signature: Bytes([4; 64]) },
        ToGateway::Heartbeat { time_ms: TIME_MS },
        ToGateway::Item { id: 5, seq: 0, item: Item::Logs(batch()) },
        ToGateway::Reply { id: 9, result: Outcome::Fault(refusal()) },
    ];
    let reply = |(id, reply)| ToGateway::Reply { id, result: Outcome::Ok { reply } };
    all.extend((1..).zip(replies()).map(reply));
    for message in &all {
        match message {
            ToGateway::Hello(_) | ToGateway::Proof { .. } | ToGateway::Heartbeat { .. } => {}
            ToGateway::Reply { .. } | ToGateway::Item { .. } | ToGateway::Unknown => {}
            ToGateway::Enrol(_) | ToGateway::NoAgent { .. } => {}
        }
    }
    all
}

fn enrolment() -> EnrolRequest {
    EnrolRequest {
        token: Hidden("token-for-tests".to_owned()),
        vm: VM.to_owned(),
        public_key: Bytes([5; 32]),
        agent_version: "0.1.0".to_owned(),
        arch: "amd64".to_owned(),
    }
}

/// Every message as a line `{"to": WHOM, "message": ...}`.
fn today() -> String {
    let line = |to: &str, message: Value| json!({ "to": to, "message": message }).to_string();
    let mut lines = vec![line("enrolment", json!(enrolment()))];
    lines.extend(to_gateway().iter().map(|message| line("gateway", json!(message))));
    lines.extend(to_agent().iter().map(|message| line("agent", json!(message))));
    lines.join("\n") + "\n"
}

/// What today's types make of a message; it has to be the message itself.
fn again<T: DeserializeOwned + Serialize>(message: &str) -> String {
    let read: T = serde_json::from_str(message).unwrap_or_else(|why| panic!("{message}: {why}"));
    serde_json::to_string(&read).expect("JSON")
}

fn reread(line: &str) -> (String, String) {
    let said: Value = serde_json::from_str(line).expect("a line of JSON");
    let message = said["message"].to_string();
    let written = match said["to"].as_str() {
        Some("enrolment") => again::<EnrolRequest>(&message),
        Some("gateway") => again::<ToGateway>(&message),
        Some("agent") => again::<ToAgent>(&message),
        other => panic!("nobody listens as {other:?}"),
    };
    (message, written)
}

#[test]
fn messages_of_every_shipped_version_are_read_and_written_unchanged() {
    for (number, text) in promises::all(FILE) {
        for line in text.lines() {
            let (message, written) = reread(line);
            assert_eq!(written, message, "{number:04}");
        }
    }
}

#[test]
fn every_message_of_today_is_promised() {
    let today = today();
    let newest = promises::all(FILE).pop().map(|(_, text)| text).unwrap_or_default();
    if newest != today {
        let difference = promises::difference(&newest, &today);
        promises::promise(FILE, &today, &difference, "cargo test -p vmkit --test compat");
    }
}

#[test]
fn a_message_that_nobody_knows_does_not_pass_as_read() {
    let line = json!({ "to": "agent", "message": { "type": "dance", "steps": 3 } }).to_string();
    let (message, written) = reread(&line);
    assert_ne!(written, message);
}
