//! Every outside call of every step is refused once, for good. The operation ends `failed` and
//! what it made is gone again, or `stuck` where there is no way back; either way a second one ends
//! well.

use serde_json::{Value, json};
use vmkit::domain::operation::OperationState;
use vmkit_sandbox::faults::Action;

use crate::calls::Outside;
use crate::cases;
use crate::jobs::{Job, pulls};
use crate::stage::{At, Stage, staging};

#[tokio::test(flavor = "multi_thread")]
async fn setup_repo() {
    every_call_of(Job::Setup).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn provision_vm() {
    every_call_of(Job::Provision).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn adopt_vm() {
    every_call_of(Job::Adopt).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deploy() {
    every_call_of(Job::Deploy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deploy_of_what_is_live() {
    every_call_of(Job::Current).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback() {
    every_call_of(Job::Rollback).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resize_vm() {
    every_call_of(Job::Resize).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintain_vm() {
    every_call_of(Job::Reboot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn destroy() {
    every_call_of(Job::Destroy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retire() {
    every_call_of(Job::Retire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restore() {
    every_call_of(Job::Restore).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manage_domain() {
    every_call_of(Job::Domain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn configure_app() {
    every_call_of(Job::Configure).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manage_service() {
    every_call_of(Job::AddService).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn remove_service() {
    every_call_of(Job::RemoveService).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn test_build() {
    every_call_of(Job::TestBuild).await;
}

async fn every_call_of(job: Job) {
    // A token that may not read zones leaves the records to a person, and fails nothing.
    let by_hand = |call: &Outside| call.at == At::Dns && call.path == "/zones$";
    let calls = job.kinds_of_calls().into_iter().filter(|call| !by_hand(call));
    let name = |call: Outside| format!("{job:?} {} {} {}", call.step, call.method, call.path);
    let cases = calls.map(|call| (name(call), refused(job, call)));
    cases::all(&format!("refusals of {job:?}"), cases).await;
}

/// Whether nothing can bring back what is gone when this call is refused.
fn has_no_way_back(job: Job, call: Outside) -> bool {
    let deleted = ["delete_address", "delete_firewall", "delete_ssh_key"].contains(&call.step);
    let deleting = call.at == At::Cloud && call.path.contains("/actions/");
    job == Job::Destroy && (deleted || deleting)
}

/// A restored environment stays, whatever becomes of its snapshot (a sweep deletes that) or of its
/// AAAA record; and one that goes does not wait for a record that a person has to delete.
fn fails_nothing(job: Job, call: Outside) -> bool {
    match job {
        Job::Restore => call.step == "delete_snapshot" || call.at == At::Dns,
        Job::Destroy => call.at == At::Dns,
        _ => false,
    }
}

impl Job {
    /// What has to be as it was once it is undone: the records of a name belong to the environment,
    /// not to the deploy that made them.
    pub(crate) fn undone(self, mut inventory: Value) -> Value {
        if self == Self::Deploy {
            for of_names in ["dns", "dns_rows"] {
                inventory[of_names] = Value::Null;
            }
        }
        inventory
    }
}

async fn refused(job: Job, call: Outside) {
    let mut stage = Stage::set_up().await;
    job.prepare(&mut stage).await;
    let before = stage.inventory().await;
    let id = job.start(&stage).await;
    let refusal = Action::Status { code: 403, body: None, headers: Default::default() };
    stage.fault((call.at, call.method, call.path), refusal, Some(1));
    if call.step == "watch" {
        stage.hold_runs(job).await;
    }
    stage.drive_here().await;
    let row = stage.end_of(id).await;
    if fails_nothing(job, call) {
        assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
        let result = row.result.as_ref().expect("a result");
        if call.step == "delete_snapshot" {
            assert_eq!(
                stage.cloud().await["snapshots"][0]["id"].to_string(),
                result["snapshot_left"].as_str().expect("its id")
            );
        }
        if job == Job::Destroy {
            // What was refused once is taken away with the environment.
            job.check_good_end(&stage, id).await;
        }
        stage.nothing_is_lost().await;
        stage.tear_down().await;
        return;
    }
    let failure = row.failure.as_ref().expect("a failure");
    assert!(!failure.message.is_empty() && !failure.fix.is_empty(), "{row:#?}");
    if has_no_way_back(job, call) {
        assert_eq!(row.state, OperationState::Stuck, "{row:#?}");
        assert!(failure.fix.contains(&format!("`destroy` with environment `{}`", staging())));
    } else {
        assert_eq!(row.state, OperationState::Failed, "{row:#?}");
        assert_eq!(job.undone(stage.inventory().await), job.undone(before), "{row:#?}");
    }
    stage.nothing_is_lost().await;
    stage.github_knobs(json!({})).await;
    let again = job.done(&stage).await;
    job.check_good_end(&stage, again).await;
    stage.tear_down().await;
}

impl Stage {
    /// What the simulators list that an operation may make or take away. The config in the repo
    /// and the keys of the runs belong to the environment, not to one deploy.
    pub(crate) async fn inventory(&self) -> Value {
        let repo = self.repo().await;
        let runs = repo["runs"].as_array().expect("a list");
        json!({
            "cloud": self.counts().await,
            "kept": self.kept().await,
            "server": self.server_if_any().await,
            "labels": self.labels().await,
            "kamal_locks": self.kamal_locks(),
            "setup_branch": repo["refs"]["refs/heads/vmkit/setup"],
            "open_pulls": pulls(&repo, "open"),
            "open_runs": runs.iter().filter(|run| run["status"] != "completed").count(),
            "serving": self.serving().await,
            "env_file": self.env_file().await,
            "vms": self.sql("select state from vm where state != 'deleted'"),
            "dns": self.dns(),
            "names": self.sql("select coalesce(domain, 'none') from environment"),
            "services": self.services(),
            "volumes": self.volumes(),
            "accessories": self.accessories(),
            "addresses": self.sql(
                "select key from env_var where key like '%_URL' and sealed is not null
                 and revision = (select max(revision) from env_var newer
                     where newer.key = env_var.key)",
            ),
            "dns_rows": self.sql("select name from dns_record"),
            "environments": self.sql("select coalesce(vm, 'none') from environment where deleted_at is null"),
        })
    }

    /// Kind, name and content of every record.
    fn dns(&self) -> Vec<Value> {
        let state = self.sandbox.cloudflare().state();
        let zones = state["zones"].as_array().expect("a list").iter();
        let records = zones.flat_map(|zone| zone["records"].as_array().expect("a list").clone());
        records.map(|one| json!([one["type"], one["name"], one["content"]])).collect()
    }

    /// The labels of the cloud's servers.
    async fn labels(&self) -> Vec<Value> {
        let state = self.cloud().await;
        let servers = state["servers"].as_array().expect("a list").clone();
        servers.into_iter().map(|server| server["labels"].clone()).collect()
    }

    /// The env file on the VM, as it lies there.
    async fn env_file(&self) -> Option<String> {
        let state = self.cloud().await;
        let root = state["machines"][0]["root"].as_str()?.to_owned();
        let path = std::path::Path::new(&root).join("etc/vmkit/env/shop/staging.env");
        std::fs::read_to_string(path).ok().filter(|_| self.has_release())
    }

    /// Before the first release no env file is used by anything.
    fn has_release(&self) -> bool {
        !self.sql("select id from deploy where state = 'live'").is_empty()
    }

    /// Keeps workflow runs from getting to Kamal, and those that only build from building.
    pub(crate) async fn hold_runs(&self, job: Job) {
        let step = if job == Job::TestBuild { "build-push-action" } else { "exec kamal" };
        self.github_knobs(json!({ "hold_step": step })).await;
    }
}
