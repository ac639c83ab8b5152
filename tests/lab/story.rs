//! The main job, from an empty account to a reboot of the VM that it made.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::load::Load;
use crate::repo::Repo;
use crate::rig::{Client, Rig, call, data, once, text, until};
use crate::steps::{Place, by_owner, deploys, done, provisioned, says, set_up};

const TIDE: Place = Place { environment: "tide/staging", domain: "tide.example.com" };
const INFO: &str = "https://tide.example.com/cgi-bin/info";

/// The bundle holds all that a person needs, and the owner's own key opens the VM with it.
fn ejected(rig: &Rig) {
    let file = rig.folder.path().join("bundle.tar");
    let place = file.display().to_string();
    let done = rig
        .command(&["eject", TIDE.environment, &place, "--with-secrets"])
        .output()
        .expect("it runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mode = std::fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let folder = rig.folder.path().join("bundle");
    tar::Archive::new(std::fs::File::open(&file).expect("a file")).unpack(&folder).expect("a tar");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect(name);
    assert!(read("config/deploy.staging.yml").contains("service: \"tide-staging\""));
    assert!(read("README.md").contains("kamal deploy -c config/deploy.staging.yml"));
    assert!(read("env/staging.env").contains("GREETING=good morning, $HOME"));
    let known_hosts = folder.join("known_hosts").display().to_string();
    for user in ["admin", "kamal"] {
        let (said, error) = by_owner(rig, &known_hosts, user, "docker ps -q || sudo docker ps -q");
        assert!(said.lines().count() >= 2, "{user}: {error}");
    }
    let again = rig.command(&["eject", TIDE.environment, &place]).output().expect("it runs");
    assert_eq!(again.status.code(), Some(1), "nothing is overwritten");
}

/// The env keys that `list_env` and `get_status` say are not in the containers.
async fn pending(client: &Client) -> (Vec<Value>, Vec<Value>) {
    let env = call(client, "list_env", TIDE.only()).await;
    let variables = data(&env)["variables"].as_array().expect("a list").iter();
    let late = variables.filter(|one| one["applied"] == false).map(|one| one["key"].clone());
    let status = call(client, "get_status", TIDE.only()).await;
    let waiting = data(&status)["pending_env"].as_array().expect("a list").clone();
    (late.collect(), waiting)
}

/// A value that was set is pending, in VMKit's words; the running app has the one before.
async fn waits_for_a_deploy(client: &Client, visitor: &reqwest::Client, before: &str) {
    let (late, waiting) = pending(client).await;
    assert_eq!((late, waiting), (vec![json!("GREETING")], vec![json!("GREETING")]));
    assert!(greets(visitor, before).await, "the app still has: {before}");
}

/// Whether the app itself has this value.
async fn greets(visitor: &reqwest::Client, greeting: &str) -> bool {
    TIDE.page(visitor).await.contains(&format!("greeting={greeting}\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_main_job() {
    let Some(rig) = Rig::new().await else { return };
    let repo = Repo::new(&rig, "tide");
    let client = rig.client(TIDE.environment).await;
    set_up(&client, &repo).await;
    provisioned(&rig, &client, TIDE).await;
    let worker = json!({"processes": {"worker": {"command": "sh /app/worker.sh", "memory_mb": 32}},
        "start_timeout_s": 12});
    done(&client, "configure_app", TIDE.with(worker)).await;

    let set = TIDE.with(json!({"set": {"GREETING": "good morning, $HOME"}}));
    done(&client, "set_env", set).await;
    deploys(&rig, &repo, &client, TIDE.only()).await;
    rig.tell("deploy: built, pushed, deployed by real Kamal");
    let visitor = rig.visitor(TIDE.domain);
    let shown = TIDE.page(&visitor).await;
    assert!(
        shown.contains("text=one") && shown.contains("greeting=good morning, $HOME"),
        "{shown}"
    );
    rig.tell("HTTPS answers with a certificate of Pebble's");
    let logs = call(&client, "get_logs", TIDE.only()).await;
    assert!(text(&logs).contains("web of one starts on port 8080"), "{}", text(&logs));
    let logs = call(&client, "get_logs", TIDE.with(json!({"role": "worker"}))).await;
    assert!(text(&logs).contains("worker of one did job"), "{}", text(&logs));
    until("the proxy's log tells of the request", async || {
        let logs = call(&client, "get_logs", TIDE.with(json!({"source": "proxy"}))).await;
        text(&logs).contains("/cgi-bin/info")
    })
    .await;
    let metrics = call(&client, "get_metrics", TIDE.only()).await;
    assert!(text(&metrics).contains("tide-staging-worker"), "{}", text(&metrics));
    rig.tell("the app's log, the worker's, the proxy's; metrics of both");

    ejected(&rig);
    rig.tell("eject: the owner's key and the bundle are enough to log in");

    let load = Load::start(INFO, || rig.visitor(TIDE.domain));
    let set = TIDE.with(json!({"set": {"GREETING": "good evening"}}));
    done(&client, "set_env", set).await;
    waits_for_a_deploy(&client, &visitor, "good morning, $HOME").await;
    deploys(&rig, &repo, &client, TIDE.with(json!({"ref": "current"}))).await;
    assert!(
        TIDE.page(&visitor).await.contains("text=one") && greets(&visitor, "good evening").await
    );
    let set = TIDE.with(json!({"set": {"GREETING": "good night"}}));
    done(&client, "set_env", set).await;
    waits_for_a_deploy(&client, &visitor, "good evening").await;
    repo.push("text", "two\n").await;
    deploys(&rig, &repo, &client, TIDE.only()).await;
    let counted = load.stop().await;
    assert!(counted.lost.is_empty(), "of {}: {:?}", counted.good, counted.lost);
    assert!(counted.good > 100, "a load: {}", counted.good);
    let shown = TIDE.page(&visitor).await;
    assert!(shown.contains("text=two") && shown.contains("greeting=good night"), "{shown}");
    let (_, pending) = pending(&client).await;
    assert!(pending.is_empty(), "applied: {pending:?}");
    rig.tell(&format!(
        "two env changes, each pending until its deploy, under load: {} of {} requests answered",
        counted.good, counted.good
    ));

    repo.push("before.sh", "rm -f /app/www/up\n").await;
    let answer = call(&client, "deploy", TIDE.only()).await;
    assert!(text(&answer).contains("wrong_health_path"), "{}", text(&answer));
    let found = call(&client, "diagnose", TIDE.only()).await;
    assert!(text(&found).contains("wrong_health_path"), "{}", text(&found));
    assert!(TIDE.page(&visitor).await.contains("text=two"), "the old version serves");
    rig.tell("a version without its health path: refused, named, the old one serves");
    done(&client, "rollback", TIDE.only()).await;
    let shown = TIDE.page(&visitor).await;
    assert!(shown.contains("text=one") && shown.contains("greeting=good evening"), "{shown}");
    waits_for_a_deploy(&client, &visitor, "good evening").await;
    rig.tell("rollback: the old version, with the env of that time");

    repo.push("before.sh", "sleep 300\n").await;
    let started = once(&client, "deploy", TIDE.with(json!({"wait_seconds": 0}))).await;
    let operation = says(&started, "RUNNING")["operation"].clone();
    let locked = "test -d ~kamal/.kamal/lock-tide-staging && docker ps | grep -c tide-staging-web";
    until("Kamal boots the new version", async || rig.on_vm(locked).trim() == "2").await;
    done(&client, "cancel", json!({"operation": operation})).await;
    assert_eq!(rig.on_vm("test -d ~kamal/.kamal/lock-tide-staging || echo free").trim(), "free");
    assert!(TIDE.page(&visitor).await.contains("text=one"), "the old version serves");
    assert!(greets(&visitor, "good evening").await, "with the env that it had");
    rig.tell("a deploy cancelled in the middle: the lock is free, the old version serves");

    done(&client, "maintain_vm", TIDE.with(json!({"action": "reboot"}))).await;
    until("the app answers again", async || {
        let asked = visitor.get(INFO).send().await;
        asked.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    assert!(greets(&visitor, "good evening").await, "with the env that it had");
    rig.tell("reboot: the agent links, the app answers");
    client.cancel().await.expect("ended");
    rig.stop().await;
}
