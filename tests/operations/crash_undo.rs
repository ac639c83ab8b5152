//! The driving process is killed with SIGKILL in the middle of each undo; another process goes on,
//! and what was made is gone.

use serde_json::json;
use vmkit::domain::ids::OperationId;
use vmkit::domain::operation::OperationState;
use vmkit::store::StepState;
use vmkit_sandbox::faults::Action;

use crate::calls::Outside;
use crate::cases;
use crate::jobs::Job;
use crate::stage::{At, Stage};

/// An operation that is stopped half-way, and the outside calls of its undo.
struct Half {
    job: Job,
    /// The call in whose middle it is stopped.
    stop: (At, &'static str, &'static str),
    /// Whether that call has its effect.
    after: bool,
    undo: &'static [(At, &'static str, &'static str)],
    /// A step whose undo makes a call that no simulator sees.
    silent: Option<&'static str>,
}

const HALVES: [Half; 16] = [
    Half {
        job: Job::AddService,
        stop: (At::GitHub, "POST", "/dispatches$"),
        after: true,
        undo: &[
            (At::GitHub, "POST", r"/actions/runs/\d+/cancel$"),
            (At::GitHub, "PATCH", "/git/refs/heads/main$"),
        ],
        silent: Some("write_file"),
    },
    Half {
        job: Job::UpgradeService,
        stop: (At::GitHub, "POST", "/dispatches$"),
        after: true,
        undo: &[(At::GitHub, "PATCH", "/git/refs/heads/main$")],
        silent: Some("note_version"),
    },
    Half {
        job: Job::Setup,
        stop: (At::GitHub, "POST", "/pulls$"),
        after: true,
        undo: &[
            (At::GitHub, "GET", "/pulls$"),
            (At::GitHub, "PATCH", r"/pulls/\d+$"),
            (At::GitHub, "DELETE", "/git/refs/heads/vmkit/setup$"),
        ],
        silent: None,
    },
    Half {
        job: Job::Provision,
        stop: (At::Cloud, "POST", "/servers$"),
        after: true,
        undo: &[
            (At::Cloud, "GET", "/servers$"),
            (At::Cloud, "GET", r"/servers/\d+$"),
            (At::Cloud, "DELETE", r"/servers/\d+$"),
            (At::Cloud, "GET", r"/actions/\d+$"),
            (At::Cloud, "GET", "/firewalls$"),
            (At::Cloud, "DELETE", r"/firewalls/\d+$"),
            (At::Cloud, "GET", "/ssh_keys$"),
            (At::Cloud, "DELETE", r"/ssh_keys/\d+$"),
        ],
        silent: None,
    },
    Half {
        job: Job::Adopt,
        stop: (At::Cloud, "PUT", r"/servers/\d+$"),
        after: true,
        undo: &[(At::Cloud, "GET", r"/servers/\d+$"), (At::Cloud, "PUT", r"/servers/\d+$")],
        silent: None,
    },
    Half {
        job: Job::Deploy,
        stop: (At::GitHub, "POST", "/dispatches$"),
        after: true,
        undo: &[
            (At::GitHub, "GET", "/workflows/vmkit-deploy.yml/runs$"),
            (At::GitHub, "POST", r"/actions/runs/\d+/cancel$"),
            (At::GitHub, "GET", r"/actions/runs/\d+$"),
        ],
        silent: None,
    },
    Half {
        job: Job::Current,
        stop: (At::GitHub, "POST", "/dispatches$"),
        after: true,
        undo: &[(At::GitHub, "POST", r"/actions/runs/\d+/cancel$")],
        silent: Some("write_env"),
    },
    Half {
        job: Job::TestBuild,
        stop: (At::GitHub, "POST", "/dispatches$"),
        after: true,
        undo: &[(At::GitHub, "POST", r"/actions/runs/\d+/cancel$")],
        silent: None,
    },
    Half {
        job: Job::Configure,
        stop: (At::GitHub, "POST", "/git/commits$"),
        after: true,
        undo: &[],
        silent: Some("keep_settings"),
    },
    Half {
        job: Job::Resize,
        stop: (At::Cloud, "POST", "/actions/change_type$"),
        after: true,
        undo: &[
            (At::Cloud, "GET", r"/servers/\d+$"),
            (At::Cloud, "POST", "/actions/shutdown$"),
            (At::Cloud, "GET", r"/actions/\d+$"),
            (At::Cloud, "POST", "/actions/change_type$"),
        ],
        silent: Some("quiesce"),
    },
    Half {
        job: Job::Reboot,
        stop: (At::Cloud, "POST", "/actions/poweron$"),
        after: false,
        undo: &[(At::Cloud, "GET", r"/servers/\d+$")],
        silent: Some("quiesce"),
    },
    Half {
        job: Job::Domain,
        stop: (At::Dns, "POST", "/dns_records$"),
        after: true,
        undo: &[
            (At::Dns, "GET", "/zones$"),
            (At::Dns, "GET", "/dns_records$"),
            (At::Dns, "DELETE", r"/dns_records/\w+$"),
        ],
        silent: None,
    },
    Half {
        job: Job::Retire,
        stop: (At::Cloud, "POST", "/actions/create_image$"),
        after: true,
        undo: &[
            (At::Cloud, "GET", "/images$"),
            (At::Cloud, "DELETE", r"/images/\d+$"),
            (At::Cloud, "GET", "/servers$"),
            (At::Cloud, "POST", "/actions/poweron$"),
            (At::GitHub, "PUT", "/actions/secrets/VMKIT_"),
        ],
        silent: None,
    },
    Half {
        job: Job::Retire,
        stop: (At::Cloud, "POST", "/actions/unassign$"),
        after: true,
        undo: &[(At::Cloud, "POST", "/actions/assign$")],
        silent: Some("note"),
    },
    Half {
        job: Job::Restore,
        stop: (At::Cloud, "POST", "/servers$"),
        after: true,
        undo: &[
            (At::Cloud, "GET", "/servers$"),
            (At::Cloud, "DELETE", r"/servers/\d+$"),
            (At::Cloud, "GET", r"/actions/\d+$"),
        ],
        silent: None,
    },
    Half {
        job: Job::Destroy,
        stop: (At::Cloud, "GET", "/servers$"),
        after: false,
        undo: &[(At::Cloud, "GET", "/servers$"), (At::Dns, "POST", "/dns_records$")],
        silent: None,
    },
];

/// Where the undoing process dies.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Before((At, &'static str, &'static str)),
    After((At, &'static str, &'static str)),
    Undoing(&'static str),
}

#[tokio::test(flavor = "multi_thread")]
async fn every_undo_goes_on() {
    let mut all = Vec::new();
    for half in &HALVES {
        for call in half.undo {
            all.push((half, Moment::Before(*call)));
            if call.1 != "GET" {
                all.push((half, Moment::After(*call)));
            }
        }
        all.extend(half.silent.map(|step| (half, Moment::Undoing(step))));
    }
    let cases = all
        .into_iter()
        .map(|(half, moment)| (format!("{:?} {moment:?}", half.job), dies(half, moment)));
    cases::all("crashes of undos", cases).await;
}

async fn dies(half: &Half, moment: Moment) {
    let mut stage = Stage::set_up().await;
    half.job.prepare(&mut stage).await;
    let before = stage.inventory().await;
    let id = half.job.start(&stage).await;
    stage.hold_runs(half.job).await;
    let stop = if half.after { Action::HoldAfter } else { Action::HoldBefore };
    die_at(&mut stage, id, half.stop, stop).await;
    assert!(stage.context().store.request_cancel(id).await.expect("written"));
    match moment {
        Moment::Before(call) => die_at(&mut stage, id, call, Action::HoldBefore).await,
        Moment::After(call) => die_at(&mut stage, id, call, Action::HoldAfter).await,
        Moment::Undoing(step) => {
            stage.drive();
            stage.until_undoing(id, step).await;
            stage.kill().await;
        }
    }
    let undone = stage.undone(id).await;
    let attempts = stage.steps(id).await.iter().map(|step| step.attempts).sum::<u32>();
    stage.drive();
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Cancelled, "{row:#?} {:#?}", stage.steps(id).await);
    let undone_of = |inventory| half.job.undone(inventory);
    assert_eq!(undone_of(stage.inventory().await), undone_of(before), "{row:#?}");
    stage.nothing_is_lost().await;
    let steps = stage.steps(id).await;
    assert_eq!(steps.iter().map(|step| step.attempts).sum::<u32>(), attempts, "no step runs again");
    assert!(steps.iter().all(|step| step.state == StepState::Undone), "{steps:#?}");
    let over = undone == steps.len();
    assert!(!over || matches!(moment, Moment::Undoing(_)), "it died when the undo was over");
    stage.github_knobs(json!({})).await;
    let again = half.job.done(&stage).await;
    half.job.check_good_end(&stage, again).await;
    stage.tear_down().await;
}

/// Dies while a simulator holds a request; what it holds then takes its course.
pub(crate) async fn die_at(
    stage: &mut Stage,
    id: OperationId,
    call: (At, &'static str, &'static str),
    action: Action,
) {
    stage.fault(call, action, Some(1));
    stage.drive();
    let held = stage.held(call.0, id).await.expect("the call is made");
    stage.kill().await;
    stage.release(call.0, held).await;
}

impl Outside {
    /// What a fault is played on.
    pub(crate) fn door(&self) -> (At, &'static str, &'static str) {
        (self.at, self.method, self.path)
    }
}

impl Stage {
    pub(crate) async fn until_undoing(&self, id: OperationId, step: &str) {
        let begun = |state| matches!(state, StepState::Undoing | StepState::Undone);
        self.until(step, async || {
            let steps = self.steps(id).await;
            steps.iter().any(|row| row.name == step && begun(row.state)).then_some(())
        })
        .await;
    }

    async fn undone(&self, id: OperationId) -> usize {
        self.steps(id).await.iter().filter(|step| step.state == StepState::Undone).count()
    }
}
