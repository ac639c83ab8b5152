//! A server on a port of its own that records what it is asked, and fails as it is told.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use url::Url;

use crate::spec::Spec;

/// What a fake answers instead of its own answer.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// A status, headers and JSON.
    Json(u16, Vec<(&'static str, String)>, Value),
    /// A status and a text that is no JSON.
    Text(u16, &'static str),
    /// Nothing, ever.
    Silence,
    /// A status, and a body that never ends.
    SlowBody(u16),
    /// A status, and a body that breaks off.
    BrokenBody(u16),
}

impl Reply {
    /// An error in Hetzner's form.
    pub(crate) fn hetzner(status: u16, code: &str) -> Self {
        let details = json!({ "fields": [{ "name": "name", "messages": ["is wrong"] }] });
        let error = json!({ "code": code, "message": "a sentence", "details": details });
        Self::Json(status, Vec::new(), json!({ "error": error }))
    }

    /// An error in GitHub's form.
    pub(crate) fn github(status: u16, message: &str) -> Self {
        Self::Json(status, Vec::new(), json!({ "message": message }))
    }

    async fn response(self) -> Response {
        let begun = || stream::once(async { Ok(Bytes::from_static(b"{")) });
        let (status, body) = match self {
            Self::Json(status, headers, value) => {
                let mut response = axum::Json(value).into_response();
                *response.status_mut() = StatusCode::from_u16(status).expect("a status");
                for (name, value) in headers {
                    response.headers_mut().insert(name, value.parse().expect("a header"));
                }
                return response;
            }
            Self::Text(status, text) => (status, Body::from(text)),
            Self::Silence => return std::future::pending().await,
            Self::SlowBody(status) => {
                let rest = stream::pending::<io::Result<Bytes>>();
                (status, Body::from_stream(begun().chain(rest)))
            }
            Self::BrokenBody(status) => {
                let rest = stream::once(async { Err(io::Error::other("cut")) });
                (status, Body::from_stream(begun().chain(rest)))
            }
        };
        (StatusCode::from_u16(status).expect("a status"), body).into_response()
    }
}

/// One fault: for which requests, before or after their effect, how often.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) method: Method,
    /// What the path begins with.
    pub(crate) path: &'static str,
    /// Whether what was asked for happens all the same.
    pub(crate) after: bool,
    pub(crate) reply: Reply,
    pub(crate) times: u32,
}

/// A request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

#[derive(Default)]
struct Record {
    faults: Vec<Fault>,
    seen: Vec<Seen>,
    violations: Vec<String>,
}

#[derive(Clone)]
struct Watch {
    record: Arc<Mutex<Record>>,
    spec: Option<Arc<Spec>>,
}

/// Holds the fake up; it ends with this value.
pub(crate) struct Fake {
    pub(crate) url: Url,
    record: Arc<Mutex<Record>>,
    task: JoinHandle<()>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fake {
    pub(crate) async fn start(router: Router, spec: Option<Arc<Spec>>) -> Self {
        let record = Arc::new(Mutex::new(Record::default()));
        let watch = Watch { record: record.clone(), spec };
        let router = router.layer(from_fn_with_state(watch, between));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("the fake serves");
        });
        let url = format!("http://{address}").parse().expect("a URL");
        Self { url, record, task }
    }

    pub(crate) fn fail(&self, fault: Fault) {
        lock(&self.record).faults.push(fault);
    }

    /// One fault before the effect, for `times` requests.
    pub(crate) fn refuse(&self, method: Method, path: &'static str, reply: Reply, times: u32) {
        self.fail(Fault { method, path, after: false, reply, times });
    }

    pub(crate) fn heal(&self) {
        lock(&self.record).faults.clear();
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.record).seen.clone()
    }

    /// How many requests of that kind came in.
    pub(crate) fn count(&self, method: Method, path: &str) -> usize {
        self.seen().iter().filter(|s| s.method == method && s.path.starts_with(path)).count()
    }

    /// Every request so far was one that the specification allows.
    pub(crate) fn assert_valid(&self) {
        assert_eq!(lock(&self.record).violations, Vec::<String>::new());
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn between(State(watch): State<Watch>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 4 << 20).await.expect("a body").to_vec();
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let violation = watch.spec.as_ref().and_then(|spec| spec.fault(method.as_str(), &path, &body));
    let fault = {
        let mut record = lock(&watch.record);
        record.violations.extend(violation);
        let seen = Seen {
            method: method.clone(),
            path: path.clone(),
            headers: parts.headers.clone(),
            body: body.clone(),
        };
        record.seen.push(seen);
        let hit = record
            .faults
            .iter_mut()
            .find(|f| f.times > 0 && f.method == method && path.starts_with(f.path));
        hit.map(|fault| {
            fault.times -= 1;
            fault.clone()
        })
    };
    match fault {
        None => next.run(Request::from_parts(parts, Body::from(body))).await,
        Some(fault) => {
            if fault.after {
                drop(next.run(Request::from_parts(parts, Body::from(body))).await);
            }
            fault.reply.response().await
        }
    }
}
