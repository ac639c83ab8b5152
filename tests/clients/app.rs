//! A GitHub App against the simulated GitHub: its word, its tokens, and everything that can be wrong
//! with them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use vmkit::domain::names::RepoName;
use vmkit::domain::secret::Secret;
use vmkit::github::{AppKey, GitHub, GitHubError, SignIn};
use vmkit_sandbox::{Options, Sandbox};

use crate::pace;

/// A private key as GitHub's pages give it, in a file, and its public half.
struct Pair {
    folder: tempfile::TempDir,
    public: String,
}

impl Pair {
    fn make() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("app.pem");
        let keygen = |args: &[&str]| {
            let run = Command::new("ssh-keygen").args(args).arg("-f").arg(&file).output();
            let run = run.expect("ssh-keygen, of the package openssh-client");
            assert!(run.status.success(), "{run:?}");
            String::from_utf8(run.stdout).expect("text")
        };
        keygen(&["-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""]);
        let public = keygen(&["-e", "-m", "PEM"]);
        Self { folder, public }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("app.pem")
    }

    fn pem(&self) -> Secret {
        Secret::new(std::fs::read_to_string(self.file()).expect("the key"))
    }
}

struct Stage {
    sandbox: Sandbox,
    settings: BTreeMap<&'static str, String>,
    http: reqwest::Client,
    key: Pair,
}

impl Stage {
    async fn new() -> Self {
        // Installs the TLS provider.
        drop(pace());
        let options = Options { exe: env!("CARGO_BIN_EXE_vmkit").into(), ..Options::default() };
        let sandbox = Sandbox::start(options).await.expect("a sandbox");
        let settings = sandbox.settings().into_iter().collect();
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { sandbox, settings, http, key: Pair::make() }
    }

    async fn side(&self, method: &str, path: &str, body: Value) -> Value {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let url = format!("{}/_sandbox/{path}", self.sandbox.github_admin_url());
        let answer = self.http.request(method, url).json(&body).send().await.expect("sent");
        assert!(answer.status().is_success(), "{path}: {answer:?}");
        answer.json().await.unwrap_or_default()
    }

    /// Makes the App, or changes it; its id.
    async fn app(&self, mut more: Value) -> String {
        more["public_key"] = self.key.public.clone().into();
        self.side("PUT", "app", more).await["id"].to_string()
    }

    fn client(&self, id: &str) -> GitHub {
        let url = self.settings["VMKIT_GITHUB_URL"].parse().expect("a URL");
        let key = AppKey::new(id, &self.key.pem()).expect("a key");
        GitHub::of_app(&url, key, pace()).expect("a client")
    }

    async fn made(&self) -> u64 {
        let url = format!("{}/_sandbox/state", self.sandbox.github_admin_url());
        let state: Value = self.http.get(url).send().await.expect("sent").json().await.expect("it");
        state["app_tokens_made"].as_u64().expect("a number")
    }
}

fn shop() -> RepoName {
    "octo/shop".parse().expect("a repo")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apps_tokens_are_made_kept_renewed_and_replaced() {
    let stage = Stage::new().await;
    let id = stage.app(json!({})).await;
    let github = stage.client(&id);
    github.repo(&shop()).await.expect("the repo");
    let head = github.resolve(&shop(), "main").await.expect("the commit");
    let shop = shop();
    let both = tokio::join!(
        github.tree(&shop, &head.sha),
        github.put_variable(&shop, "GREETING", "hello")
    );
    assert!(both.0.is_ok() && both.1.is_ok(), "{both:?}");
    assert_eq!(stage.made().await, 1, "one token for all calls");

    // GitHub made it worthless: a new one, and the call goes through, though it changes something.
    stage.side("DELETE", "app/tokens", Value::Null).await;
    github.put_variable(&shop, "GREETING", "again").await.expect("set");
    assert_eq!(stage.made().await, 2);

    // One that ends within the time that a call may take is not used for another.
    stage.side("DELETE", "app/tokens", Value::Null).await;
    stage.side("PUT", "knobs", json!({"app_token_seconds": 120})).await;
    for _ in 0..2 {
        github.tree(&shop, &head.sha).await.expect("the tree");
    }
    assert_eq!(stage.made().await, 4, "renewed in time");
    stage.sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_app_lacks_is_named_with_the_page_that_grants_it() {
    let stage = Stage::new().await;
    let id = stage.app(json!({"selected": ["another"]})).await;
    let error = stage.client(&id).repo(&shop()).await.expect_err("not installed");
    assert_eq!(error.code(), "no_token");
    assert!(
        error.to_string().contains("is not installed on `octo/shop`; install it at"),
        "{error}"
    );
    assert!(error.to_string().ends_with("/installations/new"), "{error}");

    stage
        .app(json!({"permissions": {"metadata": "read", "contents": "write", "actions": "write",
        "pull_requests": "write", "workflows": "write", "actions_variables": "read"}}))
        .await;
    let github = stage.client(&id);
    let missing = github.missing(&shop()).await.expect("asked").expect("some");
    assert_eq!(
        missing.names,
        ["Secrets: read and write on octo", "Variables: read and write on octo"]
    );
    assert!(missing.grant.contains("/permissions, then accept it at "), "{missing}");
    let refused = github.put_variable(&shop(), "A", "b").await.expect_err("may not");
    assert!(
        matches!(&refused, GitHubError::Forbidden { needs, .. } if needs == "actions_variables=write"),
        "{refused}"
    );

    stage.app(json!({"suspended": true})).await;
    let error = stage.client(&id).repo(&shop()).await.expect_err("suspended");
    assert!(error.to_string().contains("has been suspended"), "{error}");

    // Another key than the App's.
    let other = Pair::make();
    let key = AppKey::new(&id, &other.pem()).expect("a key");
    let url = stage.settings["VMKIT_GITHUB_URL"].parse().expect("a URL");
    let stranger = GitHub::of_app(&url, key, pace()).expect("a client");
    let error = stranger.repo(&shop()).await.expect_err("a stranger");
    assert!(error.to_string().contains("check the App's id, its private key"), "{error}");
    assert_eq!(stranger.sign_in().await.expect_err("a stranger").code(), "token_refused");
    stage.sandbox.stop().await;
}

/// A fine-grained token does not tell what it may do, so it is tried on things that do not exist.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_fine_grained_token_lacks_is_found_at_once_and_changes_nothing() {
    let stage = Stage::new().await;
    let url = stage.settings["VMKIT_GITHUB_URL"].parse().expect("a URL");
    let token = Secret::new(stage.settings["VMKIT_GITHUB_TOKEN"].clone());
    let github = GitHub::new(&url, token, pace()).expect("a client");
    assert!(matches!(github.sign_in().await.expect("it"), SignIn::FineGrained { .. }));
    let before = stage.sandbox.github().everything();
    assert_eq!(github.missing(&shop()).await.expect("asked"), None);
    let lacks = json!({"missing_permissions": ["actions=write", "variables=write", "pull_requests=write",
        "contents=write", "secrets=write"]});
    stage.side("PUT", "knobs", lacks).await;
    let missing = github.missing(&shop()).await.expect("asked").expect("some");
    assert_eq!(missing.names.len(), 5, "{missing}");
    assert_eq!(stage.sandbox.github().everything(), before, "nothing was changed");
    stage.sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_connected_on_the_command_line_and_kept_sealed() {
    let stage = Stage::new().await;
    let id = stage.app(json!({})).await;
    let home = tempfile::tempdir().expect("a folder");
    let vmkit = |args: &[&str], more: &[(&str, String)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmkit"));
        command.env_clear().env("VMKIT_HOME", home.path()).args(args).stdin(Stdio::null());
        command.env("VMKIT_GITHUB_URL", &stage.settings["VMKIT_GITHUB_URL"]);
        command.envs(more.iter().map(|(name, value)| (*name, value.clone())));
        let run = tokio::task::spawn_blocking(move || command.output());
        async move {
            let run = run.await.expect("ended").expect("it runs");
            String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned()
        }
    };
    let file = stage.key.file().display().to_string();
    let said = vmkit(&["connect", "github", "--app", &id, "--key", &file], &[]).await;
    assert!(
        said.contains("installed on octo") && said.contains("the App's key is stored"),
        "{said}"
    );
    let doctor = vmkit(&["doctor"], &[]).await;
    assert!(doctor.contains("sign-in stored, App vmkit-"), "{doctor}");
    for name in ["vmkit.db", "vmkit.db-wal"] {
        let kept = std::fs::read(home.path().join(name)).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&kept).contains("PRIVATE KEY"), "{name}");
    }
    let variables = [("VMKIT_GITHUB_APP_ID", id.clone()), ("VMKIT_GITHUB_APP_KEY", file.clone())];
    let doctor = vmkit(&["doctor"], &variables).await;
    assert!(
        doctor.contains("sign-in from the environment (it beats a stored one), App"),
        "{doctor}"
    );
    let doctor = vmkit(&["doctor"], &variables[..1]).await;
    assert!(doctor.contains("VMKIT_GITHUB_APP_KEY is `not set`"), "{doctor}");
    stage.sandbox.stop().await;
}
