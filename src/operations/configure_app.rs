//! `configure_app`: how an environment's app is built and run. The settings are kept first; the files
//! in the repo follow in the way that the app's changes take.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::changes::{CONFIG_BRANCH, Way, shown};
use super::environments::{app, environment, not_retired};
use super::{Ask, Context, OpError, Operation, Run, Step, StepEnd, params, queue, repo};
use crate::domain::environment::Environment;
use crate::domain::ids::OperationId;
use crate::domain::names::{
    BranchName, CommandLine, EnvironmentPath, MountPath, ProcessName, VolumeName,
};
use crate::domain::operation::OperationState;
use crate::domain::run_settings::{ProxyKind, Release, RunSettings};
use crate::pipeline::{Names, WEB};
use crate::store::{AppRow, Changes, Failure, Lock, LockMode, NewOperation, OperationRow};

pub(super) const KIND: &str = "configure_app";
pub(super) const VERSION: u32 = 1;

const STEPS: [Step; 2] = [
    Step { name: "keep_settings", says: "keeping the settings" },
    Step { name: "commit_config", says: "comparing the files in the repo" },
];

/// What somebody wants changed; what is none or empty stays as it is.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The port that the app listens on.
    pub port: Option<u16>,
    /// The path that answers 2xx when the app is ready.
    pub health_path: Option<String>,
    /// Lines that start processes.
    pub commands: BTreeMap<ProcessName, CommandLine>,
    /// Memory limits of processes, in MiB.
    pub memory_mb: BTreeMap<ProcessName, u32>,
    /// Processes to turn off (`true`) or on again.
    pub off: BTreeMap<ProcessName, bool>,
    /// Volumes and where they lie.
    pub volumes: BTreeMap<VolumeName, MountPath>,
    /// Whether what the app keeps on disk may be lost.
    pub ephemeral: Option<bool>,
    /// Seconds.
    pub response_timeout_s: Option<u32>,
    /// Seconds.
    pub start_timeout_s: Option<u32>,
    /// Seconds.
    pub drain_timeout_s: Option<u32>,
    /// Whether answers are held back until they are complete.
    pub buffering: Option<bool>,
    /// What runs before a new version starts.
    pub release: Option<Release>,
    /// What stands before the app.
    pub proxy: Option<ProxyKind>,
    /// The branch whose pushes deploy.
    pub push_to_deploy: Option<BranchName>,
    /// What goes back to what the scan says.
    pub reset: Vec<Reset>,
    /// The app's folder in the repo: of all its environments.
    pub root: Option<String>,
}

/// A setting that goes back to what the scan says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reset {
    /// A process's command and memory limit, and that it is off.
    Process(ProcessName),
    /// A volume: what is in it stays on the VM.
    Volume(VolumeName),
    /// The response time-out.
    ResponseTimeout,
    /// The start time-out.
    StartTimeout,
    /// The drain time-out.
    DrainTimeout,
    /// Buffering.
    Buffering,
    /// The release command.
    Release,
    /// Push-to-deploy: pushes start nothing any more.
    PushToDeploy,
}

impl Wanted {
    fn over(&self, run: &RunSettings) -> RunSettings {
        let mut run = run.clone();
        for reset in &self.reset {
            match reset {
                Reset::Process(name) => drop(run.processes.remove(name)),
                Reset::Volume(name) => drop(run.volumes.remove(name)),
                Reset::ResponseTimeout => run.response_timeout_s = None,
                Reset::StartTimeout => run.start_timeout_s = None,
                Reset::DrainTimeout => run.drain_timeout_s = None,
                Reset::Buffering => run.buffering = None,
                Reset::Release => run.release = None,
                Reset::PushToDeploy => run.push_to_deploy = None,
            }
        }
        for (name, command) in &self.commands {
            run.processes.entry(name.clone()).or_default().command = Some(command.clone());
        }
        for (name, memory) in &self.memory_mb {
            run.processes.entry(name.clone()).or_default().memory_mb = Some(*memory);
        }
        for (name, off) in &self.off {
            run.processes.entry(name.clone()).or_default().off = *off;
        }
        run.volumes.extend(self.volumes.clone());
        run.ephemeral = self.ephemeral.unwrap_or(run.ephemeral);
        run.response_timeout_s = self.response_timeout_s.or(run.response_timeout_s);
        run.start_timeout_s = self.start_timeout_s.or(run.start_timeout_s);
        run.drain_timeout_s = self.drain_timeout_s.or(run.drain_timeout_s);
        run.buffering = self.buffering.or(run.buffering);
        run.release = self.release.clone().or(run.release);
        run.proxy = self.proxy.unwrap_or(run.proxy);
        run.push_to_deploy = self.push_to_deploy.clone().or(run.push_to_deploy);
        run
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Params {
    path: EnvironmentPath,
    before: Environment,
    after: Environment,
    /// The folder before and after, where it moves, and what is in the new one.
    moved: Option<Moved>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Moved {
    from: String,
    from_scan: Value,
    to: String,
    to_scan: Value,
}

/// What a change would be.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The settings that would change: `port 8080 -> 3000`.
    pub settings: Vec<String>,
    /// The files that would change in the repo.
    pub files: Vec<FileDiff>,
}

/// How a file would change.
#[derive(Debug, Clone)]
pub struct FileDiff {
    /// Its path.
    pub path: String,
    /// The lines, as data.
    pub diff: String,
    /// A person edited it in the same place: the lines have to be put in by hand.
    pub by_hand: bool,
}

async fn intend(
    context: &Context,
    path: &EnvironmentPath,
    wanted: &Wanted,
) -> Result<(AppRow, Params), OpError> {
    let before = environment(&context.store, path).await?;
    not_retired(&context.store, &before).await?;
    let mut row = app(&context.store, &path.app).await?;
    let mut after = before.clone();
    after.run = wanted.over(&before.run);
    after.settings.port = wanted.port.unwrap_or(before.settings.port);
    if let Some(health_path) = &wanted.health_path {
        after.settings.health_path.clone_from(health_path);
    }
    let mut moved = None;
    if let Some(root) = wanted.root.as_ref().filter(|root| **root != row.app.root) {
        let github = context.accounts.github().await?;
        let found = repo::scan(&github, &row.app.repo, None, root).await?;
        let (from, from_scan) = (row.app.root.clone(), row.scan.clone());
        let to_scan = json!(found.scan);
        (row.app.root, row.scan) = (root.clone(), to_scan.clone());
        moved = Some(Moved { from, from_scan, to: root.clone(), to_scan });
    }
    // A value that no file may hold is refused before anything is kept.
    repo::wanted_files_with(context, &row, Some(&after)).await?;
    proxies_agree(context, &before, &after).await?;
    Ok((row, Params { path: path.clone(), before, after, moved }))
}

/// All apps of a VM share what stands before them, and what runs there already keeps its ports.
async fn proxies_agree(
    context: &Context,
    before: &Environment,
    after: &Environment,
) -> Result<(), OpError> {
    let (Some(vm), true) = (before.vm, before.run.proxy != after.run.proxy) else { return Ok(()) };
    for other in context.store.environments().await?.into_iter().filter(|one| one.vm == Some(vm)) {
        let beside = other.id != before.id && other.run.proxy != after.run.proxy;
        if beside || !context.store.releases(other.id, 1).await?.is_empty() {
            return Err(OpError::ProxyInUse {
                proxy: after.run.proxy.as_str(),
                environment: other.path.to_string(),
                has: other.run.proxy.as_str(),
            });
        }
    }
    Ok(())
}

/// Finds out what [`start`] would change. Changes nothing.
///
/// # Errors
/// As [`start`].
pub async fn preview(
    context: &Context,
    path: &EnvironmentPath,
    wanted: &Wanted,
) -> Result<Preview, OpError> {
    let (row, params) = intend(context, path, wanted).await?;
    let github = context.accounts.github().await?;
    let (_, files) = repo::wanted_files_with(context, &row, Some(&params.after)).await?;
    let head = repo::resolve(&github, &row.app.repo, &row.app.default_branch).await?;
    let found = repo::difference(&context.store, &github, &row, &files, head.sha.as_str()).await?;
    Ok(Preview { settings: told(&params), files: shown(&found) })
}

/// Changes the settings of an environment, and with them the files in the repo.
///
/// # Errors
/// The environment does not exist, a value fits into no file, or the VM's proxy is another one.
pub async fn start(
    context: &Context,
    path: &EnvironmentPath,
    wanted: &Wanted,
    ask: Ask,
) -> Result<OperationId, OpError> {
    let (row, params) = intend(context, path, wanted).await?;
    let environment = params.before.id;
    let exclusive = |resource| Lock { resource, mode: LockMode::Exclusive };
    let arguments = json!({
        "environment": path, "run": params.after.run, "settings": params.after.settings,
        "root": row.app.root
    });
    let new = NewOperation {
        id: OperationId::generate(),
        kind: KIND,
        version: VERSION,
        environment: Some(environment),
        vm: None,
        params: json!(params),
        locks: vec![
            exclusive(format!("env:{environment}")),
            exclusive(format!("repo:{}", row.app.repo_id)),
        ],
        steps: STEPS.len() as u32,
        idempotency: ask.identity(KIND, &arguments),
        caller: ask.caller,
        reason: ask.reason,
        plan: None,
        deploy: None,
        created_at: context.clock.now(),
    };
    queue(context, new, &format!("environment `{path}`")).await
}

/// The settings that change, a line each.
fn told(params: &Params) -> Vec<String> {
    let (before, after) = (&params.before, &params.after);
    let mut lines = Vec::new();
    let mut line = |what: &str, old: Value, new: Value| {
        if old != new {
            let word = |value: &Value| match value {
                Value::Null => "as scanned".to_owned(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            lines.push(format!("{what}: {} -> {}", word(&old), word(&new)));
        }
    };
    line("port", json!(before.settings.port), json!(after.settings.port));
    line("health path", json!(before.settings.health_path), json!(after.settings.health_path));
    if let Some(moved) = &params.moved {
        line("root", json!(moved.from), json!(moved.to));
    }
    let (old, new) = (json!(before.run), json!(after.run));
    for key in new.as_object().into_iter().flat_map(|fields| fields.keys()) {
        line(&key.replace('_', " "), old[key].clone(), new[key].clone());
    }
    lines
}

struct ConfigureApp {
    params: Params,
    context: Context,
}

pub(super) fn load(row: &OperationRow, context: &Context) -> Result<Box<dyn Operation>, String> {
    Ok(Box::new(ConfigureApp { params: params(row)?, context: context.clone() }))
}

impl ConfigureApp {
    /// Keeps `to` where `from` is kept; that it is kept already is fine.
    async fn keep(&self, from: &Environment, to: &Environment) -> Result<(), OpError> {
        let store = &self.context.store;
        if store.set_environment_run(from.clone(), to.clone()).await? {
            return Ok(());
        }
        let now = environment(store, &self.params.path).await?;
        let same = |one: &Environment, other: &Environment| {
            one.run == other.run
                && one.settings.port == other.settings.port
                && one.settings.health_path == other.settings.health_path
        };
        if same(&now, to) {
            return Ok(());
        }
        Err(OpError::Nothing {
            what: format!(
                "the settings of `{}` were changed meanwhile; try again",
                self.params.path
            ),
        })
    }

    async fn move_to(&self, root: &str, scan: &Value) -> Result<(), OpError> {
        let row = app(&self.context.store, &self.params.path.app).await?;
        let (id, to) = (row.app.id, root.to_owned());
        if self.context.store.move_app(id, to, scan.clone()).await? {
            return Ok(());
        }
        let what = format!("`{root}` is the folder of another app of `{}`", row.app.repo);
        Err(OpError::Nothing { what })
    }

    async fn commit_config(&self, run: &Run<'_>) -> Result<StepEnd, OpError> {
        let context = &self.context;
        let row = app(&context.store, &self.params.path.app).await?;
        let github = context.accounts.github().await?;
        let (name, branch) = (&row.app.repo, &row.app.default_branch);
        let workflow = Names::of(&row.app).workflow_path();
        if github.read_file(name, &workflow, branch).await?.is_none() {
            let notes = vec![format!(
                "the repo is not set up yet: call `setup_repo` again, and its pull request has these settings too"
            )];
            return Ok(StepEnd::Done(
                json!({ "files": [], "edited": [], "merged": [], "notes": notes }),
            ));
        }
        let (setup, files) = repo::wanted_files(context, &row).await?;
        let way = Way::of(context, &github, &row);
        let title = format!("Configure {}", self.params.path.name);
        let committed = way.commit((&setup, &files), &title, run).await?;
        let changed: String = told(&self.params).iter().map(|line| format!("- {line}\n")).collect();
        let body = format!(
            "The settings of `{}` changed:\n\n{changed}\nMerging this deploys nothing: the next \
             deploy takes it.\n",
            self.params.path
        );
        let mut end = way.end(committed, &title, &body, ", then deploy").await?;
        let (StepEnd::Done(result) | StepEnd::NeedsMerge { result, .. }) = &mut end;
        result["environment"] = json!(self.params.path);
        result["settings"] = json!(told(&self.params));
        Ok(end)
    }
}

impl Operation for ConfigureApp {
    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    fn run<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<StepEnd, OpError>> {
        async move {
            match step {
                "keep_settings" => {
                    self.keep(&self.params.before, &self.params.after).await?;
                    if let Some(moved) = &self.params.moved {
                        self.move_to(&moved.to, &moved.to_scan).await?;
                    }
                    Ok(StepEnd::Done(Value::Null))
                }
                _ => self.commit_config(run).await,
            }
        }
        .boxed()
    }

    fn undo<'a>(
        &'a self,
        step: &'static str,
        _run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<(), OpError>> {
        async move {
            if step == "keep_settings" {
                if let Some(moved) = &self.params.moved {
                    self.move_to(&moved.from, &moved.from_scan).await?;
                }
                return self.keep(&self.params.after, &self.params.before).await;
            }
            let row = app(&self.context.store, &self.params.path.app).await?;
            if row.changes == Changes::Direct {
                // The next deploy writes the files anew, by the settings that are kept.
                return Ok(());
            }
            let github = self.context.accounts.github().await?;
            Way::of(&self.context, &github, &row).undo().await
        }
        .boxed()
    }

    fn ended<'a>(
        &'a self,
        state: OperationState,
        _failure: Option<&'a Failure>,
        outputs: &'a BTreeMap<String, Value>,
    ) -> BoxFuture<'a, Result<Option<Value>, OpError>> {
        async move {
            let mut result = outputs.get("commit_config").cloned();
            if let (OperationState::Succeeded, Some(result)) = (state, &mut result) {
                let path = &self.params.path;
                result["next"] =
                    json!(format!("call `deploy` with environment `{path}` and ref `current`"));
            }
            Ok(result)
        }
        .boxed()
    }

    fn by_hand(&self, step: &'static str) -> String {
        let path = &self.params.path;
        match step {
            "keep_settings" => format!(
                "call `configure_app` with environment `{path}` and the settings that it is to have"
            ),
            _ => format!("delete branch `{CONFIG_BRANCH}` in the repo of `{}`", path.app),
        }
    }

    fn resumes_when_old(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

/// The process that answers requests.
pub fn web() -> Option<ProcessName> {
    WEB.parse().ok()
}
