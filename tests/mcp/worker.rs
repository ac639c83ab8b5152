//! The worker: one for each state, up while anybody needs it, and gone afterwards.

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use serde_json::json;

use crate::rig::{Rig, call, eras, until};

fn kill(id: u32) {
    let id = rustix::process::Pid::from_raw(i32::try_from(id).expect("an id")).expect("an id");
    rustix::process::kill_process(id, rustix::process::Signal::KILL).expect("killed");
}

#[tokio::test]
async fn two_clients_share_one_worker_which_ends_after_them() {
    let rig = Rig::new();
    let [legacy, modern] = eras();
    let (one, two) = tokio::join!(rig.mcp(legacy), rig.mcp(modern));
    until("a worker listens", || rig.home().join("vmkit.sock").exists()).await;
    until("there is one worker", || rig.workers().len() == 1).await;
    call(&one, "get_overview", json!({})).await;
    one.cancel().await.expect("ended");
    call(&two, "get_overview", json!({})).await;
    assert_eq!(rig.workers().len(), 1);
    two.cancel().await.expect("ended");
    until("the worker ends", || rig.workers().is_empty()).await;
    assert!(!rig.home().join("vmkit.sock").exists());
}

#[tokio::test]
async fn a_worker_that_is_killed_is_replaced() {
    let rig = Rig::new();
    let [_, modern] = eras();
    let client = rig.mcp(modern).await;
    until("a worker runs", || rig.workers().len() == 1).await;
    until("it listens", || rig.home().join("vmkit.sock").exists()).await;
    let first = rig.workers()[0];
    kill(first);
    until("another runs", || rig.workers().iter().any(|id| *id != first)).await;
    client.cancel().await.expect("ended");
    until("it ends", || rig.workers().is_empty()).await;
}

#[tokio::test]
async fn a_client_that_is_killed_leaves_no_worker_behind() {
    let rig = Rig::new();
    let mut child = rig
        .command(&["mcp"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child");
    until("a worker runs", || rig.workers().len() == 1).await;
    child.kill().expect("killed");
    child.wait().expect("it is gone");
    until("the worker ends", || rig.workers().is_empty()).await;
}

#[tokio::test]
async fn the_end_of_a_tether_ends_client_and_worker() {
    let rig = Rig::new();
    let path = rig.home().join("tether.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let mut child = rig
        .command(&["mcp"])
        .env("VMKIT_TETHER", &path)
        .env("VMKIT_WORKER_IDLE_SECONDS", "600")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child");
    let held = [listener.accept().expect("the client"), listener.accept().expect("the worker")];
    until("a worker runs", || rig.workers().len() == 1).await;
    drop(held);
    drop(listener);
    let mut said = String::new();
    child.stdout.take().expect("stdout").read_to_string(&mut said).expect("text");
    assert_eq!(said, "");
    child.wait().expect("it is gone");
    until("the worker ends", || rig.workers().is_empty()).await;
}

#[tokio::test]
async fn a_second_worker_by_hand_is_refused() {
    let rig = Rig::new();
    let [legacy, _] = eras();
    let client = rig.mcp(legacy).await;
    until("a worker listens", || rig.home().join("vmkit.sock").exists()).await;
    let second = rig.run(&["worker"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("worker_running"), "{second:?}");
    client.cancel().await.expect("ended");
    until("the worker ends", || rig.workers().is_empty()).await;
}
