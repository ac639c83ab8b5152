//! A VM ordered and destroyed on the sandbox, by real clients: plans, questions, progress, and a
//! client that vanishes in the middle.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, ElicitRequestParams,
    ElicitResult, ElicitationAction, Implementation, ProgressNotificationParam,
};
use rmcp::service::{
    ClientLifecycleMode, ClientServiceExt, NotificationContext, RequestContext, RoleClient,
    RunningService,
};
use rmcp::transport::TokioChildProcess;
use rmcp::{ClientHandler, ErrorData};
use serde_json::{Value, json};
use vmkit_sandbox::{Options, Sandbox};

use crate::rig::{Rig, eras, error, text, until};

/// A person at a client, who types this when asked; a client without one cannot ask.
#[derive(Clone, Default)]
pub(crate) struct Person {
    pub(crate) types: Option<&'static str>,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    pub(crate) heard: Arc<Mutex<Vec<f64>>>,
}

impl ClientHandler for Person {
    fn get_info(&self) -> ClientConfig {
        let can = ClientCapabilities::builder();
        let can = if self.types.is_some() { can.enable_elicitation().build() } else { can.build() };
        ClientConfig::new(can, Implementation::new("test", "1"))
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        if let ElicitRequestParams::FormElicitationParams { message, .. } = request {
            self.asked.lock().expect("a lock").push(message);
        }
        let answer = json!({ "confirm": self.types });
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(answer))
    }

    async fn on_progress(
        &self,
        said: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.heard.lock().expect("a lock").push(said.progress);
    }
}

pub(crate) type Client = RunningService<RoleClient, Person>;

pub(crate) struct Stage {
    pub(crate) rig: Rig,
    pub(crate) sandbox: Sandbox,
    settings: Vec<(&'static str, String)>,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let exe = PathBuf::from(env!("CARGO_BIN_EXE_vmkit"));
        let sandbox = Sandbox::start(Options { exe, ..Options::default() }).await;
        let sandbox = sandbox.expect("a sandbox");
        let mut settings = sandbox.settings();
        // A free port of now is not taken by the time that the worker listens on it: ports given
        // out one after the other do not come round so soon.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address");
        settings.push(("VMKIT_AGENT_LISTEN", address.to_string()));
        settings.push(("VMKIT_PUBLIC_URL", format!("http://{address}")));
        let key = ssh_key::PrivateKey::random(
            &mut ssh_key::rand_core::OsRng,
            ssh_key::Algorithm::Ed25519,
        );
        let key = key.expect("a key").public_key().to_openssh().expect("a line");
        settings.push(("VMKIT_OWNER_KEY", key));
        settings.push(("VMKIT_STEADY_SECONDS", "0.2".to_owned()));
        Self { rig: Rig::new(), sandbox, settings }
    }

    /// The program on this state and the sandbox's accounts.
    pub(crate) fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.rig.command(args);
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) async fn client(&self, era: ClientLifecycleMode, person: Person) -> Client {
        let mut command = self.command(&["mcp"]);
        command.stdin(std::process::Stdio::piped());
        let child = TokioChildProcess::new(tokio::process::Command::from(command));
        person.serve_with_lifecycle(child.expect("a child"), era).await.expect("a session")
    }

    pub(crate) fn setting(&self, name: &str) -> &str {
        let found = self.settings.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str()).expect("a setting")
    }

    /// The servers that the simulated cloud has, by its own list.
    async fn servers(&self) -> usize {
        let url = format!("{}/_sandbox/state", self.sandbox.hetzner_admin_url());
        let state: Value = reqwest::get(url).await.expect("an answer").json().await.expect("JSON");
        state["servers"].as_array().map(Vec::len).expect("a list")
    }

    /// Merges a pull request, as the owner of the repo would.
    pub(crate) async fn merge(&self, number: u64) {
        let url =
            format!("{}/repos/octo/shop/pulls/{number}/merge", self.setting("VMKIT_GITHUB_URL"));
        let request = reqwest::Client::new().put(url).json(&json!({}));
        let request = request.bearer_auth(self.setting("VMKIT_GITHUB_TOKEN"));
        let merged = request.header("user-agent", "test").send().await.expect("an answer");
        assert_eq!(merged.status(), 200);
    }
}

pub(crate) async fn call(client: &Client, tool: &'static str, arguments: Value) -> CallToolResult {
    let Value::Object(arguments) = arguments else { panic!("an object") };
    let request = CallToolRequestParams::new(tool).with_arguments(arguments);
    client.call_tool(request).await.expect("an answer")
}

pub(crate) fn data(result: &CallToolResult) -> &Value {
    result.structured_content.as_ref().unwrap_or_else(|| panic!("no data: {result:?}"))
}

/// An answer with its word in text and in data.
#[track_caller]
pub(crate) fn says<'a>(result: &'a CallToolResult, word: &str) -> &'a Value {
    assert!(text(result).starts_with(&format!("{word} ")), "{}", text(result));
    assert_eq!(data(result)["status"], word);
    data(result)
}

#[tokio::test]
async fn a_vm_is_ordered_by_a_plan_and_destroyed_by_a_person() {
    for era in eras() {
        let stage = Stage::new().await;
        let person = Person { types: Some("shop/staging"), ..Person::default() };
        let (asked, heard) = (Arc::clone(&person.asked), Arc::clone(&person.heard));
        let client = stage.client(era.clone(), person).await;
        let place = json!({"environment": "shop/staging"});
        let setup =
            call(&client, "setup_repo", json!({"repo": "https://github.com/octo/shop"})).await;
        let pull = says(&setup, "NEEDS_MERGE")["result"]["pull"].as_u64().expect("a number");
        stage.merge(pull).await;

        // The three kinds of names are told apart now that they exist.
        let made = json!({"environment": "octo/shop", "size": "cx23", "region": "fsn1"});
        let mixed = error(&call(&client, "create_environment", made).await);
        assert_eq!(mixed.code, "wrong_kind");
        assert!(mixed.fix.contains("`shop/"), "{mixed:?}");
        let mixed = error(&call(&client, "scan_repo", json!({"repo": "shop"})).await);
        assert!(mixed.fix.contains("octo/shop"), "{mixed:?}");
        let size = json!({"environment": "shop/staging", "size": "cx1000", "region": "fsn1"});
        let unknown = error(&call(&client, "create_environment", size).await);
        assert_eq!(unknown.code, "unknown_size");

        let made = json!({"environment": "shop/staging", "size": "cx23", "region": "fsn1"});
        says(&call(&client, "create_environment", made).await, "DONE");
        let plan = call(&client, "provision_vm", place.clone()).await;
        let plan_id = says(&plan, "NOT_EXECUTED")["plan_id"].as_str().expect("an id").to_owned();
        assert!(text(&plan).contains("EUR"), "{}", text(&plan));
        assert_eq!(stage.servers().await, 0, "a plan orders nothing");

        heard.lock().expect("a lock").clear();
        let order = json!({"environment": "shop/staging", "plan_id": plan_id});
        let done = call(&client, "provision_vm", order.clone()).await;
        says(&done, "DONE");
        assert_eq!(stage.servers().await, 1);
        let numbers = heard.lock().expect("a lock").clone();
        assert!(numbers.len() > 2 && numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert!(asked.lock().expect("a lock").is_empty(), "a plan was enough");
        let again = error(&call(&client, "provision_vm", order).await);
        assert_eq!(again.code, "plan_used");

        let purge = json!({"environment": "shop/staging", "purge": true});
        let plan = call(&client, "destroy", purge).await;
        let plan_id = says(&plan, "NOT_EXECUTED")["plan_id"].as_str().expect("an id").to_owned();
        let destroy = json!({"environment": "shop/staging", "plan_id": plan_id});

        let mute = stage.client(era, Person::default()).await;
        let waiting = call(&mute, "destroy", destroy.clone()).await;
        says(&waiting, "WAITING");
        assert!(text(&waiting).contains(&format!("vmkit approve {plan_id}")), "{}", text(&waiting));
        assert_eq!(stage.servers().await, 1);
        mute.cancel().await.expect("ended");

        says(&call(&client, "destroy", destroy).await, "DONE");
        assert!(asked.lock().expect("a lock").iter().any(|said| said.contains("LOST FOR GOOD")));
        assert_eq!(stage.servers().await, 0);
        client.cancel().await.expect("ended");
        until("the worker ends", || stage.rig.workers().is_empty()).await;
        stage.sandbox.stop().await;
    }
}

/// Every server that was ordered goes again, and the answer says so.
#[tokio::test]
async fn a_provision_under_way_is_cancelled() {
    let stage = Stage::new().await;
    let [_, modern] = eras();
    let client = stage.client(modern, Person::default()).await;
    let setup = call(&client, "setup_repo", json!({"repo": "octo/shop"})).await;
    stage.merge(says(&setup, "NEEDS_MERGE")["result"]["pull"].as_u64().expect("a number")).await;
    let made = json!({"environment": "shop/staging", "size": "cx23", "region": "fsn1"});
    says(&call(&client, "create_environment", made).await, "DONE");
    let knobs = format!("{}/_sandbox/knobs", stage.sandbox.hetzner_admin_url());
    let silent = reqwest::Client::new().post(&knobs).json(&json!({"agents_start": false}));
    assert!(silent.send().await.expect("an answer").status().is_success());
    let plan = call(&client, "provision_vm", json!({"environment": "shop/staging"})).await;
    let plan_id = says(&plan, "NOT_EXECUTED")["plan_id"].clone();
    let order = json!({"environment": "shop/staging", "plan_id": plan_id, "wait_seconds": 0});
    let running = call(&client, "provision_vm", order).await;
    let operation = says(&running, "RUNNING")["operation"].clone();
    let seen = call(&client, "get_operation", json!({ "operation": operation })).await;
    let id = operation.as_str().expect("an id");
    let told = text(&seen);
    assert!(told.starts_with(&format!("RUNNING provision_vm {id} running")), "{told}");

    let only = call(&client, "cancel", json!({"operation": operation, "dry_run": true})).await;
    says(&only, "NOT_EXECUTED");
    let done = call(&client, "cancel", json!({"operation": operation})).await;
    says(&done, "DONE");
    assert!(
        text(&done).contains("is cancelled, and what it had done is undone"),
        "{}",
        text(&done)
    );
    assert_eq!(stage.servers().await, 0);
    let again = error(&call(&client, "cancel", json!({"operation": operation})).await);
    assert_eq!(again.code, "already_ended");
    let unknown = json!({"operation": "op_01jc0000000000000000000000"});
    assert_eq!(error(&call(&client, "cancel", unknown).await).code, "unknown_operation");
    client.cancel().await.expect("ended");
    until("the worker ends", || stage.rig.workers().is_empty()).await;
    stage.sandbox.stop().await;
}

#[tokio::test]
async fn a_vm_is_resized_and_rebooted() {
    let stage = Stage::new().await;
    let [_, modern] = eras();
    let client = stage.client(modern, Person::default()).await;
    let place = json!({"environment": "shop/staging"});
    let setup = call(&client, "setup_repo", json!({"repo": "octo/shop"})).await;
    stage.merge(says(&setup, "NEEDS_MERGE")["result"]["pull"].as_u64().expect("a number")).await;
    let made = json!({"environment": "shop/staging", "size": "cx23", "region": "fsn1"});
    says(&call(&client, "create_environment", made).await, "DONE");
    let size = |more: Value| {
        let mut all = json!({"environment": "shop/staging", "size": "cx33"});
        all.as_object_mut().expect("it").extend(more.as_object().expect("it").clone());
        all
    };
    let refused = error(&call(&client, "resize_vm", size(json!({}))).await);
    assert_eq!(refused.code, "no_vm");
    let plan = call(&client, "provision_vm", place.clone()).await;
    let plan_id = says(&plan, "NOT_EXECUTED")["plan_id"].clone();
    let order = json!({"environment": "shop/staging", "plan_id": plan_id});
    says(&call(&client, "provision_vm", order).await, "DONE");

    let both = json!({"environment": "shop/staging", "vm": "vm_x", "size": "cx33"});
    assert_eq!(error(&call(&client, "resize_vm", both).await).code, "bad_argument");
    let none = json!({"vm": "vm_01k00000000000000000000001", "action": "reboot"});
    assert_eq!(error(&call(&client, "maintain_vm", none).await).code, "unknown_vm");
    let noted = call(&client, "resize_vm", size(json!({"later": true}))).await;
    says(&noted, "DONE");
    let deploy = call(&client, "deploy", place).await;
    let planned = says(&deploy, "NOT_EXECUTED");
    assert!(text(&deploy).contains("`resize_vm`"), "{}", text(&deploy));
    assert!(planned["downtime_s"].as_u64() > Some(0), "{planned}");
    let resize = size(json!({"plan_id": planned["plan_id"]}));
    let done = call(&client, "resize_vm", resize).await;
    assert_eq!(says(&done, "DONE")["result"]["size"], "cx33", "{}", text(&done));
    let reboot = json!({"environment": "shop/staging", "action": "reboot"});
    let dry_run = json!({"environment": "shop/staging", "action": "reboot", "dry_run": true});
    says(&call(&client, "maintain_vm", dry_run).await, "NOT_EXECUTED");
    says(&call(&client, "maintain_vm", reboot).await, "DONE");
    client.cancel().await.expect("ended");
    until("the worker ends", || stage.rig.workers().is_empty()).await;
    stage.sandbox.stop().await;
}

#[tokio::test]
async fn the_work_goes_on_when_the_client_vanishes() {
    let stage = Stage::new().await;
    let [legacy, modern] = eras();
    let client = stage.client(modern, Person::default()).await;
    let setup = call(&client, "setup_repo", json!({"repo": "octo/shop"})).await;
    stage.merge(says(&setup, "NEEDS_MERGE")["result"]["pull"].as_u64().expect("a number")).await;
    let made = json!({"environment": "shop/staging", "size": "cx23", "region": "fsn1"});
    says(&call(&client, "create_environment", made).await, "DONE");
    let plan = call(&client, "provision_vm", json!({"environment": "shop/staging"})).await;
    let plan_id = says(&plan, "NOT_EXECUTED")["plan_id"].clone();
    let order = json!({"environment": "shop/staging", "plan_id": plan_id, "wait_seconds": 0});
    let running = call(&client, "provision_vm", order).await;
    let operation = says(&running, "RUNNING")["operation"].clone();
    assert!(text(&running).contains("Safe to close: yes"), "{}", text(&running));
    client.cancel().await.expect("gone");

    let other = stage.client(legacy, Person::default()).await;
    let wait = json!({"operation": operation, "wait_seconds": 50});
    let ended = call(&other, "get_operation", wait).await;
    assert_eq!(data(&ended)["state"], "succeeded", "{}", text(&ended));
    assert_eq!(stage.servers().await, 1);
    let status = call(&other, "get_status", json!({"environment": "shop/staging"})).await;
    assert_eq!(data(&status)["agent_linked"], true, "{}", text(&status));
    other.cancel().await.expect("ended");
    until("the worker ends", || stage.rig.workers().is_empty()).await;
    stage.sandbox.stop().await;
}
