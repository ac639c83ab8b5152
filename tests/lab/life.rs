//! The life of a VM with data on it: a database beside the app, another size, a destroy that is taken
//! back, one for good. The driver of each operation is killed in the middle of it.

use serde_json::json;

use crate::repo::Repo;
use crate::rig::{Rig, until};
use crate::steps::{Place, deploys, done, planned, set_up, survives};

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

    let settings = json!({"start_timeout_s": 20, "buffering": false});
    done(&client, "configure_app", DUNE.with(settings)).await;
    let add = json!({"action": "add", "service": "postgres", "version": "17.6"});
    done(&client, "manage_service", DUNE.with(add)).await;
    rig.tell("manage_service: PostgreSQL of Debian's package runs beside the app");
    let locked = async || {
        rig.on_vm("test -d ~kamal/.kamal/lock-dune-staging && echo locked").trim() == "locked"
    };
    survives(&rig, &client, "deploy", DUNE.only(), locked).await;
    rig.tell("deploy, its driver killed while Kamal deploys: done");
    let visitor = rig.visitor(DUNE.domain);
    assert_eq!(DUNE.get(&visitor, "/cgi-bin/db").await.trim(), "reached dune-staging-db");
    DUNE.sql(&rig, "CREATE TABLE tide (high int); INSERT INTO tide VALUES (42)");
    assert_eq!(DUNE.sql(&rig, "SELECT high FROM tide"), "42");
    streams(&visitor).await;
    rig.tell("the app reaches its database, and its stream arrives piece by piece");

    let four = 4_u64 << 30;
    assert_eq!(rig.on_vm(MEMORY).trim(), four.to_string());
    let off = async || !rig.sandbox.machines().list()[0].is_on().await;
    survives(&rig, &client, "resize_vm", DUNE.with(json!({"size": "cx33"})), off).await;
    assert_eq!(rig.on_vm(MEMORY).trim(), (2 * four).to_string(), "the VM has the new size");
    answers(&visitor).await;
    assert_eq!(DUNE.sql(&rig, "SELECT high FROM tide"), "42");
    rig.tell("resize_vm, its driver killed while the VM is off: the VM has twice the memory");

    planned(&client, "destroy", DUNE.only()).await;
    assert!(rig.sandbox.machines().list().is_empty(), "no VM is left");
    rig.tell("destroy: the VM is gone, its disk is kept");
    planned(&client, "destroy", DUNE.with(json!({"undo": true}))).await;
    answers(&visitor).await;
    assert_eq!(DUNE.sql(&rig, "SELECT high FROM tide"), "42");
    rig.tell("undo: the app answers at the same address, with the same data");
    repo.push("text", "three\n").await;
    deploys(&rig, &repo, &client, DUNE.only()).await;
    assert!(DUNE.page(&visitor).await.contains("text=three"));
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
