//! Sandbox VMs: boot, power, rebuild, delete.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Api;
use crate::stage::{Stage, eventually, machine, processes_of, user_data};

/// The process ids of the agents that were started on a machine so far.
fn agents(root: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(root.join("agents")).unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
}

fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

async fn agent_number(root: &Path, number: usize) -> u32 {
    eventually("an agent", || async { agents(root).get(number).copied() }).await
}

async fn root_of(api: &Api) -> PathBuf {
    let state = api.admin("GET", "state", Value::Null).await;
    state["machines"][0]["root"].as_str().unwrap().into()
}

#[tokio::test]
async fn an_ordered_server_boots_its_user_data_and_keeps_its_agent() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of(&sandbox);
    let id = api.order("vmkit-a", json!({"user_data": user_data()})).await;
    let server = api.get(&format!("/servers/{id}")).await["server"].clone();
    let address = server["public_net"]["ipv4"]["ip"].as_str().unwrap().parse().unwrap();
    let machine = sandbox.machines().by_address(address).unwrap();
    let root = machine.root().to_owned();
    assert_eq!(root, root_of(&api).await);
    assert!(root.as_os_str().len() < 60, "{}", root.display());
    assert!(machine.host_key().starts_with("ssh-ed25519 AAAA"));
    assert_eq!(machine.authorized_keys("kamal"), ["ssh-ed25519 AAAA deploy"]);
    assert!(machine.has_file("/etc/vmkit/agent.toml"));
    assert!(!machine.has_file("/etc/vmkit/other.toml"));
    let first = agent_number(&root, 0).await;
    let line = std::fs::read_to_string(root.join("agents")).unwrap();
    assert!(line.contains(&format!("agent run --root {}", root.display())), "{line}");
    kill(first);
    let second = agent_number(&root, 1).await;
    assert!(is_running(second));
    let (_, answer) = api.call("DELETE", &format!("/servers/{id}"), None).await;
    api.finished(&answer["action"]).await;
    assert!(!root.exists());
    assert_eq!(processes_of(&root), [""; 0]);
    assert!(sandbox.machines().by_address(address).is_none());
    sandbox.stop().await;
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_broken_bootstrap_never_starts_the_agent() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of(&sandbox);
    api.admin("POST", "knobs", json!({"agents_start": false})).await;
    api.order("vmkit-a", json!({"user_data": user_data()})).await;
    let root = root_of(&api).await;
    assert!(root.join("etc/vmkit/agent.toml").exists());
    assert!(root.join("run/docker.sock").exists());
    assert_eq!(processes_of(&root), [""; 0]);
    sandbox.stop().await;
}

#[tokio::test]
async fn power_off_ends_everything_and_power_on_brings_it_back() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let machine = machine(&sandbox).await;
    let root = machine.root().to_owned();
    let script = "sleep 1000";
    let mut kept = stage.shell("kept", script);
    kept.restart = true;
    machine.docker().run(kept).await.unwrap();
    machine.docker().run(stage.shell("lost", script)).await.unwrap();
    agent_number(&root, 0).await;
    machine.power_off().await;
    assert_eq!(processes_of(&root), [""; 0]);
    assert!(machine.docker().list().iter().all(|one| !one.running));
    machine.power_on().await.unwrap();
    agent_number(&root, 1).await;
    assert!(machine.docker().get("kept").unwrap().running);
    assert!(!machine.docker().get("lost").unwrap().running);
    machine.docker().stop("kept", Duration::from_secs(5)).await.unwrap();
    machine.reboot().await.unwrap();
    assert!(!machine.docker().get("kept").unwrap().running, "it was stopped by hand");
    sandbox.stop().await;
}

#[tokio::test]
async fn a_rebuilt_machine_is_a_new_one_at_the_same_address() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let machine = machine(&sandbox).await;
    let key = machine.host_key();
    machine.docker().run(stage.shell("app", "sleep 1000")).await.unwrap();
    std::fs::write(machine.root().join("data"), "x").unwrap();
    machine.rebuild(Some("#cloud-config\nhostname: other\n".into()), None).await.unwrap();
    assert_ne!(machine.host_key(), key);
    assert!(machine.docker().list().is_empty());
    assert!(!machine.has_file("/data"));
    assert!(sandbox.machines().by_address(machine.address()).is_some());
    sandbox.stop().await;
}

#[tokio::test]
async fn two_sandboxes_at_once_have_other_addresses() {
    let stage = Stage::new();
    let (one, two) = (stage.sandbox().await, stage.sandbox().await);
    let (a, b) = (machine(&one).await, machine(&two).await);
    assert_ne!(a.address(), b.address());
    one.stop().await;
    two.stop().await;
}

/// A press of the power button that came late, after the machine had been off and on again, used
/// to switch it off once more: then nobody switched it on, and who had started it waited in vain.
#[tokio::test]
async fn a_shutdown_is_heard_only_while_the_machine_is_on_that_was_asked() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of(&sandbox);
    let id = api.order("vmkit-a", json!({})).await;
    let path = format!("/servers/{id}");
    let address = api.get(&path).await["server"]["public_net"]["ipv4"]["ip"].clone();
    let machine = sandbox.machines().by_address(address.as_str().unwrap().parse().unwrap());
    let machine = machine.unwrap();
    // Slow enough that the machine is rebooted before the guest has heard of the shutdown.
    api.admin("POST", "knobs", json!({"action_ms": 500})).await;
    let asked = api.post(&format!("{path}/actions/shutdown"), json!({})).await;
    machine.reboot().await.unwrap();
    api.finished(&asked["action"]).await;
    // It takes another 20 ms to reach the guest; the next action ends long after that.
    let same = json!({"delete": false, "rebuild": false});
    let later = api.post(&format!("{path}/actions/change_protection"), same).await;
    api.finished(&later["action"]).await;
    assert!(machine.is_on().await);
    assert_eq!(api.get(&path).await["server"]["status"], "running");
    let asked = api.post(&format!("{path}/actions/shutdown"), json!({})).await;
    api.finished(&asked["action"]).await;
    eventually("off", || async { (!machine.is_on().await).then_some(()) }).await;
    assert_eq!(api.get(&path).await["server"]["status"], "off");
    sandbox.stop().await;
}
