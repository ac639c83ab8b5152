//! Faults that were found by the crash tests and by reading, each by its name.

use std::time::Duration;

use serde_json::json;
use vmkit::domain::clock::Clock;
use vmkit::domain::operation::OperationState;
use vmkit::operations::{Ask, Started, provision_vm};
use vmkit_sandbox::faults::Action;

use crate::crash_undo::die_at;
use crate::jobs::{Job, pulls};
use crate::stage::{At, Stage, staging};

async fn ready_for(job: Job) -> Stage {
    let mut stage = Stage::set_up().await;
    job.prepare(&mut stage).await;
    stage
}

fn refusal() -> Action {
    Action::Status { code: 403, body: None, headers: Default::default() }
}

/// The process died between the commit and the note of it; the file then counted as a person's,
/// and no later change of the settings ever reached it.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_commit_was_not_noted_is_still_ours() {
    let mut stage = ready_for(Job::Deploy).await;
    let id = Job::Deploy.start(&stage).await;
    let commit = (At::GitHub, "PATCH", "/git/refs/heads/main$");
    die_at(&mut stage, id, commit, Action::HoldAfter).await;
    stage.drive_here().await;
    assert_eq!(stage.end_of(id).await.state, OperationState::Succeeded);
    stage.write_sql("update environment set domain = 'other.example.com'");
    let id = Job::Deploy.done(&stage).await;
    let steps = stage.steps(id).await;
    let step = steps.into_iter().find(|step| step.name == "commit_config");
    let output = step.and_then(|step| step.output).expect("what was committed");
    assert_eq!(output["files"], json!(["config/deploy.staging.yml"]), "{output}");
    assert_eq!(output["edited"], json!([]));
    stage.tear_down().await;
}

/// Changes of the config wait in a pull request: until it is merged the older content is in the
/// repo, which is ours all the same, so the next deploy asks for the merge again.
#[tokio::test(flavor = "multi_thread")]
async fn a_config_that_waits_for_its_merge_is_not_a_persons() {
    let mut stage = ready_for(Job::Current).await;
    stage.write_sql("update app set changes = 'pr'");
    stage.drive_here().await;
    for domain in ["second.example.com", "third.example.com", "third.example.com"] {
        stage.write_sql(&format!("update environment set domain = '{domain}'"));
        let id = Job::Deploy.start(&stage).await;
        let row = stage.end_of(id).await;
        assert_eq!(row.state, OperationState::NeedsMerge, "{row:#?}");
        let repo = stage.repo().await;
        assert_eq!(pulls(&repo, "open"), 1, "{repo:#}");
    }
    stage.merge_pulls().await;
    Job::Deploy.done(&stage).await;
    stage.tear_down().await;
}

/// A refused pull request of the config left its branch behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_pull_request_of_the_config_leaves_no_branch() {
    let mut stage = ready_for(Job::Current).await;
    stage.write_sql("update app set changes = 'pr'");
    stage.write_sql("update environment set domain = 'second.example.com'");
    let id = Job::Deploy.start(&stage).await;
    stage.fault((At::GitHub, "POST", "/pulls$"), refusal(), Some(1));
    stage.drive_here().await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Failed, "{row:#?}");
    assert_eq!(stage.repo().await["refs"]["refs/heads/vmkit/config"], json!(null));
    stage.tear_down().await;
}

/// A second set-up that failed closed the pull request of the first and deleted its branch.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_set_up_leaves_an_earlier_pull_request_open() {
    let mut stage = ready_for(Job::Setup).await;
    stage.drive_here().await;
    Job::Setup.done(&stage).await;
    stage.kill().await;
    for call in [(At::GitHub, "GET", "/commits/main$"), (At::GitHub, "POST", "/git/trees$")] {
        let id = Job::Setup.start(&stage).await;
        stage.fault(call, refusal(), Some(1));
        stage.drive_here().await;
        let row = stage.end_of(id).await;
        assert_eq!(row.state, OperationState::Failed, "{row:#?}");
        let repo = stage.repo().await;
        assert_eq!(pulls(&repo, "open"), 1, "{repo:#}");
        assert!(repo["refs"]["refs/heads/vmkit/setup"].is_string(), "{repo:#}");
        stage.kill().await;
    }
    stage.drive_here().await;
    let id = Job::Setup.done(&stage).await;
    Job::Setup.check_good_end(&stage, id).await;
    stage.tear_down().await;
}

/// Two plans, the second looked at before the first order ended and queued after it: the
/// environment would have had two servers, one of them named by nobody.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_looked_too_early_orders_nothing() {
    let mut stage = ready_for(Job::Provision).await;
    let context = stage.context();
    let plan = provision_vm::plan(context, &staging()).await.expect("a plan");
    let first = Job::Provision.start(&stage).await;
    stage.drive_here().await;
    assert_eq!(stage.end_of(first).await.state, OperationState::Succeeded);
    stage.kill().await;
    // As `start` saw it: the environment had no VM when it looked.
    let vm = stage.sql("select vm from environment").remove(0);
    stage.write_sql("update environment set vm = null");
    let started = provision_vm::start(stage.context(), &staging(), plan.id, Ask::by("test")).await;
    let Ok(Started::Operation(second)) = started else { panic!("{started:?}") };
    stage.write_sql(&format!("update environment set vm = '{vm}'"));
    stage.drive_here().await;
    let row = stage.end_of(second).await;
    assert_eq!(row.failure.expect("a failure").code, "has_vm");
    assert_eq!(stage.sql("select vm from environment"), [vm], "the first one keeps its place");
    Job::Provision.check_good_end(&stage, first).await;
    stage.tear_down().await;
}

/// A driver that has just begun is sooner than the agents that dial it.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_waits_for_an_agent_that_is_about_to_link() {
    let mut stage = ready_for(Job::Current).await;
    let id = Job::Current.start(&stage).await;
    stage.drive_here_with(Clock::wall(), |context| context.pace.attempts = 1).await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
    stage.tear_down().await;
}

/// A VM that is off: the deploy fails, says so, and is not stuck over an env file that was never
/// written.
#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_to_a_vm_that_is_off_fails() {
    let mut stage = ready_for(Job::Current).await;
    let id = Job::Current.start(&stage).await;
    let server = stage.cloud().await["servers"][0]["id"].to_string();
    stage.power_off(&server).await;
    let short = |context: &mut vmkit::operations::Context| {
        context.pace.relink = Duration::from_millis(200);
    };
    stage.drive_here_with(Clock::wall(), short).await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Failed, "{row:#?}");
    let failure = row.failure.expect("a failure");
    assert_eq!(failure.code, "agent_not_linked");
    assert!(failure.fix.contains("`get_status`"), "{}", failure.fix);
    stage.nothing_is_lost().await;
    stage.tear_down().await;
}

/// A version that got healthy, went live and died then left its dead containers in place of what
/// had served.
#[tokio::test(flavor = "multi_thread")]
async fn what_went_live_and_died_makes_room_for_what_served_before() {
    let mut stage = Stage::set_up().await;
    Job::Current.prepare(&mut stage).await;
    let live = stage.serving().await;
    stage.push("Fragile version", Some("fragile")).await;
    let id = Job::Deploy.start(&stage).await;
    let steady = Duration::from_secs(60);
    stage.drive_here_with(Clock::wall(), |context| context.settings.steady = steady).await;
    stage
        .until("it is watched", async || {
            let row = stage.row(id).await;
            row.progress.message.starts_with("watching every role").then_some(())
        })
        .await;
    assert_ne!(stage.serving().await, live, "the fragile version is live");
    stage.visit().await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Failed, "{row:#?}");
    assert_eq!(row.failure.expect("a failure").code, "role_dies");
    assert_eq!(row.result.expect("a result")["serving"], live[0]);
    assert_eq!(stage.serving().await, live);
    stage.nothing_is_lost().await;
    stage.tear_down().await;
}
