//! Two environments on one VM: one is destroyed, and the other answers every request meanwhile.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use vmkit::domain::clock::Clock;
use vmkit::domain::environment::Environment;
use vmkit::domain::ids::EnvironmentId;
use vmkit::domain::operation::OperationState;
use vmkit::domain::plan::Policy;
use vmkit::operations::destroy::{self, Wanted};
use vmkit::operations::{Ask, plans};
use vmkit_sandbox::machines::{ContainerSpec, Image, Machine};
use vmkit_sandbox::sample::sample_toml;

use crate::jobs::{Job, begun};
use crate::stage::{Stage, staging};

const NEIGHBOUR: &str = "shop-production";
const HOST: &str = "production.example.com";

/// Puts another environment of the app on the VM of the first: its row, its container and route.
/// The folder that its container runs in.
async fn move_in(stage: &Stage, machine: &Machine) -> tempfile::TempDir {
    let store = &stage.context().store;
    let first = store.environment(staging()).await.expect("read").expect("it");
    let mut settings = first.settings.clone();
    settings.domain = Some(HOST.parse().expect("a domain"));
    let second = Environment {
        id: EnvironmentId::generate(),
        path: "shop/production".parse().expect("a path"),
        settings,
        env_revision: 0,
        created_at: Clock::wall().now(),
        ..first
    };
    assert!(store.insert_environment(second).await.expect("written"));
    let folder = tempfile::tempdir().expect("a folder");
    let text = sample_toml("The neighbour", None);
    std::fs::write(folder.path().join("sample.toml"), text).expect("written");
    let name = format!("{NEIGHBOUR}-web-1");
    let labels = [("service", NEIGHBOUR), ("role", "web")];
    let spec = ContainerSpec {
        name: name.clone(),
        image: Image {
            reference: "ghcr.io/octo/shop:1".to_owned(),
            dir: folder.path().to_owned(),
            command: ["vmkit", "sample-app"].map(str::to_owned).to_vec(),
            ..Image::default()
        },
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..ContainerSpec::default()
    };
    machine.docker().run(spec).await.expect("it runs");
    let host = Some(HOST.to_owned());
    let wait = Duration::from_secs(60);
    let route = format!("{NEIGHBOUR}-web");
    machine.proxy().deploy(&route, host, &name, "/up", wait).await.expect("a route");
    std::fs::create_dir_all(machine.path("/etc/vmkit/env/shop")).expect("made");
    std::fs::write(machine.path(&env_file("production")), "A=1\n").expect("written");
    let path = "/repos/octo/shop/actions/variables";
    stage.github("POST", path, Some(json!({ "name": "THEIRS", "value": "1" }))).await;
    folder
}

fn env_file(environment: &str) -> String {
    format!("/etc/vmkit/env/shop/{environment}.env")
}

/// Asks the neighbour again and again until `over`; how often, and what was not a good answer.
async fn load(url: String, over: Arc<AtomicBool>) -> (usize, Vec<String>) {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let (mut asked, mut wrong) = (0, Vec::new());
    while !over.load(Ordering::Relaxed) {
        asked += 1;
        match http.get(&url).header("host", HOST).send().await {
            Ok(answer) if answer.status().is_success() => match answer.text().await {
                Ok(text) if text.contains("The neighbour") => {}
                other => wrong.push(format!("{other:?}")),
            },
            other => wrong.push(format!("{other:?}")),
        }
    }
    (asked, wrong)
}

/// Destroys the first environment under load on the second, and looks at what is left.
async fn destroyed_beside(stage: &Stage, machine: &Machine, wanted: Wanted) {
    let over = Arc::new(AtomicBool::new(false));
    let port = machine.proxy().port().expect("a port");
    let url = format!("http://{}:{port}/", machine.address());
    let asking = tokio::spawn(load(url, Arc::clone(&over)));
    let (context, path) = (stage.context(), staging());
    let plan = destroy::plan(context, &path, wanted).await.expect("a plan");
    if plan.policy == Policy::Human {
        plans::approve(context, plan.id, "a person").await.expect("approved");
    }
    let started = destroy::start(context, &path, Some(wanted), plan.id, Ask::by("test")).await;
    let id = begun(started).expect("started");
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?} {:#?}", stage.steps(id).await);
    over.store(true, Ordering::Relaxed);
    let (asked, wrong) = asking.await.expect("it ends");
    eprintln!("{wanted:?}: the neighbour answered {asked} requests meanwhile");
    assert!(asked > 0 && wrong.is_empty(), "{wrong:#?}");

    let names: Vec<String> = machine.docker().list().into_iter().map(|one| one.name).collect();
    assert!(!names.iter().any(|name| name.starts_with("shop-staging")), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with(NEIGHBOUR)), "{names:?}");
    let routes: Vec<String> = machine.proxy().routes().into_keys().collect();
    assert!(matches!(&routes[..], [one] if one.starts_with(NEIGHBOUR)), "{routes:?}");
    assert!(!machine.has_file(&env_file("staging")));
    assert!(machine.has_file(&env_file("production")));
    let repo = stage.repo().await;
    assert_eq!(repo["secrets"], json!([]));
    let variables: Vec<&String> = repo["variables"].as_object().expect("a map").keys().collect();
    assert_eq!(variables, ["THEIRS"]);
    assert_eq!(stage.counts().await, [1, 1, 1]);
    stage.nothing_is_lost().await;
}

/// Whether the key that deploys the first environment is let in.
fn lets_in(machine: &Machine, key: &str) -> bool {
    let body = key.split_whitespace().nth(1).expect("a key");
    machine.authorized_keys("kamal").iter().any(|line| line.contains(body))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_environment_of_a_vm_answers_on() {
    let mut stage = Stage::set_up().await;
    Job::Destroy.prepare(&mut stage).await;
    let machine = stage.machine();
    let _folder = move_in(&stage, &machine).await;
    let key = stage.sql("select public_key from deploy_key").remove(0);
    assert!(lets_in(&machine, &key));
    stage.drive_here().await;

    destroyed_beside(&stage, &machine, Wanted::Keep).await;
    assert!(lets_in(&machine, &key), "a deploy after the undo needs it");
    let id = Job::Restore.done(&stage).await;
    let next = stage.row(id).await.result.expect("a result")["next"].clone();
    assert!(next.as_str().expect("a call").contains("`deploy`"), "{next}");
    Job::Current.done(&stage).await;
    assert_eq!(stage.serving().await.len(), 2, "both");

    destroyed_beside(&stage, &machine, Wanted::Purge).await;
    assert!(!lets_in(&machine, &key));
    let path = machine.path("/home/kamal/.ssh/authorized_keys");
    let facts = std::fs::metadata(path).expect("facts");
    assert_eq!(facts.mode() & 0o7777, 0o600, "sshd's StrictModes");
    let left = stage.sql("select name from environment where deleted_at is null");
    assert_eq!(left, ["production"]);
    stage.tear_down().await;
}
