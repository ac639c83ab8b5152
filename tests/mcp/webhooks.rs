//! GitHub tells the gateway by itself: the hook is made by the set-up, what it sends is checked,
//! noted once, and worked off, however badly the network brings it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use rmcp::service::ClientServiceExt;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::{Value, json};
use vmkit_sandbox::{Options, Sandbox};

use crate::rig::{DEADLINE, Rig, call, eras, until};

/// A gateway that GitHub reaches, which ends with the value.
struct Gateway {
    child: Child,
}

impl Gateway {
    fn start(rig: &Rig, sandbox: &Sandbox, address: &str) -> Self {
        let mut command = rig.command(&["serve", "--listen", address]);
        command.envs(sandbox.settings()).env("VMKIT_PUBLIC_URL", format!("http://{address}"));
        let mut child = command.stderr(Stdio::piped()).spawn().expect("a child");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let serves = |line: &String| line.starts_with("serving MCP at ");
        lines.by_ref().map(|line| line.expect("text")).find(serves).expect("it serves");
        // It must always have somebody who reads.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("it is gone");
    }
}

struct Stage {
    rig: Rig,
    sandbox: Sandbox,
    http: reqwest::Client,
    address: String,
}

impl Stage {
    async fn new() -> Self {
        let rig = Rig::new();
        let exe = env!("CARGO_BIN_EXE_vmkit").into();
        let sandbox = Sandbox::start(Options { exe, ..Options::default() }).await;
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address").to_string();
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { rig, sandbox: sandbox.expect("a sandbox"), http, address }
    }

    async fn weather(&self, word: &str) {
        let url = format!("{}/_sandbox/knobs", self.sandbox.github_admin_url());
        let sent = self.http.put(url).json(&json!({ "webhooks": word })).send().await;
        assert!(sent.expect("sent").status().is_success());
    }

    /// Pushes a file, of which the hook is told.
    async fn push(&self, name: &str) {
        let settings = self.sandbox.settings();
        let token = settings.iter().find(|(name, _)| *name == "VMKIT_GITHUB_TOKEN");
        let url = format!("{}/repos/octo/shop/contents/{name}", self.sandbox.github_admin_url());
        let body = json!({ "message": name, "content": "" });
        let request = self.http.put(url).header("user-agent", "test").json(&body);
        let sent = request.bearer_auth(&token.expect("a token").1).send().await.expect("sent");
        assert!(sent.status().is_success(), "{sent:?}");
    }

    fn sent(&self) -> u64 {
        self.sandbox.github().everything()["deliveries_sent"].as_u64().expect("a number")
    }

    fn hooks(&self) -> Value {
        self.sandbox.github().everything()["repos"][0]["hooks"].clone()
    }

    fn rows(&self, condition: &str) -> i64 {
        let db = rusqlite::Connection::open(self.rig.home().join("vmkit.db")).expect("the file");
        db.busy_timeout(DEADLINE).expect("set");
        let query = format!("select count(*) from webhook_delivery where {condition}");
        db.query_row(&query, [], |row| row.get(0)).expect("a number")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_noted_once_and_worked_off_in_any_weather() {
    let stage = Stage::new().await;
    let made = stage.rig.run(&["keys", "create", "--role", "admin"]);
    let key = String::from_utf8(made.stdout).expect("text").trim().to_owned();
    let gateway = Gateway::start(&stage.rig, &stage.sandbox, &stage.address);
    let url = format!("http://{}/mcp", stage.address);
    let config = StreamableHttpClientTransportConfig::with_uri(url).auth_header(&key);
    let [_, modern] = eras();
    let transport = StreamableHttpClientTransport::from_config(config);
    let client = ().serve_with_lifecycle(transport, modern).await.expect("a session");
    for _ in 0..2 {
        let asked = json!({"repo": "octo/shop", "environments": ["staging"]});
        let answer = call(&client, "setup_repo", asked).await;
        assert_eq!(answer.is_error, Some(false), "{answer:?}");
    }
    assert_eq!(stage.hooks(), 1, "one hook, however often it is set up");

    // Each ten or so pushes of the set-up's branch came too: only these are looked at.
    let noted = || stage.rows("event = 'push' and title = 'refs/heads/main'");
    let worked = || stage.rows("worked_at is null") == 0;
    stage.push("fine").await;
    until("one is noted", || noted() == 1 && worked()).await;
    stage.weather("doubled").await;
    let before = stage.sent();
    stage.push("doubled").await;
    until("both came", || stage.sent() == before + 2).await;
    until("the second is known", || noted() == 2 && worked()).await;
    stage.weather("swapped").await;
    stage.push("one").await;
    stage.push("two").await;
    until("both are noted", || noted() == 4 && worked()).await;
    for bad in ["forged", "lost"] {
        stage.weather(bad).await;
        let before = stage.sent();
        stage.push(bad).await;
        if bad == "forged" {
            until("it was sent", || stage.sent() == before + 1).await;
        }
    }
    stage.weather("fine").await;
    stage.push("after").await;
    until("the next is noted", || noted() == 5 && worked()).await;

    // Nobody but GitHub is heard, and nothing is said about why.
    let door = format!("http://{}/webhooks/github", stage.address);
    for signature in [None, Some("sha256=00"), Some("sha1=00")] {
        let mut request = stage.http.post(&door).header("x-github-event", "push").body("{}");
        request = request.header("x-github-delivery", "1");
        if let Some(signature) = signature {
            request = request.header("x-hub-signature-256", signature);
        }
        let refused = request.send().await.expect("an answer");
        assert_eq!(refused.status(), 401);
        let body: Value = refused.json().await.expect("JSON");
        assert_eq!(body["error"]["code"], "bad_signature");
    }
    assert_eq!(noted(), 5);

    // What was noted and not worked off when the process died is worked off by the next.
    drop(client);
    drop(gateway);
    let db = rusqlite::Connection::open(stage.rig.home().join("vmkit.db")).expect("the file");
    db.execute("update webhook_delivery set worked_at = null", []).expect("written");
    drop(db);
    assert!(!worked());
    let gateway = Gateway::start(&stage.rig, &stage.sandbox, &stage.address);
    until("all are worked off", worked).await;
    drop(gateway);
    stage.sandbox.stop().await;
}
