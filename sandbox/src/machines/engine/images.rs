//! The images of a machine: those of every container that it has seen, until they are removed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::problem;
use crate::machines::docker::Docker;

/// What each is said to take, in bytes.
const SIZE: i64 = 200_000_000;

#[derive(Clone, Default)]
pub(super) struct Images(Arc<Mutex<BTreeMap<String, BTreeMap<String, String>>>>);

impl Images {
    /// Takes note of the images of the containers that there are.
    pub(super) fn note(&self, docker: &Docker) {
        let mut known = crate::lock(&self.0);
        for container in docker.all().iter().filter(|one| !one.spec.image.reference.is_empty()) {
            known.insert(container.spec.image.reference.clone(), container.labels());
        }
    }

    pub(super) fn list(&self) -> Response {
        let known = crate::lock(&self.0);
        let all = known.iter().map(|(name, labels)| {
            json!({
                "Id": format!("sha256:{name}"), "ParentId": "", "RepoTags": [name],
                "RepoDigests": [], "Created": 0, "Size": SIZE, "SharedSize": -1,
                "Labels": labels, "Containers": -1,
            })
        });
        Json(all.collect::<Vec<Value>>()).into_response()
    }

    /// Docker's refusal where a container was made of it.
    pub(super) fn remove(&self, docker: &Docker, name: &str) -> Response {
        if docker.all().iter().any(|one| one.spec.image.reference == name) {
            let text = format!("conflict: unable to remove repository reference \"{name}\"");
            return problem(StatusCode::CONFLICT, &text);
        }
        match crate::lock(&self.0).remove(name) {
            Some(_) => Json(json!([{ "Untagged": name }])).into_response(),
            None => problem(StatusCode::NOT_FOUND, &format!("No such image: {name}")),
        }
    }
}
