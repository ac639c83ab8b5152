//! A simulated GitHub with one VM, and a client that speaks to it as any client would.

use std::future::Future;
use std::sync::Once;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_box::PublicKey;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use ssh_key::{Algorithm, LineEnding, PrivateKey};
use vmkit_sandbox::faults::Faults;
use vmkit_sandbox::github::GitHub;
use vmkit_sandbox::machines::{Machine, MachineOrder, Machines};
use vmkit_sandbox::{Options, Sandbox};

/// How long a condition may take to come true.
const DEADLINE: Duration = Duration::from_secs(60);

static TLS: Once = Once::new();

/// An answer: status, headers, body (JSON where it is JSON, else a text).
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

pub(crate) struct Stage {
    pub(crate) machines: Machines,
    pub(crate) hub: GitHub,
    pub(crate) faults: Faults,
    pub(crate) origin: String,
    pub(crate) client: reqwest::Client,
    pub(crate) token: String,
    _sandbox: Sandbox,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with_repos(None).await
    }

    pub(crate) async fn with_repos(repos: Option<std::path::PathBuf>) -> Self {
        TLS.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let exe = env!("CARGO_BIN_EXE_vmkit-sandbox").into();
        let sandbox = Sandbox::start(Options { exe, repos, ..Options::default() }).await.unwrap();
        let settings: std::collections::BTreeMap<_, _> = sandbox.settings().into_iter().collect();
        let none = reqwest::redirect::Policy::none();
        let client = reqwest::Client::builder().user_agent("tests").redirect(none).build().unwrap();
        Self {
            machines: sandbox.machines().clone(),
            hub: sandbox.github().clone(),
            faults: sandbox.github_faults().clone(),
            origin: settings["VMKIT_GITHUB_URL"].clone(),
            token: settings["VMKIT_GITHUB_TOKEN"].clone(),
            client,
            _sandbox: sandbox,
        }
    }

    /// A request with the token; the path is below the origin.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Got {
        let request = self
            .client
            .request(method, format!("{}{path}", self.origin))
            .bearer_auth(&self.token)
            .header("x-github-api-version", "2026-03-10");
        got(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let got = self.send(Method::GET, path, None).await;
        assert_eq!(got.status, StatusCode::OK, "GET {path}: {}", got.body);
        got.body
    }

    pub(crate) async fn expect(
        &self,
        status: u16,
        method: Method,
        path: &str,
        body: Value,
    ) -> Value {
        let got = self.send(method.clone(), path, Some(body)).await;
        assert_eq!(got.status.as_u16(), status, "{method} {path}: {}", got.body);
        got.body
    }

    /// Commits one file to `main` through the contents API; answers the commit's id.
    pub(crate) async fn put_file(&self, path: &str, text: &str) -> String {
        let url = format!("/repos/octo/shop/contents/{path}");
        let before = self.send(Method::GET, &url, None).await;
        let mut body =
            json!({ "message": format!("Change {path}"), "content": STANDARD.encode(text) });
        if before.status == StatusCode::OK {
            body["sha"] = before.body["sha"].clone();
        }
        let got = self.send(Method::PUT, &url, Some(body)).await;
        assert!(got.status.is_success(), "PUT {path}: {}", got.body);
        got.body["commit"]["sha"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn put_secret(&self, name: &str, value: &str) {
        let key = self.get("/repos/octo/shop/actions/secrets/public-key").await;
        let bytes: [u8; 32] =
            STANDARD.decode(key["key"].as_str().unwrap()).unwrap().try_into().unwrap();
        let sealed =
            PublicKey::from(bytes).seal(&mut crypto_box::aead::OsRng, value.as_bytes()).unwrap();
        let body = json!({ "encrypted_value": STANDARD.encode(sealed), "key_id": key["key_id"] });
        let got = self
            .send(Method::PUT, &format!("/repos/octo/shop/actions/secrets/{name}"), Some(body))
            .await;
        assert!(got.status.is_success(), "{}", got.body);
    }

    pub(crate) async fn put_variable(&self, name: &str, value: &str) {
        let path = format!("/repos/octo/shop/actions/variables/{name}");
        let got =
            self.send(Method::PATCH, &path, Some(json!({ "name": name, "value": value }))).await;
        if got.status == StatusCode::NOT_FOUND {
            self.expect(
                201,
                Method::POST,
                "/repos/octo/shop/actions/variables",
                json!({ "name": name, "value": value }),
            )
            .await;
        }
    }

    /// Dispatches the deploy workflow; answers the run's id.
    pub(crate) async fn dispatch(&self, action: &str, sha: &str) -> u64 {
        let inputs = json!({ "environment": "staging", "action": action, "sha": sha, "deploy_id": "dep_test" });
        let body = json!({ "ref": "main", "inputs": inputs });
        let answer = self
            .expect(
                200,
                Method::POST,
                "/repos/octo/shop/actions/workflows/vmkit-deploy.yml/dispatches",
                body,
            )
            .await;
        answer["workflow_run_id"].as_u64().unwrap()
    }

    pub(crate) async fn run(&self, id: u64) -> Value {
        self.get(&format!("/repos/octo/shop/actions/runs/{id}")).await
    }

    /// Waits for a run's end; answers it.
    pub(crate) async fn ended(&self, id: u64) -> Value {
        eventually("the run's end", || async {
            let run = self.run(id).await;
            (run["status"] == "completed").then_some(run)
        })
        .await
    }

    pub(crate) async fn jobs(&self, run: u64) -> Vec<Value> {
        let jobs = self.get(&format!("/repos/octo/shop/actions/runs/{run}/jobs")).await;
        jobs["jobs"].as_array().unwrap().clone()
    }

    /// The logs of all jobs of a run, read as a client does: a redirect, followed without the token.
    pub(crate) async fn logs(&self, run: u64) -> String {
        let mut all = String::new();
        for job in self.jobs(run).await {
            let path = format!("/repos/octo/shop/actions/jobs/{}/logs", job["id"]);
            let got = self.send(Method::GET, &path, None).await;
            if let Some(location) = got.headers.get("location") {
                let text = self
                    .client
                    .get(location.to_str().unwrap())
                    .send()
                    .await
                    .unwrap()
                    .text()
                    .await
                    .unwrap();
                all.push_str(&text);
            }
        }
        all
    }

    /// A VM whose user `kamal` has a key; everything that a deploy needs is set up in the repo.
    pub(crate) async fn deployable(&self) -> Vm {
        let key = PrivateKey::random(&mut ssh_key::rand_core::OsRng, Algorithm::Ed25519).unwrap();
        let public = key.public_key().to_openssh().unwrap();
        let user_data = format!(
            "#cloud-config\nhostname: shop\nusers:\n  - name: kamal\n    groups: [docker]\n    ssh_authorized_keys: [\"{public}\"]\n\
             write_files:\n  - path: /etc/vmkit/env/shop/staging.env\n    content: |\n      GREETING=first $HOME \"quoted\"\n"
        );
        let order = MachineOrder { name: "shop".into(), user_data, ..MachineOrder::default() };
        let machine = self.machines.create(order).await.unwrap();
        let vm = Vm { machine, private: key.to_openssh(LineEnding::LF).unwrap().to_string() };
        self.set_up(&vm).await;
        vm
    }

    async fn set_up(&self, vm: &Vm) {
        let address = vm.machine.address().to_string();
        self.put_secret("VMKIT_SSH_KEY_STAGING", &vm.private).await;
        self.put_variable(
            "VMKIT_KNOWN_HOSTS_STAGING",
            &format!("{address} {}", vm.machine.host_key()),
        )
        .await;
        self.put_file(".github/workflows/vmkit-deploy.yml", include_str!("vmkit-deploy.yml")).await;
        self.put_file(".kamal/secrets", include_str!("secrets")).await;
        self.put_file(".kamal/ssh_config", include_str!("ssh_config")).await;
        let kamal = include_str!("deploy.staging.yml").replace("@ADDRESS@", &address);
        self.put_file("config/deploy.staging.yml", &kamal).await;
    }
}

pub(crate) struct Vm {
    pub(crate) machine: Machine,
    pub(crate) private: String,
}

impl Vm {
    pub(crate) fn write_env(&self, text: &str) {
        std::fs::write(self.machine.path("/etc/vmkit/env/shop/staging.env"), text).unwrap();
    }

    /// What the app answers through the proxy.
    pub(crate) async fn page(&self, client: &reqwest::Client) -> String {
        let port = self.machine.proxy().port().unwrap();
        let url = format!("http://{}:{port}/", self.machine.address());
        client.get(url).send().await.unwrap().text().await.unwrap()
    }
}

pub(crate) async fn got(request: reqwest::RequestBuilder) -> Got {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Got { status, headers, body }
}

/// Asks until the answer is there.
pub(crate) async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
