//! A newer peer's unknown fields and variants do not break reads, and what we write today is read
//! back the same.

use serde_json::json;
use vmkit_agent_protocol::bytes::{Bytes, Hidden};
use vmkit_agent_protocol::calls::{Call, EnvFile, Reply};
use vmkit_agent_protocol::handshake::Hello;
use vmkit_agent_protocol::logs::{Batch, FollowLogs, Line, ResumePoint, Source, Stream};
use vmkit_agent_protocol::messages::{Item, Outcome, ToAgent, ToGateway};

fn to_agent(value: serde_json::Value) -> ToAgent {
    serde_json::from_value(value).expect("a message")
}

fn to_gateway(value: serde_json::Value) -> ToGateway {
    serde_json::from_value(value).expect("a message")
}

#[test]
fn unknown_messages_calls_replies_and_items_are_unknown_and_no_error() {
    assert_eq!(to_agent(json!({"type": "dance", "steps": [1, 2]})), ToAgent::Unknown);
    assert_eq!(
        to_agent(json!({"type": "call", "id": 7, "call": {"name": "reboot", "when": {"at": 1}}})),
        ToAgent::Call { id: 7, call: Call::Unknown, timeout_ms: 0 }
    );
    assert_eq!(to_gateway(json!({"type": "song", "verse": {}})), ToGateway::Unknown);
    assert_eq!(
        to_gateway(json!({"type": "reply", "id": 1, "result": {"status": "later", "eta": 5}})),
        ToGateway::Reply { id: 1, result: Outcome::Unknown }
    );
    let reply = json!({"status": "ok", "reply": {"kind": "poem", "lines": ["a"]}});
    assert_eq!(
        to_gateway(json!({"type": "reply", "id": 1, "result": reply})),
        ToGateway::Reply { id: 1, result: Outcome::Ok { reply: Reply::Unknown } }
    );
    assert_eq!(
        to_gateway(json!({"type": "item", "id": 1, "seq": 0, "item": {"kind": "film"}})),
        ToGateway::Item { id: 1, seq: 0, item: Item::Unknown }
    );
}

#[test]
fn unknown_fields_are_ignored_at_every_depth() {
    let call = json!({"type": "call", "id": 1, "priority": "high", "timeout_ms": 5, "call": {
        "name": "follow_logs", "colour": true, "backfill": 3,
        "selector": {"service": "shop-staging", "host": "x"},
        "resume": [{"container": "c", "stream": "stderr", "time_ns": 5, "count": 2, "hash": "x"}],
    }});
    let ToAgent::Call { call: Call::FollowLogs(follow), .. } = to_agent(call) else {
        panic!("not a call to follow logs");
    };
    let point = ResumePoint { container: "c".into(), stream: Stream::Stderr, time_ns: 5, count: 2 };
    assert_eq!(follow.resume, [point]);
    assert_eq!(follow.selector.service.as_deref(), Some("shop-staging"));

    let facts = json!({"kind": "host_facts", "hostname": "v1", "gpu": {"count": 8},
        "docker": {"version": "29.0", "rootless": false}});
    let Reply::HostFacts(facts) = serde_json::from_value(facts).expect("a reply") else {
        panic!("not the facts");
    };
    assert_eq!((facts.hostname.as_str(), facts.cpus), ("v1", 0));
    assert_eq!(facts.docker.version.as_deref(), Some("29.0"));

    let batch = json!({"kind": "logs", "source": {"container": "c", "pod": 1},
        "lines": [{"t": 1, "x": "a", "level": "info"}, {"t": 1, "n": 1, "s": "audit", "x": "b"}]});
    let Item::Logs(batch) = serde_json::from_value(batch).expect("an item") else {
        panic!("not lines");
    };
    assert_eq!((batch.lines[0].stream, batch.lines[1].stream), (Stream::Stdout, Stream::Unknown));
}

#[test]
fn what_is_written_is_read_back() {
    let hello = Hello {
        protocol: 1,
        oldest: 1,
        vm: "vm_x".into(),
        nonce: Bytes([9; 32]),
        agent_version: "0.1.0".into(),
        arch: "amd64".into(),
        boot_id: "b".into(),
        time_ms: 1,
        enrolling: true,
        pins: vec![Bytes([8; 32])],
    };
    let line =
        Line { time_ns: 3, nth: 1, stream: Stream::Stderr, text: "a\u{1}b\n".into(), more: true };
    let source = Source { container: "c".into(), name: "n".into(), ..Source::default() };
    for message in [
        ToGateway::Hello(hello),
        ToGateway::Proof { signature: Bytes([7; 64]) },
        ToGateway::Item {
            id: 1,
            seq: 2,
            item: Item::Logs(Batch {
                source,
                lines: vec![line],
                gap: true,
                dropped: 3,
                dropped_to_ns: None,
            }),
        },
        ToGateway::Heartbeat { time_ms: 5 },
    ] {
        let text = serde_json::to_string(&message).expect("it can be written");
        assert!(!text.contains('\n'), "one line a message: {text}");
        assert_eq!(serde_json::from_str::<ToGateway>(&text).expect("it can be read"), message);
    }
    let call = Call::FollowLogs(FollowLogs::default());
    let text = serde_json::to_string(&call).expect("it can be written");
    assert_eq!(serde_json::from_str::<Call>(&text).expect("it can be read"), call);
}

#[test]
fn an_env_files_content_is_not_printed() {
    let file = EnvFile {
        app: "shop".into(),
        environment: "staging".into(),
        revision: 1,
        content: Hidden("GREETING=hello".into()),
    };
    let shown = format!("{:?}", Call::WriteEnvFile(file));
    assert!(!shown.contains("hello"), "{shown}");
}
