//! Runs of workflows: ordered, queued by their concurrency group, played, cancelled.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::answer::Refusal;
use super::bench::Bench;
use super::stage::Stage;
use super::store::{JobState, LOGIN, Repo, Run, State, StepState};
use super::{GitHub, render};
use crate::clock;
use crate::workflow::Workflow;
use crate::workflow::expressions::Scope;
use crate::workflow::interpreter::{self, Listener, RunEvent, StepExecutor};

/// The largest log of a job.
const LOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A run to be made.
pub(super) struct Order {
    pub(super) repo: u64,
    pub(super) path: String,
    pub(super) name: String,
    pub(super) branch: String,
    pub(super) sha: String,
    /// `workflow_dispatch` or `push`.
    pub(super) event: &'static str,
    pub(super) workflow: Workflow,
    pub(super) inputs: BTreeMap<String, Value>,
}

impl GitHub {
    /// Makes a run and starts it, or lets it wait for its concurrency group. Answers its id.
    pub(super) fn order_run(&self, order: Order) -> Result<u64, Refusal> {
        let mut state = self.state();
        let id = state.next_id();
        let job_ids: Vec<u64> = order.workflow.jobs.iter().map(|_| state.next_id()).collect();
        let repo = state.repo_by_id(order.repo).ok_or_else(Refusal::not_found)?;
        let run = new_run(repo, id, &job_ids, order)
            .map_err(|error| Refusal::unprocessable(error.to_string()))?;
        let (group, repo_id) = (run.group.clone(), repo.id);
        let (cancels, keeps_all) = concurrency(repo, &run);
        let others: Vec<u64> = repo
            .runs
            .iter()
            .filter(|other| group.is_some() && other.group == group && other.conclusion.is_none())
            .map(|other| other.id)
            .collect();
        // A newer waiting run takes the place of an older one.
        let replaced: Vec<u64> = repo
            .runs
            .iter()
            .filter(|other| {
                others.contains(&other.id) && (cancels || (!other.started && !keeps_all))
            })
            .map(|other| other.id)
            .collect();
        repo.runs.push(run);
        drop(state);
        for other in &replaced {
            self.cancel_run(repo_id, *other);
        }
        self.tell_run(repo_id, id, "requested");
        self.start_next(repo_id, group.as_deref(), id);
        self.changed();
        Ok(id)
    }

    /// Cancels a run: one that waits is over at once, one that runs when its step lets go.
    pub(super) fn cancel_run(&self, repo: u64, id: u64) {
        let mut state = self.state();
        let run =
            state.repo_by_id(repo).and_then(|repo| repo.runs.iter_mut().find(|run| run.id == id));
        let mut over = false;
        if let Some(run) = run {
            run.cancelled.cancel();
            over = !run.started && run.conclusion.is_none();
            if over {
                finish(run, "cancelled");
            }
        }
        drop(state);
        self.changed();
        if over {
            self.tell_run(repo, id, "completed");
        }
    }

    /// Tells the repo's hooks of a run.
    fn tell_run(&self, repo: u64, id: u64, action: &str) {
        self.send(repo, "workflow_run", |repo, urls| {
            let found = repo.runs.iter().find(|run| run.id == id);
            let workflow = found.map(|run| {
                let id = repo.workflows.get(&run.path).copied().unwrap_or_default();
                render::workflow(id, &run.path, &run.workflow_name, repo, urls)
            });
            let run = found.map(|run| render::run(run, repo, urls));
            json!({ "action": action, "workflow_run": run, "workflow": workflow })
        });
    }

    /// Tells the repo's hooks of a job.
    fn tell_job(&self, repo: u64, id: u64, at: usize, action: &str) {
        self.send(repo, "workflow_job", |repo, urls| {
            let run = repo.runs.iter().find(|run| run.id == id);
            let job = run.and_then(|run| Some(render::job(run.jobs.get(at)?, run, urls)));
            json!({ "action": action, "workflow_job": job })
        });
    }

    /// Starts the oldest run of a group that waits, if none of it runs. Runs without a group start
    /// by their id.
    fn start_next(&self, repo_id: u64, group: Option<&str>, id: u64) {
        let mut state = self.state();
        let Some(repo) = state.repo_by_id(repo_id) else { return };
        let of_group =
            |run: &&mut Run| group.is_some() && run.group.as_deref() == group || run.id == id;
        let busy = repo
            .runs
            .iter_mut()
            .filter(of_group)
            .any(|run| run.started && run.conclusion.is_none());
        let next = repo
            .runs
            .iter_mut()
            .filter(of_group)
            .find(|run| !run.started && run.conclusion.is_none());
        let Some(run) = next.filter(|_| !busy) else { return };
        run.started = true;
        run.updated_at = super::now();
        let id = run.id;
        drop(state);
        self.changed();
        self.tell_run(repo_id, id, "in_progress");
        let hub = self.clone();
        tokio::spawn(async move { hub.play(repo_id, id).await });
    }

    async fn play(&self, repo_id: u64, id: u64) {
        let Some((run, cancelled, group, facts)) = self.prepared(repo_id, id) else { return };
        let executor: Box<dyn StepExecutor> = match &self.0.lab {
            None => Box::new(Stage::new(self.clone(), facts)),
            Some(lab) => Box::new(Bench::new(self.clone(), lab.clone(), facts)),
        };
        let hub = Arc::downgrade(&self.0);
        let listener: Listener = Arc::new(move |event| {
            if let Some(hub) = hub.upgrade().map(GitHub) {
                hub.note(repo_id, id, event);
            }
        });
        let conclusion = run.play(executor.as_ref(), &listener, &cancelled).await;
        let mut state = self.state();
        if let Some(run) =
            state.repo_by_id(repo_id).and_then(|repo| repo.runs.iter_mut().find(|run| run.id == id))
        {
            finish(run, conclusion.as_str());
        }
        drop(state);
        self.changed();
        self.tell_run(repo_id, id, "completed");
        self.start_next(repo_id, group.as_deref(), 0);
    }

    fn prepared(
        &self,
        repo_id: u64,
        id: u64,
    ) -> Option<(interpreter::Run, CancellationToken, Option<String>, Facts)> {
        let mut state = self.state();
        let repo = state.repo_by_id(repo_id)?;
        let run = repo.runs.iter().find(|run| run.id == id)?;
        let token = match &self.0.lab {
            None => format!("token-of-run-{id}-{:016x}", rand::random::<u64>()),
            Some(lab) => lab.token().to_owned(),
        };
        let mut secrets: Map<String, Value> = repo
            .secrets
            .iter()
            .map(|(name, secret)| (name.clone(), secret.value.clone().into()))
            .collect();
        secrets.insert("GITHUB_TOKEN".to_owned(), token.clone().into());
        let masks = secrets.values().filter_map(Value::as_str).map(str::to_owned).collect();
        let mut contexts = base_contexts(&self.0.origin, repo, run);
        contexts.insert("secrets".to_owned(), Value::Object(secrets));
        if let Some(Value::Object(github)) = contexts.get_mut("github") {
            github.insert("token".to_owned(), token.into());
        }
        let facts = Facts { repo: repo_id, name: repo.name.clone(), sha: run.sha.clone() };
        let played = interpreter::Run {
            workflow: (*run.workflow).clone(),
            runner_env: runner_env(&contexts, repo),
            contexts,
            job_ids: run.jobs.iter().map(|job| job.id).collect(),
            masks,
        };
        Some((played, run.cancelled.clone(), run.group.clone(), facts))
    }

    fn note(&self, repo_id: u64, id: u64, event: RunEvent) {
        let job = match &event {
            RunEvent::JobStarted { job } => Some((*job, "in_progress")),
            RunEvent::JobEnded { job, .. } => Some((*job, "completed")),
            _ => None,
        };
        let mut state = self.state();
        note(&mut state, repo_id, id, event);
        drop(state);
        self.changed();
        if let Some((job, action)) = job {
            self.tell_job(repo_id, id, job, action);
        }
    }
}

/// What the stage must know of a run.
pub(super) struct Facts {
    pub(super) repo: u64,
    pub(super) name: String,
    pub(super) sha: String,
}

fn new_run(
    repo: &Repo,
    id: u64,
    job_ids: &[u64],
    order: Order,
) -> Result<Run, crate::workflow::expressions::ExpressionError> {
    let now = super::now();
    let number = repo.runs.len() as u64 + 1;
    let mut run = Run {
        id,
        number,
        attempt: 1,
        path: order.path,
        workflow_name: order.name,
        workflow: Arc::new(order.workflow),
        title: String::new(),
        branch: order.branch,
        sha: order.sha,
        event: order.event,
        inputs: order.inputs,
        group: None,
        started: false,
        conclusion: None,
        jobs: Vec::new(),
        cancelled: CancellationToken::new(),
        created_at: now.clone(),
        updated_at: now.clone(),
    };
    let scope = Scope { contexts: base_contexts("", repo, &run), ..Scope::default() };
    run.title = match &run.workflow.run_name {
        Some(name) => scope.interpolate(name)?,
        None => run.workflow_name.clone(),
    };
    run.group = run
        .workflow
        .concurrency
        .as_ref()
        .map(|concurrency| scope.interpolate(&concurrency.group))
        .transpose()?;
    for (job, id) in run.workflow.jobs.iter().zip(job_ids) {
        let labels = job.labels.iter().map(|label| scope.interpolate(label));
        run.jobs.push(JobState {
            id: *id,
            name: job.name.as_deref().map_or(Ok(job.id.clone()), |name| scope.interpolate(name))?,
            labels: labels.collect::<Result<_, _>>()?,
            created_at: now.clone(),
            started_at: None,
            completed_at: None,
            conclusion: None,
            steps: Vec::new(),
            log: String::new(),
            annotations: Vec::new(),
        });
    }
    Ok(run)
}

/// Whether a run cancels those before it, and whether all that wait keep their places.
fn concurrency(repo: &Repo, run: &Run) -> (bool, bool) {
    let Some(concurrency) = &run.workflow.concurrency else { return (false, true) };
    let scope = Scope { contexts: base_contexts("", repo, run), ..Scope::default() };
    let cancels =
        scope.interpolate(&concurrency.cancel_in_progress).is_ok_and(|text| text == "true");
    (cancels, concurrency.keeps_all)
}

fn base_contexts(origin: &str, repo: &Repo, run: &Run) -> Map<String, Value> {
    let inputs = json!(run.inputs);
    let github = json!({
        "run_id": run.id.to_string(), "run_number": run.number.to_string(), "run_attempt": run.attempt.to_string(),
        "sha": run.sha, "ref": format!("refs/heads/{}", run.branch), "ref_name": run.branch, "ref_type": "branch",
        "repository": repo.full_name(), "repository_owner": repo.owner, "repository_id": repo.id.to_string(),
        "actor": LOGIN, "triggering_actor": LOGIN, "event_name": run.event, "workflow": run.workflow_name,
        "server_url": origin, "api_url": origin, "workspace": workspace(&repo.name),
        "event": { "inputs": inputs, "repository": { "default_branch": repo.default_branch, "full_name": repo.full_name() } },
    });
    let vars: Map<String, Value> = repo
        .variables
        .iter()
        .map(|(name, variable)| (name.clone(), variable.value.clone().into()))
        .collect();
    Map::from_iter([
        ("github".to_owned(), github),
        ("inputs".to_owned(), inputs),
        ("vars".to_owned(), Value::Object(vars)),
    ])
}

/// The folder of the checkout on a runner.
pub(super) fn workspace(name: &str) -> String {
    format!("/home/runner/work/{name}/{name}")
}

fn runner_env(contexts: &Map<String, Value>, repo: &Repo) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([
        ("CI".to_owned(), "true".to_owned()),
        ("GITHUB_ACTIONS".to_owned(), "true".to_owned()),
        ("HOME".to_owned(), "/home/runner".to_owned()),
        ("RUNNER_OS".to_owned(), "Linux".to_owned()),
        ("RUNNER_TEMP".to_owned(), "/home/runner/work/_temp".to_owned()),
        ("GITHUB_WORKSPACE".to_owned(), workspace(&repo.name)),
    ]);
    let github = contexts.get("github").and_then(Value::as_object).into_iter().flatten();
    for (name, value) in github.filter(|(name, _)| *name != "token") {
        if let Value::String(text) = value {
            env.insert(format!("GITHUB_{}", name.to_ascii_uppercase()), text.clone());
        }
    }
    env
}

/// Ends a run; what did not run is cancelled or skipped with it.
fn finish(run: &mut Run, conclusion: &'static str) {
    let now = super::now();
    for job in run.jobs.iter_mut().filter(|job| job.completed_at.is_none()) {
        job.conclusion = Some(if conclusion == "cancelled" { "cancelled" } else { "skipped" });
        job.completed_at = Some(now.clone());
    }
    run.conclusion = Some(conclusion);
    run.updated_at = now;
}

fn note(state: &mut State, repo_id: u64, id: u64, event: RunEvent) {
    let at = match &event {
        RunEvent::JobStarted { job }
        | RunEvent::JobEnded { job, .. }
        | RunEvent::StepStarted { job, .. }
        | RunEvent::StepEnded { job, .. }
        | RunEvent::Line { job, .. }
        | RunEvent::Annotation { job, .. } => *job,
    };
    let run =
        state.repo_by_id(repo_id).and_then(|repo| repo.runs.iter_mut().find(|run| run.id == id));
    let Some(run) = run else { return };
    let now = super::now();
    run.updated_at.clone_from(&now);
    let planned: Vec<String> = run
        .workflow
        .jobs
        .get(at)
        .map(|job| job.steps.iter().map(|step| step.name.clone().unwrap_or_default()).collect())
        .unwrap_or_default();
    let Some(job) = run.jobs.get_mut(at) else { return };
    match event {
        RunEvent::JobStarted { .. } => {
            job.started_at = Some(now);
            let step =
                |name| StepState { name, started_at: None, completed_at: None, conclusion: None };
            job.steps = planned.into_iter().map(step).collect();
        }
        RunEvent::JobEnded { conclusion, .. } => {
            job.conclusion = Some(conclusion.as_str());
            job.completed_at = Some(now);
        }
        RunEvent::StepStarted { step, name, .. } => {
            if let Some(step) = job.steps.get_mut(step) {
                step.name = name;
                step.started_at = Some(now);
            }
        }
        RunEvent::StepEnded { step, name, conclusion, .. } => {
            if let Some(step) = job.steps.get_mut(step) {
                step.name = name;
                step.started_at.get_or_insert_with(|| now.clone());
                step.completed_at = Some(now);
                step.conclusion = Some(conclusion.as_str());
            }
        }
        RunEvent::Line { text, .. } => {
            if job.log.len() < LOG_BYTES_MAX {
                let at = clock::now().strftime("%Y-%m-%dT%H:%M:%S.%6f0Z");
                job.log.push_str(&format!("{at} {text}\n"));
            }
        }
        RunEvent::Annotation { message, .. } => job.annotations.push(message),
    }
}
