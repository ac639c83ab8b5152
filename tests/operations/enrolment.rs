//! What the user-data of a VM is worth to whoever reads it later.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use vmkit::domain::ids::VmId;
use vmkit::operations::provision_vm;
use vmkit::vault::Purpose;

use crate::jobs::Job;
use crate::stage::{Stage, staging};

#[tokio::test(flavor = "multi_thread")]
async fn stolen_user_data_enrols_nobody_once_its_vm_has_enrolled() {
    let mut stage = Stage::set_up().await;
    Job::Deploy.prepare(&mut stage).await;
    stage.drive_here().await;
    // The one secret that stands in it, as VMKit itself has it sealed.
    let id = stage.sql("select id from secret where purpose = 'enrolment_token'").remove(0);
    let context = stage.context();
    let sealed = context.store.secret(id.parse().expect("an id")).await.expect("read").expect("it");
    let token = context.vault.unseal(&sealed, Purpose::EnrolmentToken, &id).expect("the token");
    let vm = stage.sql("select id from vm").remove(0);
    let url = stage.settings.public_url.clone().expect("an address for agents");
    let url = format!("{}agent/v1/enrol", url.as_str());
    let enrol = async |token: &str, vm: &str| {
        let key = BASE64_STANDARD.encode(rand::random::<[u8; 32]>());
        let body = json!({ "token": token, "vm": vm, "public_key": key });
        let answer = stage.http.post(&url).json(&body).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let refusal: Value = answer.json().await.expect("JSON");
        (status, refusal["code"].as_str().unwrap_or_default().to_owned())
    };
    let key_of = || stage.sql("select hex(agent_public_key) from vm");
    let ours = key_of();
    assert_eq!(enrol(token.expose(), &vm).await, (403, "enrol_token_used".to_owned()));
    let other = VmId::generate().to_string();
    assert_eq!(enrol(token.expose(), &other).await, (403, "enrol_token_unknown".to_owned()));
    assert_eq!(enrol("0".repeat(64).as_str(), &vm).await, (403, "enrol_token_unknown".to_owned()));
    assert_eq!(key_of(), ours, "the VM's agent is who it was");
    // Nothing else in the VM's own copy of it lets anybody in.
    let config = std::fs::read_to_string(stage.machine().path("/etc/vmkit/agent.toml"));
    assert!(!config.expect("a file").contains("enrolment_token"));
    stage.tear_down().await;
}

/// The head of a program of `machine` (`e_machine`), and the names of what it asks for.
fn program(machine: u8, needs: &[&str]) -> Vec<u8> {
    let mut bytes = b"\x7fELF".to_vec();
    bytes.resize(18, 1);
    bytes.extend([machine, 0]);
    for name in needs {
        bytes.extend([&[0], name.as_bytes(), &[0]].concat());
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_missing_or_would_not_start_on_a_vm_is_told_before_it_is_ordered() {
    let mut stage = Stage::set_up().await;
    Job::Provision.prepare(&mut stage).await;
    let agent = stage.agent_file("amd64");
    let refused = async || {
        let error = provision_vm::plan(stage.context(), &staging()).await.expect_err("refused");
        (error.code().to_owned(), error.to_string(), error.fix().to_string())
    };
    for (program, told) in [
        (program(0x3e, &["GLIBC_2.2.5", "GLIBC_2.39", "GLIBC_2.4"]), "needs GLIBC_2.39"),
        (program(0xb7, &[]), "is no program for amd64"),
    ] {
        std::fs::write(&agent, program).expect("written");
        let (code, what, fix) = refused().await;
        assert_eq!(code, "unfit_agent_binary");
        assert!(what.contains(told) && what.contains("vmkit-agent-amd64"), "{what}");
        assert!(fix.contains("--profile agent"), "{fix}");
    }
    std::fs::remove_file(&agent).expect("removed");
    let (code, what, _) = refused().await;
    assert_eq!(code, "no_agent_binary");
    assert!(what.contains("no agent for amd64 VMs"), "{what}");
    assert_eq!(stage.counts().await[0], 0, "nothing was ordered");

    // What needs no more than every VM has is taken; so is our own program here.
    std::fs::write(&agent, program(0x3e, &["GLIBC_2.2.5", "GLIBC_2.34"])).expect("written");
    provision_vm::plan(stage.context(), &staging()).await.expect("a plan");
    std::fs::copy(env!("CARGO_BIN_EXE_vmkit"), &agent).expect("copied");
    if let Err(error) = provision_vm::plan(stage.context(), &staging()).await {
        // Built on a system that is newer than some VMs, it must say so, and nothing else.
        assert!(error.to_string().contains("needs GLIBC_2."), "{error}");
    }
    stage.tear_down().await;
}
