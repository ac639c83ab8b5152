//! A Debian machine that did not come from VMKit, with things of its own on it, becomes an
//! environment's VM; it is hardened by a person's call, and goes on with what it had.

use serde_json::json;
use vmkit_sandbox::machines::MachineOrder;

use crate::repo::Repo;
use crate::rig::{Rig, call, text, until};
use crate::steps::{Place, deploys, done, planned, says, set_up};

const MOOR: Place = Place { environment: "moor/staging", domain: "moor.example.com" };

#[tokio::test(flavor = "multi_thread")]
async fn lab_adopts_a_machine() {
    let Some(rig) = Rig::new().await else { return };
    let order = MachineOrder { name: "box".to_owned(), ..MachineOrder::default() };
    let machine = rig.sandbox.machines().create(order).await.expect("a machine");
    let address = machine.address();
    let up = async || tokio::net::TcpStream::connect((address, 22)).await.is_ok();
    until("sshd answers", up).await;
    let server = "(setsid python3 -m http.server 8099 >/dev/null 2>&1 &); echo mine > /root/mine";
    rig.on_vm(server);
    rig.tell("a Debian machine with a server of its own");

    let repo = Repo::new(&rig, "moor");
    let client = rig.client(MOOR.environment).await;
    set_up(&client, &repo).await;
    let made = json!({"provider": "ssh", "domain": MOOR.domain, "health_path": "/up"});
    done(&client, "create_environment", MOOR.with(made)).await;
    let wrong =
        json!({"adopt": address.to_string(), "host_key": format!("SHA256:{}", "A".repeat(43))});
    let wrong = call(&client, "provision_vm", MOOR.with(wrong)).await;
    assert!(text(&wrong).contains("other_host_key"), "{}", text(&wrong));
    let adopt = MOOR.with(json!({"adopt": address.to_string()}));
    let needs = call(&client, "provision_vm", adopt.clone()).await;
    says(&needs, "NEEDS_SETUP");
    let line = text(&needs).lines().find(|line| line.starts_with("ssh-ed25519 ")).expect("a line");
    rig.on_vm(&format!(
        "mkdir -p -m 0700 /root/.ssh && echo '{line}' >> /root/.ssh/authorized_keys"
    ));
    let plan = call(&client, "provision_vm", adopt).await;
    let plan_id = says(&plan, "NOT_EXECUTED")["plan_id"].clone();
    for word in ["ITS SSH HOST KEY IS SHA256:", "8099"] {
        assert!(text(&plan).contains(word), "{word}: {}", text(&plan));
    }
    rig.tell("the plan names its host key and what runs on it");
    done(&client, "provision_vm", MOOR.with(json!({"plan_id": plan_id}))).await;
    let ours = rig.on_vm("grep -c vmkit /root/.ssh/authorized_keys; cat /root/mine");
    assert_eq!(ours.split_whitespace().collect::<Vec<_>>(), ["0", "mine"], "our key is gone");
    rig.tell("adopted: Docker and the agent are there, our key of root's is gone");
    done(&client, "manage_domain", MOOR.with(json!({"action": "point"}))).await;
    let worker = json!({"processes": {"worker": {"command": "sleep 600"}}});
    done(&client, "configure_app", MOOR.with(worker)).await;
    deploys(&rig, &repo, &client, MOOR.only()).await;
    let containers = || rig.on_vm("docker ps --all --format '{{.Names}}'");
    assert!(containers().contains("moor-staging-worker-"), "{}", containers());
    let visitor = rig.visitor(MOOR.domain);
    assert!(MOOR.page(&visitor).await.contains("text=one"));
    rig.tell("deployed on it, with a worker");

    let hardened = done(&client, "maintain_vm", MOOR.with(json!({"action": "harden"}))).await;
    eprintln!("{}", text(&hardened));
    let effective = rig.on_vm("sshd -T | grep -E '^(passwordauthentication|permitrootlogin) '");
    assert!(effective.contains("passwordauthentication no"), "{effective}");
    assert!(MOOR.page(&visitor).await.contains("text=one"), "the app answers");
    repo.push("text", "two\n").await;
    let without = json!({"reset": ["process worker"]});
    done(&client, "configure_app", MOOR.with(without)).await;
    deploys(&rig, &repo, &client, MOOR.only()).await;
    assert!(!containers().contains("-worker-"), "{}", containers());
    rig.tell("hardened: Kamal and the link still get in; the worker that is not wanted has ended");

    planned(&client, "destroy", MOOR.with(json!({"purge": true}))).await;
    let left = rig.on_vm("ls /usr/local/bin/vmkit-agent 2>&1; cat /root/mine; curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8099/");
    assert!(
        left.contains("No such file") && left.contains("mine") && left.ends_with("200"),
        "{left}"
    );
    rig.tell("destroy: the machine stays, with what it had");
    client.cancel().await.expect("ended");
    rig.stop().await;
}
