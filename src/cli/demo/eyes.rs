//! What the story sees and does beside VMKit: the simulators' lists, the repo, the app itself.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use vmkit_sandbox::sample;

use super::Stopped;
use super::client::Said;
use super::stage::Stage;
use super::witness;

/// What the story remembers from one step to the next.
#[derive(Default)]
pub(super) struct Told {
    pub(super) size: String,
    pub(super) region: String,
    pub(super) address: String,
    pub(super) url: String,
    pub(super) first_commit: String,
    pub(super) second_commit: String,
}

impl Stage {
    /// A list of the simulated cloud's own, as its owner would see it.
    pub(super) async fn hetzner_list(&self, name: &str) -> Result<Vec<Value>, Stopped> {
        let url = format!("{}/_sandbox/state", self.sandbox.hetzner_admin_url());
        let state = self.witness.get(&url, None).await?;
        match state[name].as_array() {
            Some(list) => Ok(list.clone()),
            None => Err(Stopped::because(format!("the cloud's state has no `{name}`"))),
        }
    }

    /// The processes that run below the folder of the sandbox's VMs.
    pub(super) fn machine_processes(&self) -> Vec<i32> {
        let folder = self.sandbox.machines().dir().display().to_string();
        witness::processes(&["agent run --root", &folder])
    }

    /// A request to the simulated GitHub, below the sample repo, as its maintainer.
    pub(super) async fn github(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<Value, Stopped> {
        let url = format!("{}/repos/{}/{}/{path}", self.github_url, sample::OWNER, sample::NAME);
        let token = Some(self.github_token.as_str());
        if method == Method::GET {
            return self.witness.get(&url, token).await;
        }
        self.witness.send(method, &url, token, body).await
    }

    /// The commit that the default branch is at.
    pub(super) async fn head(&self) -> Result<String, Stopped> {
        let commit = self.github(Method::GET, "commits/main", &Value::Null).await?;
        let sha = commit["sha"].as_str().map(str::to_owned);
        sha.ok_or_else(|| Stopped::because("the repo has no main branch"))
    }

    /// Pushes a new `sample.toml`.
    pub(super) async fn push(&self, content: &str, message: &str) -> Result<(), Stopped> {
        let there = self.github(Method::GET, "contents/sample.toml", &Value::Null).await?;
        let body = json!({
            "message": message, "content": BASE64_STANDARD.encode(content),
            "sha": there["sha"], "branch": "main"
        });
        self.github(Method::PUT, "contents/sample.toml", &body).await.map(drop)
    }

    /// The workflow runs so far.
    pub(super) async fn runs(&self) -> Result<Vec<Value>, Stopped> {
        let runs = self.github(Method::GET, "actions/runs?per_page=100", &Value::Null).await?;
        Ok(runs["workflow_runs"].as_array().cloned().unwrap_or_default())
    }

    /// How many build jobs have really run.
    pub(super) async fn builds(&self) -> Result<usize, Stopped> {
        let mut builds = 0;
        for run in self.runs().await? {
            let path = format!("actions/runs/{}/jobs", run["id"]);
            let jobs = self.github(Method::GET, &path, &Value::Null).await?;
            let jobs = jobs["jobs"].as_array().cloned().unwrap_or_default();
            let built = |job: &&Value| {
                let name = job["name"].as_str().unwrap_or_default().to_lowercase();
                name.contains("build") && job["conclusion"] == "success"
            };
            builds += jobs.iter().filter(built).count();
        }
        Ok(builds)
    }

    /// Adds a fault to the simulated GitHub.
    pub(super) async fn github_fault(&self, fault: &Value) -> Result<(), Stopped> {
        let url = format!("{}/_sandbox/faults", self.github_url);
        self.witness.send(Method::POST, &url, None, fault).await.map(drop)
    }

    /// Whether the simulated GitHub holds a request back.
    pub(super) async fn is_held(&self) -> Result<bool, Stopped> {
        let held = self.witness.get(&format!("{}/_sandbox/held", self.github_url), None).await?;
        let list = held["held"].as_array().or_else(|| held.as_array());
        Ok(list.is_some_and(|list| !list.is_empty()))
    }

    /// Lets every held request go on, and takes all faults away.
    pub(super) async fn github_release(&self) -> Result<(), Stopped> {
        let faults = format!("{}/_sandbox/faults", self.github_url);
        self.witness.send(Method::DELETE, &faults, None, &json!({})).await?;
        let release = format!("{}/_sandbox/release", self.github_url);
        self.witness.send(Method::POST, &release, None, &json!({ "all": true })).await.map(drop)
    }

    /// Fails unless the app's page, as a visitor gets it, contains every one of `texts`.
    pub(super) async fn shows(&self, told: &Told, texts: &[&str]) -> Result<(), Stopped> {
        let page = self.witness.visit(&told.url, &told.address, "/").await?;
        match texts.iter().find(|text| !page.contains(**text)) {
            None => Ok(()),
            Some(text) => Err(Stopped::because(format!("the page lacks `{text}`: {page}"))),
        }
    }

    /// Deploys and waits for the end.
    pub(super) async fn deploy(&self, arguments: Value) -> Result<Said, Stopped> {
        self.finish(self.call("deploy", arguments).await?).await
    }

    /// Deploys something that may fail, and waits for the end.
    pub(super) async fn try_deploy(&self, arguments: Value) -> Result<Said, Stopped> {
        let said = self.try_call("deploy", arguments).await?;
        if said.word() == "RUNNING" {
            let operation = said.field("operation")?;
            return self
                .try_call("get_operation", json!({ "operation": operation, "wait_seconds": 50 }))
                .await;
        }
        Ok(said)
    }

    /// Waits for the end of what an answer says is running.
    pub(super) async fn finish(&self, said: Said) -> Result<Said, Stopped> {
        if said.word() != "RUNNING" {
            return Ok(said);
        }
        let operation = said.field("operation")?;
        self.finish_operation(&operation).await
    }

    /// Waits for the end of an operation.
    pub(super) async fn finish_operation(&self, operation: &str) -> Result<Said, Stopped> {
        self.call("get_operation", json!({ "operation": operation, "wait_seconds": 50 })).await
    }
}
