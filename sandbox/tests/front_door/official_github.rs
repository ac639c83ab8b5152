//! GitHub's official clients against the simulated one: PyGithub and Octokit.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use vmkit_sandbox::Sandbox;

use crate::official::{output, python_with};
use crate::skips::skip;
use crate::stage::Stage;

/// The folder in which `scripts/test` installs Octokit.
fn octokit() -> Option<PathBuf> {
    let folder = std::env::home_dir()?.join(".cache/vmkit-ci/node-clients");
    folder.join("node_modules/octokit").is_dir().then_some(folder)
}

fn settings(sandbox: &Sandbox) -> [String; 3] {
    let find = |wanted: &str| {
        let all = sandbox.settings();
        all.into_iter().find(|(name, _)| *name == wanted).expect("a setting").1
    };
    [find("VMKIT_GITHUB_URL"), find("VMKIT_GITHUB_TOKEN"), sandbox.github_admin_url()]
}

async fn python_story(python: &Path, sandbox: &Sandbox) -> (bool, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/official/pygithub_story.py");
    let mut command = Command::new(python);
    command.args(["-W", "ignore"]).arg(script).args(settings(sandbox));
    output(command).await
}

async fn node_story(modules: &Path, sandbox: &Sandbox) -> (bool, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/official/octokit_story.mjs");
    let mut command = Command::new("node");
    command.arg(script).args(settings(sandbox)).arg(modules);
    output(command).await
}

/// Answers `path` with what it would answer, but without one field.
async fn drop_field(sandbox: &Sandbox, path: &str, field: &str) {
    let [url, token, admin] = settings(sandbox);
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder().no_proxy().user_agent("tests").build().unwrap();
    let answer = client.get(format!("{url}{path}")).bearer_auth(token).send().await.unwrap();
    let mut body: Value = answer.json().await.unwrap();
    body.as_object_mut().unwrap().remove(field).expect("the field");
    let action = json!({"kind": "status", "code": 200, "body": body});
    let rule = json!({"method": "GET", "path_regex": format!("{path}$"), "action": action});
    let sent = client.post(format!("{admin}/_sandbox/faults")).json(&rule).send().await.unwrap();
    assert!(sent.status().is_success());
}

#[tokio::test(flavor = "multi_thread")]
async fn pygithub_lives_the_life_of_a_repo() {
    let Some(python) = python_with("github") else {
        return skip("official client", "no Python with the package `PyGithub`");
    };
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let (fine, said) = python_story(&python, &sandbox).await;
    assert!(fine && said.ends_with("ok\n"), "{said}");
    drop_field(&sandbox, "/repos/octo/shop", "default_branch").await;
    let (fine, said) = python_story(&python, &sandbox).await;
    assert!(!fine && said.contains("default_branch"), "a missing field is noticed: {said}");
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn octokit_lives_the_life_of_a_repo() {
    let Some(modules) = octokit() else {
        return skip("official client", "the npm package `octokit` is not installed");
    };
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let (fine, said) = node_story(&modules, &sandbox).await;
    assert!(fine && said.ends_with("ok\n"), "{said}");
    drop_field(&sandbox, "/repos/octo/shop", "full_name").await;
    let (fine, said) = node_story(&modules, &sandbox).await;
    assert!(!fine && said.contains("octo/shop"), "a missing field is noticed: {said}");
    sandbox.stop().await;
}
