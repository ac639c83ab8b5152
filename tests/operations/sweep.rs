//! What a destroy kept and nobody asked back is removed by whoever starts after its time; what is
//! somebody else's, or is not over, stays.

use serde_json::{Value, json};
use vmkit::clouds::LABEL_EXPIRES;
use vmkit::domain::clock::{Clock, Millis};
use vmkit::domain::ids::OperationId;
use vmkit::domain::operation::OperationState;
use vmkit::installation::{Part, open};
use vmkit::operations::destroy::{self, Wanted};
use vmkit_sandbox::faults::Action;

use crate::jobs::Job;
use crate::stage::{At, Stage, staging};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A time after that of every undo that was noted by now.
fn later() -> Millis {
    Clock::wall().now().plus_ms(8 * DAY_MS)
}

/// Puts two snapshots beside ours: another installation's that is long over, and one of ours that
/// is not over. Their names.
async fn strangers(stage: &Stage) -> [&'static str; 2] {
    let server = stage.cloud().await["servers"][0].clone();
    let mut young = server["labels"].clone();
    young[LABEL_EXPIRES] = (later().plus_ms(DAY_MS).0 / 1000).to_string().into();
    let mut foreign = young.clone();
    foreign[vmkit::clouds::LABEL_INSTALLATION] = "somebodyelse".into();
    foreign[LABEL_EXPIRES] = "1".into();
    let path = format!("servers/{}/actions/create_image", server["id"]);
    let names = ["somebody-elses", "not-over"];
    for (name, labels) in names.into_iter().zip([foreign, young]) {
        let free = async || stage.cloud().await["servers"][0]["locked"] == false;
        stage.until("the server is free", async || free().await.then_some(())).await;
        let body = json!({ "type": "snapshot", "description": name, "labels": labels });
        stage.cloud_post(&path, body).await;
    }
    stage
        .until("the snapshots are made", async || {
            let state = stage.cloud().await;
            let all = state["snapshots"].as_array().expect("a list");
            let made = all.iter().filter(|one| one["status"] == "available").count();
            (made == 2).then_some(())
        })
        .await;
    names
}

fn names(state: &Value) -> Vec<&str> {
    let all = state["snapshots"].as_array().expect("a list").iter();
    let mut names: Vec<&str> = all.map(|one| one["description"].as_str().expect("it")).collect();
    names.sort_unstable();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_asked_back_is_removed_and_what_is_not_over_stays() {
    let mut stage = Stage::set_up().await;
    Job::Retire.prepare(&mut stage).await;
    let [foreign, young] = strangers(&stage).await;
    stage.drive_here().await;
    Job::Retire.done(&stage).await;
    stage.kill().await;
    assert_eq!(stage.kept().await, [3, 1]);

    // Nothing is over yet: whoever starts now leaves everything.
    stage.drive_here().await;
    let plan = destroy::plan(stage.context(), &staging(), Wanted::Undo).await.expect("it can");
    assert!(plan.body.summary.starts_with("restore"), "{plan:#?}");
    stage.kill().await;
    assert_eq!(stage.kept().await, [3, 1]);

    let late = open(&stage.settings, Part::Face, Clock::hand(later())).await.expect("open");
    let refused = destroy::plan(&late, &staging(), Wanted::Undo).await.expect_err("too late");
    assert_eq!(refused.code(), "undo_expired");
    assert!(refused.to_string().contains("could be undone until 20"), "{refused}");
    assert!(refused.fix().contains("`purge: true`"), "{}", refused.fix());

    stage.drive_here_with(Clock::hand(later()), |_| {}).await;
    let swept = async || stage.sql("select id from operation where caller = 'sweep'").pop();
    let id: OperationId = stage.until("a sweep", swept).await.parse().expect("an id");
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?} {:#?}", stage.steps(id).await);
    let state = stage.cloud().await;
    assert_eq!(names(&state), [young, foreign]);
    assert_eq!(state["primary_ips"], json!([]));
    assert_eq!(stage.counts().await, [0, 0, 0]);
    assert_eq!(stage.retirements(), ["purged"]);
    let told = stage.sql("select arguments || outcome from audit where caller = 'sweep'");
    assert!(matches!(&told[..], [one] if one.contains(&id.to_string())), "{told:?}");
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_an_undo_left_is_deleted_by_whoever_starts_next() {
    let mut stage = Stage::set_up().await;
    Job::Retire.prepare(&mut stage).await;
    let [foreign, young] = strangers(&stage).await;
    stage.drive_here().await;
    Job::Retire.done(&stage).await;
    let refusal = Action::Status { code: 403, body: None, headers: Default::default() };
    stage.fault((At::Cloud, "DELETE", r"/images/\d+$"), refusal, Some(1));
    Job::Restore.done(&stage).await;
    stage.kill().await;
    assert_eq!(stage.kept().await, [3, 1]);

    stage.drive_here().await;
    let gone = async || (stage.kept().await[0] == 2).then_some(());
    stage.until("the snapshot is gone", gone).await;
    let state = stage.cloud().await;
    assert_eq!(names(&state), [young, foreign]);
    assert_eq!(stage.counts().await, [1, 1, 1], "the environment is back, and stays");
    let told = async || stage.sql("select outcome from audit where caller = 'sweep'").pop();
    assert_eq!(stage.until("it is told", told).await, "DONE");
    stage.tear_down().await;
}
