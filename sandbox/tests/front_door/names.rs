//! Zones, and the name server that answers for them: what is written at a simulated provider can be
//! looked up, over UDP and TCP.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use vmkit_sandbox::Sandbox;

use crate::client::{Api, http};
use crate::official::python_with;
use crate::skips::skip;
use crate::spec::Spec;
use crate::stage::Stage;

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    message.to_vec().unwrap()
}

async fn by_udp(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question(name, kind), server).await.unwrap();
    let mut buffer = vec![0; 4096];
    let (length, _) = socket.recv_from(&mut buffer).await.unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn by_tcp(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let asked = question(name, kind);
    stream.write_u16(u16::try_from(asked.len()).unwrap()).await.unwrap();
    stream.write_all(&asked).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await.unwrap();
    Message::from_vec(&bytes).unwrap()
}

fn said(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

/// Calls the simulated Cloudflare with its token.
async fn cloudflare(sandbox: &Sandbox, method: &str, path: &str, body: Value) -> Value {
    let settings = sandbox.settings();
    let setting = |name: &str| settings.iter().find(|(own, _)| *own == name).unwrap().1.clone();
    let url = format!("{}{path}", setting("VMKIT_CLOUDFLARE_URL"));
    let request = http().request(method.parse().unwrap(), url);
    let request = request.bearer_auth(setting("VMKIT_CLOUDFLARE_TOKEN"));
    let request = if body.is_null() { request } else { request.json(&body) };
    request.send().await.unwrap().json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_at_a_provider_is_answered() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let server = sandbox.names().address();
    let zones = cloudflare(&sandbox, "GET", "/zones?name=example.com", Value::Null).await;
    let records = format!("/zones/{}/dns_records", zones["result"][0]["id"].as_str().unwrap());
    for body in [
        json!({"type": "A", "name": "shop.example.com", "content": "203.0.113.7", "ttl": 300}),
        json!({"type": "CNAME", "name": "www", "content": "shop.example.com", "ttl": 300}),
        json!({"type": "CAA", "name": "@", "data": {"flags": 0, "tag": "issue", "value": "ca.example"}}),
        json!({"type": "A", "name": "hidden", "content": "203.0.113.7", "proxied": true}),
    ] {
        let made = cloudflare(&sandbox, "POST", &records, body).await;
        assert_eq!(made["success"], true, "{made}");
    }
    for (name, kind, wanted) in [
        ("shop.example.com.", RecordType::A, vec!["203.0.113.7"]),
        ("SHOP.example.com.", RecordType::A, vec!["203.0.113.7"]),
        ("www.example.com.", RecordType::A, vec!["shop.example.com.", "203.0.113.7"]),
        ("shop.example.com.", RecordType::AAAA, vec![]),
        ("example.com.", RecordType::CAA, vec!["0 issue \"ca.example\""]),
        ("hidden.example.com.", RecordType::A, vec!["104.16.0.1"]),
        ("a.203-0-113-9.sslip.io.", RecordType::A, vec!["203.0.113.9"]),
    ] {
        let (udp, tcp) = (by_udp(server, name, kind).await, by_tcp(server, name, kind).await);
        assert_eq!(said(&udp), wanted, "{name} {kind}");
        assert_eq!(said(&tcp), wanted, "{name} {kind}");
        assert!(udp.metadata.authoritative && udp.metadata.response_code == ResponseCode::NoError);
    }
    for name in ["nobody.example.com.", "example.org."] {
        let answer = by_udp(server, name, RecordType::A).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{name}");
    }
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hetzners_zones_hold_one_rrset_of_a_name_and_kind() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of(&sandbox);
    let made = api.post("/zones", json!({"name": "example.net", "mode": "primary"})).await;
    api.finished(&made["action"]).await;
    let id = made["zone"]["id"].as_u64().unwrap();
    let records = json!([{"value": "203.0.113.7", "comment": "ours"}]);
    let body = json!({"name": "shop", "type": "A", "ttl": 300, "records": records,
        "labels": {"vmkit.io/installation": "x"}});
    let rrsets = format!("/zones/{id}/rrsets");
    let made = api.post(&rrsets, body.clone()).await;
    assert_eq!(made["rrset"]["id"], "shop/A");
    assert_eq!(api.refusal("POST", &rrsets, body).await, (409, "uniqueness_error".to_owned()));
    for (bad, code) in [
        (
            json!({"name": "Shop", "type": "A", "records": [{"value": "203.0.113.7"}]}),
            "invalid_input",
        ),
        (json!({"name": "b", "type": "A", "records": [{"value": "x"}]}), "invalid_input"),
        (json!({"name": "b", "type": "A", "records": []}), "invalid_input"),
        (
            json!({"name": "shop", "type": "CNAME", "records": [{"value": "a.example."}]}),
            "invalid_input",
        ),
    ] {
        assert_eq!(api.refusal("POST", &rrsets, bad).await.1, code);
    }
    let one = format!("{rrsets}/shop/A");
    let set = json!({"records": [{"value": "203.0.113.8"}]});
    let changed = api.post(&format!("{one}/actions/set_records"), set).await;
    api.finished(&changed["action"]).await;
    let server = sandbox.names().address();
    let answer = by_udp(server, "shop.example.net.", RecordType::A).await;
    assert_eq!(said(&answer), ["203.0.113.8"]);
    assert_eq!(
        api.get(&format!("{rrsets}?name=shop&type=A")).await["rrsets"][0]["records"][0]["value"],
        "203.0.113.8"
    );
    assert_eq!(api.get("/zones/example.net").await["zone"]["record_count"], 1);
    let (status, body) = api.call("DELETE", &one, None).await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(api.refusal("DELETE", &one, json!({})).await, (404, "not_found".to_owned()));
    if let Some(spec) = Spec::of("hetzner", "/v1") {
        let requests = sandbox.hetzner_faults().requests();
        let faults: Vec<String> = requests.iter().flat_map(|one| spec.faults(one)).collect();
        assert_eq!(faults, Vec::<String>::new());
        eprintln!("{} exchanges about zones are valid", requests.len());
    }
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_edits_records() {
    let Some(python) = python_with("cloudflare") else {
        return skip("official client", "no Python with the package `cloudflare`");
    };
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let settings = sandbox.settings();
    let setting = |name: &str| settings.iter().find(|(own, _)| *own == name).unwrap().1.clone();
    let arguments = [
        setting("VMKIT_CLOUDFLARE_URL"),
        setting("VMKIT_CLOUDFLARE_TOKEN"),
        sandbox.cloudflare_admin_url(),
    ];
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/official/cloudflare_story.py");
    let story = tokio::task::spawn_blocking(move || {
        Command::new(python).args(["-W", "ignore"]).arg(script).args(arguments).output()
    });
    let output = story.await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    if let Some(spec) = Spec::of("cloudflare", "/client/v4") {
        let requests = sandbox.cloudflare_faults().requests();
        // What the client sends on purpose wrong is refused, and need not fit. A server's own fault
        // has no form in the document.
        let told = requests.iter().filter(|one| one.status.is_some_and(|status| status < 500));
        let faults: Vec<String> = told.flat_map(|one| spec.faults(one)).collect();
        assert_eq!(faults, Vec::<String>::new());
        eprintln!("{} exchanges of Cloudflare's client are valid", requests.len());
    }
    sandbox.stop().await;
}
