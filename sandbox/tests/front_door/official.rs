//! The official Python client, where it is installed: on its typed values and exceptions.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::client::Api;
use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_lives_a_servers_life() {
    let installed = Command::new("python3")
        .args(["-c", "import hcloud"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !installed {
        eprintln!("SKIPPED: no Python package `hcloud`, the official client is not tried");
        return;
    }
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of(&sandbox);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/official/hcloud_story.py");
    let (url, token) = (api.url.clone(), api.token.clone());
    let story = tokio::task::spawn_blocking(move || {
        Command::new("python3").args(["-W", "ignore"]).arg(script).args([url, token]).output()
    });
    let output = story.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let state = api.admin("GET", "state", Value::Null).await;
    assert_eq!(state["servers"], json!([]));
    sandbox.stop().await;
}
