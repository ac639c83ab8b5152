//! The main job, from an empty account to an empty account.

use std::os::unix::fs::PermissionsExt;

use rmcp::model::CallToolResult;
use serde_json::{Value, json};

use crate::load::Load;
use crate::repo::Repo;
use crate::rig::{Client, Rig, call, data, data_of, once, text, until};

const PLACE: &str = "tide/staging";
const DOMAIN: &str = "tide.example.com";
const INFO: &str = "https://tide.example.com/cgi-bin/info";

/// An answer with its word in text and in data.
#[track_caller]
fn says<'a>(result: &'a CallToolResult, word: &str) -> &'a Value {
    assert!(text(result).starts_with(&format!("{word} ")), "{}", text(result));
    data(result)
}

/// Calls a tool that is done in the end.
async fn done(client: &Client, tool: &'static str, arguments: Value) -> CallToolResult {
    let answer = call(client, tool, arguments).await;
    let ended = text(&answer).starts_with("DONE ") || data_of(&answer)["state"] == "succeeded";
    assert!(ended, "{tool}: {}", text(&answer));
    answer
}

/// Makes the plan of an action, and lets it run.
async fn planned(client: &Client, tool: &'static str, arguments: Value) -> CallToolResult {
    let plan = call(client, tool, arguments.clone()).await;
    let mut order = arguments;
    order["plan_id"] = says(&plan, "NOT_EXECUTED")["plan_id"].clone();
    done(client, tool, order).await
}

/// What the app's page says, as a visitor gets it.
async fn page(visitor: &reqwest::Client) -> String {
    let asked = visitor.get(INFO).send().await.expect("an answer");
    asked.text().await.expect("a page")
}

/// A deploy that must come off; else all that was seen of it is told.
async fn deploys(rig: &Rig, repo: &Repo<'_>, client: &Client, arguments: Value) {
    let answer = call(client, "deploy", arguments).await;
    if !text(&answer).starts_with("DONE ") && data_of(&answer)["state"] != "succeeded" {
        eprintln!("{}", repo.newest_logs().await);
        eprintln!("{}", rig.on_vm("docker ps -a; docker logs kamal-proxy 2>&1 | tail -20"));
        panic!("not deployed: {}", text(&answer));
    }
}

/// A deploy that must fail with this code, and what `diagnose` finds then.
async fn refused(client: &Client, code: &str) {
    let answer = call(client, "deploy", json!({"environment": PLACE})).await;
    assert!(text(&answer).contains(code), "{code}: {}", text(&answer));
    let found = call(client, "diagnose", json!({"environment": PLACE})).await;
    assert!(text(&found).contains(code), "{code}: {}", text(&found));
}

/// The bundle holds all that a person needs, and the owner's own key opens the VM with it.
fn ejected(rig: &Rig) {
    let file = rig.folder.path().join("bundle.tar");
    let place = file.display().to_string();
    let done = rig.command(&["eject", PLACE, &place, "--with-secrets"]).output().expect("it runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mode = std::fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let folder = rig.folder.path().join("bundle");
    tar::Archive::new(std::fs::File::open(&file).expect("a file")).unpack(&folder).expect("a tar");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect(name);
    assert!(read("config/deploy.staging.yml").contains("service: \"tide-staging\""));
    assert!(read("README.md").contains("kamal deploy -c config/deploy.staging.yml"));
    assert!(read("env/staging.env").contains("GREETING=good morning, $HOME"));
    for user in ["admin", "kamal"] {
        let known = format!("UserKnownHostsFile={}", folder.join("known_hosts").display());
        let mut ssh = std::process::Command::new("ssh");
        ssh.arg("-i").arg(rig.folder.path().join("owner"));
        ssh.args(["-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", &known]);
        ssh.args([&format!("{user}@{}", rig.address()), "docker ps -q || sudo docker ps -q"]);
        let seen = ssh.stdin(std::process::Stdio::null()).output().expect("ssh runs");
        let said = String::from_utf8_lossy(&seen.stdout).lines().count();
        assert!(said >= 2, "{user}: {}", String::from_utf8_lossy(&seen.stderr));
    }
    let again = rig.command(&["eject", PLACE, &place]).output().expect("it runs");
    assert_eq!(again.status.code(), Some(1), "nothing is overwritten");
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_main_job() {
    let Some(rig) = Rig::new().await else { return };
    let repo = Repo::new(&rig, "tide");
    let client = rig.client(PLACE).await;
    let setup = json!({"repo": repo.full_name(), "changes": "direct"});
    let setup = call(&client, "setup_repo", setup).await;
    repo.merge(&says(&setup, "NEEDS_MERGE")["result"]["pull"]).await;
    let made = json!({"environment": PLACE, "size": "cx23", "region": "fsn1", "domain": DOMAIN,
        "health_path": "/up"});
    done(&client, "create_environment", made).await;
    rig.tell("the repo is set up, the environment made");
    planned(&client, "provision_vm", json!({"environment": PLACE})).await;
    rig.tell("provision_vm: cloud-init has run, the agent is linked over SSH");

    done(&client, "manage_domain", json!({"environment": PLACE, "action": "point"})).await;
    rig.tell("manage_domain: the name leads to the VM");

    let place = json!({"environment": PLACE});
    let set = json!({"environment": PLACE, "set": {"GREETING": "good morning, $HOME"}});
    done(&client, "set_env", set).await;
    deploys(&rig, &repo, &client, place.clone()).await;
    rig.tell("deploy: built, pushed, deployed by real Kamal");
    let visitor = rig.visitor(DOMAIN);
    let shown = page(&visitor).await;
    assert!(
        shown.contains("text=one") && shown.contains("greeting=good morning, $HOME"),
        "{shown}"
    );
    rig.tell("HTTPS answers with a certificate of Pebble's");
    let logs = call(&client, "get_logs", place.clone()).await;
    assert!(text(&logs).contains("web of one starts on port 8080"), "{}", text(&logs));
    rig.tell("the app's log");

    ejected(&rig);
    rig.tell("eject: the owner's key and the bundle are enough to log in");

    let load = Load::start(INFO, || rig.visitor(DOMAIN));
    let set = json!({"environment": PLACE, "set": {"GREETING": "good evening"}});
    done(&client, "set_env", set).await;
    deploys(&rig, &repo, &client, json!({"environment": PLACE, "ref": "current"})).await;
    repo.push("text", "two\n").await;
    deploys(&rig, &repo, &client, place.clone()).await;
    let counted = load.stop().await;
    assert!(counted.lost.is_empty(), "of {}: {:?}", counted.good, counted.lost);
    assert!(counted.good > 100, "a load: {}", counted.good);
    let shown = page(&visitor).await;
    assert!(shown.contains("text=two") && shown.contains("greeting=good evening"), "{shown}");
    rig.tell(&format!(
        "two deploys under load: {} of {} requests answered",
        counted.good, counted.good
    ));

    repo.push("before.sh", "rm -f /app/www/up\n").await;
    refused(&client, "wrong_health_path").await;
    assert!(page(&visitor).await.contains("text=two"), "the old version serves");
    rig.tell("a version without its health path: refused, named, the old one serves");
    repo.push("before.sh", "echo 'no such table: tides'; exit 3\n").await;
    refused(&client, "crashed_at_start").await;
    assert!(page(&visitor).await.contains("text=two"), "the old version serves");
    rig.tell("a version that dies at its start: refused, named, the old one serves");

    repo.push("before.sh", "APP_PORT=9999\n").await;
    refused(&client, "wrong_port").await;
    rig.tell("a version on another port: refused, named");
    done(&client, "rollback", place.clone()).await;
    let shown = page(&visitor).await;
    assert!(shown.contains("text=one"), "{shown}");
    rig.tell("rollback");

    repo.push("before.sh", "sleep 300\n").await;
    let started = once(&client, "deploy", json!({"environment": PLACE, "wait_seconds": 0})).await;
    let operation = says(&started, "RUNNING")["operation"].clone();
    let locked = "test -d ~kamal/.kamal/lock-tide-staging && docker ps | grep -c tide-staging-web";
    until("Kamal boots the new version", async || rig.on_vm(locked).trim() == "2").await;
    done(&client, "cancel", json!({"operation": operation})).await;
    assert_eq!(rig.on_vm("test -d ~kamal/.kamal/lock-tide-staging || echo free").trim(), "free");
    assert!(page(&visitor).await.contains("text=one"), "the old version serves");
    rig.tell("a deploy cancelled in the middle: the lock is free, the old version serves");

    done(&client, "maintain_vm", json!({"environment": PLACE, "action": "reboot"})).await;
    until("the app answers again", async || {
        let asked = visitor.get(INFO).send().await;
        asked.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    rig.tell("reboot: the agent links, the app answers");
    client.cancel().await.expect("ended");
    rig.stop().await;
}
