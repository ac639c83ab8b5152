//! A VM's power.

use vmkit::domain::clock::Clock;
use vmkit::domain::ids::OperationId;
use vmkit::domain::operation::OperationState;
use vmkit::operations::maintain_vm::{Action, start};
use vmkit::operations::{Ask, Started, plans};
use vmkit_sandbox::hetzner::Knobs;

use crate::jobs::{Job, begun};
use crate::resize::crowded;
use crate::stage::Stage;

async fn done(stage: &Stage, action: Action) -> OperationId {
    let request = stage.maintain(action);
    let id = begun(start(stage.context(), &request, None, Ask::by("test")).await);
    let id = id.expect("started");
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn off_and_on_again_brings_back_what_ran() {
    let mut stage = crowded(Job::Reboot).await;
    let running = stage.running();
    // Stopped by hand before: it is not to start by this.
    stage
        .machine()
        .docker()
        .stop("blog-production-web-1", std::time::Duration::from_secs(5))
        .await
        .expect("stopped");
    let left: Vec<String> =
        running.iter().filter(|name| *name != "blog-production-web-1").cloned().collect();
    stage.drive_here().await;
    done(&stage, Action::PowerOff).await;
    assert_eq!(stage.server().await.0, "off");
    assert_eq!(stage.running(), Vec::<String>::new());
    assert_eq!(stage.kamal_locks(), Vec::<String>::new(), "a lock would outlast it");
    done(&stage, Action::PowerOn).await;
    stage.is_well("cpx22", &left).await;
    // On already is fine.
    done(&stage, Action::PowerOn).await;
    stage.is_well("cpx22", &left).await;
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cycle_needs_nobody_on_the_vm() {
    let mut stage = crowded(Job::Reboot).await;
    let running = stage.running();
    stage.sandbox.hetzner().set_knobs(Knobs { shutdown_ignored: true, ..Knobs::default() });
    stage.drive_here_with(Clock::wall(), |_| {}).await;
    done(&stage, Action::PowerCycle).await;
    stage.is_well("cpx22", &running).await;
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_disturbs_a_protected_environment_waits_for_a_person() {
    let mut stage = Stage::set_up().await;
    Job::Reboot.prepare(&mut stage).await;
    stage.write_sql("update environment set protected = 1");
    let context = stage.context();
    for action in [Action::PowerOff, Action::PowerCycle, Action::Reboot] {
        let request = stage.maintain(action);
        let asked = start(context, &request, None, Ask::by("test")).await.expect("asked");
        let Started::NeedsApproval(plan) = asked else { panic!("{asked:?}") };
        assert!(plan.body.touches.iter().any(|one| one.contains("(protected)")));
        if action == Action::Reboot {
            plans::approve(context, plan.id, "a person").await.expect("approved");
            let id = begun(start(context, &request, Some(plan.id), Ask::by("test")).await);
            let id = id.expect("started");
            stage.drive_here().await;
            assert_eq!(stage.end_of(id).await.state, OperationState::Succeeded);
            break;
        }
    }
    stage.tear_down().await;
}
