//! How changes of the generated files meet a repo that people work in: their edits, their rules, their
//! pull requests; and what a deploy proves of each process.

use serde_json::{Value, json};
use vmkit::domain::clock::Clock;
use vmkit::domain::env_values::EnvClass;
use vmkit::domain::ids::OperationId;
use vmkit::domain::operation::OperationState;
use vmkit::domain::secret::Secret;
use vmkit::operations::configure_app::{self, Reset, Wanted};
use vmkit::operations::deploy::pushed;
use vmkit::operations::env::Change;
use vmkit::operations::setup_repo::{self, SetupRequest};
use vmkit::operations::{Ask, OpError, build_env};
use vmkit::queries::deploys::history;
use vmkit::queries::doctor::Verdict;
use vmkit::queries::repo_check::check;
use vmkit::store::Changes;

use crate::jobs::{Job, limits, pulls};
use crate::stage::{Stage, staging};

const CONFIG: &str = "config/deploy.staging.yml";

async fn configured(stage: &Stage, wanted: &Wanted) -> Value {
    let id = configure_app::start(stage.context(), &staging(), wanted, Ask::by("test")).await;
    let row = stage.end_of(id.expect("started")).await;
    json!({ "state": row.state, "message": row.progress.message, "result": row.result })
}

fn by(changes: Changes) -> String {
    let auto = changes == Changes::AutoMerge;
    let word = if changes == Changes::Direct { "direct" } else { "pr" };
    format!("update app set changes = '{word}', auto_merge = {auto}")
}

fn web_memory(mb: u32) -> Wanted {
    let web = configure_app::web().expect("a name");
    Wanted { memory_mb: [(web, mb)].into(), ..Wanted::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_edit_is_kept_beside_our_change_and_never_overwritten() {
    let mut stage = Stage::set_up().await;
    Job::Configure.prepare(&mut stage).await;
    stage.drive_here().await;
    // Elsewhere in the file: both are kept, and go on being kept.
    stage.edit(CONFIG, "main", "retain_containers: 5", "retain_containers: 9").await;
    let done = configured(&stage, &limits()).await;
    assert_eq!(done["state"], json!(OperationState::Succeeded), "{done:#}");
    assert_eq!(done["result"]["merged"], json!([CONFIG]), "{done:#}");
    configured(&stage, &web_memory(300)).await;
    let config = stage.file(CONFIG, "main").await;
    assert!(config.contains("retain_containers: 9") && config.contains("memory: 300m"), "{config}");

    // In the very lines that we would change: left as it is, named, and shown.
    stage.edit(CONFIG, "main", "memory: 300m", "memory: 301m # measured").await;
    let before = stage.commits("main").await.len();
    let preview = configure_app::preview(stage.context(), &staging(), &web_memory(512)).await;
    let preview = preview.expect("a preview");
    let shown = preview.files.iter().find(|file| file.path == CONFIG).expect("shown");
    assert!(shown.by_hand && shown.diff.contains("+      memory: 512m"), "{shown:?}");
    assert!(preview.settings[0].starts_with("processes: "), "{:?}", preview.settings);
    let done = configured(&stage, &web_memory(512)).await;
    assert_eq!(done["result"]["edited"], json!([CONFIG]), "{done:#}");
    assert!(done["result"]["notes"][0].as_str().expect("a note").contains(CONFIG), "{done:#}");
    assert!(stage.file(CONFIG, "main").await.contains("memory: 301m # measured"));
    assert_eq!(stage.commits("main").await.len(), before, "nothing was written");
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_reach_the_repo_in_the_way_that_its_rules_allow() {
    let mut stage = Stage::set_up().await;
    Job::Configure.prepare(&mut stage).await;
    stage.drive_here().await;
    // By pull request: several changes gather in one, which a person merges.
    stage.write_sql(&by(Changes::Pr));
    let done = configured(&stage, &web_memory(200)).await;
    assert_eq!(done["state"], json!(OperationState::NeedsMerge), "{done:#}");
    // An edit on its branch is a person's too.
    stage.edit(CONFIG, "vmkit/config", "retain_containers: 5", "retain_containers: 7").await;
    configured(&stage, &web_memory(201)).await;
    let aside = stage.file(CONFIG, "vmkit/config").await;
    assert!(aside.contains("memory: 201m") && aside.contains("retain_containers: 7"), "{aside}");
    assert_eq!(pulls(&stage.repo().await, "open"), 1);
    // The developer changes the same lines on the default branch: the conflict is solved by us.
    stage.edit(CONFIG, "main", "deploy_timeout: 60", "deploy_timeout: 61").await;
    stage.edit(CONFIG, "main", "retain_containers: 5", "retain_containers: 8").await;
    configured(&stage, &web_memory(202)).await;
    stage.merge_pulls().await;
    let main = stage.file(CONFIG, "main").await;
    assert!(main.contains("memory: 202m") && main.contains("retain_containers: 8"), "{main}");

    // Merged by us where nothing forbids it, else a person's again.
    stage.write_sql(&by(Changes::AutoMerge));
    let done = configured(&stage, &web_memory(203)).await;
    assert_eq!(done["state"], json!(OperationState::Succeeded), "{done:#}");
    assert!(stage.file(CONFIG, "main").await.contains("memory: 203m"));
    let review = json!({ "type": "pull_request", "parameters": {
        "required_approving_review_count": 1, "dismiss_stale_reviews_on_push": false,
        "require_code_owner_review": false, "require_last_push_approval": false,
        "required_review_thread_resolution": false
    } });
    stage.github_knobs(json!({ "rules": { "main": [review] } })).await;
    let done = configured(&stage, &web_memory(204)).await;
    assert_eq!(done["state"], json!(OperationState::NeedsMerge), "{done:#}");
    assert!(done["message"].as_str().expect("text").contains("approving review"), "{done:#}");

    // Straight to a branch that has rules: by pull request instead, which says why.
    stage.write_sql(&by(Changes::Direct));
    let done = configured(&stage, &web_memory(205)).await;
    assert_eq!(done["state"], json!(OperationState::NeedsMerge), "{done:#}");
    assert!(done["message"].as_str().expect("text").contains("rules: pull_request"), "{done:#}");
    stage.github_knobs(json!({})).await;
    stage.merge_pulls().await;
    assert!(stage.file(CONFIG, "main").await.contains("memory: 205m"));
    stage.tear_down().await;
}

fn request(root: &str) -> SetupRequest {
    SetupRequest {
        repo: "octo/shop".parse().expect("a repo"),
        app: None,
        root: root.to_owned(),
        environments: vec!["staging".parse().expect("a name")],
        changes: Changes::Pr,
    }
}

async fn set_up(stage: &Stage) -> (OperationId, Value) {
    let id = setup_repo::start(stage.context(), request("."), Ask::by("test")).await;
    let id = id.expect("started");
    let row = stage.end_of(id).await;
    (id, json!({ "state": row.state, "result": row.result }))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_set_up_pull_request_is_understood_in_every_state() {
    const PR: &str = "vmkit/setup";
    let mut stage = Stage::set_up().await;
    stage.drive_here().await;
    let needs_merge = json!(OperationState::NeedsMerge);
    let (_, first) = set_up(&stage).await;
    assert_eq!(first["state"], needs_merge);
    let files: Vec<&str> = first["result"]["files"]
        .as_array()
        .expect("files")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for file in ["README.md", ".kamal/hooks/pre-app-boot", ".github/workflows/vmkit-deploy.yml"] {
        assert!(files.contains(&file), "{files:?}");
    }
    let tree =
        stage.github("GET", &format!("/repos/octo/shop/git/trees/{PR}?recursive=1"), None).await;
    let hook = tree["tree"]
        .as_array()
        .expect("a tree")
        .iter()
        .find(|e| e["path"] == ".kamal/hooks/pre-app-boot");
    assert_eq!(hook.expect("the hook")["mode"], "100755", "Kamal skips one that it cannot run");
    // Again: the same one, with nothing new in it.
    let commits = stage.commits(PR).await;
    assert_eq!(set_up(&stage).await.1["result"]["url"], first["result"]["url"]);
    assert_eq!(stage.commits(PR).await, commits);
    // Conflicting: the developer has a hook of their own by now, which is theirs.
    let theirs = json!({ "message": "Mine", "content": "ZWNobyBtaW5lCg==" });
    stage.github("PUT", "/repos/octo/shop/contents/.kamal/hooks/pre-app-boot", Some(theirs)).await;
    let (_, conflicting) = set_up(&stage).await;
    assert_eq!(conflicting["state"], needs_merge, "{conflicting:#}");
    let pull = stage.github("GET", "/repos/octo/shop/pulls/1", None).await;
    assert_eq!(pull["mergeable"], true, "what conflicted is not in it any more");
    // Closed: a new one, on a fresh branch.
    let number = first["result"]["pull"].clone();
    let path = format!("/repos/octo/shop/pulls/{number}");
    stage.github("PATCH", &path, Some(json!({ "state": "closed" }))).await;
    let (_, second) = set_up(&stage).await;
    assert_ne!(second["result"]["pull"], number);
    // Half-made: a branch without a pull request is made anew.
    let path = format!("/repos/octo/shop/pulls/{}", second["result"]["pull"]);
    stage.github("PATCH", &path, Some(json!({ "state": "closed" }))).await;
    let (_, third) = set_up(&stage).await;
    assert_eq!(third["state"], needs_merge);
    stage.merge_pulls().await;
    // Merged: nothing is left to do, and the hook of theirs is still theirs.
    let (_, merged) = set_up(&stage).await;
    assert_eq!(merged["state"], json!(OperationState::Succeeded), "{merged:#}");
    assert_eq!(stage.file(".kamal/hooks/pre-app-boot", "main").await, "echo mine\n");
    assert!(stage.file("README.md", "main").await.contains("## Deployment"));
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_tells_all_that_stands_in_the_way_before_a_vm_is_bought() {
    let stage = Stage::set_up().await;
    let repo = "octo/shop".parse().expect("a repo");
    let rows = async |root: &str| check(stage.context(), &repo, root).await.expect("rows");
    let good = rows(".").await;
    assert!(good.iter().all(|row| row.verdict != Verdict::Bad), "{good:#?}");
    assert!(good.iter().any(|row| row.what == "packages"), "{good:#?}");

    let rule = json!({ "type": "creation" });
    stage
        .github_knobs(json!({
            "missing_permissions": ["secrets=read", "variables=read"],
            "rules": { "vmkit/setup": [rule] }, "protected": ["main"],
            "actions": { "enabled": true, "allowed": "selected", "github_owned": true, "patterns": ["docker/*"] },
        }))
        .await;
    let bad = rows("nowhere").await;
    let of = |what: &str| bad.iter().find(|row| row.what == what).expect(what);
    let token = of("token");
    assert_eq!(token.found, "it lacks secrets, variables", "all at once");
    assert!(token.fix.as_ref().expect("a fix").contains("secrets=write"), "{token:?}");
    let actions = of("Actions");
    assert_eq!(
        (actions.verdict, actions.found.as_str()),
        (
            Verdict::Bad,
            "these are not allowed: ruby/setup-ruby, buildpacks/github-actions/setup-pack"
        )
    );
    assert!(of("pull request").found.contains("forbids to make the branch"));
    assert!(of("default branch").found.contains("`main` is protected"));
    assert_eq!(of("code").verdict, Verdict::Bad);

    stage.github_knobs(json!({ "actions": { "enabled": false, "allowed": "all" } })).await;
    let off = rows(".").await;
    assert!(off.iter().any(|row| row.found == "they are turned off for the repo"), "{off:#?}");
    let nobody = "octo/nobody".parse().expect("a repo");
    let error: OpError = check(stage.context(), &nobody, ".").await.expect_err("no such repo");
    assert_eq!(error.code(), "not_found");
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_after_a_while_is_not_live_and_one_that_stays_needs_no_address() {
    let mut stage = Stage::set_up().await;
    Job::Configure.prepare(&mut stage).await;
    // Longer than the worker lives.
    let steady = std::time::Duration::from_secs(5);
    stage.drive_here_with(Clock::wall(), |context| context.settings.steady = steady).await;
    let worker: vmkit::domain::names::ProcessName = "worker".parse().expect("a name");
    let with = |command: &str| Wanted {
        commands: [(worker.clone(), command.parse().expect("a command"))].into(),
        ..Wanted::default()
    };
    // It outlives Kamal's own look at it, and then it is gone.
    configured(&stage, &with("sleep 2")).await;
    let id = Job::Current.try_start(&stage).await.expect("started");
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Failed, "{row:#?}");
    let failure = row.failure.expect("a failure");
    assert_eq!(failure.code, "role_dies", "{failure:?}");
    assert!(failure.message.contains("role `worker`"), "{failure:?}");

    stage.tear_down().await;

    // Nothing serves: the worker alone is the app, and it stays.
    let mut stage = Stage::set_up().await;
    Job::Deploy.prepare(&mut stage).await;
    stage.drive_here().await;
    let web = configure_app::web().expect("a name");
    let alone = Wanted { off: [(web, true)].into(), ..with("sleep 600") };
    configured(&stage, &alone).await;
    let config = stage.file(CONFIG, "main").await;
    assert!(config.contains("primary_role: worker\n") && !config.contains("\nproxy:"), "{config}");
    let id = Job::Deploy.try_start(&stage).await.expect("started");
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
    let result = row.result.expect("a result");
    assert_eq!(
        (&result["roles"], &result["url"]),
        (&json!(["worker"]), &Value::Null),
        "{result:#}"
    );
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_not_wanted_any_more_ends_with_the_next_deploy() {
    let mut stage = Stage::set_up().await;
    Job::Configure.prepare(&mut stage).await;
    stage.drive_here().await;
    let worker: vmkit::domain::names::ProcessName = "worker".parse().expect("a name");
    let command = "sleep 600".parse().expect("a command");
    let with = Wanted { commands: [(worker.clone(), command)].into(), ..Wanted::default() };
    let without = Wanted { reset: vec![Reset::Process(worker)], ..Wanted::default() };
    let roles = async |job: Job| {
        let id = job.try_start(&stage).await.expect("started");
        let row = stage.end_of(id).await;
        assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
        let result = row.result.expect("a result");
        (result["roles"].clone(), result["proof"].to_string())
    };
    // By another version, and by the same one again.
    for job in [Job::Deploy, Job::Current] {
        configured(&stage, &with).await;
        assert_eq!(roles(Job::Current).await.0, json!(["web", "worker"]));
        configured(&stage, &without).await;
        if job == Job::Deploy {
            stage.push("Without a worker", None).await;
        }
        let (roles, proof) = roles(job).await;
        assert_eq!(roles, json!(["web"]));
        assert!(proof.contains("worker: not configured any more, ended"), "{proof}");
        let left = stage.cloud().await["machines"].to_string();
        assert!(left.contains("shop-staging-web-") && !left.contains("-worker-"), "{left}");
    }
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_that_a_push_started_is_followed_proven_and_recorded() {
    let mut stage = Stage::set_up().await;
    Job::Configure.prepare(&mut stage).await;
    stage.drive_here().await;
    assert_eq!(pushed::look(stage.context()).await.expect("asks nobody"), []);
    let branch = Some("main".parse().expect("a branch"));
    configured(&stage, &Wanted { push_to_deploy: branch, ..Wanted::default() }).await;
    let workflow = stage.file(".github/workflows/vmkit-deploy.yml", "main").await;
    assert!(workflow.contains("  push:\n    branches: [\"main\"]\n"), "{workflow}");
    assert_eq!(pushed::look(stage.context()).await.expect("no push yet"), []);
    stage.push("Pushed version", None).await;
    let sha = stage.commits("main").await.remove(0);
    // GitHub starts the workflow, whose own push job starts the deploy.
    let taken = stage
        .until("a deploy that the push started", async || {
            let taken = pushed::look(stage.context()).await.expect("looked");
            (!taken.is_empty()).then_some(taken)
        })
        .await;
    assert_eq!(taken.len(), 1);
    let runs = stage.github("GET", "/repos/octo/shop/actions/runs?event=push", None).await;
    assert_eq!(runs["total_count"], 1, "our own commits start nothing: {runs:#}");
    let row = stage.end_of(taken[0]).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
    assert_eq!(stage.serving().await, [json!(sha)]);
    let history = history(&stage.context().store, &staging(), 10).await.expect("a history");
    assert_eq!(history.courses[0].by, "push");
    assert_eq!(history.deploys[0].commit.as_str(), sha);
    assert_eq!(history.live, Some(history.deploys[0].id), "a rollback starts from it");
    assert_eq!(pushed::look(stage.context()).await.expect("it is known"), []);
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_of_the_build_lie_at_github_and_are_named_in_the_workflow() {
    let mut stage = Stage::set_up().await;
    Job::Configure.prepare(&mut stage).await;
    stage.drive_here().await;
    let change = |key: &str, value: Option<&str>, class| Change {
        key: key.parse().expect("a key"),
        value: value.map(Secret::new),
        class,
    };
    let set = async |change| build_env::set(stage.context(), &staging(), vec![change]).await;
    set(change("PUBLIC_URL", Some("https://a.example.com"), EnvClass::Plain)).await.expect("set");
    set(change("NPM_TOKEN", Some("not-a-token"), EnvClass::Secret)).await.expect("set");
    let repo = stage.repo().await;
    assert_eq!(repo["variables"]["VMKIT_BUILD_PUBLIC_URL__STAGING"], "https://a.example.com");
    assert!(repo["secrets"].to_string().contains("VMKIT_BUILD_NPM_TOKEN__STAGING"), "{repo:#}");
    // The next deploy that builds brings them into the workflow, and the build runs with them.
    stage.push("Built with variables", None).await;
    Job::Deploy.done(&stage).await;
    let workflow = stage.file(".github/workflows/vmkit-deploy.yml", "main").await;
    for line in [
        "PUBLIC_URL: ${{ vars.VMKIT_BUILD_PUBLIC_URL__STAGING }}",
        "NPM_TOKEN: ${{ secrets.VMKIT_BUILD_NPM_TOKEN__STAGING }}",
        "secret-envs: |\n            NPM_TOKEN=NPM_TOKEN",
    ] {
        assert!(workflow.contains(line), "{line} in {workflow}");
    }
    let same = set(change("PUBLIC_URL", Some("https://a.example.com"), EnvClass::Plain)).await;
    assert_eq!(same.expect("set").unchanged.len(), 1);
    // A plain one becomes secret: nothing of it stays readable. With the environment all of it goes.
    set(change("PUBLIC_URL", Some("https://b.example.com"), EnvClass::Secret)).await.expect("set");
    assert!(stage.repo().await["variables"]["VMKIT_BUILD_PUBLIC_URL__STAGING"].is_null());
    set(change("NPM_TOKEN", None, EnvClass::Secret)).await.expect("unset");
    assert!(!stage.repo().await["secrets"].to_string().contains("NPM_TOKEN"));
    let id = Job::Destroy.done(&stage).await;
    Job::Destroy.check_good_end(&stage, id).await;
    stage.tear_down().await;
}
