//! What a scan asks of GitHub, and what stands in the way of a deploy.

use serde_json::json;
use vmkit::operations::OpError;
use vmkit::operations::deploy::{self, DeployRequest, Version};
use vmkit::operations::repo::scan;

use crate::jobs::Job;
use crate::stage::{Stage, staging};

/// How many calls GitHub says are left. The simulated one counts this look too.
async fn left(stage: &Stage) -> u64 {
    let limits = stage.github("GET", "/rate_limit", None).await;
    limits["resources"]["core"]["remaining"].as_u64().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_scan_costs_nothing_and_a_third_only_what_changed() {
    let stage = Stage::set_up().await;
    let github = stage.context().accounts.github().await.expect("a client");
    let repo = "octo/shop".parse().expect("a repo");
    let begin = left(&stage).await;
    let first = scan(&github, &repo, None, ".").await.expect("a scan");
    let after_first = left(&stage).await;
    assert!(begin - after_first >= 5, "the repo, its commit, its tree and two files at least");
    let again = scan(&github, &repo, None, ".").await.expect("a scan");
    assert_eq!((again.scan, again.commit.sha), (first.scan, first.commit.sha));
    assert_eq!(left(&stage).await, after_first - 1);
    // A pushed file that no scan reads costs the new commit and its tree.
    stage.push("Second version", None).await;
    let pushed = left(&stage).await;
    scan(&github, &repo, None, ".").await.expect("a scan");
    assert_eq!(pushed - left(&stage).await, 2 + 1);
    stage.tear_down().await;
}

async fn start(stage: &Stage, ignored: &[&str]) -> Result<(), OpError> {
    let request = DeployRequest {
        environment: staging(),
        version: Version::Ref(None),
        expect_sha: None,
        ignore_checks: ignored.iter().map(|code| (*code).to_owned()).collect(),
    };
    deploy::preview(stage.context(), &request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_is_refused_while_a_blocking_row_is_open() {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    let mut stage = Stage::set_up().await;
    Job::Deploy.prepare(&mut stage).await;
    start(&stage, &[]).await.expect("nothing blocks");
    // The scan of the set-up found a row that is open no more: the repo is looked at again.
    let row =
        json!([{ "code": "state_on_disk", "blocking": true, "text": "x", "from_file": null }]);
    let block = format!("update app set scan = json_set(scan, '$.checklist', json('{row}'))");
    stage.write_sql(&block);
    start(&stage, &[]).await.expect("nothing blocks any more");
    let kept = stage.sql("select json_extract(scan, '$.checklist') from app").remove(0);
    assert!(!kept.contains("state_on_disk"), "{kept}");
    // And now it is really there.
    let schema = "datasource db {\n  provider = \"sqlite\"\n}\n";
    let content = BASE64_STANDARD.encode(schema);
    let body = json!({ "message": "Keep data in a file", "content": content });
    stage.github("PUT", "/repos/octo/shop/contents/prisma/schema.prisma", Some(body)).await;
    stage.write_sql(&block);
    let error = start(&stage, &[]).await.expect_err("refused");
    assert_eq!(error.code(), "blocked");
    assert!(error.to_string().contains("(state_on_disk)"), "{error}");
    assert!(error.fix().contains("ignore_checks"), "{}", error.fix());
    start(&stage, &["no_start_command"]).await.expect_err("another row was accepted");
    start(&stage, &["state_on_disk"]).await.expect("accepted");
    stage.tear_down().await;
}
