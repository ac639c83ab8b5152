//! GitHub Apps: their signed words, their installations, and the tokens of those.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::routing::{delete, get, post};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{Method, StatusCode};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};

use super::answer::{Answer, Page, Query, Refusal, created, no_content, object, ok};
use super::store::LOGIN;
use super::{GitHub, render};
use crate::clock;

/// How long a token of an installation is good.
const TOKEN_SECONDS: i64 = 3600;
/// How long a signed word may be good, and how far its clock may be ahead.
const WORD_SECONDS: i64 = 600;
const SKEW_SECONDS: i64 = 60;

/// An App, installed on the one account.
pub(super) struct App {
    id: u64,
    installation: u64,
    /// PKCS#1, as DER.
    key: Vec<u8>,
    permissions: BTreeMap<String, String>,
    /// Names of the repos that it was installed on; all where none.
    selected: Option<Vec<String>>,
    suspended_at: Option<String>,
    created_at: String,
}

/// A token of an installation.
pub(super) struct AppToken {
    installation: u64,
    /// Ids of the repos that it is for; all of the installation where none.
    repos: Option<Vec<u64>>,
    until_s: i64,
}

pub(super) fn routes() -> Router<GitHub> {
    const ONE: &str = "/app/installations/{id}";
    Router::new()
        .route("/app", get(app))
        .route("/app/installations", get(installations))
        .route(ONE, get(installation))
        .route(&format!("{ONE}/access_tokens"), post(mint))
        .route("/repos/{owner}/{repo}/installation", get(of_repo))
        .route("/installation/repositories", get(repositories))
        .route("/installation/token", delete(revoke))
}

/// The side door: `PUT /_sandbox/app` with `{"public_key": PEM, "permissions": {..}, "selected":
/// [names], "suspended": b}` makes an App, as a person does on GitHub's pages, and installs it; the
/// same key again changes it. Answers `{"id", "client_id", "slug"}`. `DELETE /_sandbox/app/tokens`
/// makes all its tokens worthless.
pub(super) fn side_routes(hub: GitHub) -> Router {
    Router::new()
        .route("/_sandbox/app", axum::routing::put(register))
        .route("/_sandbox/app/tokens", delete(forget))
        .with_state(hub)
}

async fn register(State(hub): State<GitHub>, body: Bytes) -> Answer {
    let body = object(&body)?;
    let pem = body["public_key"].as_str().unwrap_or_default();
    let packed: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let key = STANDARD
        .decode(packed)
        .ok()
        .filter(|key| !key.is_empty())
        .ok_or_else(|| Refusal::unprocessable("public_key is no PEM of `RSA PUBLIC KEY`"))?;
    let permissions = match body["permissions"].as_object() {
        Some(given) => given
            .iter()
            .map(|(name, level)| (name.clone(), level.as_str().unwrap_or_default().to_owned()))
            .collect(),
        None => usual_permissions(),
    };
    let selected = body["selected"]
        .as_array()
        .map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>());
    let suspended_at = (body["suspended"] == true).then(super::now);
    let mut state = hub.state();
    let (id, installation) = match state.apps.iter().find(|app| app.key == key) {
        Some(known) => (known.id, known.installation),
        None => (state.next_id(), state.next_id()),
    };
    state.apps.retain(|app| app.id != id);
    let created_at = super::now();
    state.apps.push(App { id, installation, key, permissions, selected, suspended_at, created_at });
    created(&json!({ "id": id, "client_id": client_id(id), "slug": slug(id) }))
}

async fn forget(State(hub): State<GitHub>) -> Answer {
    hub.state().app_tokens.clear();
    no_content()
}

fn usual_permissions() -> BTreeMap<String, String> {
    let write = [
        "actions",
        "actions_variables",
        "contents",
        "pull_requests",
        "repository_hooks",
        "secrets",
        "workflows",
    ];
    let write = write.into_iter().map(|name| (name, "write"));
    let read = [("checks", "read"), ("metadata", "read")];
    write.chain(read).map(|(name, level)| (name.to_owned(), level.to_owned())).collect()
}

fn client_id(id: u64) -> String {
    format!("Iv23li{id:014}")
}

fn slug(id: u64) -> String {
    format!("vmkit-{id}")
}

fn part(text: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

impl GitHub {
    /// Lets in what is no token of the user: an App by its signed word, or an installation by one of
    /// its tokens; anything else is refused as GitHub refuses it.
    pub(super) fn admit_app(
        &self,
        bearer: &str,
        method: &Method,
        path: &str,
        needed: Option<&str>,
    ) -> Result<(), Refusal> {
        let bad = |message: &str| Refusal::new(StatusCode::UNAUTHORIZED, message);
        let of_app = path == "/app"
            || path.starts_with("/app/")
            || (path.starts_with("/repos/") && path.ends_with("/installation"));
        if bearer.starts_with("ghs_") {
            let mut state = self.state();
            let now = clock::now().as_second();
            state.app_tokens.retain(|_, token| token.until_s > now);
            let token = state.app_tokens.get(bearer).ok_or_else(|| bad("Bad credentials"))?;
            if of_app {
                return Err(bad("A JSON web token could not be decoded"));
            }
            let inaccessible =
                || Refusal::new(StatusCode::FORBIDDEN, "Resource not accessible by integration");
            if path.starts_with("/user")
                || (path.starts_with("/installation/token") && method != Method::DELETE)
            {
                return Err(inaccessible());
            }
            let app = state.apps.iter().find(|app| app.installation == token.installation);
            let app = app.ok_or_else(|| bad("Bad credentials"))?;
            if let Some((name, level)) = needed.and_then(|needed| needed.split_once('=')) {
                let name = if name == "variables" { "actions_variables" } else { name };
                let has = app.permissions.get(name).map(String::as_str);
                if has != Some("write") && !(has == Some("read") && level == "read") {
                    return Err(Refusal::integration(format!("{name}={level}")));
                }
            }
            let (allowed, selected) = (token.repos.clone(), app.selected.clone());
            let mut parts = path.trim_matches('/').split('/');
            if parts.next() == Some("repos") {
                let (owner, name) =
                    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                let repo = state.repo_mut(owner, name).ok_or_else(Refusal::not_found)?;
                let seen = repo.owner == LOGIN
                    && allowed.is_none_or(|ids| ids.contains(&repo.id))
                    && selected.is_none_or(|names| names.contains(&repo.name));
                if !seen {
                    return Err(Refusal::not_found());
                }
            }
            return Ok(());
        }
        let [head, claims, signature] = bearer.split('.').collect::<Vec<_>>()[..] else {
            return Err(bad("Bad credentials"));
        };
        if !of_app {
            return Err(bad("Bad credentials"));
        }
        let broken = || bad("A JSON web token could not be decoded");
        if part(head).ok_or_else(broken)?["alg"] != "RS256" {
            return Err(broken());
        }
        let body = part(claims).ok_or_else(broken)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| broken())?;
        let issuer = body["iss"].as_str().map_or_else(|| body["iss"].to_string(), str::to_owned);
        let state = self.state();
        let app = state
            .apps
            .iter()
            .find(|app| issuer == app.id.to_string() || issuer == client_id(app.id))
            .ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "Integration not found"))?;
        let text = format!("{head}.{claims}");
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &app.key)
            .verify(text.as_bytes(), &signature)
            .map_err(|_| broken())?;
        let now = clock::now().as_second();
        match (body["iat"].as_i64(), body["exp"].as_i64()) {
            (Some(from), _) if from > now + SKEW_SECONDS => Err(bad(
                "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
            )),
            (Some(_), Some(to)) if to <= now => Err(bad(
                "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires",
            )),
            (Some(_), Some(to)) if to > now + WORD_SECONDS => {
                Err(bad("'Expiration time' claim ('exp') is too far in the future"))
            }
            (Some(_), Some(_)) => Ok(()),
            _ => Err(broken()),
        }
    }
}

fn shown(app: &App, origin: &str) -> Value {
    let permissions = json!(app.permissions);
    json!({
        "id": app.id, "client_id": client_id(app.id), "slug": slug(app.id), "node_id": format!("A_{}", app.id),
        "owner": render::user(origin, LOGIN), "name": slug(app.id), "description": null,
        "external_url": "https://example.com", "html_url": format!("{origin}/apps/{}", slug(app.id)),
        "created_at": app.created_at, "updated_at": app.created_at, "permissions": permissions,
        "events": ["push", "workflow_job", "workflow_run"], "installations_count": 1,
    })
}

/// GitHub's document wants of an installation's account what a user has and what an enterprise has.
fn account(app: &App, origin: &str) -> Value {
    let mut account = render::user(origin, LOGIN);
    for (name, value) in [
        ("name", LOGIN),
        ("slug", LOGIN),
        ("created_at", &app.created_at),
        ("updated_at", &app.created_at),
    ] {
        account[name] = value.into();
    }
    account
}

fn shown_installation(app: &App, origin: &str) -> Value {
    let api = format!("{origin}/app/installations/{}", app.installation);
    let suspended_by = app.suspended_at.as_ref().map(|_| render::user(origin, LOGIN));
    json!({
        "id": app.installation, "account": account(app, origin), "app_id": app.id, "app_slug": slug(app.id),
        "client_id": client_id(app.id), "target_id": 1, "target_type": "User",
        "repository_selection": if app.selected.is_some() { "selected" } else { "all" },
        "access_tokens_url": format!("{api}/access_tokens"), "repositories_url": format!("{origin}/installation/repositories"),
        "html_url": format!("{origin}/settings/installations/{}", app.installation), "permissions": app.permissions,
        "events": ["push", "workflow_job", "workflow_run"], "single_file_name": null, "has_multiple_single_files": false,
        "single_file_paths": [], "suspended_by": suspended_by, "suspended_at": app.suspended_at,
        "created_at": app.created_at, "updated_at": app.created_at,
    })
}

/// There is one App at a time in practice; the word was checked at the door, so the newest answers.
fn newest<T>(hub: &GitHub, show: impl Fn(&App, &str) -> T) -> Result<T, Refusal> {
    let state = hub.state();
    state.apps.last().map(|app| show(app, &hub.0.origin)).ok_or_else(Refusal::not_found)
}

async fn app(State(hub): State<GitHub>) -> Answer {
    ok(&newest(&hub, shown)?)
}

async fn installations(State(hub): State<GitHub>, RawQuery(query): RawQuery) -> Answer {
    let all = vec![newest(&hub, shown_installation)?];
    let url = format!("{}/app/installations", hub.0.origin);
    Page::cut(all, &Query::parse(query.as_deref()), &url).answer()
}

async fn installation(State(hub): State<GitHub>, Path(id): Path<u64>) -> Answer {
    let shown = newest(&hub, shown_installation)?;
    if shown["id"] == id { ok(&shown) } else { Err(Refusal::not_found()) }
}

async fn of_repo(State(hub): State<GitHub>, Path((owner, name)): Path<(String, String)>) -> Answer {
    let shown = newest(&hub, |app, origin| {
        let installed = app.selected.as_ref().is_none_or(|names| names.contains(&name));
        (installed && owner.eq_ignore_ascii_case(LOGIN)).then(|| shown_installation(app, origin))
    })?;
    hub.with_repo(&owner, &name, |_, _| Ok(()))?;
    ok(&shown.ok_or_else(Refusal::not_found)?)
}

async fn mint(State(hub): State<GitHub>, Path(id): Path<u64>, body: Bytes) -> Answer {
    let body = if body.is_empty() { json!({}) } else { object(&body)? };
    let mut state = hub.state();
    let app =
        state.apps.iter().find(|app| app.installation == id).ok_or_else(Refusal::not_found)?;
    if app.suspended_at.is_some() {
        let message = "This installation has been suspended";
        return Err(Refusal::new(StatusCode::FORBIDDEN, message));
    }
    let (app_id, permissions, selected) = (app.id, app.permissions.clone(), app.selected.clone());
    for (name, level) in body["permissions"].as_object().into_iter().flatten() {
        let has = permissions.get(name).map(String::as_str);
        if has != Some("write") && has != level.as_str() {
            return Err(Refusal::unprocessable(
                "The permissions requested are not granted to this installation.",
            ));
        }
    }
    let names = body["repositories"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let ids = body["repository_ids"].as_array().into_iter().flatten().filter_map(Value::as_u64);
    let (names, ids): (Vec<&str>, Vec<u64>) = (names.collect(), ids.collect());
    let there = |repo: &&super::store::Repo| {
        repo.owner == LOGIN && selected.as_ref().is_none_or(|names| names.contains(&repo.name))
    };
    let wanted: Vec<&super::store::Repo> = state
        .repos
        .iter()
        .filter(there)
        .filter(|repo| {
            ids.contains(&repo.id) || names.iter().any(|name| repo.name.eq_ignore_ascii_case(name))
        })
        .collect();
    if wanted.len() < names.len() + ids.len() {
        return Err(Refusal::unprocessable(
            "There is at least one repository that does not exist or is not accessible to the parent installation.",
        ));
    }
    let repos = (!wanted.is_empty()).then(|| wanted.iter().map(|repo| repo.id).collect::<Vec<_>>());
    let shown: Vec<Value> = wanted
        .iter()
        .map(|repo| render::repo(repo, &render::Urls::new(&hub.0.origin, &repo.owner, &repo.name)))
        .collect();
    let seconds = state.knobs.app_token_seconds.unwrap_or(TOKEN_SECONDS);
    let until =
        clock::now().saturating_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or_default();
    // As since 2026-04: the App's id and a signed text of some five hundred characters.
    let noise: String = (0..24).map(|_| format!("{:016x}", rand::random::<u64>())).collect();
    let token = format!("ghs_{app_id}_{}", URL_SAFE_NO_PAD.encode(noise));
    let kept = AppToken { installation: id, repos, until_s: until.as_second() };
    state.app_tokens.insert(token.clone(), kept);
    state.app_tokens_made += 1;
    let selection = if selected.is_some() || !shown.is_empty() { "selected" } else { "all" };
    let mut answer = json!({
        "token": token, "expires_at": super::written(until), "permissions": permissions,
        "repository_selection": selection,
    });
    if !shown.is_empty() {
        answer["repositories"] = shown.into();
    }
    created(&answer)
}

async fn repositories(State(hub): State<GitHub>, RawQuery(query): RawQuery) -> Answer {
    let state = hub.state();
    let selected = state.apps.last().and_then(|app| app.selected.clone());
    let of_app = state.repos.iter().filter(|repo| {
        repo.owner == LOGIN && selected.as_ref().is_none_or(|names| names.contains(&repo.name))
    });
    let all = of_app
        .map(|repo| render::repo(repo, &render::Urls::new(&hub.0.origin, &repo.owner, &repo.name)))
        .collect();
    let url = format!("{}/installation/repositories", hub.0.origin);
    Page::cut(all, &Query::parse(query.as_deref()), &url).counted("repositories")
}

async fn revoke(State(hub): State<GitHub>, headers: http::HeaderMap) -> Answer {
    let given = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.and_then(|text| text.split_once(' ')).map(|(_, token)| token.to_owned());
    hub.state().app_tokens.remove(&token.unwrap_or_default());
    no_content()
}
