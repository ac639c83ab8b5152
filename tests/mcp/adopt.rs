//! A machine that exists becomes an environment's VM, by a real client: the line that a person puts
//! there, the plan that they approve, a deploy, and a destroy that leaves the machine alone.

use serde_json::json;
use vmkit_sandbox::machines::MachineOrder;

use crate::rig::{eras, error, text, until};
use crate::story::{Person, Stage, call, data, says};

#[tokio::test]
async fn a_machine_is_adopted_by_the_person_who_lets_vmkit_in() {
    let stage = Stage::new().await;
    let order = MachineOrder { name: "box".to_owned(), ..MachineOrder::default() };
    let machine = stage.sandbox.machines().create(order).await.expect("a machine");
    let port = machine.listen("postgres", 0).await.expect("a port");
    let person = Person { types: Some("shop/staging"), ..Person::default() };
    let asked = person.asked.clone();
    let [_, modern] = eras();
    let client = stage.client(modern, person).await;
    let setup = call(&client, "setup_repo", json!({"repo": "octo/shop"})).await;
    stage.merge(says(&setup, "NEEDS_MERGE")["result"]["pull"].as_u64().expect("a number")).await;

    let made = json!({"environment": "shop/staging"});
    let missing = error(&call(&client, "create_environment", made).await);
    assert_eq!(missing.code, "missing_field");
    let made = json!({"environment": "shop/staging", "provider": "ssh"});
    assert_eq!(says(&call(&client, "create_environment", made).await, "DONE")["provider"], "ssh");
    let place = json!({"environment": "shop/staging"});
    let none = error(&call(&client, "provision_vm", place.clone()).await);
    assert_eq!(none.code, "no_target");
    assert!(none.fix.contains("`adopt`"), "{none:?}");
    let bad = json!({"environment": "shop/staging", "adopt": "my-server"});
    assert_eq!(error(&call(&client, "provision_vm", bad).await).code, "bad_target");

    // The private half of the key never leaves the vault: what is shown is one public line.
    let adopt = json!({"environment": "shop/staging", "adopt": machine.address().to_string()});
    let needs = call(&client, "provision_vm", adopt.clone()).await;
    says(&needs, "NEEDS_SETUP");
    let line = text(&needs).lines().find(|line| line.starts_with("ssh-ed25519 ")).expect("a line");
    assert!(text(&needs).contains("SHA256:") && !text(&needs).contains("PRIVATE"));
    let keys = machine.path("/root/.ssh/authorized_keys");
    std::fs::create_dir_all(keys.parent().expect("a folder")).expect("made");
    std::fs::write(&keys, format!("{line}\n")).expect("written");

    let plan = call(&client, "provision_vm", adopt).await;
    let plan_id = says(&plan, "NOT_EXECUTED")["plan_id"].clone();
    for word in ["ITS SSH HOST KEY IS SHA256:", "(postgres)", "who could lose access: nobody"] {
        assert!(text(&plan).contains(word), "{word}: {}", text(&plan));
    }
    let go = json!({"environment": "shop/staging", "plan_id": plan_id, "wait_seconds": 50});
    let done = call(&client, "provision_vm", go).await;
    assert_eq!(says(&done, "DONE")["result"]["address"], machine.address().to_string());
    assert!(asked.lock().expect("a lock").iter().any(|said| said.contains("SSH HOST KEY")));
    assert_eq!(machine.authorized_keys("root"), Vec::<String>::new());

    let deploy = json!({"environment": "shop/staging", "ref": "main", "wait_seconds": 50});
    let files = call(&client, "deploy", deploy.clone()).await;
    stage.merge(says(&files, "NEEDS_MERGE")["result"]["pull"].as_u64().expect("a number")).await;
    says(&call(&client, "deploy", deploy).await, "DONE");
    let status = call(&client, "get_status", place).await;
    assert_eq!(data(&status)["agent_linked"], true, "{}", text(&status));
    let costs = call(&client, "get_costs", json!({})).await;
    assert!(text(&costs).contains("shop/staging"), "{}", text(&costs));

    let purge = json!({"environment": "shop/staging", "purge": true});
    let plan = call(&client, "destroy", purge).await;
    assert!(text(&plan).contains("that machine stays yours"), "{}", text(&plan));
    let plan_id = says(&plan, "NOT_EXECUTED")["plan_id"].clone();
    let destroy = json!({"environment": "shop/staging", "plan_id": plan_id, "wait_seconds": 50});
    says(&call(&client, "destroy", destroy).await, "DONE");
    assert!(machine.is_on().await && !machine.has_file("/usr/local/bin/vmkit-agent"));
    assert!(std::net::TcpStream::connect((machine.address(), port)).is_ok());
    assert_eq!(machine.authorized_keys("vmkit"), Vec::<String>::new());
    client.cancel().await.expect("ended");
    until("the worker ends", || stage.rig.workers().is_empty()).await;
    stage.sandbox.stop().await;
}
