//! What is refused by others than the VM and the app: the certificate authority, the registry, the
//! repo's own files, and a runner that does not know the VM's host key.

use serde_json::json;

use crate::record::{record, record_now};
use crate::repo::Repo;
use crate::rig::{Rig, call, text, until};
use crate::trouble::{REEF, Trouble, first_version};

/// The variable of the repo that holds the VM's host key.
const KNOWN_HOSTS: &str = "VMKIT_KNOWN_HOSTS_STAGING";
/// How often somebody got in as `kamal`.
const LOGINS: &str = "journalctl -u ssh --no-pager | grep -c 'Accepted publickey for kamal'";

/// The authority's limit for the name is reached while the proxy has no certificate.
async fn certificates_are_limited(trouble: &mut Trouble<'_>) {
    let rig = trouble.rig;
    let lose = "docker exec kamal-proxy rm -rf /home/kamal-proxy/.config/kamal-proxy/certs; docker restart kamal-proxy";
    rig.lab.limit_certificates(true).expect("an authority");
    rig.on_vm(lose);
    let visitor = rig.visitor(REEF.domain);
    until("the proxy has asked for a certificate", async || {
        REEF.page(&visitor).await;
        rig.on_vm("docker logs --since 60s kamal-proxy 2>&1").contains("rateLimited")
    })
    .await;
    let found = call(trouble.client, "diagnose", REEF.only()).await;
    record_now(rig, REEF, "certificate-limit", "certificate_rate_limit").await;
    if !text(&found).contains("certificate_rate_limit") {
        trouble.wrong.push(format!("certificate-limit: {}", text(&found)));
    }
    rig.lab.limit_certificates(false).expect("an authority");
    rig.on_vm("docker restart kamal-proxy");
    until("the page is back", async || REEF.page(&visitor).await.contains("text=one")).await;
    rig.tell("certificate-limit: certificate_rate_limit");
}

/// A run past VMKit, which would have written the right host key back, sends nothing to a VM that it
/// does not know.
async fn host_keys_are_held(trouble: &mut Trouble<'_>) {
    let (rig, repo) = (trouble.rig, trouble.repo);
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
    let logins = rig.on_vm(LOGINS);
    assert_ne!(logins.trim(), "0", "Kamal got in before");
    for (name, value, code) in [
        ("host-key-empty", " ".to_owned(), "host_key_missing"),
        ("host-key-wrong", format!("{} {other}", rig.address()), "host_key_changed"),
        ("host-key-of-another", format!("192.0.2.7 {other}"), "host_key_unknown"),
    ] {
        repo.set_variable(KNOWN_HOSTS, &value).await;
        let conclusion = repo.deploy_by_hand("staging").await;
        record(rig, repo, REEF, name, code).await;
        assert_eq!(conclusion, "failure", "{name}");
        assert_eq!(rig.on_vm(LOGINS), logins, "{name}: nobody got in");
        let log = repo.newest_logs().await;
        let said = match code {
            "host_key_missing" => "is empty: without the VM's host key nothing is sent to it",
            "host_key_changed" => "Net::SSH::HostKeyMismatch",
            _ => "Net::SSH::HostKeyUnknown",
        };
        assert!(log.contains(said), "{name}: {log}");
        rig.tell(&format!("{name}: refused before anything is sent"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_refusals_are_named() {
    let Some(rig) = Rig::new().await else { return };
    let repo = Repo::new(&rig, "reef");
    let client = rig.client(REEF.environment).await;
    first_version(&rig, &repo, &client, 8).await;
    let mut trouble = Trouble { rig: &rig, repo: &repo, client: &client, wrong: vec![] };
    certificates_are_limited(&mut trouble).await;
    trouble.more_by_hand().await;
    host_keys_are_held(&mut trouble).await;

    repo.push("text", "two\n").await;
    rig.lab.let_registry_refuse(true).expect("a registry");
    trouble.breaks("registry-refuses", "registry_push_denied").await;
    rig.lab.let_registry_refuse(false).expect("a registry");
    let secrets = repo.read(".kamal/secrets").await;
    repo.push(".kamal/secrets", "# nothing\n").await;
    trouble.breaks("secret-missing", "secret_missing").await;
    repo.push(".kamal/secrets", &secrets).await;
    let config = repo.read("config/deploy.staging.yml").await;
    repo.push("config/deploy.staging.yml", &format!("{config}traefik: {{}}\n")).await;
    trouble.breaks("config-edited", "kamal_config").await;
    repo.push("config/deploy.staging.yml", &config).await;
    let page = REEF.page(&rig.visitor(REEF.domain)).await;
    assert!(page.contains("text=one"), "the old version serves on: {page}");
    let wrong = trouble.wrong;
    assert!(wrong.is_empty(), "not named: {wrong:#?}");
    let again = call(&client, "deploy", REEF.with(json!({}))).await;
    assert!(text(&again).starts_with("DONE "), "VMKit wrote the host key back: {}", text(&again));
    rig.tell("deployed again by VMKit, which had the right host key");
    client.cancel().await.expect("ended");
    rig.stop().await;
}
