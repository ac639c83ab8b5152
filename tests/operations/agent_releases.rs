//! An agent that VMKit does not have itself comes from where a release of it lies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::response::Redirect;
use axum::routing::get;
use sha2::{Digest, Sha256};
use vmkit::operations::provision_vm;

use crate::jobs::Job;
use crate::stage::{Stage, staging};

const PROGRAM: &str = "an agent that was released";

/// A server of releases, and how often the program was fetched from it.
async fn releases() -> (String, Arc<AtomicUsize>) {
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetched);
    let give = move || async move {
        // The first time it has a fault.
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => Err(StatusCode::BAD_GATEWAY),
            _ => Ok(PROGRAM),
        }
    };
    let router = Router::new()
        .route("/stored/agent", get(give))
        .route("/agent", get(async || Redirect::temporary("/stored/agent")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/agent", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, fetched)
}

async fn stage(release: &str) -> Stage {
    let mut stage = Stage::with(&[
        ("VMKIT_AGENT_DIR", "/nowhere".to_owned()),
        ("VMKIT_AGENT_AMD64", release.to_owned()),
        ("VMKIT_AGENT_ARM64", release.to_owned()),
    ])
    .await;
    stage.drive();
    Job::Setup.done(&stage).await;
    stage.merge_pulls().await;
    stage.create_environment().await;
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_fetched_once_and_brought_to_the_vm() {
    let (url, fetched) = releases().await;
    let sum = hex::encode(Sha256::digest(PROGRAM));
    let stage = stage(&format!("{url}#sha256={sum}")).await;
    let id = Job::Provision.done(&stage).await;
    Job::Provision.check_good_end(&stage, id).await;
    // What the VM installs only a program by; the link was there only after that.
    let wanted = std::fs::read_to_string(stage.machine().path("/etc/vmkit/agent.sha256"));
    assert_eq!(wanted.expect("a sum").trim(), sum);
    // The plan fetched it, the worker found it.
    assert_eq!(fetched.load(Ordering::SeqCst), 2);
    assert!(stage.vmkit(&["doctor"]).await.contains("amd64 and arm64"));
    // What lies there is believed no more than what comes.
    let kept = stage.settings.home.agents().join(format!("vmkit-agent-{sum}"));
    std::fs::write(&kept, "something else").expect("written");
    assert!(stage.vmkit(&["doctor"]).await.contains("amd64 and arm64"));
    assert_eq!(std::fs::read(&kept).expect("a program"), PROGRAM.as_bytes());
    assert_eq!(fetched.load(Ordering::SeqCst), 3);
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_program_that_was_set_stops_the_plan() {
    let (url, _) = releases().await;
    let stage = stage(&format!("{url}#sha256={}", "ab".repeat(32))).await;
    let refused = provision_vm::plan(stage.context(), &staging()).await.expect_err("another");
    assert_eq!((refused.code(), refused.retryable()), ("agent_release_changed", false));
    assert!(refused.to_string().contains(&hex::encode(Sha256::digest(PROGRAM))), "{refused}");
    let doctor = stage.vmkit(&["doctor"]).await;
    assert!(doctor.contains("is not the agent that was set"), "{doctor}");
    assert_eq!(stage.counts().await, [0, 0, 0]);
    stage.tear_down().await;
}
