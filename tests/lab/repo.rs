//! The repo that is deployed in the lab: a Dockerfile and some shell, in the simulated GitHub.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use vmkit_sandbox::github::git::{FileContent, Files, Mode};

use crate::rig::{Rig, until};

/// The owner whose repos the simulated GitHub's token may change.
const OWNER: &str = "octo";

/// One repo of the lab's app.
pub(crate) struct Repo<'a> {
    rig: &'a Rig,
    name: &'static str,
}

impl<'a> Repo<'a> {
    /// Makes `octo/NAME` with one commit of the app.
    pub(crate) fn new(rig: &'a Rig, name: &'static str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/app");
        let mut files = Files::new();
        collect(&root, &root, &mut files);
        rig.sandbox.github().add_repo(OWNER, name, &files);
        Self { rig, name }
    }

    /// As tools take it.
    pub(crate) fn full_name(&self) -> String {
        format!("{OWNER}/{}", self.name)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        self.rig.developer(method, &format!("/repos/{}/{path}", self.full_name()), body).await
    }

    /// Merges a pull request, as the owner of the repo would.
    pub(crate) async fn merge(&self, pull: &Value) {
        let merged = self.ask(Method::PUT, &format!("pulls/{pull}/merge"), Some(json!({}))).await;
        assert_eq!(merged["merged"], true, "{merged}");
    }

    /// Commits a text file on the default branch; the commit's id.
    pub(crate) async fn push(&self, path: &str, content: &str) -> String {
        self.push_bytes(path, content.as_bytes()).await
    }

    /// What a file of the default branch holds; empty where there is none.
    pub(crate) async fn read(&self, path: &str) -> String {
        let there = self.ask(Method::GET, &format!("contents/{path}"), None).await;
        let lines: String = there["content"].as_str().unwrap_or_default().split('\n').collect();
        String::from_utf8(BASE64_STANDARD.decode(lines).expect("Base64")).expect("text")
    }

    /// Commits a file on the default branch; the commit's id.
    pub(crate) async fn push_bytes(&self, path: &str, content: &[u8]) -> String {
        let place = format!("contents/{path}");
        let there = self.ask(Method::GET, &place, None).await;
        let mut body = json!({"message": format!("Change {path}"), "content": BASE64_STANDARD.encode(content)});
        if let Some(sha) = there["sha"].as_str() {
            body["sha"] = sha.into();
        }
        let done = self.ask(Method::PUT, &place, Some(body)).await;
        done["commit"]["sha"].as_str().unwrap_or_else(|| panic!("a commit: {done}")).to_owned()
    }

    /// A request that is answered without a body.
    async fn order(&self, method: Method, path: &str, body: &Value) {
        let base = self.rig.setting("VMKIT_GITHUB_URL");
        let url = format!("{base}/repos/{}/{path}", self.full_name());
        let request = reqwest::Client::new().request(method, url).header("user-agent", "lab");
        let request = request.bearer_auth(self.rig.setting("VMKIT_GITHUB_TOKEN"));
        let status = request.json(body).send().await.expect("an answer").status();
        assert!(status.is_success(), "{path}: {status}");
    }

    /// Replaces a variable of the repo.
    pub(crate) async fn set_variable(&self, name: &str, value: &str) {
        let body = json!({"name": name, "value": value});
        self.order(Method::PATCH, &format!("actions/variables/{name}"), &body).await;
    }

    /// Starts a deploy of the default branch's head past VMKit, as a push or a person does, and waits
    /// for the run's end; its conclusion.
    pub(crate) async fn deploy_by_hand(&self, environment: &str) -> String {
        let branch = self.ask(Method::GET, "commits/main", None).await;
        let nonce = format!("hand-{}", branch["sha"].as_str().unwrap_or_default());
        let inputs = json!({"environment": environment, "action": "deploy", "sha": branch["sha"],
            "deploy_id": nonce});
        let before = self.newest_run().await["id"].clone();
        let path = "actions/workflows/vmkit-deploy.yml/dispatches";
        let body = json!({"ref": "main", "inputs": inputs});
        self.order(Method::POST, path, &body).await;
        let mut run = Value::Null;
        until("the run is over", async || {
            run = self.newest_run().await;
            run["id"] != before && run["status"] == "completed"
        })
        .await;
        run["conclusion"].as_str().unwrap_or_default().to_owned()
    }

    /// Commits a text file on the default branch, whose pushes deploy, and waits for the end of the run
    /// that deploys it; the commit and the run's conclusion.
    pub(crate) async fn push_deploys(&self, path: &str, content: &str) -> (String, String) {
        let sha = self.push(path, content).await;
        let mut run = Value::Null;
        until("the push's run is over", async || {
            run = self.newest_run().await;
            let title = run["display_title"].as_str().unwrap_or_default();
            title.ends_with(&format!("push-{sha}")) && run["status"] == "completed"
        })
        .await;
        (sha, run["conclusion"].as_str().unwrap_or_default().to_owned())
    }

    async fn newest_run(&self) -> Value {
        let runs = self.ask(Method::GET, "actions/runs?per_page=1", None).await;
        runs["workflow_runs"][0].clone()
    }

    /// The number of the newest run.
    pub(crate) async fn newest_id(&self) -> u64 {
        self.newest_run().await["id"].as_u64().expect("a run")
    }

    /// The title of the newest run.
    pub(crate) async fn newest_title(&self) -> String {
        self.newest_run().await["display_title"].as_str().unwrap_or_default().to_owned()
    }

    /// The jobs of the newest run, as GitHub lists them.
    pub(crate) async fn newest_jobs(&self) -> Vec<Value> {
        let run = self.newest_run().await["id"].clone();
        let jobs = self.ask(Method::GET, &format!("actions/runs/{run}/jobs"), None).await;
        jobs["jobs"].as_array().cloned().unwrap_or_default()
    }

    /// The log of a job.
    pub(crate) async fn job_log(&self, job: &Value) -> String {
        let path = format!(
            "{}/repos/{}/actions/jobs/{}/logs",
            self.rig.setting("VMKIT_GITHUB_URL"),
            self.full_name(),
            job["id"]
        );
        let request = reqwest::Client::new().get(path).header("user-agent", "lab");
        let request = request.bearer_auth(self.rig.setting("VMKIT_GITHUB_TOKEN"));
        match request.send().await {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(error) => error.to_string(),
        }
    }

    /// The log of every job of the newest run.
    pub(crate) async fn newest_logs(&self) -> String {
        let mut logs = String::new();
        for job in self.newest_jobs().await {
            logs.push_str(&self.job_log(&job).await);
        }
        logs
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Files) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(root, &path, files);
            continue;
        }
        let name = path.strip_prefix(root).expect("below").display().to_string();
        let mut content = FileContent::plain(std::fs::read(&path).expect("a file"));
        if name.starts_with("www/cgi-bin/") {
            content.mode = Mode::Executable;
        }
        files.insert(name, content);
    }
}
