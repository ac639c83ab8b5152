//! Trouble that is not one call's: what is sold out, agents that stay away, two who want the same,
//! people who change their mind, drivers that slept.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use vmkit::domain::clock::{Clock, Millis};
use vmkit::domain::operation::OperationState;
use vmkit::operations::OpError;
use vmkit::operations::cancel::cancel;
use vmkit_sandbox::faults::Action;
use vmkit_sandbox::hetzner::{Knobs, Offer};

use crate::crash_undo::die_at;
use crate::jobs::Job;
use crate::stage::{At, Stage, staging};

/// How many workflow runs stand there.
fn runs_in(repo: &Value, status: &str) -> usize {
    let runs = repo["runs"].as_array().expect("a list");
    runs.iter().filter(|run| run["status"] == status).count()
}

async fn ready_for(job: Job) -> Stage {
    let mut stage = Stage::set_up().await;
    job.prepare(&mut stage).await;
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_sold_out_at_the_order_names_what_can_be_had() {
    let mut stage = ready_for(Job::Provision).await;
    let id = Job::Provision.start(&stage).await;
    let offer = Offer { size: "cpx22".to_owned(), region: None };
    let sold_out_at_order = BTreeSet::from([offer]);
    stage.sandbox.hetzner().set_knobs(Knobs { sold_out_at_order, ..Knobs::default() });
    stage.drive_here().await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Failed);
    let failure = row.failure.expect("a failure");
    assert_eq!(failure.code, "sold_out");
    let (wanted, others) =
        failure.message.split_once("what can be ordered instead").expect("others");
    assert!(wanted.contains("`cpx22`") && wanted.contains("`fsn1`"), "{wanted}");
    let same = ["`cpx22` in `fsn1`", "`cpx22` in fsn1"];
    assert!(others.contains("EUR") && !same.iter().any(|s| others.contains(s)), "{others}");
    assert_eq!(stage.counts().await, [0, 0, 0]);
    stage.nothing_is_lost().await;
    stage.sandbox.hetzner().set_knobs(Knobs::default());
    Job::Provision.done(&stage).await;
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_order_was_never_answered_is_adopted() {
    let mut stage = ready_for(Job::Provision).await;
    let id = Job::Provision.start(&stage).await;
    stage.fault((At::Cloud, "POST", "/servers$"), Action::DropAfter, Some(1));
    stage.drive_here().await;
    assert_eq!(stage.end_of(id).await.state, OperationState::Succeeded);
    let orders = stage.faults(At::Cloud).requests();
    let orders = orders.iter().filter(|one| one.method == "POST" && one.path.ends_with("/servers"));
    assert_eq!(orders.count(), 1, "never ordered twice");
    Job::Provision.check_good_end(&stage, id).await;
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_never_links_undoes_the_order() {
    let mut stage = ready_for(Job::Provision).await;
    stage.sandbox.hetzner().set_knobs(Knobs { agents_start: false, ..Knobs::default() });
    let id = Job::Provision.start(&stage).await;
    let short = |context: &mut vmkit::operations::Context| {
        context.settings.agent_wait = Duration::from_millis(300);
    };
    stage.drive_here_with(Clock::wall(), short).await;
    let row = stage.end_of(id).await;
    assert_eq!(
        (row.state, row.failure.expect("a failure").code.as_str()),
        (OperationState::Failed, "agent_silent")
    );
    assert_eq!(stage.counts().await, [0, 0, 0]);
    stage.nothing_is_lost().await;
    stage.tear_down().await;
}

/// GitHub's cancel is a request too; one that a run does not honour is forced after a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_goes_on_after_its_cancel_is_forced() {
    let mut stage = ready_for(Job::Deploy).await;
    let before = stage.inventory().await;
    let id = Job::Deploy.start(&stage).await;
    stage.github_knobs(json!({ "hold_step": "kamal deploy", "ignores_cancel": true })).await;
    let soon = Duration::from_millis(50);
    stage.drive_here_with(Clock::wall(), |context| context.pace.force = soon).await;
    stage
        .until("the run is held", async || {
            let repo = stage.repo().await;
            (runs_in(&repo, "in_progress") == 1).then_some(())
        })
        .await;
    cancel(stage.context(), id).await.expect("asked");
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Cancelled, "{row:#?}");
    let asked = stage.faults(At::GitHub).requests();
    assert!(asked.iter().any(|request| request.path.ends_with("/force-cancel")));
    assert_eq!(runs_in(&stage.repo().await, "in_progress"), 0);
    let again = cancel(stage.context(), id).await.expect_err("it has ended");
    assert_eq!(again.code(), "already_ended", "{again}");
    stage.github_knobs(json!({})).await;
    assert_eq!(Job::Deploy.undone(stage.inventory().await), Job::Deploy.undone(before));
    stage.nothing_is_lost().await;
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_is_honoured_between_two_steps() {
    for (job, call) in [
        (Job::Provision, (At::Cloud, "POST", "/firewalls$")),
        (Job::Deploy, (At::GitHub, "PUT", "/actions/secrets/")),
        (Job::Deploy, (At::GitHub, "GET", "/jobs$")),
    ] {
        let mut stage = ready_for(job).await;
        let before = stage.inventory().await;
        let id = job.start(&stage).await;
        stage.hold_runs(Job::Deploy).await;
        stage.fault(call, Action::HoldAfter, Some(1));
        stage.drive_here().await;
        let held = stage.held(call.0, id).await.expect("the call is made");
        assert!(stage.context().store.request_cancel(id).await.expect("written"));
        stage.release(call.0, held).await;
        let row = stage.end_of(id).await;
        assert_eq!(row.state, OperationState::Cancelled, "{row:#?}");
        assert_eq!(job.undone(stage.inventory().await), job.undone(before));
        stage.nothing_is_lost().await;
        let again = stage.context().store.request_cancel(id).await.expect("read");
        assert!(!again, "what has ended cannot be cancelled");
        stage.github_knobs(json!({})).await;
        let id = job.done(&stage).await;
        job.check_good_end(&stage, id).await;
        stage.tear_down().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_want_the_same_environment_get_one_operation() {
    let mut stage = ready_for(Job::Deploy).await;
    let (one, other) = tokio::join!(Job::Deploy.try_start(&stage), Job::Deploy.try_start(&stage));
    let (one, other) = (one.expect("started"), other.expect("the one that runs"));
    assert_eq!(one, other, "the same deploy is the same operation");
    stage.set_env("GREETING", "another").await;
    match Job::Deploy.try_start(&stage).await {
        Err(OpError::Busy { operation, what }) => {
            assert_eq!(operation, one);
            assert!(what.contains("shop/staging"), "{what}");
        }
        other => panic!("{other:?}"),
    }
    let refused = Job::Destroy.try_start(&stage).await.expect_err("busy");
    assert!(refused.fix().contains(&one.to_string()), "{}", refused.fix());
    stage.drive_here().await;
    let row = stage.end_of(one).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
    Job::Deploy.check_good_end(&stage, one).await;
    let second = Job::Deploy.done(&stage).await;
    assert_ne!(second, one, "one that has ended is not returned");
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_provision_at_once_get_one_server() {
    let mut stage = ready_for(Job::Provision).await;
    let (one, other) =
        tokio::join!(Job::Provision.try_start(&stage), Job::Provision.try_start(&stage));
    let (started, refused) = match (one, other) {
        (Ok(started), Err(refused)) | (Err(refused), Ok(started)) => (started, refused),
        both => panic!("{both:?}"),
    };
    assert!(matches!(refused, OpError::Busy { operation, .. } if operation == started));
    stage.drive_here().await;
    assert_eq!(stage.end_of(started).await.state, OperationState::Succeeded);
    Job::Provision.check_good_end(&stage, started).await;
    stage.tear_down().await;
}

/// Lets an operation be interrupted at a call, and lets `minutes` pass before somebody goes on.
async fn goes_on_after(
    job: Job,
    call: (At, &str, &str),
    minutes: i64,
) -> (Stage, vmkit::domain::ids::OperationId) {
    let mut stage = ready_for(job).await;
    let id = job.start(&stage).await;
    stage.fault(call, Action::HoldBefore, Some(1));
    stage.drive_here().await;
    let held = stage.held(call.0, id).await.expect("the call is made");
    stage.kill().await;
    stage.release(call.0, held).await;
    let clock = Clock::hand(Millis(Clock::wall().now().0 + minutes * 60_000));
    stage.drive_here_with(clock, |_| {}).await;
    (stage, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_away_is_not_resumed_when_it_is_old() {
    for (job, call, tool) in [
        (Job::Destroy, (At::GitHub, "DELETE", "/actions/variables/"), "destroy"),
        (Job::Rollback, (At::GitHub, "PUT", "/actions/secrets/"), "rollback"),
    ] {
        let (mut stage, id) = goes_on_after(job, call, 11).await;
        let row = stage.end_of(id).await;
        assert_eq!(row.state, OperationState::Stuck, "{row:#?}");
        let failure = row.failure.expect("a failure");
        assert_eq!(failure.code, "interrupted");
        assert!(failure.message.contains("11 minutes ago"), "{}", failure.message);
        assert!(failure.message.contains(&format!("a {tool} is not")), "{}", failure.message);
        assert!(failure.fix.contains(&format!("`{tool}`")), "{}", failure.fix);
        assert_eq!(stage.counts().await, [1, 1, 1], "nothing was taken away");
        stage.nothing_is_lost().await;
        stage.kill().await;
        stage.drive_here().await;
        let again = job.done(&stage).await;
        job.check_good_end(&stage, again).await;
        stage.tear_down().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_on_while_it_is_young() {
    for (job, call) in [
        (Job::Destroy, (At::Cloud, "DELETE", r"/servers/\d+$")),
        (Job::Rollback, (At::GitHub, "PUT", "/actions/secrets/")),
    ] {
        let (stage, id) = goes_on_after(job, call, 9).await;
        let row = stage.end_of(id).await;
        assert_eq!(row.state, job.good_end(), "{row:#?}");
        job.check_good_end(&stage, id).await;
        stage.tear_down().await;
    }
}

/// A step may take long and say nothing: what counts is when the driver was last alive.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_with_a_long_step_is_resumed() {
    let mut stage = ready_for(Job::Rollback).await;
    let id = Job::Rollback.start(&stage).await;
    stage.hold_runs(Job::Deploy).await;
    die_at(&mut stage, id, (At::GitHub, "GET", "/jobs$"), Action::HoldBefore).await;
    let long_ago = Clock::wall().now().plus_ms(-20 * 60_000).0;
    stage.write_sql(&format!("update operation set updated_at = {long_ago} where id = '{id}'"));
    stage.github_knobs(json!({})).await;
    stage.drive_here().await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
    stage.tear_down().await;
}

/// The process stands still in the middle of a call for longer than its lease; another one takes
/// the operation to its end. When the first wakes up it may not do anything any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_slept_stops_at_its_next_write() {
    let mut stage = ready_for(Job::Provision).await;
    let id = Job::Provision.start(&stage).await;
    stage.fault((At::Cloud, "POST", "/firewalls$"), Action::HoldAfter, Some(1));
    stage.drive();
    let held = stage.held(At::Cloud, id).await.expect("the call is made");
    let sleeper = stage.pid();
    kill_process(sleeper, Signal::STOP).expect("stopped");
    let slept = stage.drive_beside().await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
    let epochs =
        stage.sql("select cast(lease_epoch as text) from operation where kind = 'provision_vm'");
    assert_eq!(epochs, ["2"], "taken twice");
    stage.kill().await;
    let steps = format!("{:?}", stage.steps(id).await);
    let seen = stage.last_requests();
    stage.release(At::Cloud, held).await;
    kill_process(sleeper, Signal::CONT).expect("woken");
    stage.until_logged(&format!("{id} left")).await;
    assert_eq!(stage.last_requests(), seen, "it asked for nothing more");
    assert_eq!(format!("{:?}", stage.steps(id).await), steps, "and wrote nothing");
    assert_eq!(stage.row(id).await.state, OperationState::Succeeded);
    Job::Provision.check_good_end(&stage, id).await;
    slept.kill().await;
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_deleted_in_an_undo_is_named() {
    let mut stage = ready_for(Job::Provision).await;
    let id = Job::Provision.start(&stage).await;
    let refusal = || Action::Status { code: 403, body: None, headers: Default::default() };
    stage.fault((At::Cloud, "GET", r"/servers/\d+$"), refusal(), Some(1));
    stage.fault((At::Cloud, "DELETE", "/servers/"), refusal(), None);
    stage.drive_here().await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Stuck, "{row:#?}");
    let failure = row.failure.expect("a failure");
    let server = stage.cloud().await["servers"][0]["name"].as_str().expect("a name").to_owned();
    assert!(failure.fix.contains(&server) && failure.fix.contains("billed"), "{}", failure.fix);
    assert!(failure.fix.contains(&format!("`destroy` with environment `{}`", staging())));
    stage.nothing_is_lost().await;
    stage.faults(At::Cloud).clear();
    Job::Destroy.done(&stage).await;
    assert_eq!(stage.counts().await, [0, 0, 0]);
    stage.tear_down().await;
}
