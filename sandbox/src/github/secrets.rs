//! Secrets (libsodium sealed boxes) and variables of Actions.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::answer::{Answer, Page, Query, Refusal, created, no_content, object, ok, required};
use super::store::{Repo, Stored};
use super::{GitHub, render};

/// The largest secret or variable.
const VALUE_BYTES_MAX: usize = 48 * 1024;

type Home = Path<(String, String)>;
type Place = Path<(String, String, String)>;

pub(super) fn routes() -> Router<GitHub> {
    Router::new()
        .route("/repos/{owner}/{repo}/actions/secrets", get(secrets))
        .route("/repos/{owner}/{repo}/actions/secrets/public-key", get(public_key))
        .route(
            "/repos/{owner}/{repo}/actions/secrets/{name}",
            get(secret).put(put_secret).delete(drop_secret),
        )
        .route("/repos/{owner}/{repo}/actions/variables", get(variables).post(new_variable))
        .route(
            "/repos/{owner}/{repo}/actions/variables/{name}",
            get(variable).patch(change_variable).delete(drop_variable),
        )
}

fn key_id(repo: &Repo) -> String {
    repo.id.to_string()
}

fn check_name(name: &str) -> Result<String, Refusal> {
    let name = name.to_ascii_uppercase();
    let fits = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    if !fits
        || name.is_empty()
        || name.starts_with(|first: char| first.is_ascii_digit())
        || name.starts_with("GITHUB_")
    {
        return Err(Refusal::unprocessable(
            "Secret names can only contain alphanumeric characters ([a-z], [A-Z], [0-9]) or underscores (_). Spaces are not allowed. Must start with a letter ([a-z], [A-Z]) or underscores (_).",
        ));
    }
    Ok(name)
}

async fn secrets(
    State(hub): State<GitHub>,
    Path((owner, name)): Home,
    RawQuery(query): RawQuery,
) -> Answer {
    let page = hub.with_repo(&owner, &name, |repo, urls| {
        let all = repo.secrets.iter().map(|(name, secret)| render::secret(name, secret)).collect();
        Ok(Page::cut(
            all,
            &Query::parse(query.as_deref()),
            &format!("{}/actions/secrets", urls.api),
        ))
    });
    page?.counted("secrets")
}

async fn public_key(State(hub): State<GitHub>, Path((owner, name)): Home) -> Answer {
    let answer = hub.with_repo(&owner, &name, |repo, _| {
        Ok(json!({ "key_id": key_id(repo), "key": STANDARD.encode(repo.secret_key.public_key().as_bytes()) }))
    });
    ok(&answer?)
}

async fn secret(State(hub): State<GitHub>, Path((owner, name, key)): Place) -> Answer {
    let answer = hub.with_repo(&owner, &name, |repo, _| {
        let key = key.to_ascii_uppercase();
        let secret = repo.secrets.get(&key).ok_or_else(Refusal::not_found)?;
        Ok(render::secret(&key, secret))
    });
    ok(&answer?)
}

async fn put_secret(
    State(hub): State<GitHub>,
    Path((owner, name, key)): Place,
    body: Bytes,
) -> Answer {
    let body = object(&body)?;
    let key = check_name(&key)?;
    let sealed = required(&body, "Secret", "encrypted_value")?.to_owned();
    let used_key = required(&body, "Secret", "key_id")?.to_owned();
    let existed = hub.with_repo(&owner, &name, |repo, _| {
        if used_key != key_id(repo) {
            return Err(Refusal::unprocessable(
                "Bad request - key_id is not the repository's current public key",
            ));
        }
        let opened =
            STANDARD.decode(&sealed).ok().and_then(|bytes| repo.secret_key.unseal(&bytes).ok());
        let value = opened.and_then(|bytes| String::from_utf8(bytes).ok());
        let value = value.ok_or_else(|| {
            Refusal::unprocessable(
                "Bad request - encrypted_value cannot be decrypted with the public key",
            )
        })?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(Refusal::unprocessable(
                "Secret value is too large. Maximum size is 48 KB.",
            ));
        }
        Ok(store(&mut repo.secrets, key, value))
    });
    if existed? { no_content() } else { created(&json!({})) }
}

/// Stores a value; says whether there was one.
fn store(
    into: &mut std::collections::BTreeMap<String, Stored>,
    key: String,
    value: String,
) -> bool {
    let now = super::now();
    match into.get_mut(&key) {
        Some(stored) => {
            stored.value = value;
            stored.updated_at = now;
            true
        }
        None => {
            into.insert(key, Stored { value, created_at: now.clone(), updated_at: now });
            false
        }
    }
}

async fn drop_secret(State(hub): State<GitHub>, Path((owner, name, key)): Place) -> Answer {
    hub.with_repo(&owner, &name, |repo, _| {
        repo.secrets.remove(&key.to_ascii_uppercase()).map(drop).ok_or_else(Refusal::not_found)
    })?;
    no_content()
}

async fn variables(
    State(hub): State<GitHub>,
    Path((owner, name)): Home,
    RawQuery(query): RawQuery,
) -> Answer {
    let page = hub.with_repo(&owner, &name, |repo, urls| {
        let all = repo
            .variables
            .iter()
            .map(|(name, variable)| render::variable(name, variable))
            .collect();
        Ok(Page::cut(
            all,
            &Query::parse(query.as_deref()),
            &format!("{}/actions/variables", urls.api),
        ))
    });
    page?.counted("variables")
}

async fn new_variable(State(hub): State<GitHub>, Path((owner, name)): Home, body: Bytes) -> Answer {
    let body = object(&body)?;
    let key = check_name(required(&body, "Variable", "name")?)?;
    let value = body["value"]
        .as_str()
        .ok_or_else(|| Refusal::field("Variable", "value", "missing_field"))?
        .to_owned();
    hub.with_repo(&owner, &name, |repo, _| {
        if repo.variables.contains_key(&key) {
            return Err(Refusal::conflict("Already exists - Variable already exists"));
        }
        store(&mut repo.variables, key, value);
        Ok(())
    })?;
    created(&json!({}))
}

async fn variable(State(hub): State<GitHub>, Path((owner, name, key)): Place) -> Answer {
    let answer = hub.with_repo(&owner, &name, |repo, _| {
        let key = key.to_ascii_uppercase();
        let variable = repo.variables.get(&key).ok_or_else(Refusal::not_found)?;
        Ok(render::variable(&key, variable))
    });
    ok(&answer?)
}

async fn change_variable(
    State(hub): State<GitHub>,
    Path((owner, name, key)): Place,
    body: Bytes,
) -> Answer {
    let body = object(&body)?;
    hub.with_repo(&owner, &name, |repo, _| {
        let key = key.to_ascii_uppercase();
        let mut stored = repo.variables.remove(&key).ok_or_else(Refusal::not_found)?;
        if let Value::String(value) = &body["value"] {
            stored.value.clone_from(value);
        }
        stored.updated_at = super::now();
        let new_key = body["name"].as_str().map_or(key, str::to_ascii_uppercase);
        repo.variables.insert(new_key, stored);
        Ok(())
    })?;
    no_content()
}

async fn drop_variable(State(hub): State<GitHub>, Path((owner, name, key)): Place) -> Answer {
    hub.with_repo(&owner, &name, |repo, _| {
        repo.variables.remove(&key.to_ascii_uppercase()).map(drop).ok_or_else(Refusal::not_found)
    })?;
    no_content()
}
