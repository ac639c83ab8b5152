//! Pull requests, and merging them.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::routing::{get, put};
use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{Answer, Page, Query, Refusal, created, object, ok, required};
use super::git::Mode;
use super::store::{LOGIN, Pull, Repo};
use super::{GitHub, render};

type Home = Path<(String, String)>;
type Place = Path<(String, String, u64)>;
type Flat = BTreeMap<String, (Mode, String)>;

pub(super) fn routes() -> Router<GitHub> {
    Router::new()
        .route("/repos/{owner}/{repo}/pulls", get(list).post(open))
        .route("/repos/{owner}/{repo}/pulls/{number}", get(one).patch(change))
        .route("/repos/{owner}/{repo}/pulls/{number}/merge", put(merge))
        .route("/repos/{owner}/{repo}/pulls/{number}/files", get(files))
}

async fn list(
    State(hub): State<GitHub>,
    Path((owner, name)): Home,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::parse(query.as_deref());
    let page = hub.with_repo(&owner, &name, |repo, urls| {
        let state = query.get("state").unwrap_or("open");
        let head =
            query.get("head").map(|head| head.split_once(':').map_or(head, |(_, branch)| branch));
        let wanted = repo.pulls.iter().rev().filter(|pull| {
            (state == "all" || pull.state() == state)
                && head.is_none_or(|head| pull.head == head)
                && query.get("base").is_none_or(|base| pull.base == base)
        });
        let shown = wanted.map(|pull| render::pull(pull, repo, urls)).collect();
        Ok(Page::cut(shown, &query, &format!("{}/pulls", urls.api)))
    });
    page?.answer()
}

async fn open(State(hub): State<GitHub>, Path((owner, name)): Home, body: Bytes) -> Answer {
    let body = object(&body)?;
    let title = required(&body, "PullRequest", "title")?.to_owned();
    let head = required(&body, "PullRequest", "head")?;
    let head = head.split_once(':').map_or(head, |(_, branch)| branch).to_owned();
    let base = required(&body, "PullRequest", "base")?.to_owned();
    let id = hub.state().next_id();
    let answer = hub.with_repo(&owner, &name, |repo, urls| {
        let invalid = |field: &str| Refusal::field("PullRequest", field, "invalid");
        let head_sha = repo.branch(&head).ok_or_else(|| invalid("head"))?.to_owned();
        let base_sha = repo.branch(&base).ok_or_else(|| invalid("base"))?.to_owned();
        let is_open = repo
            .pulls
            .iter()
            .any(|pull| pull.head == head && pull.base == base && pull.closed_at.is_none());
        if is_open {
            return Err(Refusal::custom(
                "PullRequest",
                &format!("A pull request already exists for {}:{head}.", repo.owner),
            ));
        }
        if repo.git.is_ancestor(&head_sha, &base_sha) {
            return Err(Refusal::custom(
                "PullRequest",
                &format!("No commits between {base} and {head}"),
            ));
        }
        let now = super::now();
        let pull = Pull {
            id,
            number: repo.pulls.len() as u64 + 1,
            head,
            base,
            title,
            body: body["body"].as_str().map(str::to_owned),
            closed_at: None,
            merged_sha: None,
            last_head: head_sha,
            last_base: base_sha,
            created_at: now.clone(),
            updated_at: now,
        };
        repo.pulls.push(pull);
        repo.pulls.last().map(|pull| render::pull(pull, repo, urls)).ok_or_else(Refusal::not_found)
    });
    created(&answer?)
}

fn position(repo: &Repo, number: u64) -> Result<usize, Refusal> {
    repo.pulls.iter().position(|pull| pull.number == number).ok_or_else(Refusal::not_found)
}

async fn one(State(hub): State<GitHub>, Path((owner, name, number)): Place) -> Answer {
    let answer = hub.with_repo(&owner, &name, |repo, urls| {
        let at = position(repo, number)?;
        Ok(render::pull(&repo.pulls[at], repo, urls))
    });
    ok(&answer?)
}

async fn change(
    State(hub): State<GitHub>,
    Path((owner, name, number)): Place,
    body: Bytes,
) -> Answer {
    let body = object(&body)?;
    let answer = hub.with_repo(&owner, &name, |repo, urls| {
        let at = position(repo, number)?;
        let head = repo.branch(&repo.pulls[at].head).map(str::to_owned);
        let pull = &mut repo.pulls[at];
        if let Some(title) = body["title"].as_str() {
            pull.title = title.to_owned();
        }
        if let Some(text) = body["body"].as_str() {
            pull.body = Some(text.to_owned());
        }
        match body["state"].as_str() {
            None => {}
            Some("closed") if pull.closed_at.is_none() => {
                pull.last_head = head.unwrap_or_else(|| pull.last_head.clone());
                pull.closed_at = Some(super::now());
            }
            Some("open") if pull.merged_sha.is_none() && head.is_some() => pull.closed_at = None,
            Some("closed") => {}
            Some(_) => return Err(Refusal::field("PullRequest", "state", "invalid")),
        }
        pull.updated_at = super::now();
        Ok(render::pull(&repo.pulls[at], repo, urls))
    });
    ok(&answer?)
}

async fn files(
    State(hub): State<GitHub>,
    Path((owner, name, number)): Place,
    RawQuery(query): RawQuery,
) -> Answer {
    let page = hub.with_repo(&owner, &name, |repo, urls| {
        let pull = &repo.pulls[position(repo, number)?];
        let head = repo.branch(&pull.head).unwrap_or(&pull.last_head);
        let (old, new) = (flat(repo, &fork_point(repo, &pull.last_base, head)), flat(repo, head));
        let mut changed: Vec<Value> = Vec::new();
        for path in old.keys().chain(new.keys().filter(|path| !old.contains_key(*path))) {
            let status = match (old.get(path), new.get(path)) {
                (Some(before), Some(after)) if before == after => continue,
                (Some(_), Some(_)) => "modified",
                (Some(_), None) => "removed",
                (None, _) => "added",
            };
            let sha = new.get(path).or(old.get(path)).map(|(_, sha)| sha.clone());
            let link = format!("{}/blob/{head}/{path}", urls.html);
            changed.push(json!({
                "sha": sha, "filename": path, "status": status, "additions": 0, "deletions": 0, "changes": 0,
                "blob_url": link, "raw_url": link, "contents_url": format!("{}/contents/{path}?ref={head}", urls.api),
            }));
        }
        Ok(Page::cut(changed, &Query::parse(query.as_deref()), &format!("{}/pulls/{number}/files", urls.api)))
    });
    page?.answer()
}

fn flat(repo: &Repo, commit: &str) -> Flat {
    repo.git.commit(commit).map(|commit| repo.git.flat(&commit.tree)).unwrap_or_default()
}

/// The newest commit that both have.
fn fork_point(repo: &Repo, left: &str, right: &str) -> String {
    let of_left = repo.git.history(left);
    repo.git.history(right).into_iter().find(|sha| of_left.contains(sha)).unwrap_or_default()
}

/// Whether both sides of an open pull request fit together.
pub(super) fn mergeable(pull: &Pull, repo: &Repo) -> Option<bool> {
    let (head, base) = repo.branch(&pull.head).zip(repo.branch(&pull.base))?;
    let fork = flat(repo, &fork_point(repo, base, head));
    let fits = merged(&fork, &flat(repo, base), &flat(repo, head)).is_some();
    pull.closed_at.is_none().then_some(fits)
}

async fn merge(
    State(hub): State<GitHub>,
    Path((owner, name, number)): Place,
    body: Bytes,
) -> Answer {
    let body = object(&body)?;
    let knobs = hub.state().knobs.clone();
    let answer = hub.with_repo(&owner, &name, |repo, _| {
        let at = position(repo, number)?;
        let refused = |message: &str| Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message);
        let pull = &repo.pulls[at];
        let (head_name, base_name) = (pull.head.clone(), pull.base.clone());
        let sides = repo
            .branch(&head_name)
            .zip(repo.branch(&base_name))
            .filter(|_| pull.closed_at.is_none());
        let (head, base) = sides.ok_or_else(|| refused("Pull Request is not mergeable"))?;
        let (head, base) = (head.to_owned(), base.to_owned());
        if let Some(rule) = knobs.merge_refused(&base_name) {
            return Err(refused(&rule));
        }
        if body["sha"].as_str().is_some_and(|sha| sha != head) {
            return Err(Refusal::conflict(
                "Head branch was modified. Review and try the merge again.",
            ));
        }
        let merged = merged(
            &flat(repo, &fork_point(repo, &base, &head)),
            &flat(repo, &base),
            &flat(repo, &head),
        );
        let tree =
            repo.git.put_flat(&merged.ok_or_else(|| refused("Pull Request is not mergeable"))?);
        let parents = match body["merge_method"].as_str().unwrap_or("merge") {
            "merge" => vec![base.clone(), head.clone()],
            "squash" | "rebase" => vec![base.clone()],
            _ => return Err(Refusal::unprocessable("Invalid merge_method")),
        };
        let title = format!("Merge pull request #{number} from {}/{head_name}", repo.owner);
        let title = body["commit_title"].as_str().unwrap_or(&title).to_owned();
        let sha = repo.commit_tree(&base_name, parents, tree, &title, LOGIN);
        let pull = &mut repo.pulls[at];
        pull.closed_at = Some(super::now());
        pull.updated_at = super::now();
        pull.merged_sha = Some(sha.clone());
        (pull.last_head, pull.last_base) = (head, base);
        Ok(json!({ "sha": sha, "merged": true, "message": "Pull Request successfully merged" }))
    });
    ok(&answer?)
}

/// The files of both sides; `None` where both changed the same file differently.
fn merged(fork: &Flat, base: &Flat, head: &Flat) -> Option<Flat> {
    let mut result = base.clone();
    for path in fork.keys().chain(head.keys()) {
        let (before, ours, theirs) = (fork.get(path), base.get(path), head.get(path));
        if theirs == before || theirs == ours {
            continue;
        }
        if ours != before {
            return None;
        }
        match theirs {
            Some(file) => drop(result.insert(path.clone(), file.clone())),
            None => drop(result.remove(path)),
        }
    }
    Some(result)
}
