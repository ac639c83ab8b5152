//! What lies between two commits: `compare/BASE...HEAD`.

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal, ok};
use super::git::GitStore;
use super::{GitHub, render};

/// GitHub gives no more commits than these in one page.
const COMMITS_MAX: usize = 250;
/// Nor more files.
const FILES_MAX: usize = 300;

pub(super) fn routes() -> Router<GitHub> {
    Router::new().route("/repos/{owner}/{repo}/compare/{basehead}", get(compare))
}

async fn compare(
    State(hub): State<GitHub>,
    Path((owner, name, pair)): Path<(String, String, String)>,
) -> Answer {
    let (base, head) = pair.split_once("...").ok_or_else(Refusal::not_found)?;
    let answer = hub.with_repo(&owner, &name, |repo, urls| {
        let commit = |name: &str| repo.resolve(name).ok_or_else(Refusal::not_found);
        let (base, head) = (commit(base)?, commit(head)?);
        let (before, after) = (repo.git.history(&base), repo.git.history(&head));
        let ahead: Vec<&String> = after.iter().filter(|sha| !before.contains(sha)).collect();
        let behind = before.iter().filter(|sha| !after.contains(sha)).count();
        let fork = after.iter().find(|sha| before.contains(sha)).unwrap_or(&base).clone();
        let status = match (ahead.len(), behind) {
            (0, 0) => "identical",
            (_, 0) => "ahead",
            (0, _) => "behind",
            _ => "diverged",
        };
        let shown =
            |sha: &String| repo.git.commit(sha).map(|commit| render::commit(sha, commit, urls));
        let commits: Vec<Value> =
            ahead.iter().rev().take(COMMITS_MAX).filter_map(|sha| shown(sha)).collect();
        let url = format!("{}/compare/{base}...{head}", urls.api);
        let html = format!("{}/compare/{base}...{head}", urls.html);
        Ok(json!({
            "url": url, "html_url": html, "permalink_url": html,
            "diff_url": format!("{html}.diff"), "patch_url": format!("{html}.patch"),
            "base_commit": shown(&base), "merge_base_commit": shown(&fork), "status": status,
            "ahead_by": ahead.len(), "behind_by": behind, "total_commits": ahead.len(),
            "commits": commits, "files": files(&repo.git, &fork, &head, urls),
        }))
    });
    ok(&answer?)
}

fn files(git: &GitStore, base: &str, head: &str, urls: &render::Urls) -> Vec<Value> {
    let flat = |sha: &str| git.commit(sha).map(|c| git.flat(&c.tree)).unwrap_or_default();
    let (before, after) = (flat(base), flat(head));
    let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
    paths.sort();
    paths.dedup();
    let differs = |path: &&&String| before.get(**path) != after.get(**path);
    let one = |path: &String| {
        let (old, new) = (before.get(path), after.get(path));
        let status = match (old, new) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "modified",
        };
        let lines = |entry: Option<&(super::git::Mode, String)>| {
            let bytes = entry.and_then(|(_, sha)| git.blob(sha));
            bytes.map_or(0, |bytes| String::from_utf8_lossy(&bytes).lines().count())
        };
        let (additions, deletions) = (lines(new), lines(old));
        json!({
            "sha": new.or(old).map(|(_, sha)| sha), "filename": path, "status": status,
            "additions": additions, "deletions": deletions, "changes": additions + deletions,
            "blob_url": format!("{}/blob/{head}/{path}", urls.html),
            "raw_url": format!("{}/raw/{head}/{path}", urls.html),
            "contents_url": format!("{}/contents/{path}?ref={head}", urls.api),
        })
    };
    paths.iter().filter(differs).take(FILES_MAX).map(|path| one(path)).collect()
}
