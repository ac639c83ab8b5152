//! As much of GitHub as the client uses: a small git store, pull requests, runs, secrets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post, put};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crypto_box::SecretKey;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::fake::{Fake, lock};
use crate::spec::Spec;

/// The private half of the key that the specification's example shows.
pub(crate) const PRIVATE_KEY: [u8; 32] = [1; 32];

/// A flat tree: path to mode and blob.
type Files = BTreeMap<String, (String, String)>;

/// What exists in the one repo, `octo/shop`.
#[derive(Default)]
pub(crate) struct World {
    blobs: BTreeMap<String, Vec<u8>>,
    trees: BTreeMap<String, Files>,
    /// Commit to tree.
    pub(crate) commits: BTreeMap<String, String>,
    pub(crate) branches: BTreeMap<String, String>,
    pub(crate) pulls: Vec<Value>,
    pub(crate) runs: Vec<Value>,
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) variables: BTreeMap<String, String>,
    /// Where a job's log lies.
    pub(crate) log_url: String,
    /// Whether a dispatch tells its run's id.
    pub(crate) silent_dispatch: bool,
}

pub(crate) type Shared = Arc<Mutex<World>>;
type Answer = (StatusCode, Json<Value>);

fn ok(status: u16, body: Value) -> Answer {
    (StatusCode::from_u16(status).expect("a status"), Json(body))
}

fn refuse(status: u16, message: &str) -> Answer {
    ok(status, json!({ "message": message, "documentation_url": "https://docs.github.com" }))
}

fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text))[..40].to_owned()
}

impl World {
    /// What a commit holds, by path.
    pub(crate) fn files(&self, commit: &str) -> BTreeMap<String, (String, Vec<u8>)> {
        let tree = &self.trees[&self.commits[commit]];
        tree.iter().map(|(p, (m, b))| (p.clone(), (m.clone(), self.blobs[b].clone()))).collect()
    }

    fn tree(&mut self, files: Files) -> String {
        let sha = hash(&format!("tree {files:?}"));
        self.trees.insert(sha.clone(), files);
        sha
    }

    /// A commit with these files and no parent.
    pub(crate) fn commit(&mut self, files: &[(&str, &str)]) -> String {
        let mut tree = Files::new();
        for (path, text) in files {
            let blob = hash(&format!("blob {text}"));
            self.blobs.insert(blob.clone(), text.as_bytes().to_vec());
            tree.insert((*path).to_owned(), ("100644".to_owned(), blob));
        }
        let tree = self.tree(tree);
        let sha = hash(&format!("commit {tree}"));
        self.commits.insert(sha.clone(), tree);
        sha
    }
}

pub(crate) async fn start() -> (Fake, Shared) {
    let world = Shared::default();
    let in_repo = Router::new()
        .route("/", get(repo))
        .route("/commits/{*name}", get(resolve))
        .route("/git/trees/{sha}", get(tree))
        .route("/git/trees", post(make_tree))
        .route("/git/blobs", post(make_blob))
        .route("/git/commits", post(make_commit))
        .route("/git/commits/{sha}", get(commit))
        .route("/git/ref/heads/{*branch}", get(branch))
        .route("/git/refs", post(make_branch))
        .route("/git/refs/heads/{*branch}", patch(move_branch).delete(drop_branch))
        .route("/contents/{*path}", get(content))
        .route("/pulls", get(list_pulls).post(make_pull))
        .route("/pulls/{number}", patch(change_pull))
        .route("/actions/workflows/{file}/dispatches", post(dispatch))
        .route("/actions/workflows/{file}/runs", get(list_runs))
        .route("/actions/runs/{id}", get(one_run))
        .route("/actions/runs/{id}/jobs", get(jobs))
        .route("/actions/runs/{id}/cancel", post(cancel))
        .route("/actions/jobs/{id}/logs", get(log))
        .route("/check-runs/{id}/annotations", get(annotations))
        .route("/actions/secrets/public-key", get(public_key))
        .route("/actions/secrets/{name}", put(put_secret).delete(drop_secret))
        .route("/actions/variables", post(make_variable))
        .route("/actions/variables/{name}", patch(change_variable).delete(drop_variable));
    let router = Router::new()
        .nest("/repos/octo/shop", in_repo)
        .route("/user", get(user))
        .fallback(|| async { refuse(404, "Not Found") })
        .with_state(world.clone());
    (Fake::start(router, Spec::load("github")).await, world)
}

async fn user() -> Response {
    let body = Json(json!({ "id": 1, "login": "octo", "new_thing": null }));
    ([("x-oauth-scopes", "repo, workflow")], body).into_response()
}

async fn repo() -> Answer {
    ok(
        200,
        json!({ "id": 42, "full_name": "octo/shop", "default_branch": "main", "private": true,
        "archived": false, "permissions": { "admin": false, "push": true, "pull": true } }),
    )
}

async fn resolve(State(world): State<Shared>, Path(name): Path<String>) -> Answer {
    let world = lock(&world);
    let sha = world.branches.get(&name).unwrap_or(&name);
    if !world.commits.contains_key(sha) {
        return refuse(422, "No commit found for SHA: it");
    }
    ok(
        200,
        json!({ "sha": sha, "author": null, "commit": {
        "message": "Say hello\u{1b}[31m\n\nAnd more", "author": { "name": "Octo Cat", "date": null },
        "committer": { "date": "2026-11-01T09:30:00Z" } } }),
    )
}

async fn tree(State(world): State<Shared>, Path(sha): Path<String>) -> Answer {
    let world = lock(&world);
    let entries: Vec<Value> = world
        .files(&sha)
        .into_iter()
        .map(|(path, (mode, bytes))| {
            json!({ "path": path, "mode": mode, "type": "blob", "size": bytes.len(),
                "sha": hash(&format!("blob {}", String::from_utf8_lossy(&bytes))) })
        })
        .chain([json!({ "path": "lib", "mode": "160000", "type": "commit", "sha": "x" })])
        .collect();
    ok(200, json!({ "sha": sha, "tree": entries, "truncated": false }))
}

async fn make_blob(State(world): State<Shared>, Json(body): Json<Value>) -> Answer {
    let text = body["content"].as_str().expect("content");
    let bytes = STANDARD.decode(text).expect("base64");
    let sha = hash(&format!("blob {}", String::from_utf8_lossy(&bytes)));
    lock(&world).blobs.insert(sha.clone(), bytes);
    ok(201, json!({ "sha": sha, "url": "x" }))
}

async fn make_tree(State(world): State<Shared>, Json(body): Json<Value>) -> Answer {
    let mut world = lock(&world);
    let base = body["base_tree"].as_str().expect("a base");
    let mut files = world.trees[base].clone();
    for entry in body["tree"].as_array().expect("entries") {
        let path = entry["path"].as_str().expect("a path").to_owned();
        let mode = entry["mode"].as_str().expect("a mode").to_owned();
        if let Some(text) = entry["content"].as_str() {
            assert!(entry["sha"].is_null(), "GitHub takes a hash or the content: {entry}");
            let sha = hash(&format!("blob {text}"));
            world.blobs.insert(sha.clone(), text.as_bytes().to_vec());
            files.insert(path, (mode, sha));
        } else if let Some(blob) = entry["sha"].as_str() {
            files.insert(path, (mode, blob.to_owned()));
        } else if files.remove(&path).is_none() {
            return refuse(422, "GitRPC::BadObjectState");
        }
    }
    let sha = world.tree(files);
    ok(201, json!({ "sha": sha, "tree": [], "truncated": false }))
}

async fn make_commit(State(world): State<Shared>, Json(body): Json<Value>) -> Answer {
    let mut world = lock(&world);
    let count = world.commits.len();
    let sha = hash(&format!("commit {body} {count}"));
    world.commits.insert(sha.clone(), body["tree"].as_str().expect("a tree").to_owned());
    ok(201, json!({ "sha": sha, "tree": { "sha": body["tree"] } }))
}

async fn commit(State(world): State<Shared>, Path(sha): Path<String>) -> Answer {
    match lock(&world).commits.get(&sha) {
        Some(tree) => ok(200, json!({ "sha": sha, "tree": { "sha": tree } })),
        None => refuse(404, "Not Found"),
    }
}

async fn branch(State(world): State<Shared>, Path(branch): Path<String>) -> Answer {
    match lock(&world).branches.get(&branch) {
        Some(sha) => ok(200, json!({ "ref": branch, "object": { "sha": sha, "type": "commit" } })),
        None => refuse(404, "Not Found"),
    }
}

async fn make_branch(State(world): State<Shared>, Json(body): Json<Value>) -> Answer {
    let mut world = lock(&world);
    let name = body["ref"].as_str().and_then(|r| r.strip_prefix("refs/heads/")).expect("a ref");
    if world.branches.contains_key(name) {
        return refuse(422, "Reference already exists");
    }
    let sha = body["sha"].as_str().expect("a commit").to_owned();
    world.branches.insert(name.to_owned(), sha);
    ok(201, json!({ "ref": body["ref"], "object": { "sha": body["sha"] } }))
}

async fn move_branch(
    State(world): State<Shared>,
    Path(branch): Path<String>,
    Json(body): Json<Value>,
) -> Answer {
    let sha = body["sha"].as_str().expect("a commit").to_owned();
    match lock(&world).branches.get_mut(&branch) {
        Some(head) => *head = sha,
        None => return refuse(422, "Reference does not exist"),
    }
    ok(200, json!({ "ref": branch, "object": { "sha": body["sha"] } }))
}

async fn drop_branch(State(world): State<Shared>, Path(branch): Path<String>) -> Response {
    match lock(&world).branches.remove(&branch) {
        Some(_) => StatusCode::NO_CONTENT.into_response(),
        None => refuse(422, "Reference does not exist").into_response(),
    }
}

#[derive(Deserialize)]
struct AtRef {
    #[serde(rename = "ref")]
    at: String,
}

async fn content(
    State(world): State<Shared>,
    Path(path): Path<String>,
    Query(query): Query<AtRef>,
) -> Answer {
    let world = lock(&world);
    let sha = world.branches.get(&query.at).unwrap_or(&query.at);
    let files = world.files(sha);
    if files.keys().any(|file| file.starts_with(&format!("{path}/"))) {
        return ok(200, json!([{ "type": "file", "name": "x" }]));
    }
    match files.get(&path) {
        None => refuse(404, "Not Found"),
        // What is larger than 1 MiB comes without its content.
        Some((_, bytes)) if bytes.len() > 1 << 20 => ok(
            200,
            json!({ "type": "file", "encoding": "none", "size": bytes.len(), "content": "" }),
        ),
        Some((_, bytes)) => {
            let packed = STANDARD.encode(bytes);
            let lines: Vec<String> =
                packed.as_bytes().chunks(60).map(|c| String::from_utf8_lossy(c).into()).collect();
            ok(
                200,
                json!({ "type": "file", "encoding": "base64", "size": bytes.len(),
                "content": lines.join("\n") + "\n" }),
            )
        }
    }
}

async fn list_pulls(State(world): State<Shared>) -> Answer {
    ok(200, json!(lock(&world).pulls.iter().rev().collect::<Vec<_>>()))
}

async fn make_pull(State(world): State<Shared>, Json(body): Json<Value>) -> Answer {
    let mut world = lock(&world);
    if world.pulls.iter().any(|p| p["state"] == "open" && p["head"]["ref"] == body["head"]) {
        return ok(
            422,
            json!({ "message": "Validation Failed", "errors": [
            { "resource": "PullRequest", "code": "custom",
                "message": "A pull request already exists for octo:it." }] }),
        );
    }
    let number = world.pulls.len() + 1;
    let head = body["head"].as_str().expect("a head");
    let sha = world.branches.get(head).cloned().unwrap_or_default();
    let pull = json!({ "number": number, "state": "open", "merged": false, "title": body["title"],
        "html_url": format!("https://github.com/octo/shop/pull/{number}"),
        "head": { "ref": head, "sha": sha } });
    world.pulls.push(pull.clone());
    ok(201, pull)
}

async fn change_pull(
    State(world): State<Shared>,
    Path(number): Path<usize>,
    Json(body): Json<Value>,
) -> Answer {
    match lock(&world).pulls.get_mut(number - 1) {
        Some(pull) => {
            pull["state"] = body["state"].clone();
            ok(200, pull.clone())
        }
        None => refuse(404, "Not Found"),
    }
}

async fn dispatch(
    State(world): State<Shared>,
    Path(file): Path<String>,
    Json(body): Json<Value>,
) -> Response {
    let mut world = lock(&world);
    if file != "vmkit-deploy.yml" {
        return refuse(404, "Not Found").into_response();
    }
    let id = 100 + world.runs.len();
    let title = format!("deploy {}", body["inputs"]["deploy_id"].as_str().unwrap_or_default());
    world.runs.push(json!({ "id": id, "name": "vmkit", "display_title": title,
        "status": "in_progress", "conclusion": null, "html_url": "https://github.com/run",
        "head_sha": "0000000000000000000000000000000000000000", "event": "workflow_dispatch" }));
    if world.silent_dispatch {
        return StatusCode::NO_CONTENT.into_response();
    }
    ok(200, json!({ "workflow_run_id": id, "run_url": "x", "html_url": "x" })).into_response()
}

async fn list_runs(State(world): State<Shared>) -> Answer {
    let runs: Vec<Value> = lock(&world).runs.iter().rev().cloned().collect();
    ok(200, json!({ "total_count": runs.len(), "workflow_runs": runs }))
}

async fn one_run(State(world): State<Shared>, Path(id): Path<u64>) -> Answer {
    match lock(&world).runs.iter().find(|run| run["id"] == id) {
        Some(run) => ok(200, run.clone()),
        None => refuse(404, "Not Found"),
    }
}

async fn jobs() -> Answer {
    let step =
        json!({ "name": "Deploy", "status": "completed", "conclusion": "failure", "number": 3 });
    let jobs = json!([
        { "id": 7, "name": "deploy", "status": "completed", "conclusion": "failure", "steps": [step] },
        { "id": 8, "name": "after", "status": "a_word_of_tomorrow", "conclusion": null },
    ]);
    ok(200, json!({ "total_count": 2, "jobs": jobs }))
}

async fn cancel(State(world): State<Shared>, Path(id): Path<u64>) -> Answer {
    let mut world = lock(&world);
    match world.runs.iter_mut().find(|run| run["id"] == id) {
        Some(run) if run["status"] == "completed" => refuse(409, "Cannot cancel a workflow run"),
        Some(run) => {
            run["status"] = json!("completed");
            run["conclusion"] = json!("cancelled");
            ok(202, json!({}))
        }
        None => refuse(404, "Not Found"),
    }
}

async fn log(State(world): State<Shared>) -> Response {
    let location = lock(&world).log_url.clone();
    if location.is_empty() {
        return refuse(404, "Not Found").into_response();
    }
    (StatusCode::FOUND, [(header::LOCATION, location)]).into_response()
}

async fn annotations() -> Answer {
    ok(
        200,
        json!([
            { "annotation_level": "failure", "path": ".github", "start_line": 5, "title": "",
                "message": "Process completed with exit code 1." },
            { "annotation_level": "warning", "path": "src/a.rs", "start_line": 2, "title": "Lint",
                "message": "unused", "end_line": 2 },
            { "annotation_level": null, "path": null, "start_line": null, "title": null, "message": null },
        ]),
    )
}

async fn public_key() -> Answer {
    let key = SecretKey::from(PRIVATE_KEY).public_key();
    ok(200, json!({ "key_id": "012345678912345678", "key": STANDARD.encode(key.as_bytes()) }))
}

async fn put_secret(
    State(world): State<Shared>,
    Path(name): Path<String>,
    Json(body): Json<Value>,
) -> Answer {
    let sealed = STANDARD.decode(body["encrypted_value"].as_str().expect("a value"));
    let opened = SecretKey::from(PRIVATE_KEY).unseal(&sealed.expect("base64")).expect("opens");
    let old = lock(&world).secrets.insert(name, String::from_utf8(opened).expect("text"));
    ok(if old.is_some() { 204 } else { 201 }, json!({}))
}

async fn drop_secret(State(world): State<Shared>, Path(name): Path<String>) -> Response {
    match lock(&world).secrets.remove(&name) {
        Some(_) => StatusCode::NO_CONTENT.into_response(),
        None => refuse(404, "Not Found").into_response(),
    }
}

fn text(body: &Value, field: &str) -> String {
    body[field].as_str().expect("a text").to_owned()
}

async fn make_variable(State(world): State<Shared>, Json(body): Json<Value>) -> Answer {
    let mut world = lock(&world);
    let name = text(&body, "name");
    if world.variables.contains_key(&name) {
        return refuse(409, "Already exists - Variable already exists");
    }
    world.variables.insert(name, text(&body, "value"));
    ok(201, json!({}))
}

async fn change_variable(
    State(world): State<Shared>,
    Path(name): Path<String>,
    Json(body): Json<Value>,
) -> Response {
    match lock(&world).variables.get_mut(&name) {
        Some(value) => {
            *value = text(&body, "value");
            StatusCode::NO_CONTENT.into_response()
        }
        None => refuse(404, "Not Found").into_response(),
    }
}

async fn drop_variable(State(world): State<Shared>, Path(name): Path<String>) -> Response {
    match lock(&world).variables.remove(&name) {
        Some(_) => StatusCode::NO_CONTENT.into_response(),
        None => refuse(404, "Not Found").into_response(),
    }
}
