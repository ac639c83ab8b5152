//! Services beside the apps, with data in them: an app writes and reads through the address that it was
//! given, and its neighbour's data answers when it goes.

use vmkit::domain::clock::Clock;
use vmkit::domain::environment::Environment;
use vmkit::domain::ids::{EnvironmentId, OperationId};
use vmkit::domain::names::EnvironmentPath;
use vmkit::domain::operation::OperationState;
use vmkit::domain::plan::Policy;
use vmkit::domain::service::ServiceKind;
use vmkit::operations::deploy::{DeployRequest, Version};
use vmkit::operations::destroy::{self, Wanted};
use vmkit::operations::services::{Action, ServiceRequest};
use vmkit::operations::{Ask, OpError, Started, deploy, plans, services};
use vmkit_sandbox::machines::Machine;

use crate::jobs::{DATABASE, Job, begun, database};
use crate::stage::{Stage, staging};

const HOSTS: [(&str, &str); 2] =
    [("staging", "shop.example.com"), ("production", "production.example.com")];

fn path(environment: &str) -> EnvironmentPath {
    format!("shop/{environment}").parse().expect("a path")
}

/// A request of a user to an environment's app, by its public name.
async fn app(stage: &Stage, environment: &str, method: &str, at: &str) -> (u16, String) {
    let machine = stage.machine();
    let port = machine.proxy().port().expect("a port");
    let host = HOSTS.iter().find(|(name, _)| *name == environment).expect("a host").1;
    let url = format!("http://{}:{port}{at}", machine.address());
    let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
    let answer = stage.http.request(method, url).header("host", host).send().await.expect("it");
    (answer.status().as_u16(), answer.text().await.expect("text").trim().to_owned())
}

async fn keeps(stage: &Stage, environment: &str, value: &str) {
    let kept = app(stage, environment, "POST", &format!("/data/who/{value}")).await;
    assert_eq!(kept, (200, "kept".to_owned()), "{environment}");
}

async fn has(stage: &Stage, environment: &str, value: &str) {
    let found = app(stage, environment, "GET", "/data/who").await;
    assert_eq!(found, (200, value.to_owned()), "{environment}");
}

async fn well(stage: &Stage, id: OperationId) {
    let row = stage.end_of(id).await;
    let steps = stage.steps(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?} {steps:#?}");
}

async fn deployed(stage: &Stage, environment: &str, version: Version) {
    let request = DeployRequest {
        environment: path(environment),
        version,
        expect_sha: None,
        ignore_checks: Vec::new(),
    };
    let id = deploy::start(stage.context(), request, Ask::by("test")).await.expect("started");
    well(stage, id).await;
}

async fn serviced(stage: &Stage, request: ServiceRequest) -> OperationId {
    services::start(stage.context(), &request, Ask::by("test")).await.expect("started")
}

async fn destroyed(stage: &Stage, wanted: Wanted) {
    let (context, path) = (stage.context(), staging());
    let plan = destroy::plan(context, &path, wanted).await.expect("a plan");
    if wanted == Wanted::Purge {
        let lost = plan.body.lost.join("; ");
        assert!(lost.contains("all data of PostgreSQL: volume `shop-staging-db`"), "{lost}");
        plans::approve(context, plan.id, "a person").await.expect("approved");
    }
    let started = destroy::start(context, &path, Some(wanted), plan.id, Ask::by("test")).await;
    well(stage, begun(started).expect("started")).await;
}

/// Another environment of the app on the same VM: its row, and the key that deploys it.
async fn second_environment(stage: &Stage) {
    let store = &stage.context().store;
    let first = store.environment(staging()).await.expect("read").expect("it");
    let mut settings = first.settings.clone();
    settings.domain = Some(HOSTS[1].1.parse().expect("a domain"));
    let second = Environment {
        id: EnvironmentId::generate(),
        path: path("production"),
        settings,
        env_revision: 0,
        created_at: Clock::wall().now(),
        ..first
    };
    let id = second.id;
    assert!(store.insert_environment(second).await.expect("written"));
    stage.write_sql(&format!(
        "insert into deploy_key (environment, vm, public_key, secret, created_at)
         select '{id}', vm, public_key, secret, created_at from deploy_key"
    ));
}

/// The passwords that lie in the services' files on the VM.
fn passwords(machine: &Machine) -> Vec<String> {
    let file = |environment: &str| {
        let path = machine.path(&format!("/etc/vmkit/env/shop/{environment}.db.env"));
        std::fs::read_to_string(path).expect("a file")
    };
    let word = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix("POSTGRES_PASSWORD="));
        line.expect("a password").to_owned()
    };
    HOSTS.map(|(environment, _)| word(file(environment))).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_of_one_environment_survives_the_end_of_the_other() {
    let mut stage = Stage::set_up().await;
    Job::AddService.prepare(&mut stage).await;
    second_environment(&stage).await;
    stage.drive_here().await;
    let (status, said) = app(&stage, "staging", "GET", "/data/who").await;
    assert_eq!((status, said.as_str()), (503, "there is no DATABASE_URL"));
    for (environment, _) in HOSTS {
        let request = ServiceRequest { environment: path(environment), ..add() };
        let id = serviced(&stage, request).await;
        well(&stage, id).await;
        let result = stage.row(id).await.result.expect("a result");
        assert_eq!(result["applied"], false);
        assert!(result["apply_with"].as_str().expect("a call").contains("`deploy`"), "{result}");
    }
    let (status, _) = app(&stage, "staging", "GET", "/data/who").await;
    assert_eq!(status, 503, "what runs has no address yet");
    deployed(&stage, "staging", Version::Current).await;
    deployed(&stage, "production", Version::Ref(None)).await;
    for (environment, _) in HOSTS {
        keeps(&stage, environment, environment).await;
    }
    for (environment, _) in HOSTS {
        has(&stage, environment, environment).await;
    }
    let machine = stage.machine();
    assert_eq!(stage.volumes(), ["shop-production-db", DATABASE]);
    let secrets = passwords(&machine);
    assert_ne!(secrets[0], secrets[1]);
    nobody_sees(&stage, &secrets).await;

    // Away so that it can be undone, and back: its data is there again.
    destroyed(&stage, Wanted::Keep).await;
    assert!(machine.docker().get(DATABASE).is_none());
    assert!(!machine.has_file("/etc/vmkit/env/shop/staging.db.env"));
    has(&stage, "production", "production").await;
    destroyed(&stage, Wanted::Undo).await;
    deployed(&stage, "staging", Version::Current).await;
    has(&stage, "staging", "staging").await;

    destroyed(&stage, Wanted::Keep).await;
    destroyed(&stage, Wanted::Purge).await;
    assert_eq!(stage.volumes(), ["shop-production-db"], "kept ones go with the purge");
    has(&stage, "production", "production").await;
    keeps(&stage, "production", "still").await;
    has(&stage, "production", "still").await;
    assert!(machine.has_file("/etc/vmkit/env/shop/production.db.env"));
    assert_eq!(stage.services(), ["postgres 17.6 ready"]);
    let left = stage.sql("select id from secret where purpose = 'service_password'");
    assert_eq!(left.len(), 1);
    stage.tear_down().await;
}

/// The passwords are in no file of the repo, no log of a run, no row of ours.
async fn nobody_sees(stage: &Stage, secrets: &[String]) {
    let repo = stage.repo().await.to_string();
    let rows = stage.sql(
        "select params || coalesce(result, '') || message from operation
         union all select coalesce(output, '') from step",
    );
    let rows = rows.join("\n");
    let mut seen = vec![repo, rows, stage.config().await];
    let runs = stage.github("GET", "/repos/octo/shop/actions/runs", None).await;
    for run in runs["workflow_runs"].as_array().expect("a list") {
        let path = format!("/repos/octo/shop/actions/runs/{}/jobs", run["id"]);
        for job in stage.github("GET", &path, None).await["jobs"].as_array().expect("a list") {
            let path = format!("/repos/octo/shop/actions/jobs/{}/logs", job["id"]);
            seen.push(stage.github_text(&path).await);
        }
    }
    assert!(seen.iter().any(|text| text.contains("docker run --name shop-staging-db")));
    for secret in secrets {
        assert_eq!(secret.len(), 32);
        assert!(!seen.iter().any(|text| text.contains(secret.as_str())));
    }
}

fn add() -> ServiceRequest {
    database(Action::Add, None)
}

async fn refused(stage: &Stage, request: ServiceRequest) -> String {
    let started = services::start(stage.context(), &request, Ask::by("test")).await;
    started.expect_err("refused").code().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_through_its_life() {
    let mut stage = Stage::set_up().await;
    Job::AddService.prepare(&mut stage).await;
    stage.drive_here().await;
    assert_eq!(refused(&stage, database(Action::Restart, None)).await, "no_service");
    assert_eq!(refused(&stage, database(Action::Add, Some("17"))).await, "service_version");
    stage.set_env("DATABASE_URL", "postgresql://elsewhere.example.com/app").await;
    assert_eq!(refused(&stage, add()).await, "env_key_taken");
    stage.unset_env("DATABASE_URL").await;
    // A version that nobody has made: all that was made is gone again.
    let id = serviced(&stage, database(Action::Add, Some("17.99"))).await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Failed, "{row:#?}");
    let failure = row.failure.expect("a failure");
    assert!(failure.message.contains("17.99"), "{failure:?}");
    assert_eq!(stage.accessories(), Vec::<String>::new());
    assert_eq!(stage.services(), Vec::<String>::new());
    assert!(!stage.config().await.contains("accessories"));

    let id = serviced(&stage, add()).await;
    well(&stage, id).await;
    assert_eq!(refused(&stage, add()).await, "service_exists");
    let error = stage.try_set_env("DATABASE_URL", "postgresql://mine").await.expect_err("refused");
    assert_eq!(error.code(), "env_service_name");
    deployed(&stage, "staging", Version::Current).await;
    keeps(&stage, "staging", "mine").await;
    let machine = stage.machine();
    let app_before = stage.serving_container();

    let id = serviced(&stage, database(Action::Restart, None)).await;
    let before = machine.docker().get(DATABASE).expect("it");
    well(&stage, id).await;
    let after = machine.docker().get(DATABASE).expect("it");
    assert_eq!(after.id, before.id);
    assert_eq!(stage.serving_container(), app_before, "the app is not touched");
    has(&stage, "staging", "mine").await;

    // The new one cannot be had: the old one goes on, and the config says so.
    let id = serviced(&stage, database(Action::Upgrade, Some("17.98"))).await;
    assert_eq!(stage.end_of(id).await.state, OperationState::Failed);
    assert_eq!(stage.services(), ["postgres 17.6 ready"]);
    assert!(stage.config().await.contains("postgres:17.6"));
    has(&stage, "staging", "mine").await;
    let id = Job::UpgradeService.done(&stage).await;
    Job::UpgradeService.check_good_end(&stage, id).await;
    has(&stage, "staging", "mine").await;
    for (version, code) in [("18.0", "service_major_upgrade"), ("17.6", "service_downgrade")] {
        assert_eq!(refused(&stage, database(Action::Upgrade, Some(version))).await, code);
    }

    let plan = services::remove::plan(stage.context(), &staging(), ServiceKind::Postgres).await;
    let plan = plan.expect("a plan");
    assert_eq!(plan.policy, Policy::Human);
    let kind = ServiceKind::Postgres;
    let ask = Ask::by("test");
    let asked = services::remove::start(stage.context(), &staging(), kind, plan.id, ask).await;
    assert!(matches!(asked, Ok(Started::NeedsApproval(_))), "{asked:?}");
    has(&stage, "staging", "mine").await;
    let id = Job::RemoveService.done(&stage).await;
    Job::RemoveService.check_good_end(&stage, id).await;
    deployed(&stage, "staging", Version::Current).await;
    assert_eq!(app(&stage, "staging", "GET", "/data/who").await.0, 503);
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_changes_go_by_pull_request_the_same_password_waits_for_the_merge() {
    let mut stage = Stage::set_up().await;
    Job::AddService.prepare(&mut stage).await;
    stage.write_sql("update app set changes = 'pr'");
    stage.drive_here().await;
    let id = serviced(&stage, add()).await;
    assert_eq!(stage.end_of(id).await.state, OperationState::NeedsMerge);
    assert_eq!(stage.services(), ["postgres 17.6 ordered"]);
    let secret = stage.sql("select secret from service");
    stage.nothing_is_lost().await;
    stage.merge_pulls().await;
    let id = serviced(&stage, add()).await;
    well(&stage, id).await;
    assert_eq!(stage.sql("select secret from service"), secret);
    Job::AddService.check_good_end(&stage, id).await;
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_somebodys_is_not_touched() {
    let mut stage = Stage::set_up().await;
    Job::AddService.prepare(&mut stage).await;
    stage.drive_here().await;
    let folder = stage.machine().docker().volume(DATABASE);
    std::fs::create_dir_all(&folder).expect("made");
    std::fs::write(folder.join("theirs"), "precious").expect("written");
    let id = serviced(&stage, add()).await;
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Failed, "{row:#?}");
    assert_eq!(row.failure.expect("a failure").code, "volume_exists");
    assert_eq!(std::fs::read_to_string(folder.join("theirs")).expect("there"), "precious");
    assert_eq!(stage.services(), Vec::<String>::new());
    stage.tear_down().await;
}

/// The scan says what the app needs, and the first deploy says how it gets it.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_deploy_names_the_service_that_is_missing() {
    let mut stage = Stage::set_up().await;
    Job::Deploy.prepare(&mut stage).await;
    stage.drive_here().await;
    stage.write_sql(r#"update app set scan = json_set(scan, '$.services', json('["postgres"]'))"#);
    let refused = Job::Deploy.try_start(&stage).await.expect_err("refused");
    assert_eq!(refused.code(), "blocked");
    let text = refused.to_string();
    for word in ["PostgreSQL", "DATABASE_URL", "`manage_service`", "service_postgres"] {
        assert!(text.contains(word), "{text}");
    }
    let request = DeployRequest {
        environment: staging(),
        version: Version::Ref(None),
        expect_sha: None,
        ignore_checks: vec!["service_postgres".to_owned()],
    };
    deploy::preview(stage.context(), &request).await.expect("told otherwise");
    let id = serviced(&stage, add()).await;
    well(&stage, id).await;
    Job::Deploy.done(&stage).await;
    keeps(&stage, "staging", "first").await;
    has(&stage, "staging", "first").await;
    stage.tear_down().await;
}

impl Stage {
    /// A text of the simulated GitHub's, such as a log.
    async fn github_text(&self, path: &str) -> String {
        let url = format!("{}{path}", self.sandbox.github_admin_url());
        let token = self.pairs.iter().find(|(name, _)| name == "VMKIT_GITHUB_TOKEN");
        let request = self.http.get(url).header("user-agent", "test");
        let answer = request.bearer_auth(&token.expect("a token").1).send().await.expect("sent");
        answer.text().await.expect("a text")
    }

    /// The app's container that runs.
    fn serving_container(&self) -> String {
        let all = self.machine().docker().list();
        let web = |role: Option<&String>| role.is_some_and(|role| role == "web");
        let one = all.into_iter().find(|one| one.running && web(one.labels.get("role")));
        let one = one.expect("it serves");
        format!("{} {:?}", one.id, one.started_at)
    }

    async fn try_set_env(&self, key: &str, value: &str) -> Result<(), OpError> {
        use vmkit::domain::env_values::EnvClass;
        use vmkit::domain::secret::Secret;
        use vmkit::operations::env;
        let change = env::Change {
            key: key.parse().expect("a key"),
            value: (!value.is_empty()).then(|| Secret::new(value)),
            class: EnvClass::Secret,
        };
        env::set(self.context(), &staging(), vec![change]).await.map(drop)
    }

    async fn unset_env(&self, key: &str) {
        self.try_set_env(key, "").await.expect("unset");
    }
}
