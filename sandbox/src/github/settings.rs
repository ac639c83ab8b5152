//! The user, the repo itself, the rate limit, and the test's knobs.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::routing::get;
use serde_json::{Value, json};

use super::answer::{Answer, Page, Query, Refusal, no_content, object, ok};
use super::store::{Knobs, LOGIN};
use super::{GitHub, render};

pub(super) fn routes() -> Router<GitHub> {
    Router::new()
        .route("/user", get(user))
        .route("/user/repos", get(repos))
        .route("/rate_limit", get(rate_limit))
        .route("/repos/{owner}/{repo}", get(repo).patch(change))
        .route("/repos/{owner}/{repo}/languages", get(languages))
        .route("/repos/{owner}/{repo}/branches/{*branch}", get(branch))
        .route("/repos/{owner}/{repo}/rules/branches/{*branch}", get(rules))
        .route("/repos/{owner}/{repo}/actions/permissions", get(actions_permissions))
        .route("/repos/{owner}/{repo}/actions/permissions/selected-actions", get(selected_actions))
        .route("/repos/{owner}/{repo}/actions/permissions/workflow", get(workflow_permissions))
}

/// The side door for what a fault rule cannot say: `POST /_sandbox/knobs` with
/// `{"missing_permissions": [..], "requests_left": n, "hold_step": "..", "workflows_not_indexed": b,
/// "ignores_cancel": b, "rules": {"main": [..]}, "protected": [..], "actions": {..},
/// "public_images": b}`;
/// what is absent goes back to normal.
pub(super) fn knob_routes(hub: GitHub) -> Router {
    Router::new().route("/_sandbox/knobs", axum::routing::post(turn).put(turn)).with_state(hub)
}

async fn turn(State(hub): State<GitHub>, body: Bytes) -> Answer {
    let knobs: Knobs = serde_json::from_value(object(&body)?)
        .map_err(|error| Refusal::unprocessable(error.to_string()))?;
    hub.state().knobs = knobs;
    hub.changed();
    no_content()
}

/// Any address that is not known.
pub(super) async fn unknown() -> Refusal {
    Refusal::not_found()
}

async fn user(State(hub): State<GitHub>) -> Answer {
    let state = hub.state();
    let since = state.repos.first().map(|repo| repo.created_at.clone()).unwrap_or_default();
    ok(&render::own_user(&hub.0.origin, state.repos.len(), &since))
}

async fn repos(State(hub): State<GitHub>, RawQuery(query): RawQuery) -> Answer {
    let state = hub.state();
    let of_user = state.repos.iter().filter(|repo| repo.owner == LOGIN);
    let all = of_user
        .map(|repo| render::repo(repo, &render::Urls::new(&hub.0.origin, &repo.owner, &repo.name)));
    Page::cut(
        all.collect(),
        &Query::parse(query.as_deref()),
        &format!("{}/user/repos", hub.0.origin),
    )
    .answer()
}

async fn rate_limit(State(hub): State<GitHub>) -> Answer {
    let (limit, remaining, reset) = hub.rate();
    let core = json!({ "limit": limit, "remaining": remaining, "reset": reset, "used": limit - remaining.min(limit) });
    let search = json!({ "limit": 30, "remaining": 30, "reset": reset, "used": 0 });
    ok(&json!({ "resources": { "core": core, "search": search }, "rate": core }))
}

async fn repo(State(hub): State<GitHub>, Path((owner, name)): Path<(String, String)>) -> Answer {
    ok(&hub.with_repo(&owner, &name, |repo, urls| Ok(render::repo(repo, urls)))?)
}

async fn change(
    State(hub): State<GitHub>,
    Path((owner, name)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    let body = object(&body)?;
    let changed = hub.with_repo(&owner, &name, |repo, urls| {
        if let Some(archived) = body["archived"].as_bool() {
            repo.archived = archived;
        }
        if let Some(branch) = body["default_branch"].as_str() {
            if repo.branch(branch).is_none() {
                return Err(Refusal::field("Repository", "default_branch", "invalid"));
            }
            repo.default_branch = branch.to_owned();
        }
        Ok(render::repo(repo, urls))
    });
    ok(&changed?)
}

async fn languages(
    State(hub): State<GitHub>,
    Path((owner, name)): Path<(String, String)>,
) -> Answer {
    let found = hub.with_repo(&owner, &name, |repo, _| {
        let files = repo.head().and_then(|head| repo.git.files(head)).unwrap_or_default();
        let known = [
            ("js", "JavaScript"),
            ("ts", "TypeScript"),
            ("py", "Python"),
            ("rs", "Rust"),
            ("rb", "Ruby"),
            ("go", "Go"),
        ];
        let mut sizes = serde_json::Map::new();
        for (path, file) in &files {
            let ending = path.rsplit('.').next().unwrap_or_default();
            let docker = (path.rsplit('/').next() == Some("Dockerfile")).then_some("Dockerfile");
            let language =
                known.iter().find(|(known, _)| *known == ending).map(|(_, name)| *name).or(docker);
            if let Some(language) = language {
                let before = sizes.get(language).and_then(Value::as_u64).unwrap_or_default();
                sizes.insert(language.to_owned(), (before + file.bytes.len() as u64).into());
            }
        }
        Ok(Value::Object(sizes))
    });
    ok(&found?)
}

async fn branch(
    State(hub): State<GitHub>,
    Path((owner, name, branch)): Path<(String, String, String)>,
) -> Answer {
    if let Some(branch) = branch.strip_suffix("/protection") {
        return hub.with_repo(&owner, &name, |repo, _| {
            let message = if repo.branch(branch).is_some() {
                "Branch not protected"
            } else {
                "Branch not found"
            };
            Err(Refusal::new(http::StatusCode::NOT_FOUND, message))
        });
    }
    let guarded = {
        let knobs = &hub.state().knobs;
        knobs.protected.contains(&branch)
            || knobs.rules.get(&branch).is_some_and(|rules| !rules.is_empty())
    };
    let found = hub.with_repo(&owner, &name, |repo, urls| {
        let missing = || Refusal::new(http::StatusCode::NOT_FOUND, "Branch not found");
        let sha = repo.branch(&branch).ok_or_else(missing)?;
        let commit = repo.git.commit(sha).ok_or_else(missing)?;
        let own = format!("{}/branches/{branch}", urls.api);
        Ok(json!({
            "name": branch, "commit": render::commit(sha, commit, urls), "protected": guarded,
            "_links": { "self": own, "html": format!("{}/tree/{branch}", urls.html) },
            "protection": { "enabled": false, "required_status_checks": { "enforcement_level": "off", "contexts": [], "checks": [] } },
            "protection_url": format!("{own}/protection"),
        }))
    });
    ok(&found?)
}

async fn rules(
    State(hub): State<GitHub>,
    Path((owner, name, branch)): Path<(String, String, String)>,
) -> Answer {
    let mut rules = hub.state().knobs.rules.get(&branch).cloned().unwrap_or_default();
    for rule in &mut rules {
        rule["ruleset_source_type"] = json!("Repository");
        rule["ruleset_source"] = json!(format!("{owner}/{name}"));
        rule["ruleset_id"] = json!(1);
    }
    ok(&hub.with_repo(&owner, &name, |_, _| Ok(json!(rules)))?)
}

async fn actions_permissions(
    State(hub): State<GitHub>,
    Path((owner, name)): Path<(String, String)>,
) -> Answer {
    let settings = hub.state().knobs.actions.clone();
    ok(&hub.with_repo(&owner, &name, |_, urls| {
        Ok(match &settings {
            None => json!({ "enabled": true, "allowed_actions": "all", "sha_pinning_required": false }),
            Some(settings) if !settings.enabled => json!({ "enabled": false }),
            Some(settings) => json!({
                "enabled": true, "allowed_actions": settings.allowed, "sha_pinning_required": false,
                "selected_actions_url": format!("{}/actions/permissions/selected-actions", urls.api),
            }),
        })
    })?)
}

async fn selected_actions(
    State(hub): State<GitHub>,
    Path((owner, name)): Path<(String, String)>,
) -> Answer {
    let settings = hub.state().knobs.actions.clone();
    ok(&hub.with_repo(&owner, &name, |_, _| match &settings {
        Some(settings) if settings.allowed == "selected" => Ok(json!({
            "github_owned_allowed": settings.github_owned, "verified_allowed": false,
            "patterns_allowed": settings.patterns,
        })),
        _ => Err(Refusal::conflict("Conflict")),
    })?)
}

async fn workflow_permissions(
    State(hub): State<GitHub>,
    Path((owner, name)): Path<(String, String)>,
) -> Answer {
    ok(&hub.with_repo(&owner, &name, |_, _| {
        Ok(json!({ "default_workflow_permissions": "read", "can_approve_pull_request_reviews": false }))
    })?)
}
