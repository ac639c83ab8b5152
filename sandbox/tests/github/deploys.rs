//! Deploys, from the dispatch over HTTP to the app's answer through the proxy.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use ssh_key::{Algorithm, LineEnding, PrivateKey};
use vmkit_sandbox::sample;

use crate::stage::{Stage, Vm, eventually};

async fn head(stage: &Stage) -> String {
    stage.get("/repos/octo/shop/commits/main").await["sha"].as_str().unwrap().to_owned()
}

/// Deploys the head of `main`; answers the commit and the run.
async fn deployed(stage: &Stage) -> (String, u64) {
    let sha = head(stage).await;
    let run = stage.dispatch("deploy", &sha).await;
    let ended = stage.ended(run).await;
    assert_eq!(ended["conclusion"], "success", "{}", stage.logs(run).await);
    (sha, run)
}

fn service_containers(vm: &Vm) -> Vec<(String, bool)> {
    let all = vm.machine.docker().list().into_iter();
    all.filter(|one| one.labels.contains_key("service"))
        .map(|one| (one.name, one.running))
        .collect()
}

#[tokio::test]
async fn deploy_serves_and_redeploy_builds_nothing() {
    let stage = Stage::new().await;
    let vm = stage.deployable().await;
    let (sha, run) = deployed(&stage).await;
    let page = vm.page(&stage.client).await;
    assert_eq!(
        page,
        format!("Welcome to the shop\nversion: {sha}\ngreeting: first $HOME \"quoted\"\n")
    );
    assert_eq!(service_containers(&vm), [(format!("shop-staging-web-{sha}"), true)]);
    let record = stage.run(run).await;
    assert_eq!(record["display_title"], "VMKit deploy staging dep_test");
    let jobs = stage.jobs(run).await;
    let summary: Vec<(&Value, &Value)> =
        jobs.iter().map(|job| (&job["name"], &job["conclusion"])).collect();
    assert_eq!(
        summary,
        [(&json!("Build"), &json!("success")), (&json!("Deploy"), &json!("success"))]
    );
    assert!(
        !stage.logs(run).await.contains(vm.private.lines().nth(1).unwrap()),
        "the key is masked"
    );

    vm.write_env("GREETING=second\n");
    let images = stage.hub.registry().references();
    let run = stage.dispatch("redeploy", &sha).await;
    assert_eq!(stage.ended(run).await["conclusion"], "success", "{}", stage.logs(run).await);
    assert_eq!(stage.jobs(run).await[0]["conclusion"], "skipped");
    assert_eq!(stage.hub.registry().references(), images);
    assert!(vm.page(&stage.client).await.ends_with("greeting: second\n"));
    assert_eq!(service_containers(&vm), [(format!("shop-staging-web-{sha}"), true)]);
    stage.machines.stop().await;
}

#[tokio::test]
async fn broken_commits_fail_and_the_old_version_serves() {
    let stage = Stage::new().await;
    let vm = stage.deployable().await;
    deployed(&stage).await;
    let before = vm.page(&stage.client).await;
    for (fault, line) in [("crash", "listening"), ("unhealthy", "GET /up 500")] {
        let sha = stage.put_file("sample.toml", &sample::sample_toml("Broken", Some(fault))).await;
        let run = stage.dispatch("deploy", &sha).await;
        assert_eq!(stage.ended(run).await["conclusion"], "failure");
        let log = stage.logs(run).await;
        let address = vm.machine.address();
        let text = format!(
            "  ERROR (SSHKit::Command::Failed): Exception while executing on host {address}: docker exit status: 1"
        );
        assert!(log.contains(&text), "{log}");
        assert!(log.contains("docker stdout: Nothing written"), "{log}");
        assert!(log.contains("docker stderr: Error: target failed to become healthy within configured timeout (60s)"), "{log}");
        assert!(log.contains(" ERROR null"), "{log}");
        // The workflow keeps the app's own lines out of GitHub's log.
        assert!(log.contains("(a line of the app: read it on the VM)"), "{log}");
        assert!(!log.contains("TypeError"), "{log}");
        let name = format!("shop-staging-web-{sha}");
        let lines = vm.machine.docker().logs(&name, 100).join("\n");
        assert_eq!(fault == "crash", lines.contains("TypeError"), "{line}: {lines}");
        assert!(!service_containers(&vm).contains(&(name, true)), "the new container is stopped");
        assert_eq!(vm.page(&stage.client).await, before);
        let jobs = stage.jobs(run).await;
        let steps = jobs[1]["steps"].as_array().unwrap();
        let failed: Vec<&Value> = steps
            .iter()
            .filter(|step| step["conclusion"] == "failure")
            .map(|step| &step["name"])
            .collect();
        assert_eq!(failed, [&json!("Deploy with Kamal")]);
        let notes =
            stage.get(&format!("/repos/octo/shop/check-runs/{}/annotations", jobs[1]["id"])).await;
        assert_eq!(notes[0]["message"], "Process completed with exit code 1.");
    }
    // A good version after that cleans up.
    stage.put_file("sample.toml", &sample::sample_toml("Mended", None)).await;
    let (sha, _) = deployed(&stage).await;
    assert!(vm.page(&stage.client).await.starts_with("Mended\n"));
    assert_eq!(service_containers(&vm), [(format!("shop-staging-web-{sha}"), true)]);
    stage.machines.stop().await;
}

/// Deploys, which must fail; answers the log.
async fn refused(stage: &Stage, action: &str, sha: &str) -> String {
    let run = stage.dispatch(action, sha).await;
    assert_eq!(stage.ended(run).await["conclusion"], "failure");
    stage.logs(run).await
}

#[tokio::test]
async fn what_stands_in_the_way_is_named_as_by_kamal() {
    let stage = Stage::new().await;
    let vm = stage.deployable().await;
    let sha = head(&stage).await;
    let address = vm.machine.address();
    let host_key = vm.machine.host_key();
    let on_host =
        |class: &str| format!("  ERROR ({class}): Exception while executing on host {address}: ");

    let other = PrivateKey::random(&mut ssh_key::rand_core::OsRng, Algorithm::Ed25519).unwrap();
    let other_public = other.public_key().to_openssh().unwrap();
    stage.put_variable("VMKIT_KNOWN_HOSTS_STAGING", &format!("{address} {other_public}")).await;
    let log = refused(&stage, "deploy", &sha).await;
    assert!(
        log.contains(&format!("{}fingerprint SHA256:", on_host("Net::SSH::HostKeyMismatch"))),
        "{log}"
    );
    assert!(log.contains(&format!("does not match for \"{address}\"")), "{log}");

    stage.put_variable("VMKIT_KNOWN_HOSTS_STAGING", &format!("shop.example.com {host_key}")).await;
    let log = refused(&stage, "redeploy", &sha).await;
    assert!(
        log.contains(&format!("{}fingerprint SHA256:", on_host("Net::SSH::HostKeyUnknown"))),
        "{log}"
    );
    assert!(log.contains(&format!("is unknown for \"{address}\"")), "{log}");

    stage.put_variable("VMKIT_KNOWN_HOSTS_STAGING", &format!("{address} {host_key}")).await;
    stage.put_secret("VMKIT_SSH_KEY_STAGING", &other.to_openssh(LineEnding::LF).unwrap()).await;
    let log = refused(&stage, "redeploy", &sha).await;
    let text = format!(
        "{}Authentication failed for user kamal@{address}",
        on_host("Net::SSH::AuthenticationFailed")
    );
    assert!(log.contains(&text), "{log}");

    stage.put_secret("VMKIT_SSH_KEY_STAGING", &vm.private).await;
    let unknown = "0123456789abcdef0123456789abcdef01234567";
    let log = refused(&stage, "redeploy", unknown).await;
    let image = format!("ghcr.io/octo/shop/shop-staging:{unknown}");
    assert!(log.contains(&format!("manifest for {image} not found: manifest unknown")), "{log}");

    std::fs::remove_file(vm.machine.path("/etc/vmkit/env/shop/staging.env")).unwrap();
    let log = refused(&stage, "redeploy", &sha).await;
    assert!(
        log.contains("docker: open /etc/vmkit/env/shop/staging.env: no such file or directory"),
        "{log}"
    );
    assert!(
        !vm.machine.path("/home/kamal/.kamal/lock-shop-staging").exists(),
        "the lock is released"
    );
    stage.machines.stop().await;
}

#[tokio::test]
async fn lock_of_a_person_is_respected_and_that_of_a_dead_run_is_broken() {
    use base64::Engine as _;
    let stage = Stage::new().await;
    let vm = stage.deployable().await;
    let (sha, _) = deployed(&stage).await;
    let lock = vm.machine.path("/home/kamal/.kamal/lock-shop-staging");
    let hold = |holder: &str| {
        std::fs::create_dir_all(&lock).unwrap();
        let text = format!(
            "Locked by: {holder} at 2026-01-01T00:00:00Z\nVersion: {sha}\nMessage: Maintenance\n"
        );
        std::fs::write(
            lock.join("details"),
            base64::engine::general_purpose::STANDARD.encode(text),
        )
        .unwrap();
    };
    hold("Ada");
    let log = refused(&stage, "redeploy", &sha).await;
    assert!(log.contains("  ERROR (Kamal::Cli::LockError): Deploy lock found. Run 'kamal lock help' for more information"), "{log}");
    assert!(log.contains("Locked by: Ada at 2026-01-01T00:00:00Z"), "{log}");
    assert!(lock.exists());
    let log = refused(&stage, "unlock", &sha).await;
    assert!(log.contains("##[error]a person holds this lock"), "{log}");
    assert!(lock.exists());
    hold("vmkit-run-17-1");
    let run = stage.dispatch("unlock", &sha).await;
    assert_eq!(stage.ended(run).await["conclusion"], "success", "{}", stage.logs(run).await);
    assert!(!lock.exists());
    stage.machines.stop().await;
}

async fn knobs(stage: &Stage, knobs: Value) {
    let url = format!("{}/_sandbox/knobs", stage.origin);
    assert_eq!(
        stage.client.put(url).json(&knobs).send().await.unwrap().status(),
        StatusCode::NO_CONTENT
    );
}

#[tokio::test]
async fn runs_of_a_group_wait_and_cancelling_works() {
    let stage = Stage::new().await;
    let vm = stage.deployable().await;
    let sha = head(&stage).await;
    knobs(&stage, json!({ "hold_step": "exec kamal deploy" })).await;
    let first = stage.dispatch("deploy", &sha).await;
    eventually("the deploy step", || async {
        let jobs = stage.jobs(first).await;
        let steps = jobs.get(1)?["steps"].as_array()?.clone();
        steps
            .iter()
            .any(|step| step["name"] == "Deploy with Kamal" && step["status"] == "in_progress")
            .then_some(())
    })
    .await;
    let second = stage.dispatch("redeploy", &sha).await;
    assert_eq!(stage.run(second).await["status"], "pending");
    let third = stage.dispatch("redeploy", &sha).await;
    let replaced = stage.run(second).await;
    assert_eq!(
        (&replaced["status"], &replaced["conclusion"]),
        (&json!("completed"), &json!("cancelled"))
    );
    assert_eq!(stage.run(third).await["status"], "pending");

    let cancel = format!("/repos/octo/shop/actions/runs/{first}/cancel");
    stage.expect(202, Method::POST, &cancel, json!({})).await;
    assert_eq!(stage.ended(first).await["conclusion"], "cancelled");
    stage.expect(409, Method::POST, &cancel, json!({})).await;
    let jobs = stage.jobs(first).await;
    let step = |name: &str| {
        jobs[1]["steps"].as_array().unwrap().iter().find(|step| step["name"] == name).unwrap()["conclusion"].clone()
    };
    assert_eq!(step("Deploy with Kamal"), "cancelled");
    assert_eq!(step("Remove the SSH key"), "success");
    assert_eq!(service_containers(&vm), []);

    knobs(&stage, json!({})).await;
    assert_eq!(stage.ended(third).await["conclusion"], "success", "{}", stage.logs(third).await);
    assert!(vm.page(&stage.client).await.contains(&sha));
    stage.machines.stop().await;
}
