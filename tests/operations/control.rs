//! An app restarted, stopped and started; locks of dead runs, of runs that live, and of people.

use vmkit::domain::operation::OperationState;
use vmkit::domain::plan::Policy;
use vmkit::operations::control_app::{Action, needs_plan, plan, start};
use vmkit::operations::maintain_vm;
use vmkit::operations::{Ask, OpError, Started, plans};
use vmkit::store::OperationRow;

use crate::jobs::{Job, begun};
use crate::stage::{Stage, staging};

async fn done(stage: &Stage, action: Action) -> OperationRow {
    let started = start(stage.context(), &staging(), action, None, Ask::by("test")).await;
    let id = begun(started).expect("started");
    let row = stage.end_of(id).await;
    let steps = stage.steps(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?} {steps:#?}");
    row
}

/// The app's containers that run, with their starts.
fn running(stage: &Stage) -> Vec<String> {
    let all = stage.machine().docker().list().into_iter();
    let app = all.filter(|one| one.running && one.labels.contains_key("role"));
    app.map(|one| format!("{} {}", one.name, one.started_at)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stopped_stays_so_over_a_reboot_until_it_is_started() {
    let mut stage = Stage::set_up().await;
    Job::Rollback.prepare(&mut stage).await;
    stage.drive_here().await;
    let before = running(&stage);
    assert_eq!(before.len(), 1);
    let row = done(&stage, Action::Restart).await;
    let runs_now = row.result.expect("a result")["runs_now"].to_string();
    assert!(runs_now.contains("shop-staging-web-"), "{runs_now}");
    let after = running(&stage);
    assert_eq!(after.len(), 1);
    assert_ne!(after, before, "it was started anew");

    let row = done(&stage, Action::Stop).await;
    assert_eq!(row.result.expect("a result")["runs_now"], "nothing");
    assert_eq!(running(&stage), Vec::<String>::new());
    let request = stage.maintain(maintain_vm::Action::Reboot);
    let id = begun(maintain_vm::start(stage.context(), &request, None, Ask::by("test")).await);
    let row = stage.end_of(id.expect("started")).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
    assert_eq!(running(&stage), Vec::<String>::new(), "it was stopped by hand");

    let row = done(&stage, Action::Start).await;
    let result = row.result.expect("a result");
    assert!(result["url"].as_str().expect("a URL").contains("shop.example.com"), "{result}");
    assert_eq!(stage.serving().await.len(), 1, "the newest release alone");
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_environment_is_stopped_by_a_person_alone() {
    let mut stage = Stage::set_up().await;
    Job::Stop.prepare(&mut stage).await;
    stage.drive_here().await;
    stage.write_sql("update environment set protected = 1");
    let (context, path) = (stage.context(), staging());
    assert!(!needs_plan(context, &path, Action::Restart).await.expect("asked"));
    let asked = start(context, &path, Action::Stop, None, Ask::by("test")).await.expect("asked");
    let Started::NeedsApproval(plan) = asked else { panic!("{asked:?}") };
    assert_eq!(running(&stage).len(), 1);
    plans::approve(context, plan.id, "a person").await.expect("approved");
    let ask = Ask::by("test");
    let id = begun(start(context, &path, Action::Stop, Some(plan.id), ask).await).expect("started");
    assert_eq!(stage.end_of(id).await.state, OperationState::Succeeded);
    assert_eq!(running(&stage), Vec::<String>::new());
    stage.tear_down().await;
}

/// Puts a lock of Kamal's where Kamal would.
fn lock(stage: &Stage, by: &str, since: &str) {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    let folder = stage.machine().path("/home/kamal/.kamal/lock-shop-staging");
    std::fs::create_dir_all(&folder).expect("made");
    let text = format!("Locked by: {by} at {since}\nVersion: 4f2a\nMessage: Automatic deploy lock");
    std::fs::write(folder.join("details"), BASE64_STANDARD.encode(text)).expect("written");
}

async fn code(stage: &Stage) -> String {
    let path = staging();
    let started = start(stage.context(), &path, Action::BreakLock, None, Ask::by("test"));
    started.await.expect_err("refused").code().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_broken_where_its_run_is_over_and_a_persons_never_unasked() {
    let mut stage = Stage::set_up().await;
    Job::Stop.prepare(&mut stage).await;
    stage.drive_here().await;
    assert_eq!(code(&stage).await, "no_lock");
    // A run that is over left it.
    let run = stage.repo().await["runs"][0]["id"].to_string();
    lock(&stage, &format!("vmkit-run-{run}-1"), "2026-11-01T10:00:00Z");
    done(&stage, Action::BreakLock).await;
    assert_eq!(stage.kamal_locks(), Vec::<String>::new());
    // One that is under way holds it.
    stage.hold_runs(Job::Deploy).await;
    let deploy = Job::Current.start(&stage).await;
    let live = stage
        .until("a run is under way", async || {
            let repo = stage.repo().await;
            let runs = repo["runs"].as_array().expect("a list").clone();
            runs.into_iter().find(|run| run["status"] != "completed")
        })
        .await;
    lock(&stage, &format!("vmkit-run-{}-1", live["id"]), "2026-11-01T11:00:00Z");
    assert_eq!(code(&stage).await, "lock_in_use");
    assert!(stage.context().store.request_cancel(deploy).await.expect("asked"));
    stage.end_of(deploy).await;
    stage.github_knobs(serde_json::json!({})).await;

    // A person's: only with a plan that a person has approved, and only that very lock.
    let (context, path) = (stage.context(), staging());
    lock(&stage, "Ann", "2026-11-01T12:00:00Z");
    let made = plan(context, &path, Action::BreakLock).await.expect("a plan");
    assert_eq!(made.policy, Policy::Human);
    assert!(made.body.summary.contains("held by Ann since 2026-11-01T12:00:00Z"), "{made:?}");
    let with = async |id| start(context, &path, Action::BreakLock, Some(id), Ask::by("test")).await;
    assert!(matches!(with(made.id).await, Ok(Started::NeedsApproval(_))));
    assert_eq!(stage.kamal_locks(), ["lock-shop-staging"]);
    plans::approve(context, made.id, "a person").await.expect("approved");
    lock(&stage, "Ann", "2026-11-01T13:00:00Z");
    assert!(matches!(with(made.id).await, Err(OpError::StalePlan { .. })));
    let made = plan(context, &path, Action::BreakLock).await.expect("a plan");
    plans::approve(context, made.id, "a person").await.expect("approved");
    let id = begun(with(made.id).await).expect("started");
    assert_eq!(stage.end_of(id).await.state, OperationState::Succeeded);
    assert_eq!(stage.kamal_locks(), Vec::<String>::new());
    stage.tear_down().await;
}
