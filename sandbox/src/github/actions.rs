//! Workflows, runs, jobs and their logs.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::response::IntoResponse as _;
use axum::routing::{get, post, put};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Page, Query, Refusal, json_answer, no_content, object, ok, required};
use super::store::{Repo, Run};
use super::{GitHub, render};
use crate::workflow::{Input, Workflow};
use crate::{SandboxError, clock};

/// How long a log's address is good.
const TICKET_SECONDS: i64 = 60;
/// The folder of workflow files.
pub(super) const FOLDER: &str = ".github/workflows/";

type Home = Path<(String, String)>;
type Place = Path<(String, String, String)>;
type Numbered = Path<(String, String, u64)>;

pub(super) fn routes() -> Router<GitHub> {
    const RUN: &str = "/repos/{owner}/{repo}/actions/runs/{run}";
    Router::new()
        .route("/repos/{owner}/{repo}/actions/workflows", get(workflows))
        .route("/repos/{owner}/{repo}/actions/workflows/{id}", get(workflow))
        .route("/repos/{owner}/{repo}/actions/workflows/{id}/enable", put(enable))
        .route("/repos/{owner}/{repo}/actions/workflows/{id}/dispatches", post(dispatch))
        .route("/repos/{owner}/{repo}/actions/workflows/{id}/runs", get(workflow_runs))
        .route("/repos/{owner}/{repo}/actions/runs", get(runs))
        .route(RUN, get(run))
        .route(&format!("{RUN}/cancel"), post(cancel))
        .route(&format!("{RUN}/force-cancel"), post(force_cancel))
        .route(&format!("{RUN}/jobs"), get(jobs))
        .route("/repos/{owner}/{repo}/actions/jobs/{job}", get(job))
        .route("/repos/{owner}/{repo}/actions/jobs/{job}/logs", get(job_logs))
        .route("/repos/{owner}/{repo}/check-runs/{job}/annotations", get(annotations))
}

/// Gives the workflow files of the default branch their ids; answers them as (path, id, name).
fn index(repo: &mut Repo) -> Vec<(String, u64, String)> {
    let head = repo.head().map(str::to_owned).unwrap_or_default();
    let files = repo.git.files(&head).unwrap_or_default();
    let is_workflow = |path: &str| {
        path.starts_with(FOLDER) && (path.ends_with(".yml") || path.ends_with(".yaml"))
    };
    let mut found = Vec::new();
    for (path, file) in files.into_iter().filter(|(path, _)| is_workflow(path)) {
        let next = repo.id * 100 + repo.workflows.len() as u64;
        let id = *repo.workflows.entry(path.clone()).or_insert(next);
        let parsed = Workflow::parse(&String::from_utf8_lossy(&file.bytes)).ok();
        let name = parsed.and_then(|workflow| workflow.name).unwrap_or_else(|| path.clone());
        found.push((path, id, name));
    }
    found
}

/// The workflow of an id or a file name.
fn find(repo: &mut Repo, wanted: &str) -> Result<(String, u64, String), Refusal> {
    let found = index(repo).into_iter().find(|(path, id, _)| {
        id.to_string() == wanted || path == wanted || path.strip_prefix(FOLDER) == Some(wanted)
    });
    found.ok_or_else(Refusal::not_found)
}

impl GitHub {
    /// Orders a run of a workflow, as `workflow_dispatch` does; its id.
    pub(super) fn dispatch(
        &self,
        (owner, name): (&str, &str),
        workflow: &str,
        branch: &str,
        inputs: &Value,
    ) -> Result<u64, Refusal> {
        let order = self.with_repo(owner, name, |repo, _| {
            let (path, _, name) = find(repo, workflow)?;
            let sha = repo
                .resolve(branch)
                .ok_or_else(|| Refusal::unprocessable(format!("No ref found for: {branch}")))?;
            let text = repo.git.file(&sha, &path).ok_or_else(Refusal::not_found)?;
            let no_trigger =
                || Refusal::unprocessable("Workflow does not have 'workflow_dispatch' trigger");
            let workflow = Workflow::parse(&String::from_utf8_lossy(&text)).map_err(|error| {
                tracing::warn!(%error, path, "a workflow file cannot be read");
                no_trigger()
            })?;
            let inputs =
                checked_inputs(workflow.dispatch.as_deref().ok_or_else(no_trigger)?, inputs)?;
            let (branch, event) = (branch.to_owned(), "workflow_dispatch");
            Ok(super::runs::Order {
                repo: repo.id,
                path,
                name,
                branch,
                sha,
                event,
                workflow,
                inputs,
            })
        });
        self.order_run(order?)
    }

    fn check_indexed(&self) -> Result<(), Refusal> {
        if self.state().knobs.workflows_not_indexed { Err(Refusal::not_found()) } else { Ok(()) }
    }
}

async fn workflows(
    State(hub): State<GitHub>,
    Path((owner, name)): Home,
    RawQuery(query): RawQuery,
) -> Answer {
    let page = hub.with_repo(&owner, &name, |repo, urls| {
        let all = index(repo)
            .into_iter()
            .map(|(path, id, name)| render::workflow(id, &path, &name, repo, urls))
            .collect();
        Ok(Page::cut(
            all,
            &Query::parse(query.as_deref()),
            &format!("{}/actions/workflows", urls.api),
        ))
    });
    page?.counted("workflows")
}

async fn workflow(State(hub): State<GitHub>, Path((owner, name, id)): Place) -> Answer {
    hub.check_indexed()?;
    let answer = hub.with_repo(&owner, &name, |repo, urls| {
        let (path, id, name) = find(repo, &id)?;
        Ok(render::workflow(id, &path, &name, repo, urls))
    });
    ok(&answer?)
}

async fn enable(State(hub): State<GitHub>, Path((owner, name, id)): Place) -> Answer {
    hub.with_repo(&owner, &name, |repo, _| find(repo, &id).map(drop))?;
    no_content()
}

async fn dispatch(
    State(hub): State<GitHub>,
    Path((owner, name, id)): Place,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    hub.check_indexed()?;
    let body = object(&body)?;
    let branch = required(&body, "WorkflowDispatch", "ref")?;
    let branch = branch.strip_prefix("refs/heads/").unwrap_or(branch).to_owned();
    let is_new = headers.get("x-github-api-version").is_some_and(|version| version == "2026-03-10");
    let details = if is_new {
        if body.get("return_run_details").is_some() {
            return Err(Refusal::unprocessable(
                "Invalid request.\n\n\"return_run_details\" is not a permitted key.",
            ));
        }
        true
    } else {
        body["return_run_details"] == true
    };
    let run = hub.dispatch((&owner, &name), &id, &branch, &body["inputs"])?;
    if !details {
        return no_content();
    }
    let answer = hub.with_repo(&owner, &name, |_, urls| {
        Ok(json!({ "workflow_run_id": run, "run_url": format!("{}/actions/runs/{run}", urls.api), "html_url": format!("{}/actions/runs/{run}", urls.html) }))
    });
    ok(&answer?)
}

/// The inputs with their defaults, as GitHub checks them.
fn checked_inputs(known: &[Input], given: &Value) -> Result<BTreeMap<String, Value>, Refusal> {
    let nothing = serde_json::Map::new();
    let given = given.as_object().unwrap_or(&nothing);
    let unexpected: Vec<&str> = given
        .keys()
        .filter(|name| !known.iter().any(|input| input.name == **name))
        .map(String::as_str)
        .collect();
    if !unexpected.is_empty() {
        return Err(Refusal::unprocessable(format!("Unexpected inputs provided: {unexpected:?}")));
    }
    let mut values = BTreeMap::new();
    for input in known {
        let name = &input.name;
        let text = match given.get(name) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Null) | None => None,
            Some(other) => Some(other.to_string()),
        };
        if input.required && input.default.is_none() && text.as_ref().is_none_or(String::is_empty) {
            return Err(Refusal::unprocessable(format!("Required input '{name}' not provided")));
        }
        // A choice without a default takes its first option.
        let first = input.options.as_ref().and_then(|options| options.first().cloned());
        let text = text.or_else(|| input.default.clone()).or(first).unwrap_or_default();
        if let Some(options) = input.options.as_ref().filter(|options| !options.contains(&text)) {
            return Err(Refusal::unprocessable(format!(
                "Provided value '{text}' for input '{name}' not in the list of allowed values {options:?}"
            )));
        }
        let value =
            if input.is_boolean { Value::Bool(text == "true") } else { Value::String(text) };
        values.insert(name.clone(), value);
    }
    Ok(values)
}

fn listed<'a>(
    repo: &'a Repo,
    query: &'a Query,
    path: Option<&'a str>,
) -> impl Iterator<Item = &'a Run> {
    repo.runs.iter().rev().filter(move |run| {
        let state = query
            .get("status")
            .is_none_or(|status| run.status() == status || run.conclusion == Some(status));
        let since = query
            .get("created")
            .and_then(|created| created.strip_prefix(">="))
            .is_none_or(|since| run.created_at.as_str() >= since);
        state
            && since
            && path.is_none_or(|path| run.path == path)
            && query.get("event").is_none_or(|event| event == run.event)
            && query.get("branch").is_none_or(|branch| run.branch == branch)
            && query.get("head_sha").is_none_or(|sha| run.sha == sha)
    })
}

async fn runs(
    State(hub): State<GitHub>,
    Path((owner, name)): Home,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::parse(query.as_deref());
    let page = hub.with_repo(&owner, &name, |repo, urls| {
        let all = listed(repo, &query, None).map(|run| render::run(run, repo, urls)).collect();
        Ok(Page::cut(all, &query, &format!("{}/actions/runs", urls.api)))
    });
    page?.counted("workflow_runs")
}

async fn workflow_runs(
    State(hub): State<GitHub>,
    Path((owner, name, id)): Place,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::parse(query.as_deref());
    let page = hub.with_repo(&owner, &name, |repo, urls| {
        let (path, id, _) = find(repo, &id)?;
        let all =
            listed(repo, &query, Some(&path)).map(|run| render::run(run, repo, urls)).collect();
        Ok(Page::cut(all, &query, &format!("{}/actions/workflows/{id}/runs", urls.api)))
    });
    page?.counted("workflow_runs")
}

fn run_of(repo: &Repo, id: u64) -> Result<&Run, Refusal> {
    repo.runs.iter().find(|run| run.id == id).ok_or_else(Refusal::not_found)
}

async fn run(State(hub): State<GitHub>, Path((owner, name, id)): Numbered) -> Answer {
    let answer =
        hub.with_repo(&owner, &name, |repo, urls| Ok(render::run(run_of(repo, id)?, repo, urls)));
    ok(&answer?)
}

async fn cancel(State(hub): State<GitHub>, Path((owner, name, id)): Numbered) -> Answer {
    let repo = running(&hub, &owner, &name, id)?;
    if !hub.state().knobs.ignores_cancel {
        hub.cancel_run(repo, id);
    }
    Ok(json_answer(StatusCode::ACCEPTED, &json!({})))
}

async fn force_cancel(State(hub): State<GitHub>, Path((owner, name, id)): Numbered) -> Answer {
    hub.cancel_run(running(&hub, &owner, &name, id)?, id);
    Ok(json_answer(StatusCode::ACCEPTED, &json!({})))
}

/// The repo's id, where the run is not over.
fn running(hub: &GitHub, owner: &str, name: &str, id: u64) -> Result<u64, Refusal> {
    hub.with_repo(owner, name, |repo, _| {
        let run = run_of(repo, id)?;
        match run.conclusion {
            Some(_) => Err(Refusal::conflict("Cannot cancel a workflow run that is completed.")),
            None => Ok(repo.id),
        }
    })
}

async fn jobs(
    State(hub): State<GitHub>,
    Path((owner, name, id)): Numbered,
    RawQuery(query): RawQuery,
) -> Answer {
    let page = hub.with_repo(&owner, &name, |repo, urls| {
        let run = run_of(repo, id)?;
        let all = run.jobs.iter().map(|job| render::job(job, run, urls)).collect();
        Ok(Page::cut(
            all,
            &Query::parse(query.as_deref()),
            &format!("{}/actions/runs/{id}/jobs", urls.api),
        ))
    });
    page?.counted("jobs")
}

fn job_of(repo: &Repo, id: u64) -> Result<(&Run, &super::store::JobState), Refusal> {
    let mut jobs = repo.runs.iter().flat_map(|run| run.jobs.iter().map(move |job| (run, job)));
    jobs.find(|(_, job)| job.id == id).ok_or_else(Refusal::not_found)
}

async fn job(State(hub): State<GitHub>, Path((owner, name, id)): Numbered) -> Answer {
    let answer = hub.with_repo(&owner, &name, |repo, urls| {
        let (run, job) = job_of(repo, id)?;
        Ok(render::job(job, run, urls))
    });
    ok(&answer?)
}

async fn annotations(
    State(hub): State<GitHub>,
    Path((owner, name, id)): Numbered,
    RawQuery(query): RawQuery,
) -> Answer {
    let page = hub.with_repo(&owner, &name, |repo, urls| {
        let (_, job) = job_of(repo, id)?;
        let all = job.annotations.iter().map(|message| render::annotation(message, urls)).collect();
        Ok(Page::cut(
            all,
            &Query::parse(query.as_deref()),
            &format!("{}/check-runs/{id}/annotations", urls.api),
        ))
    });
    page?.answer()
}

async fn job_logs(State(hub): State<GitHub>, Path((owner, name, id)): Numbered) -> Answer {
    hub.with_repo(&owner, &name, |repo, _| {
        let (_, job) = job_of(repo, id)?;
        // GitHub has a log only when the job is done; a skipped job never has one.
        if job.completed_at.is_some() && job.started_at.is_some() {
            Ok(())
        } else {
            Err(Refusal::not_found())
        }
    })?;
    let ticket = hex::encode(rand::random::<[u8; 16]>());
    let until = clock::now().as_second() + TICKET_SECONDS;
    hub.state().log_tickets.insert(ticket.clone(), (id, until));
    let location = format!("{}/logs/{ticket}", hub.0.logs_origin);
    Ok((StatusCode::FOUND, [(header::LOCATION, location)]).into_response())
}

/// A listener on a port of its own, and its origin.
pub(super) fn logs_listener() -> Result<(std::net::TcpListener, String), SandboxError> {
    let address = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
    let fail = |source| SandboxError::Listen { address, source };
    let listener = std::net::TcpListener::bind(address).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    let bound = listener.local_addr().map_err(fail)?;
    Ok((listener, format!("http://{bound}")))
}

/// Serves job logs until `off`.
pub(super) fn serve_logs(hub: &GitHub, listener: std::net::TcpListener, off: CancellationToken) {
    // Weak: the server must not keep alive what it belongs to.
    let hub = std::sync::Arc::downgrade(&hub.0);
    let read = move |Path(ticket): Path<String>, headers: HeaderMap| {
        let hub = hub.upgrade().map(GitHub);
        async move { log_text(hub, &ticket, &headers) }
    };
    let router: Router = Router::new().route("/logs/{ticket}", get(read));
    tokio::spawn(async move {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(async move { off.cancelled().await })
            .await;
        if let Err(error) = served {
            tracing::warn!(%error, "the server of job logs ended");
        }
    });
}

fn log_text(hub: Option<GitHub>, ticket: &str, headers: &HeaderMap) -> axum::response::Response {
    // The storage host refuses a request that is signed twice: a client must not send its token on.
    if headers.contains_key(header::AUTHORIZATION) {
        return (
            StatusCode::FORBIDDEN,
            "AuthenticationFailed: the address carries its own signature",
        )
            .into_response();
    }
    let found = hub.and_then(|hub| {
        let mut state = hub.state();
        let now = clock::now().as_second();
        state.log_tickets.retain(|_, (_, until)| *until >= now);
        let job = state.log_tickets.get(ticket)?.0;
        state.repos.iter().find_map(|repo| job_of(repo, job).ok().map(|(_, job)| job.log.clone()))
    });
    match found {
        Some(text) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response(),
        None => {
            (StatusCode::FORBIDDEN, "AuthenticationFailed: the address has expired").into_response()
        }
    }
}
