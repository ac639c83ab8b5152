//! The gateway through real HTTP clients on a loopback port.

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use rmcp::model::ProtocolVersion;
use rmcp::service::{ClientLifecycleMode, ClientServiceExt};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::access::{Audit, Role, testing};
use crate::domain::secret::Secret;
use crate::mcp::probe;
use crate::operations::testing::context;

struct Running {
    base: String,
    reader: Secret,
    deployer: Secret,
    admin: Secret,
    /// Revokes the deployer's.
    revoke: Box<dyn Fn() -> BoxFuture<'static, ()>>,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn gateway(no_auth: bool) -> Running {
    drop(rustls::crypto::ring::default_provider().install_default());
    let (context, folder) = context().await;
    let (store, clock) = (context.store.clone(), context.clock.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let listen = listener.local_addr().expect("an address");
    let door =
        door(Keys::new(store.clone()), clock.clone(), no_auth, listen, None).expect("a door");
    let stop = CancellationToken::new();
    let gateway = Gateway {
        server: Server::with(Audit::new(store.clone(), clock), context, probe::entries()),
        door,
        public_url: None,
        agents: Router::new(),
        webhooks: Router::new(),
        ready: Arc::new(|| Box::pin(async { Ok(()) })),
        stop: stop.clone(),
    };
    let serving = axum::serve(listener, gateway.router())
        .with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::spawn(async move { serving.await.expect("served") });
    let reader = testing::key(&store, Role::Read, &[]).await;
    let admin = testing::key(&store, Role::Admin, &[]).await;
    let deployer = testing::key(&store, Role::Deploy, &["shop/staging"]).await;
    let key = deployer.clone();
    let revoke = Box::new(move || -> BoxFuture<'static, ()> {
        let (store, key) = (store.clone(), key.clone());
        Box::pin(async move { testing::revoke(&store, &key).await })
    });
    let base = format!("http://{listen}");
    Running { base, reader, deployer, admin, revoke, stop, _folder: folder }
}

fn modern_call(arguments: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "deed", "arguments": arguments, "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    }})
}

fn post(running: &Running, body: &Value) -> reqwest::RequestBuilder {
    reqwest::Client::new()
        .post(format!("{}/mcp", running.base))
        .header(ACCEPT, "application/json, text/event-stream")
        .header(CONTENT_TYPE, "application/json")
        .header("MCP-Protocol-Version", "2026-07-28")
        .header("Mcp-Method", "tools/call")
        .header("Mcp-Name", "deed")
        .body(body.to_string())
}

/// The JSON-RPC answer in an event stream or a plain body.
fn answer_in(body: &str) -> Value {
    let data = body.lines().filter_map(|line| line.strip_prefix("data: ")).next_back();
    serde_json::from_str(data.unwrap_or(body)).expect("JSON")
}

#[tokio::test]
async fn without_a_good_key_nobody_is_let_in_and_no_oauth_is_offered() {
    let running = gateway(false).await;
    let body = modern_call(json!({"environment": "a/b"}));
    let bad = format!("Bearer vmk_01jc4kabcdefghjkmnpqrstvwx_{}", "0".repeat(64));
    for (header, code) in [(None, "key_missing"), (Some(bad.as_str()), "key_unknown")] {
        let mut request = post(&running, &body);
        if let Some(header) = header {
            request = request.header(AUTHORIZATION, header);
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 401);
        let challenge = response.headers()["www-authenticate"].to_str().expect("text").to_owned();
        assert_eq!(challenge, "Bearer realm=\"vmkit\"");
        let body: Value = response.json().await.expect("JSON");
        assert_eq!(body["error"]["code"], code);
    }
    for path in ["/.well-known/oauth-protected-resource", "/.well-known/openid-configuration/mcp"] {
        let response = reqwest::get(format!("{}{path}", running.base)).await.expect("an answer");
        assert_eq!(response.status(), 404);
        assert!(response.json::<Value>().await.expect("JSON")["error"]["code"].is_string());
    }
}

#[tokio::test]
async fn a_key_is_checked_on_every_request_and_its_role_before_the_tool_runs() {
    let running = gateway(false).await;
    let (reader, deployer) = (&running.reader, &running.deployer);
    let call = |key: &Secret, environment: &str| {
        let body = modern_call(json!({ "environment": environment }));
        let request = post(&running, &body).bearer_auth(key.expose());
        async move {
            let response = request.send().await.expect("an answer");
            assert_eq!(response.status(), 200);
            answer_in(&response.text().await.expect("a body"))["result"].clone()
        }
    };
    let code = |answer: Value| answer["_meta"]["vmkit/error"]["code"].clone();
    assert_eq!(code(call(reader, "shop/staging").await), "role_too_weak");
    assert_eq!(code(call(deployer, "shop/production").await), "place_not_allowed");
    let done = call(deployer, "shop/staging").await;
    assert_eq!(done["structuredContent"]["status"], "DONE");

    (running.revoke)().await;
    let body = modern_call(json!({"environment": "shop/staging"}));
    let refused = post(&running, &body).bearer_auth(deployer.expose()).send().await;
    assert_eq!(refused.expect("an answer").status(), 401);
}

#[tokio::test]
async fn real_clients_of_both_eras_work_with_a_key() {
    let running = gateway(false).await;
    let key = &running.admin;
    for lifecycle in [
        ClientLifecycleMode::Initialize,
        ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] },
    ] {
        let config = StreamableHttpClientTransportConfig::with_uri(format!("{}/mcp", running.base))
            .auth_header(key.expose());
        let transport = StreamableHttpClientTransport::from_config(config);
        let client = ().serve_with_lifecycle(transport, lifecycle).await.expect("a session");
        assert_eq!(client.list_all_tools().await.expect("tools").len(), 1);
        let Value::Object(arguments) = json!({"environment": "a/b"}) else { panic!("an object") };
        let request = rmcp::model::CallToolRequestParams::new("deed").with_arguments(arguments);
        let done = client.call_tool(request).await.expect("an answer");
        assert_eq!(done.structured_content.expect("data")["status"], "DONE");
        client.cancel().await.expect("ended");
    }
}

#[tokio::test]
async fn a_foreign_origin_or_host_is_refused() {
    let running = gateway(true).await;
    let body = modern_call(json!({"environment": "a/b"}));
    let origin = post(&running, &body).header("Origin", "https://evil.example").send().await;
    assert_eq!(origin.expect("an answer").status(), 403);
    let host = post(&running, &body).header("Host", "evil.example").send().await;
    assert_eq!(host.expect("an answer").status(), 403);
    let good = post(&running, &body).header("Origin", "http://localhost:3000").send().await;
    assert_eq!(good.expect("an answer").status(), 200);
}

#[tokio::test]
async fn the_head_of_a_slow_answer_comes_early_and_the_answer_after_it() {
    let running = gateway(true).await;
    let body = modern_call(json!({"environment": "a/b", "how": "silent"}));
    let begun = tokio::time::Instant::now();
    let response = post(&running, &body).send().await.expect("a head");
    let head = begun.elapsed();
    assert!(head < Duration::from_millis(2900), "the head took {head:?}");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let body = response.text().await.expect("a body");
    assert!(begun.elapsed() > Duration::from_millis(2900), "{:?}", begun.elapsed());
    assert_eq!(answer_in(&body)["result"]["structuredContent"]["status"], "DONE", "{body}");
}

#[tokio::test]
async fn health_is_told_to_everybody() {
    let running = gateway(false).await;
    for path in ["/healthz", "/readyz"] {
        let response = reqwest::get(format!("{}{path}", running.base)).await.expect("an answer");
        assert_eq!(response.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn no_auth_is_for_loopback_only() {
    let (context, _folder) = context().await;
    let (store, clock) = (context.store.clone(), context.clock.clone());
    let asked = |listen: &str, url: Option<&str>| {
        let url = url.map(|url| Url::parse(url).expect("a URL"));
        let listen = listen.parse().expect("an address");
        super::door(Keys::new(store.clone()), clock.clone(), true, listen, url.as_ref()).map(|_| ())
    };
    let door = |listen, url| asked(listen, url).map_err(|error| error.code());
    assert_eq!(door("127.0.0.1:8787", None), Ok(()));
    assert_eq!(door("[::1]:8787", Some("http://localhost:8787")), Ok(()));
    assert_eq!(door("0.0.0.0:8787", None), Err("open_to_the_network"));
    assert_eq!(door("127.0.0.1:1", Some("https://x.example")), Err("open_to_the_network"));
    let told = asked("127.0.0.1:1", Some("https://x.example")).expect_err("refused").to_string();
    assert!(told.ends_with("leave --no-auth out, or unset VMKIT_PUBLIC_URL"), "{told}");
}
