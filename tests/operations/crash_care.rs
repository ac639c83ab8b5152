//! Care of a VM whose driving process is killed with SIGKILL: as each step begins, when its effect
//! is there, and in the undo. Another process goes on, to the same end. The outside world of these
//! steps is the agent alone, so no simulator can hold a call; one stage serves many deaths.

use serde_json::{Value, json};
use vmkit::domain::ids::OperationId;
use vmkit::domain::operation::OperationState;
use vmkit::operations::maintain_vm::Action;
use vmkit::store::StepState;
use vmkit_sandbox::machines::{ContainerSpec, Image};

use crate::care::begin;
use crate::jobs::Job;
use crate::stage::Stage;

const DOCKER: &str = "/etc/docker/daemon.json";
/// As an owner may have it: where containers log to is not said.
const UNSAID: &str = "{\"live-restore\": true}";

/// A stage with a deployed app, which nobody drives.
async fn deployed() -> Stage {
    let mut stage = Stage::set_up().await;
    Job::Reboot.prepare(&mut stage).await;
    stage
}

/// Where the process dies.
enum Moment<'a> {
    /// The journal has the step.
    Begun(&'static str),
    /// It shows on the VM.
    Effect(&'static str, &'a dyn Fn() -> bool),
}

/// Starts the work with nobody to drive it (a plan is made with the agent's help, so somebody does
/// until it is queued), dies at the moment, and lets another process go on.
async fn dies(stage: &mut Stage, action: Action, moment: &Moment<'_>) -> (OperationId, String) {
    stage.drive();
    let vm = stage.maintain(action).vm;
    stage
        .until("the agent is linked", async || {
            let presence = stage.context().fleet.presence(vm).await;
            presence.is_ok_and(|presence| presence.linked).then_some(())
        })
        .await;
    let id = begin(stage, action).await;
    let name = match moment {
        Moment::Begun(step) => {
            stage.until_step(id, step).await;
            format!("{action:?} as {step} begins")
        }
        Moment::Effect(what, shows) => {
            stage
                .until(what, async || {
                    let over = stage.row(id).await.state.is_ended();
                    (shows() || over).then_some(())
                })
                .await;
            format!("{action:?} when {what}")
        }
    };
    stage.kill().await;
    (id, name)
}

/// The same to its good end; a step that was done is not begun again.
async fn goes_on(stage: &mut Stage, action: Action, moment: &Moment<'_>) -> Value {
    let (id, name) = dies(stage, action, moment).await;
    let finished = stage.finished_steps(id).await;
    stage.drive();
    let row = stage.end_of(id).await;
    let steps = stage.steps(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{name}: {row:#?} {steps:#?}");
    assert!(steps.iter().all(|step| step.state == StepState::Done), "{name}: {steps:#?}");
    let now = stage.finished_steps(id).await;
    let again = finished.iter().find(|step| !now.contains(step));
    assert_eq!(again, None, "{name}: a finished step began again: {now:?}");
    assert_eq!(stage.kamal_locks(), Vec::<String>::new(), "{name}");
    assert_eq!(stage.serving().await.len(), 1, "{name}: what ran runs");
    stage.nothing_is_lost().await;
    stage.kill().await;
    eprintln!("ok {name}");
    row.result.expect("a result")
}

#[tokio::test(flavor = "multi_thread")]
async fn hardening() {
    let mut stage = deployed().await;
    let file = stage.machine().path(DOCKER);
    let armed = stage.machine().path("/var/lib/vmkit/care/undo.json");
    let hardened = || std::fs::read_to_string(&file).expect("it").contains("journald");
    for moment in [
        Moment::Begun("harden"),
        Moment::Effect("the file is changed", &hardened),
        Moment::Begun("new_login"),
        Moment::Begun("keep"),
    ] {
        std::fs::write(&file, UNSAID).expect("written");
        let result = goes_on(&mut stage, Action::Harden, &moment).await;
        assert!(hardened(), "{result:#}");
        assert!(!armed.exists(), "the VM would take it back");
    }
    // In its undo: the VM is as it was, whoever finishes it.
    std::fs::write(&file, UNSAID).expect("written");
    let (id, _) = dies(&mut stage, Action::Harden, &Moment::Begun("new_login")).await;
    assert!(hardened());
    assert!(stage.context().store.request_cancel(id).await.expect("written"));
    stage.drive();
    stage.until_undoing(id, "harden").await;
    stage.kill().await;
    stage.drive();
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Cancelled, "{row:#?}");
    assert_eq!(std::fs::read_to_string(&file).expect("it"), UNSAID);
    assert!(!armed.exists());
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning() {
    let mut stage = deployed().await;
    let machine = stage.machine();
    let old = |version: u32| format!("blog-production-web-{version}");
    let there = |version: u32| machine.docker().get(&old(version)).is_some();
    let pruned = || !there(1);
    for moment in [
        Moment::Begun("lock_kamal"),
        Moment::Begun("prune"),
        Moment::Effect("the oldest version is gone", &pruned),
        Moment::Begun("unlock_kamal"),
    ] {
        for version in (1..=5).filter(|version| !there(*version)) {
            let labels = [("service", "blog-production"), ("role", "web")];
            let image = Image {
                reference: format!("ghcr.io/octo/{}", old(version)),
                dir: machine.root().to_owned(),
                command: vec!["true".to_owned()],
                ..Image::default()
            };
            let labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
            let spec =
                ContainerSpec { name: old(version), image, labels, ..ContainerSpec::default() };
            machine.docker().run(spec).await.expect("it ran");
            stage
                .until("it has ended", async || {
                    machine.docker().get(&old(version)).filter(|one| !one.running).map(drop)
                })
                .await;
        }
        goes_on(&mut stage, Action::Prune, &moment).await;
        let left = (1..=5).filter(|version| there(*version)).count();
        assert_eq!(left, 3, "those that Kamal can go back to stay");
    }
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades() {
    let mut stage = deployed().await;
    let program = |name: usize| {
        let real = env!("CARGO_BIN_EXE_vmkit");
        format!(
            "#!/bin/sh\n# version {name}\n[ \"$1\" = self-test ] && echo 'vmkit-agent is well: {name}' && exit 0\n\
             exec '{real}' agent \"$@\"\n"
        )
    };
    let in_place = stage.machine().path("/usr/local/bin/vmkit-agent");
    let next = stage.machine().path("/usr/local/bin/.vmkit-agent.next");
    let hand_out = |stage: &Stage, text: &str| {
        for arch in ["amd64", "arm64"] {
            std::fs::write(stage.agent_file(arch), text).expect("written");
        }
    };
    for version in 0..4 {
        let text = program(version);
        hand_out(&stage, &text);
        let runs = || std::fs::read_to_string(&in_place).is_ok_and(|now| now == text);
        let moment = match version {
            0 => Moment::Begun("send_agent"),
            1 => Moment::Begun("try_agent"),
            2 => Moment::Effect("its pieces are there", &|| next.exists()),
            _ => Moment::Effect("the next version is in place", &runs),
        };
        let result = goes_on(&mut stage, Action::UpgradeAgent, &moment).await;
        assert!(runs(), "{result:#}");
        assert!(!next.exists(), "nothing half is left");
    }
    stage.tear_down().await;
}

/// A step that fails leaves the VM as it was: the agent refuses, or is not there.
#[tokio::test(flavor = "multi_thread")]
async fn care_that_fails_leaves_the_vm_as_it_was() {
    let mut stage = deployed().await;
    let machine = stage.machine();
    let file = machine.path(DOCKER);
    // The measure's own check fails: what it began is taken back, the others stand.
    std::fs::write(&file, "no JSON").expect("written");
    stage.drive();
    let id = begin(&stage, Action::Harden).await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
    let result = row.result.expect("a result");
    assert!(result["failed"].to_string().contains("is not JSON"), "{result:#}");
    assert_eq!(std::fs::read_to_string(&file).expect("it"), "no JSON");
    stage.kill().await;
    // Nobody gets in any more after it: the way back is the VM's own, and was armed before.
    std::fs::write(&file, UNSAID).expect("written");
    let (id, _) = dies(&mut stage, Action::Harden, &Moment::Begun("new_login")).await;
    machine.power_off().await;
    assert!(stage.context().store.request_cancel(id).await.expect("written"));
    stage
        .drive_here_with(vmkit::domain::clock::Clock::wall(), |context| {
            context.pace.relink = std::time::Duration::from_secs(1);
        })
        .await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Cancelled, "{row:#?}");
    machine.power_on().await.expect("on");
    stage
        .until("the VM has taken it back by itself", async || {
            (std::fs::read_to_string(&file).expect("it") == UNSAID).then_some(())
        })
        .await;
    assert_eq!(json!(stage.kamal_locks()), json!([]));
    stage.tear_down().await;
}
