//! One environment's image in another: without a build, and only where it fits. And what a deploy
//! asks of GitHub and of the person, counted.

use std::collections::BTreeMap;

use serde_json::Value;
use vmkit::domain::names::EnvironmentPath;
use vmkit::domain::operation::OperationState;
use vmkit::operations::deploy::{self, DeployRequest, Version};
use vmkit::operations::environments::{self, NewEnvironment};
use vmkit::operations::{Ask, OpError, provision_vm};

use crate::jobs::{Job, begun};
use crate::stage::{At, Stage, staging};

/// More calls than this are a mistake: GitHub gives 5,000 an hour, and a run is looked at every four
/// seconds at most.
const CALLS_MAX: usize = 60;

fn request(environment: &EnvironmentPath, version: Version) -> DeployRequest {
    DeployRequest {
        environment: environment.clone(),
        version,
        expect_sha: None,
        ignore_checks: Vec::new(),
    }
}

fn of_action(repo: &Value, action: &str) -> usize {
    let runs = repo["runs"].as_array().expect("a list");
    runs.iter().filter(|run| run["inputs"]["action"] == action).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_live_in_one_environment_goes_live_in_another_without_a_build() {
    let mut stage = Stage::set_up().await;
    Job::Current.prepare(&mut stage).await;
    stage.drive_here().await;
    let context = stage.context();
    let preview: EnvironmentPath = "shop/preview".parse().expect("a path");
    let first = context.store.environment(staging()).await.expect("read").expect("it");
    let mut settings = first.settings.clone();
    settings.domain = Some("preview.example.com".parse().expect("a domain"));
    let new = NewEnvironment { path: preview.clone(), settings, vm: None };
    environments::create(context, new).await.expect("created");
    let plan = provision_vm::plan(context, &preview).await.expect("a plan");
    let made = provision_vm::start(context, &preview, plan.id, Ask::by("test")).await;
    let row = stage.end_of(begun(made).expect("begun")).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");

    let start = async |version: Version| {
        deploy::start(context, request(&preview, version), Ask::by("test")).await
    };
    let refused = start(Version::From(preview.clone())).await.expect_err("its own image");
    assert!(matches!(&refused, OpError::OtherImage { .. }), "{refused}");
    assert!(refused.to_string().contains("the same environment"), "{refused}");
    let other = Version::From("blog/staging".parse().expect("a path"));
    assert!(start(other).await.expect_err("another app").to_string().contains("two apps"));

    let built = of_action(&stage.repo().await, "deploy");
    let id = start(Version::From(staging())).await.expect("started");
    let row = stage.end_of(id).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
    let result = row.result.expect("a result");
    let repo = stage.repo().await;
    assert_eq!((of_action(&repo, "deploy"), of_action(&repo, "promote")), (built, 1), "{repo:#}");
    let image = result["image"].as_str().expect("an image").to_owned();
    assert!(image.starts_with("ghcr.io/octo/shop/preview:"), "{result:#}");
    let images = stage.sandbox.github().everything()["images"].clone();
    assert!(images.as_array().is_some_and(|all| all.contains(&image.into())), "{images:#}");
    let live = context.store.releases(first.id, 1).await.expect("read").remove(0);
    assert_eq!(result["commit"], live.commit.to_string());
    assert!(result["subject"].as_str().is_some_and(|text| !text.is_empty()), "{result:#}");
    assert!(result["age"].as_str().is_some_and(|text| text.ends_with("minutes")), "{result:#}");
    let proof = result["proof"].to_string();
    assert!(proof.contains("web runs ") && proof.contains(" answers"), "{proof}");
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_and_the_clicks_of_a_deploy_are_counted() {
    let mut stage = Stage::set_up().await;
    Job::Current.prepare(&mut stage).await;
    stage.drive_here().await;
    let before = stage.faults(At::GitHub).requests().len();
    stage.push("Another version", None).await;
    let pushed = stage.faults(At::GitHub).requests().len() - before;
    Job::Deploy.done(&stage).await;
    let all = stage.faults(At::GitHub).requests();
    let ours = &all[before + pushed..];
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for one in ours {
        let path: Vec<&str> = one.path.split('/').skip(4).take(3).collect();
        let path = path.join("/");
        let path = path.trim_end_matches(|c: char| c.is_ascii_digit() || c == '/');
        let free = if one.status == Some(304) { " (unchanged: free)" } else { "" };
        *kinds.entry(format!("{} {path}{free}", one.method)).or_default() += 1;
    }
    let writes = ours.iter().filter(|one| one.method != "GET").count();
    let free = ours.iter().filter(|one| one.status == Some(304)).count();
    eprintln!(
        "a deploy with a build: {} calls of GitHub's API, {writes} of them changes, {free} free of its limit: {kinds:#?}",
        ours.len()
    );
    assert!((1..=CALLS_MAX).contains(&ours.len()), "{kinds:#?}");
    // The key, the host key, and the start of the run.
    assert_eq!(writes, 3, "{kinds:#?}");
    // Whatever else a person does is a word to the assistant.
    let merged = stage.repo().await["pulls"].as_array().map_or(0, Vec::len);
    eprintln!(
        "clicks from an empty installation to a live app: 1 (make the token) + {merged} (merge the pull request)"
    );
    assert_eq!(merged, 1);
    stage.tear_down().await;
}
