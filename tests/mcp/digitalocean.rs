//! A droplet from order to release to removal, by a real client: VMKit's second cloud end to end.

use serde_json::{Value, json};

use crate::rig::{eras, error, text, until};
use crate::story::{Person, Stage, call, data, says};

/// All that the simulated DigitalOcean has, by its own word.
async fn state(stage: &Stage) -> Value {
    let url = format!("{}/_sandbox/state", stage.sandbox.digitalocean_admin_url());
    reqwest::get(url).await.expect("an answer").json().await.expect("JSON")
}

#[tokio::test]
async fn a_droplet_is_ordered_deployed_to_and_destroyed() {
    let stage = Stage::new().await;
    let person = Person { types: Some("shop/staging"), ..Person::default() };
    let [_, modern] = eras();
    let client = stage.client(modern, person).await;
    let place = json!({"environment": "shop/staging"});
    let setup = call(&client, "setup_repo", json!({"repo": "octo/shop"})).await;
    stage.merge(says(&setup, "NEEDS_MERGE")["result"]["pull"].as_u64().expect("a number")).await;

    // Both clouds are connected: size and region say which it is, and are told apart.
    let sizes = call(&client, "list_sizes", json!({"min_memory_gb": 4, "region": "fra1"})).await;
    let line = &data(&sizes)["sizes"][0];
    assert_eq!((&line["cloud"], &line["size"]), (&json!("digitalocean"), &json!("s-2vcpu-4gb")));
    assert_eq!(line["monthly"], "USD 24.00");
    let mixed = json!({"environment": "shop/staging", "size": "s-2vcpu-4gb", "region": "fsn1"});
    let mixed = error(&call(&client, "create_environment", mixed).await);
    assert_eq!(mixed.code, "unknown_size");
    let told = "`s-2vcpu-4gb` is a size of digitalocean, and `fsn1` a region of hetzner";
    assert!(mixed.message.contains(told), "{mixed:?}");
    let made = json!({"environment": "shop/staging", "size": "s-2vcpu-4gb", "region": "fra1"});
    for _ in 0..2 {
        let made = call(&client, "create_environment", made.clone()).await;
        assert_eq!(says(&made, "DONE")["provider"], "digitalocean", "asked twice is asked once");
    }

    let plan = call(&client, "provision_vm", place.clone()).await;
    let plan_id = says(&plan, "NOT_EXECUTED")["plan_id"].clone();
    assert!(text(&plan).contains("USD 24.00"), "{}", text(&plan));
    assert_eq!(state(&stage).await["droplets"], json!([]), "a plan orders nothing");
    let order = json!({"environment": "shop/staging", "plan_id": plan_id, "wait_seconds": 50});
    says(&call(&client, "provision_vm", order).await, "DONE");
    let now = state(&stage).await;
    let droplet = &now["droplets"][0];
    assert_eq!(
        (&droplet["status"], &droplet["size_slug"]),
        (&json!("active"), &json!("s-2vcpu-4gb"))
    );
    let (tags, wall) = (&droplet["tags"], &now["firewalls"][0]);
    assert!(tags.as_array().is_some_and(|tags| tags.contains(&json!("vmkit"))), "{tags}");
    let walls_tag = wall["tags"][0].as_str().expect("a tag");
    assert!(tags.as_array().is_some_and(|tags| tags.contains(&json!(walls_tag))), "{tags}");
    assert!(wall["outbound_rules"].as_array().is_some_and(|rules| rules.len() == 3), "{wall}");

    let deploy = json!({"environment": "shop/staging", "ref": "main", "wait_seconds": 50});
    // The environment's files are not in the repo yet.
    let files = call(&client, "deploy", deploy.clone()).await;
    stage.merge(says(&files, "NEEDS_MERGE")["result"]["pull"].as_u64().expect("a number")).await;
    says(&call(&client, "deploy", deploy).await, "DONE");
    let status = call(&client, "get_status", place).await;
    assert_eq!(data(&status)["agent_linked"], true, "{}", text(&status));

    let purge = json!({"environment": "shop/staging", "purge": true});
    let plan = call(&client, "destroy", purge).await;
    let plan_id = says(&plan, "NOT_EXECUTED")["plan_id"].clone();
    let destroy = json!({"environment": "shop/staging", "plan_id": plan_id, "wait_seconds": 50});
    says(&call(&client, "destroy", destroy).await, "DONE");
    let left = state(&stage).await;
    for list in ["droplets", "firewalls", "ssh_keys", "reserved_ips", "snapshots", "machines"] {
        assert_eq!(left[list], json!([]), "{list}");
    }
    client.cancel().await.expect("ended");
    until("the worker ends", || stage.rig.workers().is_empty()).await;
    stage.sandbox.stop().await;
}
