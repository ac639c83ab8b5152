//! The registry's own door, as ghcr.io has it: a token for pulling, then manifests.

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::GitHub;
use super::answer::Query;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What is served where `ghcr.io` would be.
pub(super) fn routes() -> Router<GitHub> {
    Router::new().route("/token", get(token)).route("/v2/{*path}", get(manifest))
}

fn refused(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "errors": [{ "code": code, "message": message }] });
    (status, axum::Json(body)).into_response()
}

fn denied() -> Response {
    refused(StatusCode::FORBIDDEN, "DENIED", "requested access to the resource is denied")
}

/// `scope=repository:NAME:pull`, with a token of GitHub's as the password of any user. Without one
/// only public images may be pulled.
async fn token(
    State(hub): State<GitHub>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let query = Query::parse(query.as_deref());
    let scope = query.get("scope").unwrap_or_default();
    let Some(name) = scope.strip_prefix("repository:").and_then(|rest| rest.strip_suffix(":pull"))
    else {
        return denied();
    };
    let may = match password(&headers) {
        Some(password) => hub.may_pull(&password, name),
        None => hub.state().knobs.public_images,
    };
    match may {
        true => axum::Json(json!({ "token": hub.pull_token(name) })).into_response(),
        false => denied(),
    }
}

fn password(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let pair = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

/// `NAME/manifests/TAG`.
async fn manifest(
    State(hub): State<GitHub>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some((name, tag)) = path.rsplit_once("/manifests/") else {
        return refused(StatusCode::NOT_FOUND, "UNSUPPORTED", "the sandbox plays manifests only");
    };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if given != Some(&format!("Bearer {}", hub.pull_token(name))) {
        return refused(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required");
    }
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let reference = format!("ghcr.io/{name}:{tag}");
    let found = hub.registry().image(&reference);
    let Some(image) = found.filter(|_| accepts.is_some_and(|given| given.contains(MANIFEST)))
    else {
        return refused(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown");
    };
    let empty = format!("sha256:{}", hex::encode(Sha256::digest(reference.as_bytes())));
    let body: Value = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": empty, "size": 2 },
        "layers": [], "annotations": image.labels,
    });
    let text = body.to_string();
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(text.as_bytes())));
    let headers = [("content-type", MANIFEST), ("docker-content-digest", digest.as_str())];
    (headers, text).into_response()
}

impl GitHub {
    /// The registry alone, without faults in front of it.
    pub(crate) fn images_router(&self) -> Router {
        routes().with_state(self.clone())
    }

    /// Whether a token of GitHub's may read packages.
    fn may_pull(&self, token: &str, name: &str) -> bool {
        let needed = "packages=read";
        if self.state().knobs.missing_permissions.contains(needed) {
            return false;
        }
        let mut parts = name.split('/');
        let (owner, repo) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let path = format!("/repos/{owner}/{repo}");
        token == self.0.token || self.admit_app(token, &Method::GET, &path, Some(needed)).is_ok()
    }

    /// What pulls one image: nobody else can tell it.
    fn pull_token(&self, name: &str) -> String {
        hex::encode(Sha256::digest(format!("pull {name} {}", self.0.token)))
    }
}
