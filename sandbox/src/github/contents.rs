//! Commits and files: `commits/REF`, `contents/PATH`.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::response::IntoResponse as _;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use super::answer::{Answer, Page, Query, Refusal, created, object, ok, required};
use super::git::{Entry, Mode};
use super::render::Urls;
use super::store::{Knobs, LOGIN, Repo};
use super::{GitHub, render};

/// The largest file whose content is answered.
const CONTENT_BYTES_MAX: usize = 1024 * 1024;

type Place = Path<(String, String, String)>;

pub(super) fn routes() -> Router<GitHub> {
    Router::new()
        .route("/repos/{owner}/{repo}/commits", get(commits))
        .route("/repos/{owner}/{repo}/commits/{*reference}", get(commit))
        .route("/repos/{owner}/{repo}/contents", get(root))
        .route("/repos/{owner}/{repo}/contents/", get(root))
        .route("/repos/{owner}/{repo}/contents/{*path}", get(read).put(write).delete(remove))
}

/// Refuses a write below `.github/workflows` where the token may not.
pub(super) fn check_workflows<'a>(
    knobs: &Knobs,
    mut paths: impl Iterator<Item = &'a str>,
) -> Result<(), Refusal> {
    let touches = paths.any(|path| path.starts_with(".github/workflows/"));
    if touches && knobs.missing_permissions.contains("workflows=write") {
        return Err(Refusal::permission("contents=write,workflows=write"));
    }
    Ok(())
}

fn no_commit(reference: &str) -> Refusal {
    Refusal::unprocessable(format!("No commit found for SHA: {reference}"))
}

async fn commits(
    State(hub): State<GitHub>,
    Path((owner, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::parse(query.as_deref());
    let page = hub.with_repo(&owner, &name, |repo, urls| {
        let from = query.get("sha").unwrap_or("HEAD");
        let head = repo.resolve(from).ok_or_else(Refusal::not_found)?;
        let all = repo
            .git
            .history(&head)
            .into_iter()
            .filter_map(|sha| Some(render::commit(&sha, repo.git.commit(&sha)?, urls)));
        Ok(Page::cut(all.collect(), &query, &format!("{}/commits", urls.api)))
    });
    page?.answer()
}

async fn commit(
    State(hub): State<GitHub>,
    Path((owner, name, reference)): Place,
    headers: HeaderMap,
) -> Answer {
    let sha_only = accepts(&headers, "sha");
    let found = hub.with_repo(&owner, &name, |repo, urls| {
        let sha = repo.resolve(&reference).ok_or_else(|| no_commit(&reference))?;
        let commit = repo.git.commit(&sha).ok_or_else(|| no_commit(&reference))?;
        Ok((render::commit(&sha, commit, urls), sha))
    });
    let (mut body, sha) = found?;
    if sha_only {
        return Ok(([(header::CONTENT_TYPE, "application/vnd.github.sha; charset=utf-8")], sha)
            .into_response());
    }
    body["stats"] = json!({ "total": 0, "additions": 0, "deletions": 0 });
    body["files"] = json!([]);
    ok(&body)
}

fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let accept =
        headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.contains(&format!("github.{kind}")) || accept.contains(&format!("github.v3.{kind}"))
}

async fn root(
    hub: State<GitHub>,
    Path((owner, name)): Path<(String, String)>,
    query: RawQuery,
    headers: HeaderMap,
) -> Answer {
    read(hub, Path((owner, name, String::new())), query, headers).await
}

async fn read(
    State(hub): State<GitHub>,
    Path((owner, name, path)): Place,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let query = Query::parse(query.as_deref());
    let path = path.trim_matches('/').to_owned();
    let found = hub.with_repo(&owner, &name, |repo, urls| {
        let at = query.get("ref").unwrap_or(&repo.default_branch).to_owned();
        let missing =
            || Refusal::new(StatusCode::NOT_FOUND, format!("No commit found for the ref {at}"));
        let sha = repo.resolve(&at).ok_or_else(missing)?;
        let tree = repo.git.commit(&sha).map(|commit| commit.tree.clone()).ok_or_else(missing)?;
        show(repo, &tree, &path, &at, urls)
    });
    let (body, bytes) = found?;
    match bytes.filter(|_| accepts(&headers, "raw")) {
        Some(bytes) => Ok((
            [(header::CONTENT_TYPE, "application/vnd.github.raw; charset=utf-8")],
            bytes.to_vec(),
        )
            .into_response()),
        None => ok(&body),
    }
}

/// The body for a path, and a file's bytes.
type Shown = (Value, Option<std::sync::Arc<[u8]>>);

/// Shows what stands at a path.
fn show(repo: &Repo, tree: &str, path: &str, at: &str, urls: &Urls) -> Result<Shown, Refusal> {
    let list = |tree: &str| {
        let entries = repo.git.tree(tree).unwrap_or_default().iter().map(|entry| {
            let full =
                if path.is_empty() { entry.path.clone() } else { format!("{path}/{}", entry.path) };
            let size = repo.git.blob(&entry.sha).map_or(0, |bytes| bytes.len());
            render::content(&Entry { path: full, ..entry.clone() }, size, at, urls)
        });
        (Value::Array(entries.collect()), None)
    };
    if path.is_empty() {
        return Ok(list(tree));
    }
    let entry = repo.git.find(tree, path).ok_or_else(Refusal::not_found)?;
    if entry.mode == Mode::Directory {
        return Ok(list(&entry.sha));
    }
    let bytes = repo.git.blob(&entry.sha).ok_or_else(Refusal::not_found)?;
    let mut body = render::content(&entry, bytes.len(), at, urls);
    if entry.mode == Mode::Symlink {
        body["target"] = String::from_utf8_lossy(&bytes).into();
        return Ok((body, Some(bytes)));
    }
    let fits = bytes.len() <= CONTENT_BYTES_MAX;
    body["encoding"] = if fits { "base64" } else { "none" }.into();
    body["content"] = if fits { in_lines(&bytes) } else { String::new() }.into();
    Ok((body, Some(bytes)))
}

/// Base64 in lines of 60, as GitHub answers it.
pub(super) fn in_lines(bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    text.as_bytes().chunks(60).map(|line| format!("{}\n", String::from_utf8_lossy(line))).collect()
}

/// Base64 as clients send it, with or without line breaks.
pub(super) fn decoded(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text.split_whitespace().collect::<String>()).ok()
}

async fn write(State(hub): State<GitHub>, Path((owner, name, path)): Place, body: Bytes) -> Answer {
    let body = object(&body)?;
    let knobs = hub.state().knobs.clone();
    check_workflows(&knobs, std::iter::once(path.as_str()))?;
    let message = required(&body, "Commit", "message")?.to_owned();
    let content = body["content"].as_str().ok_or_else(|| {
        Refusal::unprocessable("Invalid request.\n\n\"content\" wasn't supplied.")
    })?;
    let bytes =
        decoded(content).ok_or_else(|| Refusal::unprocessable("content is not valid Base64"))?;
    let result = hub.with_repo(&owner, &name, |repo, urls| {
        let (branch, head, before) = place(repo, &body, &path)?;
        match (&before, body["sha"].as_str()) {
            (Some(_), None) => {
                return Err(Refusal::unprocessable("Invalid request.\n\n\"sha\" wasn't supplied."));
            }
            (Some(entry), Some(sha)) if entry.sha != sha => {
                return Err(Refusal::conflict(format!("{path} does not match {sha}")));
            }
            (None, Some(sha)) => {
                return Err(Refusal::conflict(format!("{path} does not match {sha}")));
            }
            _ => {}
        }
        let blob = repo.git.put_blob(bytes.clone());
        let mode = before.as_ref().map_or(Mode::File, |entry| entry.mode);
        let commit =
            commit_change(repo, &branch, &head, &path, Some((mode, blob.clone())), &message);
        let entry = Entry { path: path.clone(), mode, sha: blob };
        let content = render::content(&entry, bytes.len(), &branch, urls);
        Ok((before.is_some(), answer_of(repo, &commit, content, urls)))
    });
    let (existed, body) = result?;
    if existed { ok(&body) } else { created(&body) }
}

async fn remove(
    State(hub): State<GitHub>,
    Path((owner, name, path)): Place,
    body: Bytes,
) -> Answer {
    let body = object(&body)?;
    let knobs = hub.state().knobs.clone();
    check_workflows(&knobs, std::iter::once(path.as_str()))?;
    let message = required(&body, "Commit", "message")?.to_owned();
    let wanted = required(&body, "Commit", "sha")?.to_owned();
    let result = hub.with_repo(&owner, &name, |repo, urls| {
        let (branch, head, before) = place(repo, &body, &path)?;
        let before = before.ok_or_else(Refusal::not_found)?;
        if before.sha != wanted {
            return Err(Refusal::conflict(format!("{path} does not match {wanted}")));
        }
        let commit = commit_change(repo, &branch, &head, &path, None, &message);
        Ok(answer_of(repo, &commit, Value::Null, urls))
    });
    ok(&result?)
}

/// The branch of a change, its head, and what stands at the path now.
fn place(
    repo: &Repo,
    body: &Value,
    path: &str,
) -> Result<(String, String, Option<Entry>), Refusal> {
    if repo.archived {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "Repository was archived so is read-only.",
        ));
    }
    let malformed =
        path.is_empty() || path.split('/').any(|part| matches!(part, "" | "." | ".." | ".git"));
    if malformed {
        return Err(Refusal::unprocessable("path contains a malformed path component"));
    }
    let branch = body["branch"].as_str().unwrap_or(&repo.default_branch).to_owned();
    let missing = || Refusal::new(StatusCode::NOT_FOUND, format!("Branch {branch} not found"));
    let head = repo.branch(&branch).ok_or_else(missing)?.to_owned();
    let tree = repo.git.commit(&head).map(|commit| commit.tree.clone()).unwrap_or_default();
    Ok((branch, head, repo.git.find(&tree, path)))
}

fn commit_change(
    repo: &mut Repo,
    branch: &str,
    head: &str,
    path: &str,
    file: Option<(Mode, String)>,
    message: &str,
) -> String {
    let tree = repo.git.commit(head).map(|commit| commit.tree.clone()).unwrap_or_default();
    let mut flat = repo.git.flat(&tree);
    match file {
        Some(file) => drop(flat.insert(path.to_owned(), file)),
        None => drop(flat.remove(path)),
    }
    let tree = repo.git.put_flat(&flat);
    repo.commit_tree(branch, vec![head.to_owned()], tree, message, LOGIN)
}

fn answer_of(repo: &Repo, sha: &str, content: Value, urls: &Urls) -> Value {
    let commit = repo.git.commit(sha).map(|commit| render::git_commit(sha, commit, urls));
    json!({ "content": content, "commit": commit })
}
