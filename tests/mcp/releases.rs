//! Releases through a real client: what changed between two, and the way back with its env values.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rmcp::service::ClientLifecycleMode;
use serde_json::{Value, json};

use crate::rig::{eras, error, text, until};
use crate::story::{Client, Person, Stage, call, data, says};

impl Stage {
    /// Calls the simulated GitHub as the repo's developer.
    pub(crate) async fn developer(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<Value>,
    ) -> Value {
        let url = format!("{}{path}", self.setting("VMKIT_GITHUB_URL"));
        let mut request = reqwest::Client::new().request(method, url);
        request = request.bearer_auth(self.setting("VMKIT_GITHUB_TOKEN"));
        request = request.header("user-agent", "test");
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    async fn push(&self, text: &str) {
        let path = "/repos/octo/shop/contents/sample.toml";
        let there = self.developer(reqwest::Method::GET, path, None).await;
        let content = BASE64_STANDARD.encode(vmkit_sandbox::sample::sample_toml(text, None));
        let body = json!({ "message": text, "content": content, "sha": there["sha"] });
        self.developer(reqwest::Method::PUT, path, Some(body)).await;
    }

    /// An environment without a VM, set up by `client`.
    pub(crate) async fn with_an_environment(&self, client: &Client) {
        let setup = json!({"repo": "octo/shop", "changes": "direct"});
        let setup = call(client, "setup_repo", setup).await;
        self.merge(says(&setup, "NEEDS_MERGE")["result"]["pull"].as_u64().expect("a pull")).await;
        let made = json!({"environment": "shop/staging", "size": "cx23", "region": "fsn1"});
        says(&call(client, "create_environment", made).await, "DONE");
    }

    /// What the simulated GitHub is told beside its API.
    async fn knobs(&self, knobs: Value) {
        let url = format!("{}/_sandbox/knobs", self.setting("VMKIT_GITHUB_URL"));
        let sent = reqwest::Client::new().put(url).json(&knobs).send().await.expect("an answer");
        assert!(sent.status().is_success(), "{knobs}");
    }

    /// How many workflow runs there were.
    fn runs(&self) -> usize {
        let everything = self.sandbox.github().everything();
        everything["repos"][0]["runs"].as_array().expect("runs").len()
    }

    /// Somebody has cleaned up the registry: what is known to be gone is not tried, and what is not
    /// known is said.
    async fn images_that_are_gone(&self, client: &Client, first: &Value, second: &Value) {
        self.push("Third version").await;
        deploy(client).await;
        let registry = self.sandbox.github().registry();
        let status = call(client, "list_deploys", json!({"environment": "shop/staging"})).await;
        let commit_of = |id: &Value| {
            let deploys = data(&status)["deploys"].as_array().expect("deploys").clone();
            let found = deploys.into_iter().find(|one| one["deploy"] == *id).expect("the deploy");
            found["commit"].as_str().expect("a commit").to_owned()
        };
        let image = format!("ghcr.io/octo/shop/staging:{}", commit_of(second));
        assert!(registry.remove(&image), "{:?}", registry.references());
        let back = |to: &Value| json!({"environment": "shop/staging", "to": to});
        let runs = self.runs();
        let gone = call(client, "rollback", back(second)).await;
        assert_eq!(error(&gone).code, "image_gone", "{}", text(&gone));
        assert!(text(&gone).contains(&image), "{}", text(&gone));
        let other = format!("({})", &commit_of(first)[..7]);
        assert!(text(&gone).contains(&other), "{}", text(&gone));
        assert_eq!(self.runs(), runs, "nothing was started");

        // The token may not read packages, as most may not; public images anybody may.
        let cannot = json!({"missing_permissions": ["packages=read"]});
        self.knobs(cannot.clone()).await;
        let only = json!({"environment": "shop/staging", "to": second, "dry_run": true});
        let only = call(client, "rollback", only).await;
        says(&only, "NOT_EXECUTED");
        assert!(text(&only).contains("packages=read"), "{}", text(&only));
        let done = call(client, "rollback", back(first)).await;
        let why = says(&done, "DONE")["result"]["image_not_checked"].clone();
        assert!(why.as_str().is_some_and(|why| why.contains("packages=read")), "{why}");
        let public = json!({"missing_permissions": ["packages=read"], "public_images": true});
        self.knobs(public).await;
        let gone = call(client, "rollback", back(second)).await;
        assert_eq!(error(&gone).code, "image_gone", "{}", text(&gone));
        self.knobs(json!({})).await;
    }

    /// The same with a VM.
    pub(crate) async fn with_a_vm(&self, client: &Client) {
        self.with_an_environment(client).await;
        self.provision(client).await;
    }

    /// A VM for the environment, planned and ordered.
    pub(crate) async fn provision(&self, client: &Client) {
        let plan = call(client, "provision_vm", json!({"environment": "shop/staging"})).await;
        let plan_id = says(&plan, "NOT_EXECUTED")["plan_id"].clone();
        let order = json!({"environment": "shop/staging", "plan_id": plan_id});
        says(&call(client, "provision_vm", order).await, "DONE");
    }
}

async fn set(client: &Client, value: &str) {
    let set = json!({"environment": "shop/staging", "set": {"GREETING": value}});
    says(&call(client, "set_env", set).await, "DONE");
}

pub(crate) async fn deploy(client: &Client) -> Value {
    let done = call(client, "deploy", json!({"environment": "shop/staging"})).await;
    says(&done, "DONE")["result"]["deploy"].clone()
}

#[tokio::test]
async fn what_changed_between_two_and_the_way_back() {
    let stage = Stage::new().await;
    let [_, modern]: [ClientLifecycleMode; 2] = eras();
    let client = stage.client(modern, Person::default()).await;
    stage.with_a_vm(&client).await;
    set(&client, "good morning").await;
    let first = deploy(&client).await;
    stage.push("Second version").await;
    set(&client, "good evening").await;
    let second = deploy(&client).await;

    let place = json!({"environment": "shop/staging", "compare": [first, second]});
    let found = call(&client, "list_deploys", place).await;
    let subject = data(&found)["commits"][0].as_str().expect("a commit");
    assert!(subject.ends_with(" Second version"), "{subject}");
    // The first deploy itself committed its config after the commit that it built.
    let files = json!([
        "modified .github/workflows/vmkit-deploy.yml",
        "added config/deploy.staging.yml",
        "modified sample.toml",
        "modified README.md"
    ]);
    assert_eq!(data(&found)["files"], files, "what decides comes first");
    assert_eq!(data(&found)["env_keys"], json!(["GREETING changed"]));
    assert!(text(&found).contains("2 commits further"), "{}", text(&found));
    let turned = json!({"environment": "shop/staging", "compare": [second, first]});
    let turned = call(&client, "list_deploys", turned).await;
    assert!(text(&turned).contains("2 commits back"), "{}", text(&turned));
    let half = json!({"environment": "shop/staging", "compare": [first, "dep_no"]});
    assert_eq!(error(&call(&client, "list_deploys", half).await).code, "bad_id");

    let only = json!({"environment": "shop/staging", "dry_run": true});
    let only = call(&client, "rollback", only).await;
    says(&only, "NOT_EXECUTED");
    assert!(text(&only).contains("GREETING changed"), "{}", text(&only));
    let back = call(&client, "rollback", json!({"environment": "shop/staging"})).await;
    assert_eq!(says(&back, "DONE")["result"]["env_keys"], json!(["GREETING changed"]));
    let again = call(&client, "rollback", json!({"environment": "shop/staging"})).await;
    assert_eq!(error(&again).code, "rolled_back_already", "{}", text(&again));
    let newest = json!({"environment": "shop/staging", "to": first, "env": "newest"});
    let newest = call(&client, "rollback", newest).await;
    assert_eq!(says(&newest, "DONE")["result"]["env_revision"], 2);

    stage.images_that_are_gone(&client, &first, &second).await;
    beside_the_app(&client).await;
    client.cancel().await.expect("ended");
    until("the worker ends", || stage.rig.workers().is_empty()).await;
    stage.sandbox.stop().await;
}

/// A service beside the app and the app's own containers, as a client meets them.
async fn beside_the_app(client: &Client) {
    let of = |more: Value| {
        let mut arguments = json!({"environment": "shop/staging", "service": "redis"});
        arguments.as_object_mut().expect("a map").extend(more.as_object().cloned().expect("one"));
        arguments
    };
    let only = call(client, "manage_service", of(json!({"action": "add", "dry_run": true}))).await;
    says(&only, "NOT_EXECUTED");
    assert!(text(&only).contains("`shop-staging-redis`"), "{}", text(&only));
    let done = call(client, "manage_service", of(json!({"action": "add"}))).await;
    let result = says(&done, "DONE")["result"].clone();
    assert_eq!((&result["applied"], &result["env_keys"]), (&json!(false), &json!(["REDIS_URL"])));
    let status = call(client, "manage_service", of(json!({"action": "status"}))).await;
    assert!(text(&status).contains("Redis 8.2.1 as shop-staging-redis: running, healthy"));
    assert!(text(&status).contains("NOT APPLIED"), "{}", text(&status));
    let refused = json!({"environment": "shop/staging", "set": {"REDIS_URL": "redis://mine"}});
    assert_eq!(error(&call(client, "set_env", refused).await).code, "env_service_name");
    let seen = call(client, "get_status", json!({"environment": "shop/staging"})).await;
    assert!(text(&seen).contains("services: Redis 8.2.1"), "{}", text(&seen));
    let seen = call(client, "get_overview", json!({})).await;
    assert!(text(&seen).contains("beside it redis 8.2.1"), "{}", text(&seen));

    let stop = json!({"environment": "shop/staging", "action": "stop"});
    let stopped = call(client, "control_app", stop).await;
    assert_eq!(says(&stopped, "DONE")["result"]["runs_now"], "nothing");
    let seen = call(client, "get_status", json!({"environment": "shop/staging"})).await;
    assert_eq!(data(&seen)["health"], "stopped");
    let start = json!({"environment": "shop/staging", "action": "start"});
    says(&call(client, "control_app", start).await, "DONE");

    let plan = call(client, "destroy", of(json!({}))).await;
    says(&plan, "NOT_EXECUTED");
    assert!(text(&plan).contains("LOST FOR GOOD: all data of Redis"), "{}", text(&plan));
}
