//! The proxy: health checks, the switch, the drain, and what it says when a target is not healthy.

use std::time::Duration;

use vmkit_sandbox::machines::{ContainerSpec, Machine};

use crate::client::http;
use crate::stage::{Stage, eventually, machine};

const TIMEOUT: Duration = Duration::from_secs(30);

/// An app in a line of Python: answers `/up` with `status` and everything else with `text`, after
/// `wait` seconds.
fn app(stage: &Stage, name: &str, text: &str, status: u16, wait: f32) -> ContainerSpec {
    let script = format!(
        "import http.server, os, time\n\
         class App(http.server.BaseHTTPRequestHandler):\n  \
           def do_GET(self):\n    \
             up = self.path == '/up'\n    \
             print('asked', self.path, flush=True)\n    \
             time.sleep(0 if up else {wait})\n    \
             self.send_response({status} if up else 200); self.end_headers()\n    \
             self.wfile.write(b'{text}')\n  \
           def log_message(self, *args): pass\n\
         http.server.ThreadingHTTPServer(('', int(os.environ['PORT'])), App).serve_forever()\n"
    );
    let mut spec = stage.shell(name, "");
    spec.command = Some(vec!["python3".into(), "-c".into(), script]);
    spec
}

async fn ask(machine: &Machine, host: &str) -> (u16, String) {
    let url = format!("http://{}:{}/", machine.address(), machine.proxy().port().unwrap());
    let response = http().get(url).header("host", host).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

fn host() -> Option<String> {
    Some("shop.example.com".into())
}

#[tokio::test]
async fn a_healthy_target_is_switched_to_and_the_old_one_drained() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let machine = machine(&sandbox).await;
    machine.docker().run(app(&stage, "v1", "one", 200, 0.5)).await.unwrap();
    machine.docker().run(app(&stage, "v2", "two", 200, 0.0)).await.unwrap();
    machine.proxy().deploy("shop-web", host(), "v1", "/up", TIMEOUT).await.unwrap();
    let listed = machine.docker().get("kamal-proxy").unwrap();
    assert_eq!(listed.published, [(80, machine.proxy().port().unwrap())]);
    // The old target is asked something slow while the new one takes over.
    let slow = ask(&machine, "shop.example.com");
    let switch = async {
        eventually("the slow request", || async {
            let lines = machine.docker().logs("v1", 100);
            lines.iter().any(|line| line.ends_with("asked /")).then_some(())
        })
        .await;
        machine.proxy().deploy("shop-web", host(), "v2", "/up", TIMEOUT).await.unwrap();
        machine.docker().remove("v1").await.unwrap();
    };
    let (answer, ()) = tokio::join!(slow, switch);
    assert_eq!(answer, (200, "one".into()));
    assert_eq!(ask(&machine, "Shop.Example.com:8080").await, (200, "two".into()));
    assert_eq!(ask(&machine, "other.example.com").await.0, 404);
    let conflict = machine.proxy().deploy("other-web", host(), "v2", "/up", TIMEOUT).await;
    assert_eq!(conflict.unwrap_err(), "Error: host settings conflict with another service");
    machine.docker().remove("v2").await.unwrap();
    assert_eq!(ask(&machine, "shop.example.com").await.0, 502);
    machine.proxy().remove("shop-web").await.unwrap();
    assert_eq!(ask(&machine, "shop.example.com").await.0, 404);
    assert_eq!(machine.proxy().remove("shop-web").await.unwrap_err(), "Error: service not found");
    sandbox.stop().await;
}

#[tokio::test]
async fn an_unhealthy_target_leaves_the_old_one_and_its_cause_in_the_log() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let machine = machine(&sandbox).await;
    machine.docker().run(app(&stage, "v1", "one", 200, 0.0)).await.unwrap();
    machine.proxy().deploy("shop-web", host(), "v1", "/up", TIMEOUT).await.unwrap();
    machine.docker().run(app(&stage, "bad", "two", 404, 0.0)).await.unwrap();
    machine.docker().run(stage.shell("crash", "exit 1")).await.unwrap();
    machine.docker().run(stage.shell("deaf", "sleep 1000")).await.unwrap();
    eventually("the app's start", || async {
        let info = machine.docker().get("bad").unwrap();
        tokio::net::TcpStream::connect((machine.address(), info.port)).await.ok()
    })
    .await;
    for (name, cause) in [
        ("bad", "unexpected status (404)"),
        ("crash", "no such host"),
        ("deaf", "connect: connection refused"),
    ] {
        let timeout = Duration::from_millis(1500);
        let error = machine.proxy().deploy("shop-web", host(), name, "/up", timeout).await;
        let text = "Error: target failed to become healthy within configured timeout (1.5s)";
        assert_eq!(error.unwrap_err(), text, "{name}");
        let log = machine.docker().logs("kamal-proxy", 3).join("\n");
        assert!(log.contains("\"Healthcheck failed\"") && log.contains(cause), "{name}: {log}");
        assert_eq!(ask(&machine, "shop.example.com").await, (200, "one".into()));
    }
    sandbox.stop().await;
}

#[tokio::test]
async fn the_proxy_comes_back_on_its_port_after_a_reboot() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let machine = machine(&sandbox).await;
    let mut spec = app(&stage, "v1", "one", 200, 0.0);
    spec.restart = true;
    machine.docker().run(spec).await.unwrap();
    machine.proxy().deploy("shop-web", None, "v1", "/up", TIMEOUT).await.unwrap();
    let port = machine.proxy().port();
    machine.reboot().await.unwrap();
    assert_eq!(machine.proxy().port(), port);
    eventually("the app's answer", || async {
        (ask(&machine, "any.example.com").await == (200, "one".into())).then_some(())
    })
    .await;
    sandbox.stop().await;
}
