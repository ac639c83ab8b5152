//! `kill -9` of the process that holds a sandbox leaves no process and no file behind.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::client::{Api, http};
use crate::stage::{Stage, eventually, machine, processes_of};

#[tokio::test]
async fn a_killed_sandbox_leaves_nothing_behind() {
    let stage = Stage::new();
    let mut holder = Command::new(env!("CARGO_BIN_EXE_vmkit-sandbox"))
        .arg("serve")
        .arg(stage.exe())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let mut setting = |name: &str| {
        // Settings of the other simulators stand between those that this test needs.
        let wanted = format!("{name}=");
        let mut values =
            lines.by_ref().map(|line| line.unwrap().strip_prefix(&wanted).map(str::to_owned));
        values.find_map(|value| value).expect("the settings in order")
    };
    let (url, token) = (setting("VMKIT_HETZNER_URL"), setting("VMKIT_HETZNER_TOKEN"));
    let dir = PathBuf::from(setting("DIR"));
    let admin = url.trim_end_matches("/v1").to_owned();
    let api = Api { http: http(), url, admin, token };
    // An "agent" whose shell has children of its own: the kernel's signal reaches only the shell.
    let user_data = crate::stage::user_data();
    api.order("vmkit-a", json!({"user_data": user_data})).await;
    eventually("an agent", || async { (processes_of(&dir).len() >= 2).then_some(()) }).await;
    holder.kill().unwrap();
    holder.wait().unwrap();
    eventually("the end of all processes", || async {
        processes_of(&dir).is_empty().then_some(())
    })
    .await;
    eventually("the end of all files", || async { (!dir.exists()).then_some(()) }).await;
}

#[tokio::test]
async fn a_dropped_sandbox_leaves_nothing_behind() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let machine = machine(&sandbox).await;
    let dir = sandbox.machines().dir().to_owned();
    let mut spec = stage.shell("web", "sleep 1000 & sleep 1000");
    spec.restart = true;
    machine.docker().run(spec).await.unwrap();
    eventually("agent and app", || async { (processes_of(&dir).len() >= 4).then_some(()) }).await;
    drop(sandbox);
    eventually("the end of all processes", || async {
        // The warden goes with the last of those who hold the machine.
        let left = processes_of(&dir);
        left.iter().all(|one| one.contains("--warden")).then_some(())
    })
    .await;
    assert!(!dir.exists());
}

/// The tether kills the shell; what the shell started is the warden's to end.
#[test]
fn the_warden_ends_groups_whose_leader_is_gone() {
    use std::io::Write;
    use std::os::unix::process::CommandExt;
    let dir = tempfile::Builder::new().prefix("vmk-").tempdir_in("/tmp").unwrap();
    let mut warden = Command::new(env!("CARGO_BIN_EXE_vmkit-sandbox"))
        .args(["tethered", "--warden"])
        .arg(dir.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let script = format!("sleep 1000 {} & echo; exit", dir.path().display().to_string().len());
    let mut leader = Command::new("sh")
        .args(["-c", &script])
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    leader.wait().unwrap();
    // The leader may end before its child has become the `sleep` it was forked for.
    let start = std::time::Instant::now();
    while !processes_of(dir.path()).iter().any(|one| one.contains(" sleep ")) {
        assert!(start.elapsed().as_secs() < 30, "{:?}", processes_of(dir.path()));
        std::thread::yield_now();
    }
    let mut input = warden.stdin.take().unwrap();
    writeln!(input, "+{}", leader.id()).unwrap();
    drop(input);
    assert!(warden.wait().unwrap().success());
    assert!(!dir.path().exists());
    let start = std::time::Instant::now();
    while !processes_of(dir.path()).is_empty() {
        assert!(start.elapsed().as_secs() < 30, "{:?}", processes_of(dir.path()));
        std::thread::yield_now();
    }
}
