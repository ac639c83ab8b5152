//! The simulated GitHub: its REST API over a small git store, Actions with real workflow files, and
//! the registry that those push to.

mod actions;
mod answer;
mod apps;
mod bench;
mod compare;
mod contents;
mod door;
pub mod git;
mod git_data;
mod hooks;
mod images;
mod permissions;
mod pulls;
mod pushes;
mod render;
mod runs;
mod secrets;
mod settings;
mod stage;
mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::build::Registry;
use crate::lab::Lab;
use crate::machines::Machines;
use crate::{SandboxError, clock, sample};
pub(crate) use store::LOGIN;
use store::{Repo, State};

/// How the simulated GitHub is made.
pub struct GitHubOptions {
    /// Scheme, host and port under which clients reach it, such as `http://127.0.0.1:4012`; all
    /// `url` fields begin with it.
    pub origin: String,
    /// The one token that is good.
    pub token: String,
    /// A folder for images.
    pub work_dir: PathBuf,
    /// The VMs that Kamal reaches.
    pub machines: Machines,
    /// A folder of `OWNER/NAME` folders, each served as a repo beside the sample.
    pub repos: Option<PathBuf>,
    /// Where runs are run for real, instead of being played.
    pub lab: Option<Lab>,
}

/// The simulated GitHub. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct GitHub(Arc<Inner>);

struct Inner {
    origin: String,
    logs_origin: String,
    token: String,
    machines: Machines,
    lab: Option<Lab>,
    registry: Registry,
    state: Mutex<State>,
    /// Wakes those who wait for a change of the state.
    changes: tokio::sync::watch::Sender<u64>,
    /// Webhooks that are to be sent.
    deliveries: tokio::sync::mpsc::UnboundedSender<hooks::Delivery>,
    off: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.off.cancel();
    }
}

impl GitHub {
    /// Fills the repos and starts the server of job logs (on another port, as GitHub has it on
    /// another host). Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When a folder cannot be read or the port of the logs not be had.
    pub fn new(options: GitHubOptions) -> Result<Self, SandboxError> {
        std::fs::create_dir_all(&options.work_dir)
            .map_err(|source| SandboxError::io("make the folder", &options.work_dir, source))?;
        let mut state = State::default();
        state.add_repo(sample::OWNER, sample::NAME, &sample::files());
        if let Some(dir) = &options.repos {
            for (owner, name, files) in store::folders(dir)? {
                state.add_repo(&owner, &name, &files);
            }
        }
        let off = CancellationToken::new();
        let (listener, logs_origin) = actions::logs_listener()?;
        let (deliveries, sent) = tokio::sync::mpsc::unbounded_channel();
        let hub = Self(Arc::new(Inner {
            origin: options.origin.trim_end_matches('/').to_owned(),
            logs_origin,
            token: options.token,
            registry: Registry::new(options.work_dir),
            machines: options.machines,
            lab: options.lab,
            state: Mutex::new(state),
            changes: tokio::sync::watch::channel(0).0,
            deliveries,
            off: off.clone(),
        }));
        hooks::deliver(&hub, sent, off.clone());
        actions::serve_logs(&hub, listener, off);
        Ok(hub)
    }

    /// The API, without faults in front of it.
    pub fn router(&self) -> Router {
        Router::new()
            .merge(settings::routes())
            .merge(contents::routes())
            .merge(compare::routes())
            .merge(git_data::routes())
            .merge(pulls::routes())
            .merge(actions::routes())
            .merge(secrets::routes())
            .merge(apps::routes())
            .merge(hooks::routes())
            .fallback(settings::unknown)
            .layer(from_fn_with_state(self.clone(), door::pass))
            .with_state(self.clone())
    }

    /// `PUT /_sandbox/knobs`: what a fault rule cannot say.
    pub(crate) fn knobs_router(&self) -> Router {
        settings::knob_routes(self.clone()).merge(apps::side_routes(self.clone()))
    }

    /// Adds a repo with one commit of these files on `main`; one that exists is left as it is.
    pub fn add_repo(&self, owner: &str, name: &str, files: &git::Files) {
        self.state().add_repo(owner, name, files);
    }

    /// The images that were pushed.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Cancels all runs and stops the server of job logs.
    pub fn stop(&self) {
        self.0.off.cancel();
        for run in self.state().repos.iter().flat_map(|repo| &repo.runs) {
            run.cancelled.cancel();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        crate::lock(&self.0.state)
    }

    fn changed(&self) {
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Waits until something holds of the state, or `timeout`; says whether it held.
    async fn until(&self, timeout: Duration, mut holds: impl FnMut(&State) -> bool) -> bool {
        let mut changes = self.0.changes.subscribe();
        let waiting = changes.wait_for(|_| holds(&self.state()));
        tokio::time::timeout(timeout, waiting).await.is_ok_and(|found| found.is_ok())
    }

    /// Runs something on a repo, or answers 404.
    fn with_repo<T>(
        &self,
        owner: &str,
        name: &str,
        act: impl FnOnce(&mut Repo, &render::Urls) -> Result<T, answer::Refusal>,
    ) -> Result<T, answer::Refusal> {
        let mut state = self.state();
        let repo = state.repo_mut(owner, name).ok_or_else(answer::Refusal::not_found)?;
        let urls = render::Urls::new(&self.0.origin, &repo.owner, &repo.name);
        let (id, before) = (repo.id, repo.refs.clone());
        let result = act(repo, &urls);
        let told = pushed(&before, &repo.refs);
        let orders = pushes::orders(repo, &before);
        drop(state);
        self.changed();
        for push in told {
            self.send(id, "push", |_, _| push);
        }
        self.start_pushed(orders);
        result
    }

    /// All resources, for checks by a second path.
    pub fn everything(&self) -> Value {
        let state = self.state();
        let repos = state.repos.iter().map(|repo| {
            let pulls: Vec<Value> = repo.pulls.iter().map(|pull| json!({ "number": pull.number, "head": pull.head, "state": pull.state(), "merged": pull.merged_sha.is_some() })).collect();
            let runs: Vec<Value> = repo.runs.iter().map(|run| json!({ "id": run.id, "title": run.title, "status": run.status(), "conclusion": run.conclusion, "inputs": run.inputs })).collect();
            json!({
                "id": repo.id,
                "full_name": repo.full_name(),
                "default_branch": repo.default_branch,
                "refs": repo.refs,
                "secrets": repo.secrets.keys().collect::<Vec<_>>(),
                "hooks": repo.hooks.len(),
                "variables": repo.variables.iter().map(|(name, variable)| (name.clone(), variable.value.clone())).collect::<BTreeMap<_, _>>(),
                "pulls": pulls,
                "runs": runs,
            })
        });
        json!({
            "repos": repos.collect::<Vec<_>>(), "images": self.0.registry.references(),
            "app_tokens_made": state.app_tokens_made, "deliveries_sent": state.deliveries_sent,
        })
    }
}

/// What a webhook tells of branches and tags that moved.
fn pushed(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<Value> {
    let nothing = "0".repeat(40);
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    let moved = names.filter(|name| before.get(*name) != after.get(*name));
    moved
        .map(|name| {
            let (from, to) = (before.get(name), after.get(name));
            json!({
                "ref": name, "before": from.unwrap_or(&nothing), "after": to.unwrap_or(&nothing),
                "created": from.is_none(), "deleted": to.is_none(), "forced": false, "commits": [],
                "pusher": { "name": store::LOGIN },
            })
        })
        .collect()
}

/// RFC 3339 in seconds with `Z`, as GitHub writes it.
fn written(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The time now, as GitHub writes it.
fn now() -> String {
    written(clock::now())
}
