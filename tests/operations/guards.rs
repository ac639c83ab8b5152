//! What a destroy says before anything is touched: a size that may not come back, and what its
//! owner protects.

use std::collections::BTreeSet;

use serde_json::json;
use vmkit::domain::plan::Policy;
use vmkit::operations::destroy::{self, Wanted};
use vmkit::operations::{Ask, OpError};
use vmkit_sandbox::hetzner::{Knobs, Offer};

use crate::jobs::Job;
use crate::stage::{At, Stage, staging};

#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_is_sold_out_is_told_before_it_goes() {
    let mut stage = Stage::set_up().await;
    Job::Retire.prepare(&mut stage).await;
    let offer = Offer { size: "cpx22".to_owned(), region: None };
    let gone = Knobs { sold_out: BTreeSet::from([offer]), ..Knobs::default() };
    stage.sandbox.hetzner().set_knobs(gone.clone());
    let (context, path) = (stage.context(), staging());
    let plan = destroy::plan(context, &path, Wanted::Keep).await.expect("a plan");
    assert_eq!(plan.policy, Policy::Human, "not sure: a person says so");
    let told = plan.body.touches.iter().find(|line| line.contains("NOT SURE")).expect("told");
    assert!(told.contains("mode `park`") && told.contains("`cpx22`"), "{told}");
    let plan = destroy::plan(context, &path, Wanted::Park).await.expect("a plan");
    assert_eq!(plan.policy, Policy::Plan, "that is sure");

    // Sold out after it went: the undo is refused before anything is ordered, and nothing is lost.
    stage.sandbox.hetzner().set_knobs(Knobs::default());
    stage.drive_here().await;
    Job::Retire.done(&stage).await;
    stage.sandbox.hetzner().set_knobs(gone);
    let refused = destroy::plan(stage.context(), &path, Wanted::Undo).await.expect_err("refused");
    assert_eq!(refused.code(), "not_restorable");
    assert!(refused.to_string().contains("nothing of it is lost until"), "{refused}");
    assert!(refused.fix().contains("`undo: true` again later"), "{}", refused.fix());
    stage.sandbox.hetzner().set_knobs(Knobs::default());
    let id = Job::Restore.done(&stage).await;
    Job::Restore.check_good_end(&stage, id).await;
    stage.tear_down().await;
}

/// Refused, with what is protected and how to lift it; nothing of ours or the cloud's is changed.
async fn guarded(stage: &Stage, wanted: Wanted, what: &str) {
    let before = stage.inventory().await;
    let seen = stage.last_requests();
    let refused = destroy::plan(stage.context(), &staging(), wanted).await.expect_err("refused");
    is_guarded(&refused, what);
    let made = stage.faults(At::Cloud).requests().into_iter().filter(|one| one.id > seen[0]);
    let changes: Vec<_> = made.filter(|one| one.method != "GET").collect();
    assert!(changes.is_empty(), "{changes:#?}");
    assert_eq!(stage.inventory().await, before);
}

fn is_guarded(refused: &OpError, what: &str) {
    assert_eq!(refused.code(), "protected");
    assert!(refused.to_string().contains(what), "{refused}");
    assert!(refused.to_string().contains("nothing was touched"), "{refused}");
    let fix = refused.fix();
    assert!(fix.contains("lift the protection") && fix.contains("hetzner's console"), "{fix}");
}

async fn protect(stage: &Stage, what: &str, list: &str, on: bool) {
    let id = stage.cloud().await[list][0]["id"].clone();
    let both = json!({ "delete": on, "rebuild": on });
    let body = if what == "servers" { both } else { json!({ "delete": on }) };
    stage.cloud_post(&format!("{what}/{id}/actions/change_protection"), body).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_owner_protects_is_not_touched() {
    let mut stage = Stage::set_up().await;
    Job::Retire.prepare(&mut stage).await;
    stage.drive_here().await;
    let (path, ask) = (staging(), || Ask::by("test"));
    let plan = destroy::plan(stage.context(), &path, Wanted::Keep).await.expect("a plan");

    protect(&stage, "servers", "servers", true).await;
    guarded(&stage, Wanted::Keep, "server `vmkit-").await;
    guarded(&stage, Wanted::Purge, "server `vmkit-").await;
    destroy::plan(stage.context(), &path, Wanted::Park).await.expect("parking deletes nothing");
    let started = destroy::start(stage.context(), &path, None, plan.id, ask()).await;
    is_guarded(&started.expect_err("refused after the plan too"), "server `vmkit-");
    protect(&stage, "servers", "servers", false).await;

    protect(&stage, "primary_ips", "primary_ips", true).await;
    guarded(&stage, Wanted::Purge, "address ").await;
    // It is kept, so its protection is in nobody's way.
    Job::Retire.done(&stage).await;
    guarded(&stage, Wanted::Purge, "address ").await;
    protect(&stage, "primary_ips", "primary_ips", false).await;

    protect(&stage, "images", "snapshots", true).await;
    guarded(&stage, Wanted::Purge, "snapshot `vmkit-").await;
    protect(&stage, "images", "snapshots", false).await;
    let id = Job::Destroy.done(&stage).await;
    Job::Destroy.check_good_end(&stage, id).await;
    stage.tear_down().await;
}
