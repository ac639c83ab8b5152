//! The order of outside calls where nothing goes wrong, as the simulators recorded them.

use vmkit_sandbox::faults::Exchange;

use crate::cases;
use crate::jobs::Job;
use crate::stage::{At, DOORS, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_makes_its_calls_in_their_order() {
    let jobs = [
        Job::Setup,
        Job::Provision,
        Job::Adopt,
        Job::Deploy,
        Job::Current,
        Job::Rollback,
        Job::Resize,
        Job::Reboot,
        Job::Destroy,
        Job::Retire,
        Job::Restore,
        Job::Domain,
        Job::Configure,
        Job::AddService,
        Job::UpgradeService,
        Job::RemoveService,
        Job::Stop,
        Job::TestBuild,
    ];
    cases::all("orders", jobs.into_iter().map(|job| (format!("{job:?}"), in_order(job)))).await;
}

async fn in_order(job: Job) {
    let mut stage = Stage::set_up().await;
    job.prepare(&mut stage).await;
    let id = job.start(&stage).await;
    let seen = stage.last_requests();
    stage.hold_runs(job).await;
    stage.drive();
    if job.calls().iter().any(|call| call.step == "watch") {
        let of_jobs = |one: &Exchange| one.id > seen[1] && one.path.ends_with("/jobs");
        let asked = || stage.faults(At::GitHub).requests().iter().any(of_jobs);
        stage.until("jobs", async || asked().then_some(())).await;
    }
    stage.github_knobs(serde_json::json!({})).await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, job.good_end(), "{row:#?}");
    let steps = stage.steps(id).await;
    let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, job.steps());
    assert!(steps.iter().all(|step| step.attempts == 1), "{steps:#?}");
    let mut made: Vec<(At, Exchange)> = Vec::new();
    for (at, seen) in DOORS.into_iter().zip(seen) {
        made.extend(
            stage
                .faults(at)
                .requests()
                .into_iter()
                .filter(|one| one.id > seen)
                .map(|one| (at, one)),
        );
    }
    made.sort_by_key(|(_, one)| one.time_ms);
    let of = |at: At| made.iter().filter(|(door, _)| *door == at).count();
    let counts = DOORS.map(of);
    eprintln!(
        "{job:?}: {} requests to the cloud, {} to GitHub, {} to DNS",
        counts[0], counts[1], counts[2]
    );
    // What one order and one change of size cost of the 3,600 requests an hour that Hetzner allows.
    let most = match job {
        Job::Provision => 40,
        Job::Resize => 40,
        _ => usize::MAX,
    };
    assert!(counts[0] <= most, "{job:?} asks its cloud {} times", counts[0]);
    let mut expected = job.calls().iter().peekable();
    let mut current: Option<&crate::calls::Outside> = None;
    for (at, one) in &made {
        let fits =
            |call: &&crate::calls::Outside| call.at == *at && call.matches(&one.method, &one.path);
        if current.as_ref().is_some_and(fits) {
            continue;
        }
        if expected.peek().is_some_and(fits) {
            current = expected.next();
            continue;
        }
        // A run that takes its time is looked at again and again.
        let watching = |call: &crate::calls::Outside| call.step == "watch";
        let again = job.calls().iter().any(|call| watching(call) && fits(&call));
        assert!(
            again && current.is_some_and(watching),
            "{} {}, not {:?}",
            one.method,
            one.path,
            expected.peek()
        );
    }
    assert_eq!(expected.next(), None, "calls that were not made");
    job.check_good_end(&stage, id).await;
    stage.tear_down().await;
}
