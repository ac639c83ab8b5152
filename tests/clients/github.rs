//! GitHub: reads, commits, pull requests, runs and secrets, with and without faults.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::Request;
use axum::http::Method;
use axum::response::IntoResponse;
use axum::routing::get;
use futures::{StreamExt, stream};
use serde_json::json;
use vmkit::domain::names::{CommitSha, RepoName};
use vmkit::domain::secret::Secret;
use vmkit::github::{Conclusion, EntryKind, FileChange, GitHub, PullState, RunStatus};

use crate::fake::{Fake, Fault, Reply, lock};
use crate::fake_github::{Shared, start};
use crate::spec::Spec;
use crate::{pace, token};

const WORKFLOW: &str = "vmkit-deploy.yml";
const BRANCH: &str = "vmkit/setup";

fn github(fake: &Fake) -> GitHub {
    GitHub::new(&fake.url, token(), pace()).expect("a client")
}

fn shop() -> RepoName {
    "octo/shop".parse().expect("a repo")
}

/// `main` with two files; its commit.
fn main_branch(world: &Shared) -> CommitSha {
    let mut world = lock(world);
    let sha = world.commit(&[("README.md", "hello"), ("old.txt", "old")]);
    world.branches.insert("main".to_owned(), sha.clone());
    sha.parse().expect("a commit id")
}

fn write(path: &str, content: &str) -> FileChange {
    FileChange {
        path: path.to_owned(),
        content: Some(content.as_bytes().to_vec()),
        executable: path.ends_with(".sh"),
    }
}

fn delete(path: &str) -> FileChange {
    FileChange { path: path.to_owned(), content: None, executable: false }
}

fn changes() -> Vec<FileChange> {
    vec![
        write(".github/workflows/vmkit-deploy.yml", "on: workflow_dispatch"),
        write("bin/go.sh", "#!/bin/sh"),
        // No text, so it cannot stand in the tree that is written.
        FileChange { content: Some(vec![0xff, 0xd8]), ..write("logo.jpg", "") },
        delete("old.txt"),
        delete("never-there.txt"),
    ]
}

#[tokio::test]
async fn a_repo_is_read() {
    let (fake, world) = start().await;
    let (github, sha) = (github(&fake), main_branch(&world));
    let user = github.user().await.expect("the user");
    assert_eq!((user.login.as_str(), user.scopes.as_deref()), ("octo", Some("repo, workflow")));
    let repo = github.repo(&shop()).await.expect("the repo");
    assert_eq!((repo.id, repo.full_name.as_str(), repo.private), (42, "octo/shop", true));
    assert!(repo.permissions.push && !repo.permissions.admin);
    let commit = github.resolve(&shop(), "main").await.expect("the commit");
    assert_eq!((commit.sha.clone(), commit.author.as_str()), (sha.clone(), "Octo Cat"));
    assert_eq!(commit.subject, "Say hello [31m", "control characters are taken out");
    assert_eq!(commit.date.map(|d| d.rfc3339()).as_deref(), Some("2026-11-01T09:30:00Z"));
    let tree = github.tree(&shop(), &sha).await.expect("the tree");
    let kinds: Vec<(&str, &EntryKind)> =
        tree.entries.iter().map(|e| (e.path.as_str(), &e.kind)).collect();
    assert_eq!(
        kinds,
        [
            ("README.md", &EntryKind::File),
            ("old.txt", &EntryKind::File),
            ("lib", &EntryKind::Submodule)
        ]
    );
    let file = github.read_file(&shop(), "README.md", "main").await.expect("an answer");
    assert_eq!(file.as_deref(), Some(b"hello".as_slice()));
    assert_eq!(github.read_file(&shop(), "absent", "main").await.expect("an answer"), None);
    fake.assert_valid();
}

#[tokio::test]
async fn what_is_not_there_or_too_large_says_so() {
    let (fake, world) = start().await;
    let github = github(&fake);
    main_branch(&world);
    let big = "x".repeat((1 << 20) + 1);
    let sha = lock(&world).commit(&[("big", &big), ("dir/file", "x")]);
    assert_eq!(github.resolve(&shop(), "nope").await.expect_err("none").code(), "not_found");
    let error = github.repo(&"octo/other".parse().expect("a repo")).await.expect_err("none");
    assert_eq!(error.code(), "not_found");
    assert!(error.to_string().contains("octo/other"), "{error}");
    let error = github.read_file(&shop(), "big", &sha).await.expect_err("too large");
    assert_eq!(error.code(), "file_too_large");
    assert_eq!(github.read_file(&shop(), "dir", &sha).await.expect("an answer"), None);
    let asked = fake.seen().len();
    for path in ["../x", "a/../../b", "", "/etc", "a\nb"] {
        let error = github.read_file(&shop(), path, "main").await.expect_err("no path");
        assert_eq!(error.code(), "bad_name", "{path:?}");
    }
    assert_eq!(fake.seen().len(), asked, "nothing was asked with a bad path");
}

#[tokio::test]
async fn several_files_are_one_commit_and_the_same_again_is_none() {
    let (fake, world) = start().await;
    let (github, base) = (github(&fake), main_branch(&world));
    let made = github.commit_files(&shop(), BRANCH, &base, "Set up", &changes()).await;
    let made = made.expect("a commit");
    {
        let world = lock(&world);
        assert_eq!(world.branches[BRANCH], made.as_str());
        assert_eq!(world.branches["main"], base.as_str());
        let files = world.files(made.as_str());
        let names: Vec<(&str, &str)> =
            files.iter().map(|(path, (mode, _))| (path.as_str(), mode.as_str())).collect();
        assert_eq!(
            names,
            [
                (".github/workflows/vmkit-deploy.yml", "100644"),
                ("README.md", "100644"),
                ("bin/go.sh", "100755"),
                ("logo.jpg", "100644")
            ]
        );
        assert_eq!(files["bin/go.sh"].1, b"#!/bin/sh");
        assert_eq!(fake.count(Method::POST, "/repos/octo/shop/git/blobs"), 1, "text needs none");
        assert_eq!(world.commits.len(), 2);
    }
    let again = github.commit_files(&shop(), BRANCH, &base, "Set up", &changes()).await;
    assert_eq!(again.expect("the same commit"), made);
    assert_eq!(lock(&world).commits.len(), 2);
    let nothing = [write("README.md", "hello")];
    let same = github.commit_files(&shop(), "other", &base, "Nothing", &nothing).await;
    assert_eq!(same.expect("the base"), base);
    assert_eq!(github.branch_head(&shop(), "other").await.expect("an answer"), None);
    github.delete_branch(&shop(), BRANCH).await.expect("gone");
    github.delete_branch(&shop(), BRANCH).await.expect("still gone");
    fake.assert_valid();
}

#[tokio::test]
async fn a_commit_goes_on_top_of_what_the_branch_has_by_then() {
    let (fake, world) = start().await;
    let (github, base) = (github(&fake), main_branch(&world));
    let first = github.commit_files(&shop(), BRANCH, &base, "Set up", &changes()).await;
    let first = first.expect("a commit");
    // Somebody pushes while ours is made: GitHub refuses to move the branch, and it is made anew.
    let refs = "/repos/octo/shop/git/refs/heads/vmkit/setup";
    let moved = Reply::github(422, "Update is not a fast forward");
    fake.refuse(Method::PATCH, refs, moved.clone(), 1);
    let more = [write("README.md", "changed")];
    let second = github.commit_files(&shop(), BRANCH, &base, "Change", &more).await;
    let second = second.expect("a commit");
    assert_ne!(first, second);
    assert_eq!(lock(&world).branches[BRANCH], second.as_str());
    let files = lock(&world).files(second.as_str());
    assert_eq!((files.len(), files["README.md"].1.as_slice()), (4, b"changed".as_slice()));
    let parents: Vec<String> = fake
        .seen()
        .iter()
        .filter(|seen| seen.path.ends_with("git/commits"))
        .map(|seen| String::from_utf8_lossy(&seen.body).into_owned())
        .collect();
    assert!(parents.iter().skip(1).all(|body| body.contains(first.as_str())), "{parents:?}");
    // It does not go on for ever.
    fake.refuse(Method::PATCH, refs, moved, 99);
    let error = github.commit_files(&shop(), BRANCH, &base, "x", &[write("a", "b")]).await;
    assert_eq!(error.expect_err("always moved").code(), "conflict");
    fake.assert_valid();
}

#[tokio::test]
async fn a_fault_while_committing_leaves_one_commit_on_the_branch_or_none() {
    let kinds = || {
        vec![
            Reply::github(500, "Server Error"),
            Reply::Text(502, "<html>"),
            Reply::Text(201, "<html>"),
            Reply::BrokenBody(201),
            Reply::Silence,
            Reply::github(409, "Conflict"),
            Reply::github(422, "Reference already exists"),
            Reply::github(422, "Update is not a fast forward"),
        ]
    };
    let paths = ["git/blobs", "git/trees", "git/commits", "git/refs"];
    let mut cases = Vec::new();
    for path in paths {
        for after in [false, true] {
            cases.extend(kinds().into_iter().map(|reply| (path, after, reply)));
        }
    }
    let run = |(path, after, reply): (&'static str, bool, Reply)| async move {
        let case = format!("{path} after={after} {reply:?}");
        let (fake, world) = start().await;
        let (github, base) = (github(&fake), main_branch(&world));
        let path = &*Box::leak(format!("/repos/octo/shop/{path}").into_boxed_str());
        fake.fail(Fault { method: Method::POST, path, after, reply, times: 1 });
        let first = github.commit_files(&shop(), BRANCH, &base, "Set up", &changes()).await;
        if let Err(error) = first {
            assert!(error.retryable() || error.code() == "invalid_request", "{case}: {error}");
        }
        let second = github.commit_files(&shop(), BRANCH, &base, "Set up", &changes()).await;
        let second = second.unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(lock(&world).branches[BRANCH], second.as_str(), "{case}");
        assert_eq!(lock(&world).files(second.as_str()).len(), 4, "{case}");
    };
    stream::iter(cases).for_each_concurrent(16, run).await;
}

#[tokio::test]
async fn a_pull_request_is_opened_once_and_closed() {
    let (fake, world) = start().await;
    let (github, base) = (github(&fake), main_branch(&world));
    assert_eq!(github.pull_request(&shop(), BRANCH).await.expect("an answer"), None);
    let made = github.commit_files(&shop(), BRANCH, &base, "Set up", &changes()).await;
    let pulls = "/repos/octo/shop/pulls";
    let reply = Reply::github(502, "Bad gateway");
    fake.fail(Fault { method: Method::POST, path: pulls, after: true, reply, times: 1 });
    let open = github.open_pull(&shop(), BRANCH, "main", "Set up", "why").await.expect("a pull");
    assert_eq!((open.number, &open.state, open.merged), (1, &PullState::Open, false));
    assert_eq!(open.head_sha, made.expect("a commit").as_str());
    let same = github.open_pull(&shop(), BRANCH, "main", "Set up", "why").await.expect("it");
    assert_eq!((same.number, fake.count(Method::POST, pulls)), (1, 1));
    // Another branch's newer one is not taken for ours.
    let other = json!({ "number": 2, "state": "open", "head": { "ref": "other", "sha": "x" } });
    lock(&world).pulls.push(other);
    assert_eq!(github.pull_request(&shop(), BRANCH).await.expect("an answer"), Some(open));
    github.close_pull(&shop(), 1).await.expect("closed");
    github.close_pull(&shop(), 99).await.unwrap_or_else(|error| panic!("absent is fine: {error}"));
    let closed = github.pull_request(&shop(), BRANCH).await.expect("an answer").expect("it");
    assert_eq!((closed.state, closed.merged), (PullState::Closed, false));
    lock(&world).pulls[0]["merged_at"] = json!("2026-11-01T09:30:00Z");
    assert!(github.pull_request(&shop(), BRANCH).await.expect("an answer").expect("it").merged);
    fake.assert_valid();
}

fn inputs(deploy: &str) -> BTreeMap<String, String> {
    [("environment", "staging"), ("action", "deploy"), ("deploy_id", deploy)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

#[tokio::test]
async fn a_run_is_started_once_found_again_and_stopped() {
    let (fake, world) = start().await;
    let github = github(&fake);
    let id = github.dispatch(&shop(), WORKFLOW, "main", &inputs("dep_1")).await.expect("a run");
    assert_eq!(id, Some(100));
    lock(&world).silent_dispatch = true;
    let id = github.dispatch(&shop(), WORKFLOW, "main", &inputs("dep_2")).await.expect("a run");
    assert_eq!(id, None);
    // A dispatch whose answer is lost is not sent again by itself, and is found.
    let path = "/repos/octo/shop/actions/workflows";
    for (reply, nonce) in [(Reply::github(500, "x"), "dep_3"), (Reply::Silence, "dep_4")] {
        let before = fake.count(Method::POST, path);
        fake.fail(Fault { method: Method::POST, path, after: true, reply, times: 9 });
        let lost = github.dispatch(&shop(), WORKFLOW, "main", &inputs(nonce)).await;
        let lost = lost.expect_err("no answer");
        assert!(lost.may_have_happened(), "{lost}");
        assert_eq!(fake.count(Method::POST, path), before + 1);
        let found = github.find_run(&shop(), WORKFLOW, nonce).await.expect("an answer");
        assert_eq!(found.expect("the run").status, RunStatus::InProgress);
        fake.heal();
    }
    assert_eq!(github.find_run(&shop(), WORKFLOW, "dep_9").await.expect("an answer"), None);
    let found = github.find_run(&shop(), WORKFLOW, "dep_2").await.expect("an answer").expect("it");
    assert!(github.cancel_run(&shop(), found.id).await.expect("an answer"));
    assert!(!github.cancel_run(&shop(), found.id).await.expect("an answer"));
    let run = github.run(&shop(), found.id).await.expect("the run");
    assert_eq!((run.status, run.conclusion), (RunStatus::Completed, Some(Conclusion::Cancelled)));
    let error = github.dispatch(&shop(), "absent.yml", "main", &inputs("x")).await;
    assert_eq!(error.expect_err("no such workflow").code(), "not_found");
    fake.assert_valid();
}

#[tokio::test]
async fn jobs_and_notes_are_read_with_words_of_tomorrow() {
    let (fake, _world) = start().await;
    let jobs = github(&fake).jobs(&shop(), 100).await.expect("the jobs");
    assert_eq!(jobs[0].conclusion, Some(Conclusion::Failure));
    assert_eq!((jobs[0].steps[0].number, jobs[0].steps[0].name.as_str()), (3, "Deploy"));
    assert_eq!(jobs[1].status, RunStatus::Other("a_word_of_tomorrow".to_owned()));
    let notes = github(&fake).annotations(&shop(), 7).await.expect("the notes");
    assert_eq!(
        notes,
        [
            "failure: Process completed with exit code 1",
            "warning: Lint: unused (src/a.rs:2)",
            "notice:"
        ]
    );
}

#[tokio::test]
async fn a_jobs_log_is_fetched_from_its_host_without_our_token() {
    let (fake, world) = start().await;
    let github = github(&fake);
    assert_eq!(github.job_log(&shop(), 7).await.expect("an answer"), None);
    let logs = Router::new().route("/log", get(|| async { "\u{feff}one\ntwo\n" }));
    let logs = Fake::start(logs, None).await;
    let signed = logs.url.join("/log?sig=signature-for-tests").expect("a URL");
    lock(&world).log_url = signed.to_string();
    let text = github.job_log(&shop(), 7).await.expect("an answer");
    assert_eq!(text.as_deref(), Some("one\ntwo\n"));
    let seen = logs.seen();
    assert_eq!(seen.len(), 1);
    for ours in ["authorization", "x-github-api-version"] {
        assert!(!seen[0].headers.contains_key(ours), "{ours} went to the other host");
    }
    assert!(fake.seen().iter().all(|s| s.headers.contains_key("authorization")));
    logs.refuse(Method::GET, "/log", Reply::Text(403, "<Error>expired</Error>"), 1);
    let error = github.job_log(&shop(), 7).await.expect_err("the signature has expired");
    assert_eq!((error.code(), error.retryable()), ("github_fault", true));
}

#[tokio::test]
async fn a_secret_is_sealed_and_a_variable_is_set() {
    let (fake, world) = start().await;
    let github = github(&fake);
    for value in ["first $x `y` \"z\"", "second\nline"] {
        let secret = Secret::new(value);
        github.put_secret(&shop(), "VMKIT_SSH_KEY_STAGING", &secret).await.expect("stored");
        assert_eq!(lock(&world).secrets["VMKIT_SSH_KEY_STAGING"], value);
        github.put_variable(&shop(), "VMKIT_KNOWN_HOSTS_STAGING", value).await.expect("set");
        assert_eq!(lock(&world).variables["VMKIT_KNOWN_HOSTS_STAGING"], value);
    }
    let bodies: Vec<u8> = fake
        .seen()
        .into_iter()
        .filter(|seen| seen.path.contains("/secrets/"))
        .flat_map(|seen| seen.body)
        .collect();
    assert!(!String::from_utf8_lossy(&bodies).contains("second"), "a secret went out in plain");
    for name in ["", "GITHUB_TOKEN", "1A", "a", "A/../B"] {
        let error = github.put_secret(&shop(), name, &Secret::new("x")).await;
        assert_eq!(error.expect_err("a bad name").code(), "bad_name");
    }
    let large = Secret::new("x".repeat(48 * 1024 + 1));
    let error = github.put_secret(&shop(), "LARGE", &large).await.expect_err("too large");
    assert_eq!(error.code(), "bad_secret");
    for _ in 0..2 {
        github.delete_secret(&shop(), "VMKIT_SSH_KEY_STAGING").await.expect("gone");
        github.delete_variable(&shop(), "VMKIT_KNOWN_HOSTS_STAGING").await.expect("gone");
    }
    assert!(lock(&world).secrets.is_empty() && lock(&world).variables.is_empty());
    // A variable that was set by a request whose answer was lost.
    let path = "/repos/octo/shop/actions/variables";
    let reply = Reply::github(502, "Bad gateway");
    fake.fail(Fault { method: Method::POST, path, after: true, reply, times: 1 });
    github.put_variable(&shop(), "LOST", "found").await.expect("set");
    assert_eq!(lock(&world).variables["LOST"], "found");
    fake.assert_valid();
}

/// Every read takes what the specification allows, all of it or the least of it.
#[tokio::test]
async fn answers_made_from_the_specification_are_read() {
    let Some(spec) = Spec::load("github") else { return };
    for full in [true, false] {
        let spec = spec.clone();
        let answer = move |request: Request| async move {
            match spec.answer(request.uri().path(), full) {
                Some(answer) => axum::Json(answer).into_response(),
                None => axum::http::StatusCode::NOT_FOUND.into_response(),
            }
        };
        let fake = Fake::start(Router::new().fallback(answer), None).await;
        let (github, repo) = (github(&fake), shop());
        let sha: CommitSha = "0".repeat(40).parse().expect("a commit id");
        github.user().await.expect("the user");
        github.repo(&repo).await.expect("the repo");
        github.tree(&repo, &sha).await.expect("the tree");
        github.read_file(&repo, "README.md", "main").await.expect("an answer");
        github.pull_request(&repo, "main").await.expect("an answer");
        github.run(&repo, 5).await.expect("the run");
        github.find_run(&repo, WORKFLOW, "x").await.expect("an answer");
        assert_eq!(github.jobs(&repo, 5).await.expect("the jobs").len(), 1);
        assert_eq!(github.annotations(&repo, 5).await.expect("the notes").len(), 1);
        if let Err(error) = github.resolve(&repo, "main").await {
            assert_eq!(error.code(), "bad_name", "an example is no commit id: {error}");
        }
    }
}
