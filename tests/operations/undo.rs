//! A destroy that can be undone, and its undo: the same address answers, with the same data and the
//! same host key; the simulator's own lists say what is billed meanwhile.

use serde_json::Value;
use vmkit::domain::operation::OperationState;
use vmkit::domain::plan::Policy;
use vmkit::operations::destroy::{self, Wanted};
use vmkit::operations::domains::{self, Asked};
use vmkit::operations::{Ask, Started};
use vmkit_sandbox::faults::Action;

use crate::crash_undo::die_at;
use crate::jobs::Job;
use crate::stage::{At, Stage, staging};

async fn carried_out(stage: &Stage, wanted: Wanted) -> OperationState {
    let (context, path) = (stage.context(), staging());
    let plan = destroy::plan(context, &path, wanted).await.expect("a plan");
    assert_eq!(plan.policy, Policy::Plan, "{plan:#?}");
    let started = destroy::start(context, &path, Some(wanted), plan.id, Ask::by("test")).await;
    let Ok(Started::Operation(id)) = started else { panic!("{started:?}") };
    let row = stage.end_of(id).await;
    let steps = stage.steps(id).await;
    assert!(row.state.is_ended(), "{row:#?}");
    if row.state != OperationState::Succeeded {
        eprintln!("{row:#?} {steps:#?}");
    }
    row.state
}

/// Where the VM is, by the simulator: its address, its root folder.
async fn machine(stage: &Stage) -> (Value, std::path::PathBuf) {
    let state = stage.cloud().await;
    let one = &state["machines"][0];
    (one["address"].clone(), one["root"].as_str().expect("a root").into())
}

async fn comes_back(wanted: Wanted, servers_meanwhile: usize) {
    let mut stage = Stage::set_up().await;
    Job::Destroy.prepare(&mut stage).await;
    stage.drive_here().await;
    let (address, root) = machine(&stage).await;
    let key = "etc/ssh/ssh_host_ed25519_key.pub";
    let host_key = std::fs::read_to_string(root.join(key)).expect("a host key");
    std::fs::write(root.join("home/data"), "precious").expect("written");
    let serving = stage.serving().await;

    assert_eq!(carried_out(&stage, wanted).await, OperationState::Succeeded);
    assert_eq!(stage.counts().await[0], servers_meanwhile);
    assert_eq!(stage.serving().await, Vec::<Value>::new());
    assert_eq!(stage.repo().await["secrets"], serde_json::json!([]));

    assert_eq!(carried_out(&stage, Wanted::Undo).await, OperationState::Succeeded);
    let (now, root) = machine(&stage).await;
    assert_eq!(now, address);
    assert_eq!(std::fs::read_to_string(root.join(key)).expect("a host key"), host_key);
    assert_eq!(std::fs::read_to_string(root.join("home/data")).expect("the data"), "precious");
    assert_eq!(stage.serving().await, serving);
    stage.nothing_is_lost().await;
    let id = Job::Destroy.done(&stage).await;
    Job::Destroy.check_good_end(&stage, id).await;
    let state = stage.cloud().await;
    assert_eq!(state["primary_ips"].as_array().map_or(0, Vec::len), 0, "{state:#}");
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destroyed_environment_comes_back_with_its_data() {
    comes_back(Wanted::Keep, 0).await;
}

/// Unlike the IPv4 address the IPv6 one goes with the server, and the record has to follow.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_server_is_found_at_its_new_ipv6_address() {
    let mut stage = Stage::set_up().await;
    Job::Destroy.prepare(&mut stage).await;
    stage.drive_here().await;
    let (context, path) = (stage.context(), staging());
    let pointed = domains::start(context, &path, &Asked::Kept, Ask::by("test")).await;
    stage.end_of(pointed.expect("started")).await;
    let said = |kind: &str| {
        let state = stage.sandbox.cloudflare().state();
        let records = state["zones"][0]["records"].as_array().expect("a list").clone();
        let of_kind = records.into_iter().find(|one| one["type"] == kind).expect("a record");
        of_kind["content"].as_str().expect("an address").to_owned()
    };
    let (a, aaaa) = (said("A"), said("AAAA"));
    assert_eq!(carried_out(&stage, Wanted::Keep).await, OperationState::Succeeded);
    assert_eq!(carried_out(&stage, Wanted::Undo).await, OperationState::Succeeded);
    assert_eq!(said("A"), a);
    assert_ne!(said("AAAA"), aaaa, "the simulated cloud gives every server another one");
    assert_eq!(stage.sql("select ipv6 from vm"), [said("AAAA")]);
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_environment_comes_back_with_its_data() {
    comes_back(Wanted::Park, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_can_be_purged() {
    let mut stage = Stage::set_up().await;
    Job::Destroy.prepare(&mut stage).await;
    stage.drive_here().await;
    assert_eq!(carried_out(&stage, Wanted::Keep).await, OperationState::Succeeded);
    let id = Job::Destroy.done(&stage).await;
    Job::Destroy.check_good_end(&stage, id).await;
    stage.tear_down().await;
}

/// Its server is gone, and so is the way back: what is told goes on from there.
#[tokio::test(flavor = "multi_thread")]
async fn crash_a_destroy_stopped_when_its_server_is_gone_says_what_goes_on() {
    let mut stage = Stage::set_up().await;
    Job::Retire.prepare(&mut stage).await;
    let id = Job::Retire.start(&stage).await;
    die_at(&mut stage, id, (At::Cloud, "DELETE", r"/servers/\d+$"), Action::HoldAfter).await;
    assert!(stage.context().store.request_cancel(id).await.expect("written"));
    stage.drive_here().await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Stuck, "{row:#?}");
    let fix = row.failure.expect("a failure").fix;
    assert!(
        fix.contains("`undo: true` to bring it back") && fix.contains("`purge: true`"),
        "{fix}"
    );
    let again = destroy::plan(stage.context(), &staging(), Wanted::Keep).await;
    assert_eq!(again.expect_err("it is destroyed").code(), "retired");
    assert_eq!(carried_out(&stage, Wanted::Undo).await, OperationState::Succeeded);
    stage.nothing_is_lost().await;
    stage.tear_down().await;
}

/// The order is refused: nothing is lost, and the next undo goes through.
#[tokio::test(flavor = "multi_thread")]
async fn an_undo_whose_order_is_refused_loses_nothing() {
    let mut stage = Stage::set_up().await;
    Job::Destroy.prepare(&mut stage).await;
    stage.drive_here().await;
    assert_eq!(carried_out(&stage, Wanted::Keep).await, OperationState::Succeeded);
    let refusal = Action::Status { code: 403, body: None, headers: Default::default() };
    stage.fault((At::Cloud, "POST", "/servers$"), refusal, Some(1));
    assert_eq!(carried_out(&stage, Wanted::Undo).await, OperationState::Failed);
    assert_eq!(stage.counts().await[0], 0);
    assert_eq!(carried_out(&stage, Wanted::Undo).await, OperationState::Succeeded);
    stage.tear_down().await;
}
