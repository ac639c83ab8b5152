//! A closed laptop: the driving process is killed with SIGKILL in the middle of each operation, with
//! its effect there and its answer unread, and an hour passes before another one is started. What
//! makes something goes on; what disturbs or takes away is not done unasked any more, and is done when
//! it is asked for again. Nothing is there twice, nothing is lost.

use serde_json::json;
use vmkit::domain::operation::OperationState;
use vmkit_sandbox::faults::Action;

use crate::an_hour::an_hour_passes;
use crate::cases;
use crate::crash_undo::die_at;
use crate::jobs::Job;
use crate::stage::{At, DOORS, Stage};

type Call = (At, &'static str, &'static str);

/// What goes on by itself, and after which call's effect it was interrupted.
const GOES_ON: [(Job, Call); 9] = [
    (Job::Setup, (At::GitHub, "POST", "/git/refs$")),
    (Job::Provision, (At::Cloud, "POST", "/servers$")),
    (Job::Adopt, (At::Cloud, "PUT", r"/servers/\d+$")),
    (Job::Deploy, (At::GitHub, "POST", "/dispatches$")),
    (Job::Current, (At::GitHub, "POST", "/dispatches$")),
    (Job::Configure, (At::GitHub, "POST", "/git/commits$")),
    (Job::AddService, (At::GitHub, "POST", "/dispatches$")),
    (Job::Domain, (At::Dns, "POST", "/dns_records$")),
    (Job::Restore, (At::Cloud, "POST", "/servers$")),
];

/// What is not wanted unasked an hour later, and the tool that asks again.
const IS_ASKED_AGAIN: [(Job, Call, &str); 8] = [
    (Job::Rollback, (At::GitHub, "POST", "/dispatches$"), "rollback"),
    (Job::Resize, (At::Cloud, "POST", "/actions/change_type$"), "resize_vm"),
    (Job::Reboot, (At::Cloud, "POST", "/actions/shutdown$"), "maintain_vm"),
    (Job::Destroy, (At::Cloud, "DELETE", r"/servers/\d+$"), "destroy"),
    (Job::Retire, (At::Cloud, "POST", "/actions/create_image$"), "destroy"),
    (Job::UpgradeService, (At::GitHub, "POST", "/dispatches$"), "manage_service"),
    (Job::RemoveService, (At::GitHub, "PATCH", "/git/refs/heads/main$"), "destroy"),
    (Job::TestBuild, (At::GitHub, "POST", "/dispatches$"), "deploy"),
];

#[tokio::test(flavor = "multi_thread")]
async fn crash_for_an_hour() {
    let on = GOES_ON.map(|(job, call)| (job, call, None));
    let again = IS_ASKED_AGAIN.map(|(job, call, tool)| (job, call, Some(tool)));
    let all = on.into_iter().chain(again);
    let cases =
        all.map(|(job, call, tool)| (format!("{job:?}"), is_away_for_an_hour(job, call, tool)));
    cases::all("an hour away", cases).await;
}

async fn is_away_for_an_hour(job: Job, call: Call, asked_again: Option<&str>) {
    let mut stage = Stage::set_up().await;
    job.prepare(&mut stage).await;
    let id = job.start(&stage).await;
    stage.hold_runs(job).await;
    die_at(&mut stage, id, call, Action::HoldAfter).await;
    stage.github_knobs(json!({})).await;
    stage.comes_to_rest().await;
    an_hour_passes(&stage.settings.home.database());
    let finished = stage.finished_steps(id).await;
    let seen = stage.last_requests();
    stage.drive();
    let row = stage.end_of(id).await;
    stage.none_again(job, &finished, seen);
    let Some(tool) = asked_again else {
        assert_eq!(row.state, job.good_end(), "{row:#?} {:#?}", stage.steps(id).await);
        job.check_good_end(&stage, id).await;
        return stage.tear_down().await;
    };
    assert_eq!(row.state, OperationState::Stuck, "{row:#?}");
    let failure = row.failure.expect("a failure");
    assert_eq!(failure.code, "interrupted");
    // A busy machine may take another minute or two.
    assert!(failure.message.contains("interrupted 6"), "{}", failure.message);
    assert!(failure.fix.contains(&format!("`{tool}`")), "{}", failure.fix);
    for (at, seen) in DOORS.into_iter().zip(seen) {
        let made = stage.faults(at).requests().into_iter().filter(|one| one.id > seen);
        let unasked: Vec<_> = made
            .filter(|one| one.method != "GET" && !one.path.ends_with("/actions/poweron"))
            .collect();
        assert!(unasked.is_empty(), "done unasked: {unasked:#?}");
    }
    // The world got there by itself meanwhile, or another call gets there.
    let again = match job.try_start(&stage).await {
        Err(error) if there_already(job) == Some(error.code()) => id,
        started => {
            assert_eq!(there_already(job), None, "{started:?}");
            let again = started.expect("started");
            let row = stage.end_of(again).await;
            assert_eq!(row.state, job.good_end(), "{row:#?}");
            again
        }
    };
    job.check_good_end(&stage, again).await;
    stage.tear_down().await;
}

/// The code with which another call is refused, where the cloud or GitHub finished what was begun.
fn there_already(job: Job) -> Option<&'static str> {
    match job {
        Job::Resize => Some("same_size"),
        Job::UpgradeService => Some("same_version"),
        _ => None,
    }
}

impl Stage {
    /// Waits until what the world does by itself is over: runs and the cloud's actions.
    async fn comes_to_rest(&self) {
        self.until("the world rests", async || {
            let repo = self.repo().await;
            let runs = repo["runs"].as_array().expect("a list");
            let state = self.cloud().await;
            let actions = state["actions"].as_array().expect("a list");
            let over = runs.iter().all(|run| run["status"] == "completed")
                && actions.iter().all(|action| action["status"] != "running");
            over.then_some(())
        })
        .await;
    }
}
