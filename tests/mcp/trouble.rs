//! A state that cannot be used: the client is told, instead of a server that does not start.

use std::fs;

use serde_json::json;

use crate::rig::{Rig, call, eras, error, text};

/// A state as `vmkit doctor` makes it.
fn made() -> Rig {
    let rig = Rig::new();
    rig.run(&["doctor"]);
    assert!(rig.home().join("vmkit.db").exists());
    rig
}

async fn told(rig: &Rig) -> (String, String) {
    let mut seen = Vec::new();
    for era in eras() {
        let client = rig.mcp(era).await;
        assert!(!client.list_all_tools().await.expect("tools").is_empty());
        let answer = call(&client, "get_overview", json!({})).await;
        seen.push((error(&answer).code.into_owned(), text(&answer).to_owned()));
        client.cancel().await.expect("ended");
    }
    assert_eq!(seen[0], seen[1]);
    seen.remove(0)
}

#[tokio::test]
async fn a_state_of_a_newer_version_is_named() {
    let rig = made();
    let file = rusqlite::Connection::open(rig.home().join("vmkit.db")).expect("the file");
    file.pragma_update(None, "user_version", 9_999).expect("written");
    drop(file);
    let (code, text) = told(&rig).await;
    assert_eq!(code, "store_newer");
    assert!(text.contains("9999"), "{text}");
}

#[tokio::test]
async fn a_damaged_state_is_named() {
    let rig = made();
    for name in ["vmkit.db-wal", "vmkit.db-shm"] {
        drop(fs::remove_file(rig.home().join(name)));
    }
    fs::write(rig.home().join("vmkit.db"), [b'x'; 8192]).expect("written");
    let (code, text) = told(&rig).await;
    assert_eq!(code, "store_corrupt");
    assert!(text.contains("vmkit.db"), "{text}");
}

#[tokio::test]
async fn another_key_says_where_it_came_from() {
    let rig = made();
    fs::write(rig.home().join("master.key"), "1".repeat(64)).expect("written");
    let (code, text) = told(&rig).await;
    assert_eq!(code, "vault_wrong_key");
    assert!(text.contains("master.key"), "{text}");
}

#[test]
fn a_setting_that_cannot_be_is_named_and_nothing_is_made() {
    let rig = Rig::new();
    let output =
        rig.command(&["doctor"]).env("VMKIT_STEADY_SECONDS", "soon").output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("bad_setting") && said.contains("VMKIT_STEADY_SECONDS"), "{said}");
    assert!(!rig.home().join("vmkit.db").exists());
}
