//! The life of a VM with data on it: a database beside the app, another size, a destroy that is taken
//! back, one for good. The driver of each operation is killed in the middle of it; of four of them, an
//! hour passes before another one goes on.

use serde_json::json;
use vmkit_sandbox::hetzner::Knobs;

use crate::record::record;
use crate::repo::Repo;
use crate::rig::{Rig, call, data, text, until};
use crate::steps::{Place, deploys, done, is_done, planned, set_up, sleeps, survives};

const DUNE: Place = Place { environment: "dune/staging", domain: "dune.example.com" };
/// The memory that the VM's cgroup allows, in bytes.
const MEMORY: &str =
    "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";

#[tokio::test(flavor = "multi_thread")]
async fn lab_life_of_a_vm() {
    let Some(rig) = Rig::new().await else { return };
    rig.lab.offer("vmkit-lab/postgres", "library/postgres:17.6").expect("an image");
    let repo = Repo::new(&rig, "dune");
    let client = rig.client(DUNE.environment).await;
    set_up(&client, &repo).await;
    let made = json!({"size": "cx23", "region": "fsn1", "domain": DUNE.domain,
        "health_path": "/up"});
    done(&client, "create_environment", DUNE.with(made)).await;
    let booted = async || !rig.sandbox.machines().list().is_empty();
    survives(&rig, &client, "provision_vm", DUNE.only(), booted).await;
    done(&client, "manage_domain", DUNE.with(json!({"action": "point"}))).await;
    rig.tell("provision_vm, its driver killed while the VM boots: done");

    let settings = json!({"start_timeout_s": 20, "buffering": false, "push_to_deploy": "main"});
    done(&client, "configure_app", DUNE.with(settings)).await;
    let add = json!({"action": "add", "service": "postgres", "version": "17.6"});
    let made = async || rig.on_vm("docker ps -aqf name=dune-staging-db").lines().count() == 1;
    let added = sleeps(&rig, &client, "manage_service", DUNE.with(add), made).await;
    assert!(is_done(&added), "{}", text(&added));
    rig.tell(
        "manage_service, closed for an hour as Kamal boots it: PostgreSQL runs beside the app",
    );
    let locked = async || {
        rig.on_vm("test -d ~kamal/.kamal/lock-dune-staging && echo locked").trim() == "locked"
    };
    let deployed = sleeps(&rig, &client, "deploy", DUNE.only(), locked).await;
    assert!(is_done(&deployed), "{}", text(&deployed));
    rig.tell("deploy, closed for an hour while Kamal deploys: done");
    let visitor = rig.visitor(DUNE.domain);
    assert_eq!(DUNE.get(&visitor, "/cgi-bin/db").await.trim(), "reached dune-staging-db");
    DUNE.sql(&rig, "CREATE TABLE tide (high int); INSERT INTO tide VALUES (42)");
    assert_eq!(DUNE.sql(&rig, "SELECT high FROM tide"), "42");
    streams(&visitor).await;
    rig.tell("the app reaches its database, and its stream arrives piece by piece");

    let four = 4_u64 << 30;
    assert_eq!(rig.on_vm(MEMORY).trim(), four.to_string());
    let off = async || !rig.sandbox.machines().list()[0].is_on().await;
    // The VM is deaf to the shutdown: there is time for a push.
    rig.sandbox.hetzner().set_knobs(Knobs { shutdown_ignored: true, ..Knobs::default() });
    let pushed_and_off = async || {
        is_held_off(&rig, &repo).await;
        rig.cut_power().await;
        until("the VM is off", off).await;
        true
    };
    let larger = DUNE.with(json!({"size": "cx33"}));
    survives(&rig, &client, "resize_vm", larger, pushed_and_off).await;
    rig.sandbox.hetzner().set_knobs(Knobs::default());
    assert_eq!(rig.on_vm(MEMORY).trim(), (2 * four).to_string(), "the VM has the new size");
    answers(&visitor).await;
    assert_eq!(DUNE.sql(&rig, "SELECT high FROM tide"), "42");
    rig.tell("resize_vm, its driver killed while the VM is off: the VM has twice the memory");
    let (sha, conclusion) = repo.push_deploys("text", "two\n").await;
    assert_eq!(conclusion, "success", "{}", repo.newest_logs().await);
    assert!(DUNE.page(&visitor).await.contains("text=two"), "the next push goes through");
    // The next driver looks for runs that pushes started as it starts, and then each minute.
    rig.kill_driver().await;
    until("VMKit has the push on record", async || {
        let listed = call(&client, "list_deploys", DUNE.only()).await;
        let newest = &data(&listed)["deploys"][0];
        newest["commit"] == json!(sha) && newest["state"] == "live"
    })
    .await;
    rig.tell("a push after the resize goes through, and is on record");

    let stopped = async || !rig.sandbox.machines().list()[0].is_on().await;
    let left = sleeps(&rig, &client, "destroy", DUNE.only(), stopped).await;
    assert!(text(&left).contains("interrupted"), "{}", text(&left));
    assert_eq!(rig.sandbox.machines().list().len(), 1, "nothing is taken away unasked");
    rig.tell("destroy, closed for an hour while the VM is off: not gone on with, the VM is there");
    planned(&client, "destroy", DUNE.only()).await;
    assert!(rig.sandbox.machines().list().is_empty(), "no VM is left");
    rig.tell("destroy: the VM is gone, its disk is kept");
    let ordered = async || !rig.sandbox.machines().list().is_empty();
    let undo = DUNE.with(json!({"undo": true}));
    let restored = sleeps(&rig, &client, "destroy", undo, ordered).await;
    assert!(is_done(&restored), "{}", text(&restored));
    answers(&visitor).await;
    assert_eq!(DUNE.sql(&rig, "SELECT high FROM tide"), "42");
    rig.tell("undo, closed for an hour as the VM boots: the app answers at the same address, with the same data");
    // No push of this file deploys.
    let sha = repo.push("README.md", "The third\n").await;
    deploys(&rig, &repo, &client, DUNE.only()).await;
    assert!(DUNE.page(&visitor).await.contains(&format!("version={sha}")));
    rig.tell("deployed again");
    planned(&client, "destroy", DUNE.with(json!({"purge": true}))).await;
    let url = format!("{}/_sandbox/state", rig.sandbox.hetzner_admin_url());
    let state = reqwest::get(url).await.expect("an answer").json::<serde_json::Value>().await;
    let state = state.expect("JSON");
    for list in ["servers", "primary_ips"] {
        assert_eq!(state[list], json!([]), "{list} are left");
    }
    rig.tell("destroy for good: nothing is left at the cloud");
    client.cancel().await.expect("ended");
    rig.stop().await;
}

/// A push while VMKit holds Kamal's lock: real Kamal names the holder and touches nothing.
async fn is_held_off(rig: &Rig, repo: &Repo<'_>) {
    let ours = "base64 -d ~kamal/.kamal/lock-dune-staging/details";
    until("VMKit holds the lock", async || rig.on_vm(ours).contains("Locked by: vmkit op_")).await;
    let containers = "docker ps -a --format '{{.Names}}' | sort";
    let before = rig.on_vm(containers);
    let (sha, conclusion) = repo.push_deploys("text", "held off\n").await;
    assert_eq!(conclusion, "failure", "the lock holds it");
    let log = repo.newest_logs().await;
    for word in ["Deploy lock found", "Locked by: vmkit op_", "Message: VMKit is resizing"] {
        assert!(log.contains(word), "{word}: {log}");
    }
    let after = rig.on_vm(containers);
    assert!(before == after && !after.contains(&sha), "nothing of it ran: {after}");
    assert!(rig.on_vm(ours).contains("Locked by: vmkit op_"), "the run did not break our lock");
    record(rig, repo, DUNE, "lock-of-vmkit", "deploy_locked").await;
    rig.tell("a push while resize_vm holds Kamal's lock: refused, VMKit is named");
}

async fn answers(visitor: &reqwest::Client) {
    until("the app answers", async || DUNE.page(visitor).await.contains("text=")).await;
}

/// An answer of three pieces, a second apart: the first is there before the last is made.
async fn streams(visitor: &reqwest::Client) {
    let url = format!("https://{}/cgi-bin/stream", DUNE.domain);
    let began = std::time::Instant::now();
    let mut answer = visitor.get(url).send().await.expect("an answer");
    let first = answer.chunk().await.expect("a piece").expect("it is there");
    let first_after = began.elapsed();
    assert!(first.starts_with(b"{\"count\":1}"), "{first:?}");
    while answer.chunk().await.expect("a piece").is_some() {}
    let whole = began.elapsed();
    assert!(
        whole - first_after > std::time::Duration::from_secs(1),
        "{first_after:?} of {whole:?}"
    );
}
