//! `vmkit serve`, `vmkit keys`, and clients over HTTP.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::time::Duration;

use rmcp::service::{ClientLifecycleMode, ClientServiceExt};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use serde_json::{Value, json};

use crate::rig::{DEADLINE, Rig, call, eras, error};

/// A gateway process, which ends with the value.
struct Serving {
    child: Child,
    url: String,
}

impl Serving {
    fn start(rig: &Rig, args: &[&str]) -> Self {
        let mut all = vec!["serve"];
        if !args.contains(&"--listen") {
            all.extend(["--listen", "127.0.0.1:0"]);
        }
        all.extend(args);
        let mut child = rig.command(&all).stderr(Stdio::piped()).spawn().expect("a child");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let url = lines
            .by_ref()
            .map(|line| line.expect("text"))
            .find_map(|line| line.strip_prefix("serving MCP at ").map(str::to_owned))
            .expect("it says where");
        // It must always have somebody who reads.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("it is gone");
    }
}

fn key(rig: &Rig, args: &[&str]) -> String {
    let mut all = vec!["keys", "create"];
    all.extend(args);
    let made = rig.run(&all);
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).expect("text").trim().to_owned()
}

async fn client(
    url: &str,
    key: &str,
    era: rmcp::service::ClientLifecycleMode,
) -> crate::rig::Client {
    let config = StreamableHttpClientTransportConfig::with_uri(url.to_owned()).auth_header(key);
    let transport = StreamableHttpClientTransport::from_config(config);
    ().serve_with_lifecycle(transport, era).await.expect("a session")
}

#[tokio::test]
async fn clients_of_both_eras_work_with_a_key_until_it_is_revoked() {
    let rig = Rig::new();
    let admin = key(&rig, &["--role", "admin", "--name", "mine"]);
    assert!(admin.starts_with("vmk_"));
    let reader = key(&rig, &["--role", "read"]);
    let serving = Serving::start(&rig, &[]);
    for era in eras() {
        let client = client(&serving.url, &admin, era.clone()).await;
        assert_eq!(client.list_all_tools().await.expect("tools").len(), vmkit::mcp::tools().len());
        let overview = call(&client, "get_overview", json!({})).await;
        assert_eq!(overview.is_error, Some(false));
        client.cancel().await.expect("ended");

        let looking = self::client(&serving.url, &reader, era).await;
        let tools = looking.list_all_tools().await.expect("tools");
        assert!(tools.iter().all(|tool| !["deploy", "destroy"].contains(&tool.name.as_ref())));
        let refused = call(&looking, "destroy", json!({"environment": "shop/staging"})).await;
        assert_eq!(error(&refused).code, "role_too_weak");
        looking.cancel().await.expect("ended");
    }

    let list = String::from_utf8(rig.run(&["keys", "list"]).stdout).expect("text");
    assert!(list.contains("mine") && !list.contains(&admin), "{list}");
    let id = list.lines().find(|line| line.contains("mine")).expect("a line");
    let id = id.split_whitespace().next().expect("an id");
    assert!(rig.run(&["keys", "revoke", id]).status.success());
    let refused = reqwest::Client::new().post(&serving.url).bearer_auth(&admin).send().await;
    let refused = refused.expect("an answer");
    assert_eq!(refused.status(), 401);
    let body: Value = refused.json().await.expect("JSON");
    assert_eq!(body["error"]["code"], "key_revoked");
}

#[tokio::test]
async fn a_key_for_some_environments_sees_no_others() {
    let rig = Rig::new();
    let key = key(&rig, &["--role", "admin", "--environment", "shop/staging"]);
    let serving = Serving::start(&rig, &[]);
    let [_, modern] = eras();
    let client = client(&serving.url, &key, modern).await;
    for (tool, arguments) in [
        ("get_status", json!({"environment": "shop/production"})),
        ("get_status", json!({"environment": "nonsense"})),
        ("setup_repo", json!({"repo": "octo/shop"})),
        ("get_operation", json!({"operation": "op_01jc4k00000000000000000000"})),
        // One that is named beside its own, whether it exists or is nonsense.
        ("deploy", json!({"environment": "shop/staging", "from": "shop/production"})),
        ("deploy", json!({"environment": "shop/staging", "from": "nonsense"})),
        ("set_env", json!({"environment": "shop/staging", "copy_from": "shop/production"})),
        ("list_env", json!({"environment": "shop/staging", "compare": "shop/production"})),
    ] {
        let refused = call(&client, tool, arguments).await;
        assert_eq!(error(&refused).code, "place_not_allowed", "{tool}");
    }
    let own = call(&client, "get_status", json!({"environment": "shop/staging"})).await;
    assert_eq!(error(&own).code, "unknown_environment");
    client.cancel().await.expect("ended");
}

#[tokio::test]
async fn serving_without_keys_is_for_loopback_only() {
    let rig = Rig::new();
    let open = rig.run(&["serve", "--no-auth", "--listen", "0.0.0.0:0"]);
    assert_eq!(open.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&open.stderr).contains("open_to_the_network"), "{open:?}");

    let serving = Serving::start(&rig, &["--no-auth"]);
    let [legacy, _] = eras();
    let client = client(&serving.url, "", legacy).await;
    assert_eq!(call(&client, "get_overview", json!({})).await.is_error, Some(false));
    client.cancel().await.expect("ended");
}

#[tokio::test]
async fn a_gateways_state_is_not_for_local_use() {
    let rig = Rig::new();
    drop(key(&rig, &[]));
    let [legacy, _] = eras();
    let client = rig.mcp(legacy).await;
    let refused = call(&client, "get_overview", json!({})).await;
    assert_eq!(error(&refused).code, "other_mode");
    client.cancel().await.expect("ended");

    // Once it is served, the refusal says where.
    let serving = Serving::start(&rig, &[]);
    for (args, code) in [(&["call", "get_overview"][..], 1), (&["mcp"], 0)] {
        let refused = rig.run(args);
        assert_eq!(refused.status.code(), Some(code));
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        let where_to = format!("connect the client to {} with a key", serving.url);
        assert!(told.contains(&where_to), "{told}");
    }
}

#[test]
fn the_other_way_round_a_local_state_is_no_gateways() {
    let rig = Rig::new();
    drop(rig.run(&["doctor"]));
    let refused = rig.run(&["keys", "list"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("is a local installation's") && told.contains("--home"), "{told}");
}

#[test]
fn keys_are_listed_in_columns() {
    let rig = Rig::new();
    let none = rig.run(&["keys", "list"]);
    assert!(none.stdout.is_empty(), "{none:?}");
    assert!(String::from_utf8_lossy(&none.stderr).contains("`vmkit keys create`"), "{none:?}");
    drop(key(&rig, &["--name", "mine", "--role", "read"]));
    drop(key(&rig, &["--name", "mine", "--environment", "shop/production", "--expires", "3"]));
    let list = String::from_utf8(rig.run(&["keys", "list"]).stdout).expect("text");
    let columns: Vec<Option<usize>> =
        list.lines().map(|line| line.find("NAME").or_else(|| line.find("mine"))).collect();
    assert_eq!(columns.len(), 3, "{list}");
    assert!(columns[0].is_some() && columns.iter().all(|column| *column == columns[0]), "{list}");
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_of_a_request_does_not_keep_the_gateway() {
    let rig = Rig::new();
    let mut serving = Serving::start(&rig, &["--no-auth"]);
    let address = serving.url.trim_start_matches("http://").trim_end_matches("/mcp");
    let mut silent = std::net::TcpStream::connect(address).expect("a connection");
    silent.write_all(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\n").expect("sent");
    // Connections are taken in their order: once a later one is answered, this one is served.
    let health = reqwest::get(format!("http://{address}/healthz")).await.expect("an answer");
    assert_eq!(health.status(), 200);
    let id = rustix::process::Pid::from_child(&serving.child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("asked to end");
    let ended = async {
        while serving.child.try_wait().expect("a child").is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, ended).await.expect("it ends");
    assert!(serving.child.wait().expect("ended").success());
}

/// `vmkit mcp --gateway` as a client starts it.
async fn relayed(rig: &Rig, url: &str, key: &str, era: ClientLifecycleMode) -> crate::rig::Client {
    let mut command = rig.command(&["mcp", "--gateway", url]);
    command.env("VMKIT_GATEWAY_KEY", key).stdin(Stdio::piped());
    let child = TokioChildProcess::new(tokio::process::Command::from(command));
    ().serve_with_lifecycle(child.expect("a child"), era).await.expect("a session")
}

#[tokio::test]
async fn a_client_that_knows_stdio_only_is_carried_to_a_gateway() {
    let (rig, laptop) = (Rig::new(), Rig::new());
    let reader = key(&rig, &["--role", "read"]);
    let serving = Serving::start(&rig, &[]);
    for era in eras() {
        let client = relayed(&laptop, &serving.url, &reader, era).await;
        let tools = client.list_all_tools().await.expect("tools");
        assert!(tools.iter().all(|tool| !["deploy", "destroy"].contains(&tool.name.as_ref())));
        let overview = call(&client, "get_overview", json!({})).await;
        assert_eq!(overview.is_error, Some(false), "{overview:?}");
        let refused = call(&client, "destroy", json!({"environment": "shop/staging"})).await;
        assert_eq!(error(&refused).code, "role_too_weak");
        client.cancel().await.expect("ended");
    }
    let [legacy, modern] = eras();
    // The address without the path is good enough; nothing of this was kept on the laptop.
    let base = serving.url.trim_end_matches("/mcp").to_owned();
    let client = relayed(&laptop, &base, &reader, modern.clone()).await;
    assert_eq!(call(&client, "get_overview", json!({})).await.is_error, Some(false));
    assert!(!laptop.home().join("vmkit.db").exists());

    let wrong = relayed(&laptop, &base, "vmk_nonsense", legacy.clone()).await;
    assert_eq!(error(&call(&wrong, "get_overview", json!({})).await).code, "gateway_refuses");
    wrong.cancel().await.expect("ended");
    let clear = laptop.run(&["mcp", "--gateway", "http://vmkit.example.com"]);
    assert!(
        String::from_utf8_lossy(&clear.stderr).contains("--gateway is `http://vm"),
        "{clear:?}"
    );

    // A gateway that restarts is found again by the same session.
    let address = base.trim_start_matches("http://").to_owned();
    drop(serving);
    let lost = client.list_all_tools().await.expect_err("nobody answers");
    assert!(lost.to_string().contains("gateway_unreachable"), "{lost}");
    let serving = Serving::start(&rig, &["--listen", &address]);
    assert_eq!(call(&client, "get_overview", json!({})).await.is_error, Some(false));
    client.cancel().await.expect("ended");

    drop(serving);
    let nobody = relayed(&laptop, &base, &reader, legacy).await;
    assert_eq!(error(&call(&nobody, "get_overview", json!({})).await).code, "gateway_unreachable");
    nobody.cancel().await.expect("ended");
}
