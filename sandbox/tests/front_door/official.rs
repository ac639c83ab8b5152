//! Official clients against the simulators, on their typed values and exceptions: hcloud-python,
//! the `hcloud` command, and pydo.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::client::Api;
use crate::skips::skip;
use crate::stage::{Stage, eventually};

/// A Python that has an official client: the one that `scripts/test` makes, or the machine's own.
pub(crate) fn python_with(package: &str) -> Option<PathBuf> {
    let own = std::env::home_dir().map(|home| home.join(".cache/vmkit-ci/clients/bin/python3"));
    ["python3".into()].into_iter().chain(own).find(|python| {
        let mut command = Command::new(python);
        let command = command.args(["-c", &format!("import {package}")]).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    })
}

pub(crate) async fn output(mut command: Command) -> (bool, String) {
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = run.await.unwrap().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

async fn story(python: &Path, api: &Api) -> (bool, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/official/hcloud_story.py");
    let mut command = Command::new(python);
    command.args(["-W", "ignore"]).arg(script).args([&api.url, &api.token, &api.admin]);
    output(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_lives_a_servers_life() {
    let Some(python) = python_with("hcloud") else {
        return skip("official client", "no Python with the package `hcloud`");
    };
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of(&sandbox);
    let (fine, said) = story(&python, &api).await;
    assert!(fine, "{said}");
    let state = api.admin("GET", "state", Value::Null).await;
    for list in ["servers", "primary_ips", "snapshots", "firewalls", "ssh_keys", "machines"] {
        assert_eq!(state[list], json!([]), "{list}");
    }
    sandbox.stop().await;
}

/// An answer that lacks one field turns the story red: it does look.
#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_notices_a_missing_field() {
    let Some(python) = python_with("hcloud") else {
        return skip("official client", "no Python with the package `hcloud`");
    };
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of(&sandbox);
    let mut body = api.get("/locations").await;
    for location in body["locations"].as_array_mut().unwrap() {
        location.as_object_mut().unwrap().remove("name").unwrap();
    }
    let action = json!({"kind": "status", "code": 200, "body": body});
    let rule = json!({"method": "GET", "path_regex": "/locations$", "action": action});
    api.admin("POST", "faults", rule).await;
    let (fine, said) = story(&python, &api).await;
    assert!(!fine && said.contains("client.locations.get_all()"), "{said}");
    sandbox.stop().await;
}

/// The Debian package `hcloud-cli`, which is years older than the API that is played.
#[tokio::test(flavor = "multi_thread")]
async fn the_hcloud_command_is_answered() {
    let there = Command::new("hcloud").arg("version").stdout(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        return skip("hcloud command", "the package `hcloud-cli` is not installed");
    }
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of(&sandbox);
    let home = tempfile::tempdir().unwrap();
    let hcloud = |words: &str| {
        let mut command = Command::new("hcloud");
        command
            .args(words.split(' '))
            .env_clear()
            .env("HOME", home.path())
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HCLOUD_ENDPOINT", &api.url)
            .env("HCLOUD_TOKEN", &api.token);
        output(command)
    };
    let says = async |words: &str, expected: &str| {
        let (fine, said) = hcloud(words).await;
        assert!(fine && said.contains(expected), "hcloud {words}: {said}");
    };
    let create =
        "server create --name web --type cx23 --image debian-13 --location fsn1 --label a=b";
    says(create, "created").await;
    says("server list -l a=b -o columns=name,status", "running").await;
    says("server describe web -o json", "\"cx23\"").await;
    says("server add-label web c=d", "added").await;
    says("server poweroff web", "stopped").await;
    says("server change-type web cx33", "changed").await;
    says("server shutdown web", "shut").await;
    says("server create-image --type snapshot --description kept web", "created").await;
    says("image list --type snapshot", "kept").await;
    says("server-type list", "cax41").await;
    says("location list", "nbg1").await;
    says("server delete web", "deleted").await;
    // This version of the command does not wait for the action, and a server that is being deleted
    // is still shown, as `deleting`.
    eventually("the server goes", || async {
        let (fine, said) = hcloud("server describe web").await;
        assert!(!fine || said.contains("deleting"), "{said}");
        (!fine && said.contains("not found")).then_some(())
    })
    .await;

    // Pages are followed, and what is refused is read as what it is.
    let refuses = async |words: &str, expected: &str| {
        let (fine, said) = hcloud(words).await;
        assert!(!fine && said.contains(expected), "hcloud {words}: {said}");
    };
    api.admin("POST", "knobs", json!({"action_ms": 0})).await;
    for number in 0..120 {
        let order = json!({"name": format!("n{number}"), "server_type": "cx23", "location": "fsn1",
            "image": "debian-13", "start_after_create": false});
        api.post("/servers", order).await;
    }
    let (fine, said) = hcloud("server list -o noheader -o columns=name").await;
    let mut names: Vec<&str> = said.split_whitespace().collect();
    names.sort_unstable();
    names.dedup();
    assert!(fine && names.len() == 120, "{} of 120: {said}", names.len());
    refuses("server create --name n7 --type cx23 --image debian-13", "uniqueness_error").await;
    let knobs = json!({"server_limit": 120, "sold_out_at_order": [{"size": "cx33"}]});
    api.admin("POST", "knobs", knobs).await;
    refuses("server create --name x --type cx23 --image debian-13", "resource_limit_exceeded")
        .await;
    refuses("server change-type n7 cx33", "resource_unavailable").await;
    api.admin("POST", "knobs", json!({"read_only_token": true})).await;
    refuses("server poweron n7", "token_readonly").await;
    let fault = |action: Value| json!({"path_regex": "/locations$", "action": action, "times": 1});
    api.admin("POST", "faults", fault(json!({"kind": "status", "code": 503}))).await;
    refuses("location list", "unavailable").await;
    api.admin("POST", "faults", fault(json!({"kind": "rate_limit", "reset_seconds": 1}))).await;
    refuses("location list", "rate_limit_exceeded").await;
    says("location list", "nbg1").await;
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_lives_a_droplets_life() {
    let Some(python) = python_with("pydo") else {
        return skip("official client", "no Python with the package `pydo`");
    };
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of_digitalocean(&sandbox);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/official/pydo_story.py");
    let mut command = Command::new(&python);
    command.args(["-W", "ignore"]).arg(script).args([&api.admin, &api.token]);
    let (fine, said) = output(command).await;
    assert!(fine, "{said}");
    let state = sandbox.digitalocean().state().await;
    for list in ["droplets", "firewalls", "ssh_keys", "tags", "domains", "reserved_ips"] {
        assert_eq!(state[list], json!([]), "{list}");
    }
    sandbox.stop().await;
}
