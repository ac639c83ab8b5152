//! What runs before a new version starts, through a real client: Kamal's hooks, and in one of them
//! the release command.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use crate::releases::deploy;
use crate::rig::{eras, error, text, until};
use crate::sharing::done;
use crate::story::{Person, Stage, call, data};

/// Notes that it ran, with which version and when; or fails as migrations do.
fn release(ran: &Path, fails: bool) -> String {
    let end = match fails {
        true => {
            "echo 'Migration 0007_baskets failed: relation \"basket\" does not exist' >&2; exit 3"
        }
        false => "echo 'nothing to migrate'",
    };
    let ran = ran.display();
    format!("echo \"$APP_ENV $GREETING $(date +%s%3N)\" >> {ran}\n{end}\n")
}

/// A hook of the repo's own, which says what Kamal told it, and fails.
const HOOK: &str = "#!/bin/sh
echo \"$KAMAL_SERVICE_VERSION of $KAMAL_SERVICE on $KAMAL_HOSTS, $KAMAL_COMMAND, lock $KAMAL_LOCK\"
exit 1
";

impl Stage {
    /// Commits a file as the repo's developer.
    async fn commit(&self, path: &str, content: &str) {
        let url = format!("/repos/octo/shop/contents/{path}");
        let there = self.developer(reqwest::Method::GET, &url, None).await;
        let content = BASE64_STANDARD.encode(content);
        let body = json!({ "message": path, "content": content, "sha": there["sha"] });
        self.developer(reqwest::Method::PUT, &url, Some(body)).await;
    }

    /// The versions of the app that have containers, running or not, with when each began.
    fn versions(&self) -> Vec<(String, bool, i64)> {
        let machines = self.sandbox.machines().list();
        assert_eq!(machines.len(), 1);
        let all = machines[0].docker().list();
        all.iter()
            .filter_map(|one| {
                let version = one.name.strip_prefix("shop-staging-web-")?.to_owned();
                Some((version, one.running, one.started_at.as_millisecond()))
            })
            .collect()
    }
}

#[tokio::test]
async fn a_release_command_runs_once_before_the_new_version_or_stops_it() {
    let stage = Stage::new().await;
    let [_, modern] = eras();
    let session = stage.client(modern, Person::default()).await;
    let client = &session;
    stage.with_a_vm(client).await;
    let place = json!({"environment": "shop/staging"});
    let set = json!({"environment": "shop/staging", "set": {"GREETING": "hello"}});
    done(client, "set_env", set).await;
    let ran = stage.rig.home().join("ran");
    stage.commit("release.sh", &release(&ran, false)).await;
    let release_command = json!({"environment": "shop/staging", "release": "sh release.sh"});
    done(client, "configure_app", release_command).await;
    let first = deploy(client).await;
    let lines = fs::read_to_string(&ran).expect("it ran");
    let words: Vec<&str> = lines.split_whitespace().collect();
    let [environment, greeting, at] = words.as_slice() else { panic!("once: {lines}") };
    assert_eq!((*environment, *greeting), ("staging", "hello"), "it has the app's own env");
    let versions = stage.versions();
    let [(version, true, began)] = versions.as_slice() else { panic!("{versions:?}") };
    assert!(at.parse::<i64>().expect("a time") <= *began, "{at} is after {began}");

    stage.commit("release.sh", &release(&ran, true)).await;
    let failed = error(&call(client, "deploy", place.clone()).await);
    assert_eq!(failed.code, "migration_failed", "{failed:?}");
    assert_eq!(fs::read_to_string(&ran).expect("it ran").lines().count(), 2, "once more");
    assert_eq!(stage.versions(), versions, "the old version is as it was");
    let (status, page) = stage.page(None).await;
    assert!(status == 200 && page.contains("Welcome to the shop"), "{status} {page}");
    let found = call(client, "diagnose", place.clone()).await;
    assert!(text(&found).contains("(failed): migration_failed: "), "{}", text(&found));
    let history = call(client, "list_deploys", place.clone()).await;
    assert_eq!(data(&history)["live"], first);

    // A hook of the repo's own, with Kamal's words. What the contents API writes is no program, and
    // cannot be run.
    stage.commit(".kamal/hooks/pre-deploy", HOOK).await;
    let failed = error(&call(client, "deploy", place.clone()).await);
    assert_eq!(failed.code, "hook_not_executable", "{failed:?}");
    let log = json!({"environment": "shop/staging", "source": "deploy", "grep": "pre-deploy"});
    let log = call(client, "get_logs", log).await;
    assert!(text(&log).contains("Hook `pre-deploy` failed:"), "{}", text(&log));
    assert!(text(&log).contains("exit status: 126"), "{}", text(&log));
    stage.make_runnable(".kamal/hooks/pre-deploy").await;
    let failed = error(&call(client, "deploy", place.clone()).await);
    assert_eq!(failed.code, "hook_failed", "{failed:?}");
    let log = json!({"environment": "shop/staging", "source": "deploy", "grep": "lock true"});
    let log = call(client, "get_logs", log).await;
    let commit = data(&call(client, "list_deploys", place).await)["deploys"][0]["commit"].clone();
    let short: String = commit.as_str().expect("a commit").chars().take(7).collect();
    let told = format!("shop-staging@{short} of shop-staging on ");
    assert!(text(&log).contains(&told), "{told}: {}", text(&log));
    assert!(text(&log).contains(", deploy, lock true"), "{}", text(&log));
    assert_eq!(fs::read_to_string(&ran).expect("it ran").lines().count(), 2, "not again");
    assert_eq!(stage.versions()[0].0, *version);
    session.cancel().await.expect("ended");
    until("the worker ends", || stage.rig.workers().is_empty()).await;
    stage.sandbox.stop().await;
}

impl Stage {
    /// Gives a file of `main` git's mode of a program, as `git update-index --chmod=+x` does.
    async fn make_runnable(&self, path: &str) {
        use reqwest::Method;
        let repo = "/repos/octo/shop";
        let at = self.developer(Method::GET, &format!("{repo}/git/ref/heads/main"), None).await;
        let parent = at["object"]["sha"].clone();
        let url = format!("{repo}/git/commits/{}", parent.as_str().expect("a commit"));
        let tree = self.developer(Method::GET, &url, None).await["tree"]["sha"].clone();
        let blob =
            self.developer(Method::GET, &format!("{repo}/contents/{path}"), None).await["sha"]
                .clone();
        let entry = json!({ "path": path, "mode": "100755", "type": "blob", "sha": blob });
        let body = json!({ "base_tree": tree, "tree": [entry] });
        let made = self.developer(Method::POST, &format!("{repo}/git/trees"), Some(body)).await;
        let body = json!({ "message": path, "tree": made["sha"], "parents": [parent] });
        let made = self.developer(Method::POST, &format!("{repo}/git/commits"), Some(body)).await;
        let body = json!({ "sha": made["sha"] });
        let moved =
            self.developer(Method::PATCH, &format!("{repo}/git/refs/heads/main"), Some(body)).await;
        assert_eq!(moved["object"]["sha"], made["sha"], "{moved}");
    }
}
