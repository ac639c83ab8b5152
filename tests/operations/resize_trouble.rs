//! What may go wrong in a resize: whatever it is, the server runs, what ran runs, and nobody stays
//! locked out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use vmkit::domain::clock::{Clock, Millis};
use vmkit::domain::operation::OperationState;
use vmkit::operations::{Context, OpError};
use vmkit_sandbox::faults::Action;
use vmkit_sandbox::hetzner::{Knobs, Offer};

use crate::crash_undo::die_at;
use crate::jobs::Job;
use crate::resize::crowded;
use crate::stage::{At, Stage};

const SHUT_DOWN: (At, &str, &str) = (At::Cloud, "POST", "/actions/shutdown$");
const CHANGE: (At, &str, &str) = (At::Cloud, "POST", "/actions/change_type$");

fn quick(context: &mut Context) {
    context.pace.answer = Duration::from_secs(2);
    context.pace.shut_down = Duration::from_millis(600);
    context.pace.kamal = Duration::from_millis(600);
}

/// Kamal's lock of the app as somebody else's Kamal leaves it on the VM.
fn lock_as(stage: &Stage, by: &str, message: &str) -> PathBuf {
    let lock = stage.machine().path("/home/kamal/.kamal/lock-shop-staging");
    std::fs::create_dir_all(&lock).expect("made");
    let text = format!("Locked by: {by} at 2026-11-01T10:00:00Z\nVersion: abc\nMessage: {message}");
    std::fs::write(lock.join("details"), BASE64_STANDARD.encode(text)).expect("written");
    lock
}

#[tokio::test(flavor = "multi_thread")]
async fn sold_out_at_the_moment_of_the_change() {
    let mut stage = crowded(Job::Resize).await;
    let running = stage.running();
    let id = Job::Resize.start(&stage).await;
    let offer = Offer { size: "cpx32".to_owned(), region: None };
    let sold_out_at_order = BTreeSet::from([offer]);
    stage.sandbox.hetzner().set_knobs(Knobs { sold_out_at_order, ..Knobs::default() });
    stage.drive_here().await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Failed, "{row:#?}");
    let failure = row.failure.expect("a failure");
    assert_eq!(failure.code, "sold_out");
    let (_, near) = failure.message.split_once("nearest that can be ordered").expect("choices");
    assert!(near.contains("a month") && !near.contains("`cpx32`"), "{near}");
    stage.is_well("cpx22", &running).await;
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_ends_in_an_error_leaves_the_old_size_and_everything_running() {
    let mut stage = crowded(Job::Resize).await;
    let running = stage.running();
    let id = Job::Resize.start(&stage).await;
    let failing = ("change_server_type".to_owned(), "server_error".to_owned());
    let failing_actions = BTreeMap::from([failing]);
    stage.sandbox.hetzner().set_knobs(Knobs { failing_actions, ..Knobs::default() });
    stage.drive_here().await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Failed, "{row:#?}");
    stage.is_well("cpx22", &running).await;
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_ignores_acpi_loses_its_power() {
    let mut stage = crowded(Job::Resize).await;
    let running = stage.running();
    stage.sandbox.hetzner().set_knobs(Knobs { shutdown_ignored: true, ..Knobs::default() });
    let id = Job::Resize.start(&stage).await;
    stage.drive_here_with(Clock::wall(), quick).await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
    assert_eq!(row.result.expect("a result")["power_was_cut"], json!(true));
    stage.is_well("cpx32", &running).await;
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_does_not_come_back_gets_the_old_size() {
    let mut stage = crowded(Job::Resize).await;
    let mut running = stage.running();
    let id = Job::Resize.start(&stage).await;
    stage.fault(CHANGE, Action::HoldBefore, Some(1));
    stage.drive_here_with(Clock::wall(), quick).await;
    let held = stage.held(At::Cloud, id).await.expect("the call is made");
    let gone = "blog-production-web-1";
    stage.machine().docker().remove(gone).await.expect("removed");
    running.retain(|name| name != gone);
    stage.release(At::Cloud, held).await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Failed, "{row:#?}");
    let failure = row.failure.expect("a failure");
    assert_eq!(failure.code, "apps_silent");
    assert!(failure.message.contains(gone), "{}", failure.message);
    stage.is_well("cpx22", &running).await;
    stage.tear_down().await;
}

/// No way forward and none back: it says so, and everything runs all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_that_is_sold_out_is_stuck_and_runs() {
    let mut stage = crowded(Job::Resize).await;
    let mut running = stage.running();
    let id = Job::Resize.start(&stage).await;
    stage.fault(CHANGE, Action::HoldAfter, Some(1));
    stage.drive_here_with(Clock::wall(), quick).await;
    let held = stage.held(At::Cloud, id).await.expect("the call is made");
    let gone = "blog-production-web-1";
    stage.machine().docker().remove(gone).await.expect("removed");
    running.retain(|name| name != gone);
    let offer = Offer { size: "cpx22".to_owned(), region: None };
    let sold_out = BTreeSet::from([offer]);
    stage.sandbox.hetzner().set_knobs(Knobs { sold_out, ..Knobs::default() });
    stage.release(At::Cloud, held).await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Stuck, "{row:#?}");
    let failure = row.failure.expect("a failure");
    assert!(failure.fix.contains("`cpx32`") && failure.fix.contains("billed"), "{}", failure.fix);
    // What is billed is what the row names.
    stage.is_well("cpx32", &running).await;
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_that_holds_kamals_lock_is_waited_for_and_named() {
    let mut stage = crowded(Job::Resize).await;
    let running = stage.running();
    let lock = lock_as(&stage, "vmkit-run-7-1", "Automatic deploy lock");
    let id = Job::Resize.start(&stage).await;
    stage.drive_here().await;
    stage
        .until("it waits", async || {
            let said = stage.row(id).await.progress.message;
            (said.contains("`shop-staging`") && said.contains("vmkit-run-7-1")).then_some(())
        })
        .await;
    assert_eq!(stage.kamal_locks(), ["lock-shop-staging"], "none is held meanwhile");
    std::fs::remove_dir_all(lock).expect("released");
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
    stage.is_well("cpx32", &running).await;
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_lock_is_not_waited_for_and_a_deploys_not_for_ever() {
    for (by, message) in [("Ann", "mending the database"), ("runner", "Automatic deploy lock")] {
        let mut stage = crowded(Job::Resize).await;
        let running = stage.running();
        let lock = lock_as(&stage, by, message);
        let id = Job::Resize.start(&stage).await;
        stage.drive_here_with(Clock::wall(), quick).await;
        let row = stage.end_of(id).await;
        assert_eq!(row.state, OperationState::Failed, "{row:#?}");
        let failure = row.failure.expect("a failure");
        assert_eq!(failure.code, "kamal_locked");
        assert!(failure.message.contains(by) && failure.message.contains(message));
        assert!(lock.is_dir(), "nobody else's lock is broken");
        std::fs::remove_dir_all(lock).expect("released");
        stage.is_well("cpx22", &running).await;
        stage.tear_down().await;
    }
}

/// A push of a person's deploys by a run that is not ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_of_somebody_elses_is_held_by_the_lock() {
    let mut stage = crowded(Job::Resize).await;
    let running = stage.running();
    let id = Job::Resize.start(&stage).await;
    stage.fault(SHUT_DOWN, Action::HoldBefore, Some(1));
    stage.drive_here().await;
    let held = stage.held(At::Cloud, id).await.expect("the call is made");
    assert_eq!(stage.kamal_locks(), ["lock-blog-production", "lock-shop-staging"]);
    let details = stage.machine().path("/home/kamal/.kamal/lock-shop-staging/details");
    let details = std::fs::read_to_string(details).expect("details");
    let details = BASE64_STANDARD.decode(details).expect("base64");
    let details = String::from_utf8(details).expect("text");
    assert!(details.starts_with(&format!("Locked by: vmkit {id} at 20")), "{details}");
    let ours = Job::Deploy.try_start(&stage).await;
    assert!(matches!(ours, Err(OpError::Busy { operation, .. }) if operation == id), "{ours:?}");

    let sha = stage.commits("main").await.remove(0);
    let inputs =
        json!({ "environment": "staging", "action": "deploy", "sha": sha, "deploy_id": "push" });
    let path = "/repos/octo/shop/actions/workflows/vmkit-deploy.yml/dispatches";
    stage.github("POST", path, Some(json!({ "ref": "main", "inputs": inputs }))).await;
    let run = stage
        .until("the run is over", async || {
            let repo = stage.repo().await;
            let runs = repo["runs"].as_array().expect("a list").clone();
            runs.into_iter()
                .find(|run| run["inputs"]["deploy_id"] == "push" && run["status"] == "completed")
        })
        .await;
    assert_eq!(run["conclusion"], "failure", "{run:#}");
    stage.release(At::Cloud, held).await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
    stage.is_well("cpx32", &running).await;
    stage.tear_down().await;
}

/// One that lay still for long is not taken up again, and not left with everything off either.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_one_is_made_safe_and_not_resumed() {
    for (call, action, size) in [
        (SHUT_DOWN, Action::HoldBefore, "cpx22"),
        (CHANGE, Action::HoldBefore, "cpx32"),
        (CHANGE, Action::HoldAfter, "cpx32"),
    ] {
        let mut stage = crowded(Job::Resize).await;
        let running = stage.running();
        let id = Job::Resize.start(&stage).await;
        die_at(&mut stage, id, call, action).await;
        let clock = Clock::hand(Millis(Clock::wall().now().0 + 11 * 60_000));
        let seen = stage.last_requests();
        if call == CHANGE {
            stage
                .until("the change is over", async || {
                    (stage.server().await.0 == "running").then_some(())
                })
                .await;
        }
        stage.drive_here_with(clock, |_| {}).await;
        let row = stage.end_of(id).await;
        assert_eq!(row.state, OperationState::Stuck, "{row:#?}");
        let failure = row.failure.expect("a failure");
        assert_eq!(failure.code, "interrupted");
        assert!(failure.fix.contains("`resize_vm`"), "{}", failure.fix);
        let changes = stage.faults(At::Cloud).requests().into_iter();
        let changes = changes.filter(|one| one.id > seen[0] && one.method != "GET");
        assert!(changes.into_iter().all(|one| one.path.ends_with("poweron")));
        stage
            .until("all is well", async || {
                let up = stage.server().await.0 == "running";
                (up && stage.running() == running).then_some(())
            })
            .await;
        stage.is_well(size, &running).await;
        stage.tear_down().await;
    }
}

/// VMKit goes away in the middle and never comes back; somebody starts the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_boot_brings_the_apps_back_without_us() {
    let mut stage = crowded(Job::Resize).await;
    let running = stage.running();
    let id = Job::Resize.start(&stage).await;
    die_at(&mut stage, id, SHUT_DOWN, Action::HoldAfter).await;
    stage
        .until("the server is off", async || (stage.server().await.0 == "off").then_some(()))
        .await;
    assert_eq!(stage.running(), Vec::<String>::new());
    stage.machine().power_on().await.expect("it starts");
    stage.until("what ran runs", async || (stage.running() == running).then_some(())).await;
    stage.tear_down().await;
}

/// A lock that an operation of ours left when it ended is taken from nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_an_ended_operation_is_given_back() {
    let mut stage = crowded(Job::Resize).await;
    let running = stage.running();
    let ended = stage.sql("select id from operation where kind = 'deploy'").remove(0);
    lock_as(&stage, &format!("vmkit {ended}"), "VMKit is resizing this VM");
    let id = Job::Resize.start(&stage).await;
    stage.drive_here_with(Clock::wall(), quick).await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
    stage.is_well("cpx32", &running).await;
    stage.tear_down().await;
}
