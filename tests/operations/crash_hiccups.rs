//! What passes by itself, once at every outside call: a fault of the provider's, an answer that is
//! lost after its effect, a rate limit. The operation ends as if nothing had happened.

use vmkit_sandbox::faults::Action;

use crate::cases;
use crate::jobs::Job;
use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_gets_over_what_passes() {
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
    ];
    let fault = |code| Action::Status { code, body: None, headers: Default::default() };
    let hiccups =
        [fault(500), fault(503), Action::DropAfter, Action::RateLimit { reset_seconds: 1 }];
    let pairs = jobs.into_iter().flat_map(|job| hiccups.iter().map(move |one| (job, one.clone())));
    let cases = pairs.map(|(job, hiccup)| (format!("{job:?} {hiccup:?}"), gets_over(job, hiccup)));
    cases::all("hiccups", cases).await;
}

async fn gets_over(job: Job, hiccup: Action) {
    let mut stage = Stage::set_up().await;
    job.prepare(&mut stage).await;
    let id = job.start(&stage).await;
    for call in job.kinds_of_calls() {
        stage.fault(call.door(), hiccup.clone(), Some(1));
    }
    stage.drive_here().await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, job.good_end(), "{row:#?} {:#?}", stage.steps(id).await);
    for call in job.kinds_of_calls() {
        let left = stage.faults(call.at).rules();
        let optional = call.path.ends_with("/jobs$");
        assert!(optional || left.iter().all(|rule| rule.path_regex != call.path), "{left:?}");
        stage.faults(call.at).clear();
    }
    job.check_good_end(&stage, id).await;
    stage.tear_down().await;
}
