//! What the user-data of a VM is worth to whoever reads it later.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use vmkit::domain::ids::VmId;
use vmkit::vault::Purpose;

use crate::jobs::Job;
use crate::stage::Stage;

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
