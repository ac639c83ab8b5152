//! The driving process is killed with SIGKILL before and after each outside effect of each step,
//! and as each step begins; another process goes on, and the operation ends as if nothing had
//! happened.

use serde_json::json;
use vmkit::domain::ids::OperationId;
use vmkit::store::StepState;
use vmkit_sandbox::faults::Action;

use crate::calls::Outside;
use crate::cases;
use crate::crash_undo::die_at;
use crate::jobs::Job;
use crate::stage::{DOORS, Stage};

/// Where the process dies.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// A simulator has the request; its effect comes when the process is dead.
    Before(Outside),
    /// The effect is there; its answer never comes.
    After(Outside),
    /// The journal has the step.
    Begun(&'static str),
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_repo() {
    every_moment_of(Job::Setup).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn provision_vm() {
    every_moment_of(Job::Provision).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn adopt_vm() {
    every_moment_of(Job::Adopt).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deploy() {
    every_moment_of(Job::Deploy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deploy_of_what_is_live() {
    every_moment_of(Job::Current).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback() {
    every_moment_of(Job::Rollback).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resize_vm() {
    every_moment_of(Job::Resize).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintain_vm() {
    every_moment_of(Job::Reboot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn destroy() {
    every_moment_of(Job::Destroy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retire() {
    every_moment_of(Job::Retire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restore() {
    every_moment_of(Job::Restore).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manage_domain() {
    every_moment_of(Job::Domain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn configure_app() {
    every_moment_of(Job::Configure).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manage_service() {
    every_moment_of(Job::AddService).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrade_of_a_service() {
    every_moment_of(Job::UpgradeService).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn remove_service() {
    every_moment_of(Job::RemoveService).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn control_app() {
    every_moment_of(Job::Stop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn test_build() {
    every_moment_of(Job::TestBuild).await;
}

async fn every_moment_of(job: Job) {
    let calls = job.kinds_of_calls().into_iter();
    let mut moments: Vec<Moment> = calls
        .flat_map(|call| match call.changes() {
            true => vec![Moment::Before(call), Moment::After(call)],
            // A read has no effect: dying before it is dying after what came before it.
            false => vec![Moment::Before(call)],
        })
        .collect();
    if job == Job::RemoveService {
        moments.retain(|moment| match moment {
            Moment::Before(call) | Moment::After(call) => call.method == "PATCH",
            Moment::Begun(_) => true,
        });
    }
    let known = [Job::Current, Job::Rollback, Job::AddService, Job::UpgradeService];
    if known.contains(&job) {
        // What comes before the dispatch is the same code in the same state as in a deploy.
        moments.retain(|moment| match moment {
            Moment::Before(call) | Moment::After(call) => {
                matches!(call.step, "dispatch" | "watch")
            }
            Moment::Begun(_) => true,
        });
    }
    let of_calls = |step: &str| job.calls().iter().any(|call| call.step == step);
    let silent = job.steps().iter().filter(|step| !of_calls(step));
    moments.extend(silent.map(|step| Moment::Begun(step)));
    let cases = moments.into_iter().map(|moment| (name(job, moment), dies(job, moment)));
    cases::all(&format!("crashes of {job:?}"), cases).await;
}

fn name(job: Job, moment: Moment) -> String {
    match moment {
        Moment::Before(call) => {
            format!("{job:?} before {} {} {}", call.step, call.method, call.path)
        }
        Moment::After(call) => format!("{job:?} after {} {} {}", call.step, call.method, call.path),
        Moment::Begun(step) => format!("{job:?} as {step} begins"),
    }
}

async fn dies(job: Job, moment: Moment) {
    let mut stage = Stage::set_up().await;
    job.prepare(&mut stage).await;
    let id = job.start(&stage).await;
    if job.calls().iter().any(|call| call.step == "watch") {
        stage.hold_runs(job).await;
    }
    match moment {
        Moment::Before(call) => die_at(&mut stage, id, call.door(), Action::HoldBefore).await,
        Moment::After(call) => die_at(&mut stage, id, call.door(), Action::HoldAfter).await,
        Moment::Begun(step) => {
            if matches!(step, "prove" | "give_address") {
                stage.github_knobs(json!({})).await;
            }
            stage.drive();
            stage.until_step(id, step).await;
            stage.kill().await;
        }
    }
    let finished = stage.finished_steps(id).await;
    let seen = stage.last_requests();
    stage.github_knobs(json!({})).await;
    stage.drive();
    let row = stage.end_of(id).await;
    assert_eq!(row.state, job.good_end(), "{row:#?} {:#?}", stage.steps(id).await);
    job.check_good_end(&stage, id).await;
    let now = stage.finished_steps(id).await;
    let again = finished.iter().find(|step| !now.contains(step));
    assert_eq!(again, None, "a finished step began again: {now:?}");
    stage.none_again(job, &finished, seen);
    stage.tear_down().await;
}

impl Stage {
    /// Waits until the journal has a step.
    pub(crate) async fn until_step(&self, id: OperationId, step: &str) {
        self.until(step, async || {
            self.steps(id).await.iter().any(|row| row.name == step).then_some(())
        })
        .await;
    }

    /// The steps that the journal has as done, and how often each began.
    pub(crate) async fn finished_steps(&self, id: OperationId) -> Vec<(String, u32)> {
        let steps = self.steps(id).await.into_iter();
        steps
            .filter(|step| step.state == StepState::Done)
            .map(|step| (step.name, step.attempts))
            .collect()
    }

    /// The numbers of the last requests so far.
    pub(crate) fn last_requests(&self) -> [u64; 3] {
        DOORS.map(|at| self.faults(at).requests().last().map_or(0, |request| request.id))
    }

    /// Fails where a step that was finished before `seen` changed anything after it.
    pub(crate) fn none_again(&self, job: Job, finished: &[(String, u32)], seen: [u64; 3]) {
        for (at, seen) in DOORS.into_iter().zip(seen) {
            for one in self.faults(at).requests().iter().filter(|one| one.id > seen) {
                let step = job.calls().iter().find(|call| {
                    call.at == at && call.changes() && call.matches(&one.method, &one.path)
                });
                let again = step.filter(|call| finished.iter().any(|(done, _)| done == call.step));
                assert!(again.is_none(), "{again:?} ran again: {} {}", one.method, one.path);
            }
        }
    }
}
