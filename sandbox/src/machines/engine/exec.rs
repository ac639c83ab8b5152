//! `docker exec` in the one container that has a program the sandbox plays: kamal-proxy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use rand::Rng;
use serde_json::{Value, json};

use super::problem;
use crate::machines::proxy::Proxy;

/// The execs of one engine since it was switched on.
#[derive(Clone)]
pub(super) struct Execs {
    proxy: Proxy,
    all: Arc<Mutex<BTreeMap<String, Exec>>>,
}

struct Exec {
    container: String,
    command: Vec<String>,
    started: bool,
    exit_code: Option<i64>,
}

impl Execs {
    pub(super) fn new(proxy: Proxy) -> Self {
        Self { proxy, all: Arc::default() }
    }

    pub(super) fn create(&self, container: &str, body: &[u8]) -> Response {
        let asked: Value = serde_json::from_slice(body).unwrap_or_default();
        let words = asked["Cmd"].as_array().cloned().unwrap_or_default();
        let command: Vec<String> =
            words.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect();
        if container.is_empty() {
            return problem(StatusCode::NOT_FOUND, "No such container");
        }
        if command.is_empty() {
            return problem(StatusCode::BAD_REQUEST, "No exec command specified");
        }
        let bytes: [u8; 32] = rand::rng().random();
        let id = hex::encode(bytes);
        let exec =
            Exec { container: container.to_owned(), command, started: false, exit_code: None };
        crate::lock(&self.all).insert(id.clone(), exec);
        (StatusCode::CREATED, Json(json!({ "Id": id }))).into_response()
    }

    /// Starts it in the background, as with `Detach`.
    pub(super) fn start(&self, id: &str) -> Response {
        let (container, command) = {
            let mut all = crate::lock(&self.all);
            let Some(exec) = all.get_mut(id) else { return no_such(id) };
            exec.started = true;
            (exec.container.clone(), exec.command.clone())
        };
        let (execs, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            let code = match (container.as_str(), words.as_slice()) {
                ("kamal-proxy", ["kamal-proxy", "remove", service]) => {
                    i64::from(execs.proxy.remove(service).await.is_err())
                }
                // No such program.
                _ => 127,
            };
            if let Some(exec) = crate::lock(&execs.all).get_mut(&id) {
                exec.exit_code = Some(code);
            }
        });
        StatusCode::OK.into_response()
    }

    pub(super) fn inspect(&self, id: &str) -> Response {
        let all = crate::lock(&self.all);
        let Some(exec) = all.get(id) else { return no_such(id) };
        Json(json!({
            "ID": id, "Running": exec.started && exec.exit_code.is_none(),
            "ExitCode": exec.exit_code, "OpenStdin": false, "OpenStderr": false,
            "OpenStdout": false, "CanRemove": false, "ContainerID": exec.container,
            "DetachKeys": "", "Pid": 0,
            "ProcessConfig": {
                "tty": false, "entrypoint": exec.command.first(),
                "arguments": exec.command.get(1..).unwrap_or_default(), "privileged": false,
            },
        }))
        .into_response()
    }
}

fn no_such(id: &str) -> Response {
    problem(StatusCode::NOT_FOUND, &format!("No such exec instance: {id}"))
}
