//! Deploys that a push started: GitHub runs them by itself, and we follow, prove and record them as
//! if they were ours. Polled; a webhook may ask for the same look at once.

use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{KIND, Params, STEPS, VERSION};
use crate::domain::deploy::{Deploy, DeployAction, DeployState};
use crate::domain::environment::{Environment, VmState};
use crate::domain::ids::{DeployId, OperationId};
use crate::domain::names::CommitSha;
use crate::github::RunFacts;
use crate::operations::environments::app;
use crate::operations::{Context, OpError, queue, repo};
use crate::pipeline::Names;
use crate::store::{Lock, LockMode, NewOperation};

/// How often GitHub is asked, where an environment takes pushes.
const PAUSE: Duration = Duration::from_secs(60);
/// Who asked for such a deploy, in records.
pub const CALLER: &str = "push";
/// How its run's id begins, in the place of ours.
const MARK: &str = "push-";

/// Looks now and then until `stop`.
pub async fn watch(context: &Context, stop: &CancellationToken) {
    loop {
        if let Err(error) = look(context).await {
            tracing::debug!(code = error.code(), %error, "pushes are looked for another time");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Takes up the newest run that a push started, of each environment that takes pushes. Asks nobody
/// where none does.
///
/// # Errors
/// The state file, or GitHub.
pub async fn look(context: &Context) -> Result<Vec<OperationId>, OpError> {
    let mut taken = Vec::new();
    for environment in context.store.environments().await? {
        if environment.run.push_to_deploy.is_none() || environment.vm.is_none() {
            continue;
        }
        taken.extend(look_at(context, &environment).await?);
    }
    Ok(taken)
}

/// The same for one environment.
///
/// # Errors
/// The state file, or GitHub.
pub async fn look_at(
    context: &Context,
    environment: &Environment,
) -> Result<Option<OperationId>, OpError> {
    let row = app(&context.store, &environment.path.app).await?;
    let github = context.accounts.github().await?;
    let start = format!("VMKit deploy {} {MARK}", environment.path.name);
    let runs =
        github.runs_named(&row.app.repo, &Names::of(&row.app).workflow_file(), &start).await?;
    let Some((run, commit)) = runs
        .into_iter()
        .find_map(|run| Some((commit_of(&run)?, run)))
        .map(|(commit, run)| (run, commit))
    else {
        return Ok(None);
    };
    let deploys = context.store.deploys(environment.id, 50).await?;
    let newest = deploys.iter().filter_map(|deploy| deploy.run_id).max();
    if newest.is_some_and(|newest| newest >= run.id) {
        return Ok(None);
    }
    let subject = repo::resolve(&github, &row.app.repo, commit.as_str()).await?.subject;
    take_up(context, environment, &run, commit, subject).await
}

/// The commit that such a run deploys, which stands in its name.
fn commit_of(run: &RunFacts) -> Option<CommitSha> {
    run.title.split_whitespace().last()?.strip_prefix(MARK)?.parse().ok()
}

async fn take_up(
    context: &Context,
    environment: &Environment,
    run: &RunFacts,
    commit: CommitSha,
    subject: String,
) -> Result<Option<OperationId>, OpError> {
    let Some(vm) = environment.vm else { return Ok(None) };
    let ready = context.store.vm(vm).await?.is_some_and(|row| row.vm.state == VmState::Ready);
    if !ready {
        return Ok(None);
    }
    let live = context.store.releases(environment.id, 1).await?;
    // Its containers read the env file that is on the VM.
    let env_revision = live.first().map_or(environment.env_revision, |live| live.env_revision);
    let (id, operation, now) = (DeployId::generate(), OperationId::generate(), context.clock.now());
    let params = Params {
        path: environment.path.clone(),
        vm,
        deploy: id,
        action: DeployAction::Deploy,
        commit: commit.clone(),
        env_revision,
        rollback: false,
        env_before: live.first().map(|live| live.env_revision),
        commit_before: live.first().map(|live| live.commit.clone()),
        run: Some(run.id),
        from: None,
        subject: String::new(),
        committed_at: None,
        careless: true,
        unseen: None,
    };
    let deploy = Deploy {
        id,
        environment: environment.id,
        operation,
        action: DeployAction::Deploy,
        commit,
        subject,
        env_revision,
        rollback_of: None,
        state: DeployState::Running,
        run_id: Some(run.id),
        run_url: Some(run.html_url.clone()),
        failure: None,
        created_at: now,
        ended_at: None,
    };
    let new = NewOperation {
        id: operation,
        kind: KIND,
        version: VERSION,
        params: json!(params),
        environment: Some(environment.id),
        vm: Some(vm),
        locks: vec![
            Lock { resource: format!("env:{}", environment.id), mode: LockMode::Exclusive },
            Lock { resource: format!("vm:{vm}"), mode: LockMode::Shared },
        ],
        steps: STEPS.len() as u32,
        idempotency: None,
        caller: CALLER.to_owned(),
        reason: None,
        plan: None,
        deploy: Some(deploy),
        created_at: now,
    };
    match queue(context, new, &format!("environment `{}`", environment.path)).await {
        // Something else is at it: the next look finds the run again.
        Err(OpError::Busy { .. }) => Ok(None),
        queued => queued.map(Some),
    }
}
