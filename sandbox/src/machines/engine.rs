//! The Docker Engine API of a machine, on its Unix socket: what an agent needs to watch containers.

mod answers;
mod exec;
mod images;
mod logs;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Json, Request, State};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::{Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::answers::{API_VERSION, MIN_API_VERSION};
use super::docker::{Container, Docker};
use super::events::Event;
use super::proxy::Proxy;
use crate::{SandboxError, serve};

/// How long a container may take to end after SIGTERM, where the request does not say.
const GRACE: Duration = Duration::from_secs(10);

type Query = BTreeMap<String, String>;

/// Serves `docker` on `socket` until `off`.
pub(super) fn serve(
    docker: &Docker,
    proxy: &Proxy,
    socket: &Path,
    off: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<(), SandboxError> {
    // A socket that a switched-off machine left behind cannot be bound again.
    drop(std::fs::remove_file(socket));
    let listener = UnixListener::bind(socket)
        .map_err(|source| SandboxError::io("listen on", socket, source))?;
    let router = Router::new().fallback(dispatch).with_state(Engine {
        docker: docker.clone(),
        execs: exec::Execs::new(proxy.clone()),
        images: images::Images::default(),
    });
    serve::serve_unix(listener, router, off, tasks);
    Ok(())
}

/// What the socket serves.
#[derive(Clone)]
struct Engine {
    docker: Docker,
    execs: exec::Execs,
    images: images::Images,
}

async fn dispatch(
    State(Engine { docker, execs, images }): State<Engine>,
    request: Request,
) -> Response {
    images.note(&docker);
    let path = request.uri().path().to_owned();
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let numbered = |text: &&str| text.starts_with(|c: char| c.is_ascii_digit());
    if let Some(version) = parts.first().and_then(|part| part.strip_prefix('v')).filter(numbered) {
        if let Some(refusal) = refused_version(version) {
            return problem(StatusCode::BAD_REQUEST, &refusal);
        }
        parts.remove(0);
    }
    let query: Query = request
        .uri()
        .query()
        .map(|query| url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
        .unwrap_or_default();
    let mut response = match (request.method(), parts.as_slice()) {
        (&Method::GET | &Method::HEAD, ["_ping"]) => "OK".into_response(),
        (&Method::GET, ["version"]) => Json(answers::version()).into_response(),
        (&Method::GET, ["info"]) => Json(answers::info(&docker)).into_response(),
        (&Method::GET, ["events"]) => events(&docker, &query),
        (&Method::GET, ["images", "json"]) => images.list(),
        (&Method::DELETE, ["images", name @ ..]) => {
            let name = name.join("/");
            let name = percent_encoding::percent_decode_str(&name).decode_utf8_lossy();
            images.remove(&docker, &name)
        }
        (&Method::GET, ["containers", "json"]) => list(&docker, &query),
        (&Method::POST, ["containers", name, "exec"]) => {
            let name = docker.get(name).map(|info| info.name).unwrap_or_default();
            let body = axum::body::to_bytes(request.into_body(), 64 * 1024).await;
            execs.create(&name, &body.unwrap_or_default())
        }
        (&Method::POST, ["exec", id, "start"]) => execs.start(id),
        (&Method::GET, ["exec", id, "json"]) => execs.inspect(id),
        (&Method::GET, ["volumes", name]) => answers::volume(&docker, name),
        (&Method::DELETE, ["volumes", name]) => match docker.remove_volume(name) {
            Ok(()) => StatusCode::NO_CONTENT.into_response(),
            Err((status, text)) => problem(status, &text),
        },
        (method, ["containers", name, rest @ ..]) => match docker.find(name) {
            Ok(container) => one(&docker, &container, method, rest, &query).await,
            Err(text) => problem(StatusCode::NOT_FOUND, &text),
        },
        _ => problem(StatusCode::NOT_FOUND, "page not found"),
    };
    let headers = response.headers_mut();
    headers.insert("api-version", header::HeaderValue::from_static(API_VERSION));
    headers.insert("ostype", header::HeaderValue::from_static("linux"));
    response
}

async fn one(
    docker: &Docker,
    container: &Arc<Container>,
    method: &Method,
    rest: &[&str],
    query: &Query,
) -> Response {
    let id = &container.id;
    let seconds = query.get("t").and_then(|t| t.parse().ok());
    let grace = seconds.map_or(GRACE, Duration::from_secs);
    let running = container.state().running;
    let done = match (method, rest) {
        // Docker's word for "so it is already". It notes all the same that a stop was asked for.
        (&Method::POST, ["start"]) if running => return StatusCode::NOT_MODIFIED.into_response(),
        (&Method::POST, ["stop"]) if !running => {
            drop(docker.stop(id, grace).await);
            return StatusCode::NOT_MODIFIED.into_response();
        }
        (&Method::GET, ["json"]) => {
            return Json(answers::inspect(docker, container)).into_response();
        }
        (&Method::GET, ["logs"]) => return logs::answer(container, query),
        (&Method::GET, ["stats"]) => return Json(answers::stats(container)).into_response(),
        (&Method::POST, ["start"]) => docker.start(id).await,
        (&Method::POST, ["stop"]) => docker.stop(id, grace).await,
        (&Method::POST, ["restart"]) => docker.restart(id, grace).await,
        (&Method::POST, ["kill"]) => docker.kill(id).await,
        (&Method::DELETE, []) => docker.remove(id).await,
        _ => return problem(StatusCode::NOT_FOUND, "page not found"),
    };
    match done {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(text) => problem(StatusCode::INTERNAL_SERVER_ERROR, &text),
    }
}

fn list(docker: &Docker, query: &Query) -> Response {
    let all = query.get("all").is_some_and(|all| is_true(all));
    let filters = match Filters::parse(query) {
        Ok(filters) => filters,
        Err(refusal) => return problem(StatusCode::BAD_REQUEST, &refusal),
    };
    let shown: Vec<Value> = docker
        .all()
        .iter()
        .rev()
        .filter(|container| all || filters.has("status") || container.state().running)
        .filter(|container| filters.match_container(container))
        .map(|container| answers::summary(docker, container))
        .collect();
    Json(shown).into_response()
}

fn events(docker: &Docker, query: &Query) -> Response {
    let filters = match Filters::parse(query) {
        Ok(filters) => filters,
        Err(refusal) => return problem(StatusCode::BAD_REQUEST, &refusal),
    };
    let (past, live) = docker.events().listen();
    let since = query.get("since").and_then(|text| logs::time(text));
    let until = query.get("until").and_then(|text| logs::time(text));
    let past = past.into_iter().filter(move |event| since.is_some_and(|since| event.time >= since));
    let live = futures::stream::unfold(live, |mut live| async move {
        loop {
            match live.recv().await {
                Ok(event) => return Some((event, live)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    let ended = until.is_some_and(|until| until <= crate::clock::now());
    let live = if ended { futures::stream::empty().boxed() } else { live.boxed() };
    let lines = futures::stream::iter(past)
        .chain(live)
        .filter(move |event| futures::future::ready(filters.match_event(event)))
        .map(|event| Ok::<_, std::convert::Infallible>(format!("{}\n", event.json())));
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response()
}

/// Docker's `filters`: `{"label": ["a=b"]}`, or in the older form `{"label": {"a=b": true}}`.
struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    fn parse(query: &Query) -> Result<Self, String> {
        let Some(text) = query.get("filters").filter(|text| !text.is_empty()) else {
            return Ok(Self(BTreeMap::new()));
        };
        let raw: BTreeMap<String, Value> =
            serde_json::from_str(text).map_err(|error| format!("invalid filter: {error}"))?;
        let words = |value: Value| match value {
            Value::Array(all) => {
                all.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()
            }
            Value::Object(map) => map.keys().cloned().collect(),
            _ => Vec::new(),
        };
        Ok(Self(raw.into_iter().map(|(key, value)| (key, words(value))).collect()))
    }

    fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    fn match_container(&self, container: &Container) -> bool {
        let (state, labels) = (answers::state(container), container.labels());
        let name = container.state().name.clone();
        self.0.iter().all(|(key, wanted)| match key.as_str() {
            "label" => wanted.iter().all(|label| has_label(&labels, label)),
            "status" => wanted.iter().any(|one| one == state),
            "name" => wanted.iter().any(|one| name.contains(one.trim_matches(['^', '/', '$']))),
            "id" => wanted.iter().any(|one| container.id.starts_with(one)),
            _ => true,
        })
    }

    fn match_event(&self, event: &Event) -> bool {
        self.0.iter().all(|(key, wanted)| match key.as_str() {
            "type" => wanted.iter().any(|one| one == "container"),
            "event" => wanted.iter().any(|one| one == event.action),
            "label" => wanted.iter().all(|label| has_label(&event.attributes, label)),
            "container" => wanted.iter().any(|one| {
                event.container.starts_with(one) || event.attributes.get("name") == Some(one)
            }),
            _ => true,
        })
    }
}

fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|own| own == value),
        None => labels.contains_key(wanted),
    }
}

/// Docker's refusal of an API version that it does not speak.
fn refused_version(version: &str) -> Option<String> {
    let number = |text: &str| -> Option<(u32, u32)> {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let asked = number(version)?;
    if Some(asked) > number(API_VERSION) {
        return Some(format!(
            "client version {version} is too new. Maximum supported API version is {API_VERSION}"
        ));
    }
    (Some(asked) < number(MIN_API_VERSION)).then(|| {
        format!(
            "client version {version} is too old. Minimum supported API version is \
             {MIN_API_VERSION}, please upgrade your client to a newer version"
        )
    })
}

fn is_true(text: &str) -> bool {
    matches!(text, "1" | "true" | "True")
}

fn problem(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"message": message}))).into_response()
}
