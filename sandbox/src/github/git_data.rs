//! The git endpoints: blobs, trees, commits, references.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::answer::{Answer, Page, Query, Refusal, created, no_content, object, ok, required};
use super::contents::{check_workflows, decoded, in_lines};
use super::git::{Commit, Mode, Person};
use super::store::{LOGIN, Repo, person};
use super::{GitHub, render};

type Home = Path<(String, String)>;
type Place = Path<(String, String, String)>;

pub(super) fn routes() -> Router<GitHub> {
    Router::new()
        .route("/repos/{owner}/{repo}/git/blobs", post(new_blob))
        .route("/repos/{owner}/{repo}/git/blobs/{sha}", get(blob))
        .route("/repos/{owner}/{repo}/git/trees", post(new_tree))
        .route("/repos/{owner}/{repo}/git/trees/{*sha}", get(tree))
        .route("/repos/{owner}/{repo}/git/commits", post(new_commit))
        .route("/repos/{owner}/{repo}/git/commits/{sha}", get(commit))
        .route("/repos/{owner}/{repo}/git/refs", post(new_reference))
        .route("/repos/{owner}/{repo}/git/ref/{*name}", get(reference))
        .route(
            "/repos/{owner}/{repo}/git/refs/{*name}",
            get(reference).patch(move_reference).delete(drop_reference),
        )
        .route("/repos/{owner}/{repo}/git/matching-refs/{*name}", get(matching))
}

async fn new_blob(State(hub): State<GitHub>, Path((owner, name)): Home, body: Bytes) -> Answer {
    let body = object(&body)?;
    let content = body["content"]
        .as_str()
        .ok_or_else(|| Refusal::field("Blob", "content", "missing_field"))?;
    let bytes = match body["encoding"].as_str().unwrap_or("utf-8") {
        "base64" => {
            decoded(content).ok_or_else(|| Refusal::unprocessable("content is not valid Base64"))?
        }
        "utf-8" => content.as_bytes().to_vec(),
        _ => return Err(Refusal::field("Blob", "encoding", "invalid")),
    };
    let answer = hub.with_repo(&owner, &name, |repo, urls| {
        let sha = repo.git.put_blob(bytes);
        Ok(json!({ "url": format!("{}/git/blobs/{sha}", urls.api), "sha": sha }))
    });
    created(&answer?)
}

async fn blob(State(hub): State<GitHub>, Path((owner, name, sha)): Place) -> Answer {
    let answer = hub.with_repo(&owner, &name, |repo, urls| {
        let bytes = repo.git.blob(&sha).ok_or_else(Refusal::not_found)?;
        Ok(json!({
            "sha": sha, "node_id": STANDARD.encode(format!("Blob:{sha}")), "size": bytes.len(),
            "url": format!("{}/git/blobs/{sha}", urls.api), "content": in_lines(&bytes), "encoding": "base64",
        }))
    });
    ok(&answer?)
}

fn shown_tree(
    repo: &Repo,
    sha: &str,
    recursive: bool,
    urls: &render::Urls,
) -> Result<Value, Refusal> {
    let entries = match (recursive, repo.git.tree(sha)) {
        (_, None) => return Err(Refusal::not_found()),
        (true, Some(_)) => repo.git.walk(sha),
        (false, Some(entries)) => entries.to_vec(),
    };
    let shown = entries.iter().map(|entry| {
        render::tree_entry(entry, repo.git.blob(&entry.sha).map(|bytes| bytes.len()), urls)
    });
    Ok(
        json!({ "sha": sha, "url": format!("{}/git/trees/{sha}", urls.api), "tree": shown.collect::<Vec<_>>(), "truncated": false }),
    )
}

async fn tree(
    State(hub): State<GitHub>,
    Path((owner, name, sha)): Place,
    RawQuery(query): RawQuery,
) -> Answer {
    let recursive = query.unwrap_or_default().split('&').any(|pair| pair.starts_with("recursive="));
    let answer = hub.with_repo(&owner, &name, |repo, urls| {
        let by_commit = repo
            .resolve(&sha)
            .and_then(|commit| repo.git.commit(&commit).map(|commit| commit.tree.clone()));
        shown_tree(repo, &by_commit.unwrap_or(sha), recursive, urls)
    });
    ok(&answer?)
}

async fn new_tree(State(hub): State<GitHub>, Path((owner, name)): Home, body: Bytes) -> Answer {
    let body = object(&body)?;
    let items =
        body["tree"].as_array().ok_or_else(|| Refusal::field("Tree", "tree", "missing_field"))?;
    let knobs = hub.state().knobs.clone();
    check_workflows(&knobs, items.iter().filter_map(|item| item["path"].as_str()))?;
    let answer = hub.with_repo(&owner, &name, |repo, urls| {
        let mut flat = match body["base_tree"].as_str() {
            None => std::collections::BTreeMap::new(),
            Some(base) => {
                let base = repo
                    .git
                    .commit(base)
                    .map_or_else(|| base.to_owned(), |commit| commit.tree.clone());
                let known = repo.git.tree(&base).is_some();
                if !known {
                    return Err(Refusal::unprocessable("base_tree is not a valid tree oid"));
                }
                repo.git.flat(&base)
            }
        };
        for item in items {
            put_item(repo, &mut flat, item)?;
        }
        let sha = repo.git.put_flat(&flat);
        shown_tree(repo, &sha, false, urls)
    });
    created(&answer?)
}

fn put_item(
    repo: &mut Repo,
    flat: &mut std::collections::BTreeMap<String, (Mode, String)>,
    item: &Value,
) -> Result<(), Refusal> {
    let path = item["path"]
        .as_str()
        .filter(|path| !path.is_empty())
        .ok_or_else(|| Refusal::unprocessable("tree.path is missing"))?;
    if path.starts_with('/') || path.split('/').any(|part| matches!(part, "" | "." | ".." | ".git"))
    {
        return Err(Refusal::unprocessable("tree.path contains a malformed path component"));
    }
    let below = format!("{path}/");
    if item["sha"].is_null() && item.get("sha").is_some() {
        let before = flat.len();
        flat.retain(|name, _| name != path && !name.starts_with(&below));
        return if flat.len() < before {
            Ok(())
        } else {
            Err(Refusal::unprocessable("GitRPC::BadObjectState"))
        };
    }
    let mode = item["mode"]
        .as_str()
        .and_then(Mode::parse)
        .ok_or_else(|| Refusal::unprocessable("Must supply a valid tree.mode"))?;
    let sha = match (item["content"].as_str(), item["sha"].as_str()) {
        (Some(content), None) => repo.git.put_blob(content.as_bytes()),
        (None, Some(sha)) => sha.to_owned(),
        _ => return Err(Refusal::unprocessable("Must supply either tree.sha or tree.content")),
    };
    if mode == Mode::Directory {
        let inside = repo.git.tree(&sha).is_some().then(|| repo.git.flat(&sha));
        let inside = inside
            .ok_or_else(|| Refusal::unprocessable(format!("tree.sha {sha} is not a valid tree")))?;
        flat.retain(|name, _| name != path && !name.starts_with(&below));
        flat.extend(inside.into_iter().map(|(name, value)| (format!("{below}{name}"), value)));
        return Ok(());
    }
    if mode != Mode::Submodule && repo.git.blob(&sha).is_none() {
        return Err(Refusal::unprocessable(format!("tree.sha {sha} is not a valid blob")));
    }
    flat.retain(|name, _| !name.starts_with(&below));
    flat.insert(path.to_owned(), (mode, sha));
    Ok(())
}

async fn new_commit(State(hub): State<GitHub>, Path((owner, name)): Home, body: Bytes) -> Answer {
    let body = object(&body)?;
    let message = required(&body, "Commit", "message")?.to_owned();
    let tree = required(&body, "Commit", "tree")?.to_owned();
    let answer = hub.with_repo(&owner, &name, |repo, urls| {
        if repo.git.tree(&tree).is_none() {
            return Err(Refusal::unprocessable("Tree SHA does not exist"));
        }
        let parents: Vec<String> = body["parents"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if parents.iter().any(|parent| repo.git.commit(parent).is_none()) {
            return Err(Refusal::unprocessable(
                "Parent SHA does not exist or is not a commit object",
            ));
        }
        let author = who(&body["author"], person(LOGIN));
        let committer = who(&body["committer"], author.clone());
        let sha = repo.git.put_commit(Commit { tree, parents, author, committer, message });
        let commit = repo.git.commit(&sha).ok_or_else(Refusal::not_found)?;
        Ok(render::git_commit(&sha, commit, urls))
    });
    created(&answer?)
}

fn who(given: &Value, otherwise: Person) -> Person {
    let text = |key: &str| given[key].as_str().map(str::to_owned);
    let at = text("date").and_then(|date| date.parse::<jiff::Timestamp>().ok());
    Person {
        name: text("name").unwrap_or(otherwise.name),
        email: text("email").unwrap_or(otherwise.email),
        at_s: at.map_or(otherwise.at_s, jiff::Timestamp::as_second),
    }
}

async fn commit(State(hub): State<GitHub>, Path((owner, name, sha)): Place) -> Answer {
    let answer = hub.with_repo(&owner, &name, |repo, urls| {
        let commit = repo.git.commit(&sha).ok_or_else(Refusal::not_found)?;
        Ok(render::git_commit(&sha, commit, urls))
    });
    ok(&answer?)
}

async fn reference(State(hub): State<GitHub>, Path((owner, name, reference)): Place) -> Answer {
    let answer = hub.with_repo(&owner, &name, |repo, urls| {
        let full = format!("refs/{reference}");
        let sha = repo.refs.get(&full).ok_or_else(Refusal::not_found)?;
        Ok(render::reference(&full, sha, urls))
    });
    ok(&answer?)
}

async fn matching(
    State(hub): State<GitHub>,
    Path((owner, name, prefix)): Place,
    RawQuery(query): RawQuery,
) -> Answer {
    let page = hub.with_repo(&owner, &name, |repo, urls| {
        let wanted = format!("refs/{prefix}");
        let found = repo
            .refs
            .iter()
            .filter(|(name, _)| name.starts_with(&wanted))
            .map(|(name, sha)| render::reference(name, sha, urls));
        Ok(Page::cut(
            found.collect(),
            &Query::parse(query.as_deref()),
            &format!("{}/git/matching-refs/{prefix}", urls.api),
        ))
    });
    page?.answer()
}

async fn new_reference(
    State(hub): State<GitHub>,
    Path((owner, name)): Home,
    body: Bytes,
) -> Answer {
    let body = object(&body)?;
    let full = required(&body, "Reference", "ref")?.to_owned();
    let sha = required(&body, "Reference", "sha")?.to_owned();
    let answer = hub.with_repo(&owner, &name, |repo, urls| {
        if !full.starts_with("refs/")
            || full.matches('/').count() < 2
            || full.ends_with('/')
            || full.contains([' ', '~', '^', ':', '\\'])
            || full.contains("..")
        {
            return Err(Refusal::unprocessable(format!("{full} is not a valid ref name.")));
        }
        if repo.refs.contains_key(&full) {
            return Err(Refusal::unprocessable("Reference already exists"));
        }
        if repo.git.commit(&sha).is_none() {
            return Err(Refusal::unprocessable("Object does not exist"));
        }
        repo.refs.insert(full.clone(), sha.clone());
        repo.pushed();
        Ok(render::reference(&full, &sha, urls))
    });
    created(&answer?)
}

async fn move_reference(
    State(hub): State<GitHub>,
    Path((owner, name, reference)): Place,
    body: Bytes,
) -> Answer {
    let body = object(&body)?;
    let sha = required(&body, "Reference", "sha")?.to_owned();
    let forced = body["force"].as_bool().unwrap_or(false);
    if let Some(rule) = hub.state().knobs.push_refused(reference.trim_start_matches("heads/")) {
        return Err(Refusal::unprocessable(rule));
    }
    let answer = hub.with_repo(&owner, &name, |repo, urls| {
        let full = format!("refs/{reference}");
        let before = repo
            .refs
            .get(&full)
            .cloned()
            .ok_or_else(|| Refusal::unprocessable("Reference does not exist"))?;
        if repo.git.commit(&sha).is_none() {
            return Err(Refusal::unprocessable("Object does not exist"));
        }
        if !forced && !repo.git.is_ancestor(&before, &sha) {
            return Err(Refusal::unprocessable("Update is not a fast forward"));
        }
        repo.refs.insert(full.clone(), sha.clone());
        repo.pushed();
        Ok(render::reference(&full, &sha, urls))
    });
    ok(&answer?)
}

async fn drop_reference(
    State(hub): State<GitHub>,
    Path((owner, name, reference)): Place,
) -> Answer {
    hub.with_repo(&owner, &name, |repo, _| {
        let full = format!("refs/{reference}");
        let sha = repo
            .refs
            .remove(&full)
            .ok_or_else(|| Refusal::unprocessable("Reference does not exist"))?;
        let branch = full.trim_start_matches("refs/heads/");
        // Its pull requests are closed with it.
        for pull in
            repo.pulls.iter_mut().filter(|pull| pull.head == branch && pull.closed_at.is_none())
        {
            pull.last_head = sha.clone();
            pull.closed_at = Some(super::now());
        }
        Ok(())
    })?;
    no_content()
}
