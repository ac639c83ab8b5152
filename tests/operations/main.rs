//! Operations on the sandbox: the real driver, a real file, real agents and real processes.

mod adopt;
mod adopted;
mod agent_releases;
#[path = "../support/hour.rs"]
mod an_hour;
mod beside;
mod calls;
mod care;
mod cases;
mod checklist;
mod configure;
mod control;
mod crash_care;
mod crash_hiccups;
mod crash_refused;
mod crash_steps;
mod crash_undo;
mod domains;
mod driving;
mod enrolment;
mod guards;
mod hour;
mod identity;
mod jobs;
mod maintain;
mod mended;
mod order;
mod presence;
mod promote;
mod resize;
mod resize_trouble;
mod services;
mod ssh;
mod stage;
mod sweep;
mod trouble;
mod undo;

use jobs::Job;
use stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_on_the_sandbox() {
    let mut stage = Stage::set_up().await;
    Job::Destroy.prepare(&mut stage).await;
    stage.drive();
    let id = Job::Destroy.done(&stage).await;
    Job::Destroy.check_good_end(&stage, id).await;
    stage.tear_down().await;
}
