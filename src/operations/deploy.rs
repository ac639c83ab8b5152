//! `deploy` and `rollback`: a version of the app, live and proven.

pub mod evidence;
mod prove;
pub mod pushed;
mod restore;
mod rollback;
mod service;
mod steps;

pub use prove::{containers, proxy_ports};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::environments::{app, environment, not_retired};
use super::{Ask, Context, OpError, Operation, Run, Step, env, params, queue, repo};
use crate::domain::clock::Millis;
use crate::domain::deploy::{Deploy, DeployAction, DeployState};
use crate::domain::environment::{Environment, VmState};
use crate::domain::ids::{DeployId, EnvironmentId, OperationId, VmId};
use crate::domain::names::{CommitSha, EnvironmentName, EnvironmentPath};
use crate::domain::size::Arch;
use crate::pipeline::Names;
use crate::store::{AppRow, Lock, LockMode, NewOperation, OperationRow};

pub(super) const KIND: &str = "deploy";
pub(super) const VERSION: u32 = 2;

const STEPS: [Step; 7] = [
    Step { name: "point", says: "pointing the domain at the VM" },
    COMMIT_CONFIG,
    GRANT_ACCESS,
    WRITE_ENV,
    DISPATCH,
    WATCH,
    PROVE,
];

/// As version 1 had them: nobody looked at the domain.
const STEPS_1: [Step; 6] = [COMMIT_CONFIG, GRANT_ACCESS, WRITE_ENV, DISPATCH, WATCH, PROVE];

const COMMIT_CONFIG: Step =
    Step { name: "commit_config", says: "comparing the Kamal config in the repo" };
const GRANT_ACCESS: Step =
    Step { name: "grant_access", says: "giving GitHub Actions the deploy key and the host key" };
const WRITE_ENV: Step = Step { name: "write_env", says: "writing the env file on the VM" };
const DISPATCH: Step = Step { name: "dispatch", says: "starting the workflow run" };
const WATCH: Step = Step { name: "watch", says: "waiting for the workflow run" };
const PROVE: Step = Step { name: "prove", says: "proving that the version is live" };

/// The check of the domain, by the name with which a caller says to go on without it.
const LEADS_ELSEWHERE: &str = "leads_elsewhere";

/// Which version to deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// A branch, tag or commit, built; the default branch where none is named.
    Ref(Option<String>),
    /// The commit that is live, without a build, with the newest env values.
    Current,
    /// What is live in another environment of the app: its image without a build, with this
    /// environment's own newest env values.
    From(EnvironmentPath),
    /// An earlier release, without a build.
    Release {
        /// Which; the last good one where none is named.
        to: Option<DeployId>,
        /// With which env values.
        env: ReleaseEnv,
    },
}

/// The env values that a rollback takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleaseEnv {
    /// Those of the release.
    AsOfThen,
    /// The newest ones.
    Newest,
}

/// What to deploy where.
#[derive(Debug, Clone)]
pub struct DeployRequest {
    /// Where.
    pub environment: EnvironmentPath,
    /// What.
    pub version: Version,
    /// The commit that the caller believes the ref to be at, in full or its first digits.
    pub expect_sha: Option<String>,
    /// Codes of blocking rows of the checklist that the caller accepts.
    pub ignore_checks: Vec<String>,
}

/// What the steps need, as the journal keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Params {
    path: EnvironmentPath,
    vm: VmId,
    deploy: DeployId,
    action: DeployAction,
    commit: CommitSha,
    env_revision: u32,
    rollback: bool,
    /// The revision that is live when the deploy begins, to which a failed one goes back.
    env_before: Option<u32>,
    /// The commit that is live then.
    #[serde(default)]
    commit_before: Option<CommitSha>,
    /// A run that a push has started already: it is followed, and nothing is prepared for it.
    #[serde(default)]
    run: Option<u64>,
    /// The environment whose image it takes.
    #[serde(default)]
    from: Option<EnvironmentName>,
    /// The first line of the commit's message, as data.
    #[serde(default)]
    subject: String,
    /// When it was committed, where GitHub was asked.
    #[serde(default)]
    committed_at: Option<Millis>,
    /// Whether the domain may lead elsewhere.
    #[serde(default)]
    careless: bool,
    /// Why nobody could tell whether the image of a release is still there.
    #[serde(default)]
    unseen: Option<String>,
}

/// What was found out about a request before it became an operation.
struct Resolved {
    action: DeployAction,
    commit: CommitSha,
    subject: String,
    env_revision: u32,
    rollback_of: Option<DeployId>,
    from: Option<EnvironmentName>,
    committed_at: Option<Millis>,
    unseen: Option<String>,
}

/// Starts a deploy, or finds the one of the same version and env values that runs already.
///
/// # Errors
/// The environment has no VM, the repo is not set up, the ref does not exist or is not at the
/// expected commit, or another operation holds the environment.
pub async fn start(
    context: &Context,
    request: DeployRequest,
    ask: Ask,
) -> Result<OperationId, OpError> {
    let environment = environment(&context.store, &request.environment).await?;
    let row = app(&context.store, &environment.path.app).await?;
    let vm = ready_vm(context, &environment).await?;
    let resolved = resolve(context, &request, &row, &environment).await?;
    let live = context.store.releases(environment.id, 1).await?;
    let (id, operation) = (DeployId::generate(), OperationId::generate());
    let now = context.clock.now();
    let deploy = Deploy {
        id,
        environment: environment.id,
        operation,
        action: resolved.action,
        commit: resolved.commit.clone(),
        subject: resolved.subject.clone(),
        env_revision: resolved.env_revision,
        rollback_of: resolved.rollback_of,
        state: DeployState::Running,
        run_id: None,
        run_url: None,
        failure: None,
        created_at: now,
        ended_at: None,
    };
    let params = Params {
        path: environment.path.clone(),
        vm,
        deploy: id,
        action: resolved.action,
        commit: resolved.commit,
        env_revision: resolved.env_revision,
        rollback: resolved.rollback_of.is_some(),
        env_before: live.first().map(|live| live.env_revision),
        commit_before: live.first().map(|live| live.commit.clone()),
        run: None,
        from: resolved.from,
        subject: resolved.subject,
        committed_at: resolved.committed_at,
        unseen: resolved.unseen,
        careless: request.ignore_checks.iter().any(|check| check == LEADS_ELSEWHERE),
    };
    let arguments = json!({
        "environment": environment.path, "action": params.action, "commit": params.commit,
        "env_revision": params.env_revision, "from": params.from
    });
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
        idempotency: ask.identity(KIND, &arguments),
        caller: ask.caller,
        reason: ask.reason,
        plan: None,
        deploy: Some(deploy),
        created_at: now,
    };
    match queue(context, new, &format!("environment `{}`", environment.path)).await {
        Err(OpError::Busy { what, operation }) => {
            if same_deploy(context, operation, &params).await? {
                return Ok(operation);
            }
            Err(OpError::Busy { what, operation })
        }
        queued => queued,
    }
}

/// What a deploy would deploy.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The commit.
    pub commit: CommitSha,
    /// The first line of its message, as data.
    pub subject: String,
    /// Build, or only deploy.
    pub action: DeployAction,
    /// The environment whose image it would take.
    pub from: Option<EnvironmentName>,
    /// The revision of the env values that it would take.
    pub env_revision: u32,
    /// The keys whose values would change, from what is live.
    pub env_keys: Vec<String>,
    /// Why nobody could tell whether the image of a release is still there.
    pub unseen: Option<String>,
}

/// Finds out what a deploy would deploy. Changes nothing.
///
/// # Errors
/// Whatever would stop [`start`] before it starts.
pub async fn preview(context: &Context, request: &DeployRequest) -> Result<Preview, OpError> {
    let environment = environment(&context.store, &request.environment).await?;
    let row = app(&context.store, &environment.path.app).await?;
    ready_vm(context, &environment).await?;
    let resolved = resolve(context, request, &row, &environment).await?;
    let Resolved { action, commit, subject, env_revision, from, unseen, .. } = resolved;
    let live = context.store.releases(environment.id, 1).await?;
    let before = live.first().map_or(0, |live| live.env_revision);
    let env_keys = env_keys(context, environment.id, before, env_revision).await?;
    Ok(Preview { commit, subject, action, from, env_revision, env_keys, unseen })
}

/// The keys whose values differ between two revisions: `GREETING changed`.
async fn env_keys(
    context: &Context,
    environment: EnvironmentId,
    from: u32,
    to: u32,
) -> Result<Vec<String>, OpError> {
    let keys = env::difference(&context.store, environment, from, to).await?;
    Ok(keys.into_iter().map(|(key, differs)| format!("{key} {}", differs.as_str())).collect())
}

async fn resolve(
    context: &Context,
    request: &DeployRequest,
    row: &AppRow,
    environment: &Environment,
) -> Result<Resolved, OpError> {
    let resolved = match &request.version {
        Version::Ref(git_ref) => {
            let mut ignored = request.ignore_checks.clone();
            // Whoever chose a volume, or that the disk may be lost, has settled that row.
            if environment.run.ephemeral || !environment.run.volumes.is_empty() {
                ignored.push("state_on_disk".to_owned());
            }
            build(context, row, environment, git_ref.as_deref(), &ignored).await?
        }
        Version::Current => current(context, environment).await?,
        Version::From(from) => image_of(context, environment, from).await?,
        Version::Release { to, env } => {
            rollback::release(context, row, environment, *to, *env).await?
        }
    };
    expect(request, &resolved)?;
    if resolved.committed_at.is_some() {
        return Ok(resolved);
    }
    // Only to tell its age: without GitHub's answer it is deployed all the same.
    let committed_at = match context.accounts.github().await {
        Ok(github) => {
            let found = github.resolve(&row.app.repo, resolved.commit.as_str()).await;
            found.ok().and_then(|commit| commit.date)
        }
        Err(_) => None,
    };
    Ok(Resolved { committed_at, ..resolved })
}

/// The commit that a request to build something is for, and the first line of its message, where
/// nothing stands in the way of its build.
pub(super) async fn buildable(
    context: &Context,
    request: &DeployRequest,
    row: &AppRow,
    environment: &Environment,
) -> Result<(CommitSha, String), OpError> {
    let git_ref = match &request.version {
        Version::Ref(git_ref) => git_ref.as_deref(),
        Version::Current | Version::From(_) | Version::Release { .. } => None,
    };
    // What is needed beside the app, and what is lost of its disk, concerns what runs.
    let mut ignored = request.ignore_checks.clone();
    ignored.push("state_on_disk".to_owned());
    let resolved = build(context, row, environment, git_ref, &ignored).await?;
    expect(request, &resolved)?;
    Ok((resolved.commit, resolved.subject))
}

/// A deploy's identity is its commit, its env revision and its action: a repeat while it runs is
/// the same deploy.
async fn same_deploy(
    context: &Context,
    operation: OperationId,
    wanted: &Params,
) -> Result<bool, OpError> {
    let Some(row) = context.store.operation(operation).await? else { return Ok(false) };
    let Ok(running) = params::<Params>(&row) else { return Ok(false) };
    Ok(row.kind == KIND
        && running.path == wanted.path
        && running.commit == wanted.commit
        && running.env_revision == wanted.env_revision
        && running.action == wanted.action
        && running.from == wanted.from)
}

async fn ready_vm(context: &Context, environment: &Environment) -> Result<VmId, OpError> {
    not_retired(&context.store, environment).await?;
    let no_vm = || OpError::NoVm { environment: environment.path.to_string() };
    let vm = environment.vm.ok_or_else(no_vm)?;
    let row = context.store.vm(vm).await?.ok_or_else(no_vm)?;
    match row.vm.state {
        VmState::Ready => Ok(vm),
        VmState::Ordered
        | VmState::Parked
        | VmState::Kept
        | VmState::Deleting
        | VmState::Deleted => Err(no_vm()),
    }
}

async fn build(
    context: &Context,
    row: &AppRow,
    environment: &Environment,
    git_ref: Option<&str>,
    ignored: &[String],
) -> Result<Resolved, OpError> {
    let github = context.accounts.github().await?;
    let mut reasons = repo::blocking_but(&repo::kept_scan(row)?, ignored);
    if !reasons.is_empty() {
        reasons = blocking_now(context, &github, row, git_ref, ignored).await?;
    }
    if !reasons.is_empty() {
        let app = row.app.slug.to_string();
        return Err(OpError::Blocked { app, reasons: reasons.join("; ") });
    }
    let scan = repo::kept_scan(row)?;
    let missing = super::services::needed::missing(context, environment, &scan, ignored).await?;
    if !missing.is_empty() {
        let app = row.app.slug.to_string();
        return Err(OpError::Blocked { app, reasons: missing.join("; ") });
    }
    let (name, branch) = (&row.app.repo, &row.app.default_branch);
    let workflow = Names::of(&row.app).workflow_path();
    if github.read_file(name, &workflow, branch).await?.is_none() {
        let missing = format!("`{workflow}`");
        return Err(OpError::NotSetUp { repo: name.to_string(), missing });
    }
    let commit = repo::resolve(&github, name, git_ref.unwrap_or(branch)).await?;
    Ok(Resolved {
        action: DeployAction::Deploy,
        commit: commit.sha,
        subject: commit.subject,
        env_revision: environment.env_revision,
        rollback_of: None,
        from: None,
        committed_at: commit.date,
        unseen: None,
    })
}

/// What stands in the way as the repo is now: somebody may have mended it since it was scanned.
async fn blocking_now(
    context: &Context,
    github: &repo::GitHub,
    row: &AppRow,
    git_ref: Option<&str>,
    ignored: &[String],
) -> Result<Vec<String>, OpError> {
    let scan = repo::scan(github, &row.app.repo, git_ref, &row.app.root).await?.scan;
    let reasons = repo::blocking_but(&scan, ignored);
    if reasons.is_empty() && git_ref.is_none() {
        context.store.put_app(AppRow { scan: json!(scan), ..row.clone() }).await?;
    }
    Ok(reasons)
}

async fn current(context: &Context, environment: &Environment) -> Result<Resolved, OpError> {
    let live = context.store.releases(environment.id, 1).await?.into_iter().next();
    let live =
        live.ok_or_else(|| OpError::NoRelease { environment: environment.path.to_string() })?;
    Ok(Resolved {
        action: DeployAction::Redeploy,
        commit: live.commit,
        subject: live.subject,
        env_revision: environment.env_revision,
        rollback_of: None,
        from: None,
        committed_at: None,
        unseen: None,
    })
}

/// The image that is live in another environment. An image names its environment (Kamal insists),
/// so the workflow gives the same layers another name; that is right only where both environments
/// would build the same: one app, one architecture, the same variables of the build.
async fn image_of(
    context: &Context,
    environment: &Environment,
    from: &EnvironmentPath,
) -> Result<Resolved, OpError> {
    let to = &environment.path;
    let refused =
        |why: String| OpError::OtherImage { from: from.to_string(), to: to.to_string(), why };
    if from.app != to.app {
        return Err(refused("they are two apps".to_owned()));
    }
    if from == to {
        let why = "that is the same environment; its own image is deployed with ref `current`";
        return Err(refused(why.to_owned()));
    }
    let source = self::environment(&context.store, from).await?;
    let arch = async |one: &Environment| -> Result<Option<Arch>, OpError> {
        match one.vm {
            Some(id) => Ok(context.store.vm(id).await?.map(|row| row.vm.arch)),
            None => Ok(None),
        }
    };
    if let (Some(there), Some(here)) = (arch(&source).await?, arch(environment).await?)
        && there != here
    {
        let why =
            format!("its image is for {}, and the VM here is {}", there.as_str(), here.as_str());
        return Err(refused(why));
    }
    if source.run.build_variables != environment.run.build_variables {
        return Err(refused("variables of the build differ between them".to_owned()));
    }
    let live = context.store.releases(source.id, 1).await?.into_iter().next();
    let live = live.ok_or_else(|| OpError::NoRelease { environment: from.to_string() })?;
    Ok(Resolved {
        action: DeployAction::Redeploy,
        commit: live.commit,
        subject: live.subject,
        env_revision: environment.env_revision,
        rollback_of: None,
        from: Some(from.name.clone()),
        committed_at: None,
        unseen: None,
    })
}

fn expect(request: &DeployRequest, resolved: &Resolved) -> Result<(), OpError> {
    let Some(expected) = &request.expect_sha else { return Ok(()) };
    let fits = expected.len() >= 7 && resolved.commit.as_str().starts_with(expected.as_str());
    if fits {
        return Ok(());
    }
    let given = match &request.version {
        Version::Ref(Some(git_ref)) => git_ref.clone(),
        Version::Ref(None) => "the default branch".to_owned(),
        Version::From(from) => format!("what is live in {from}"),
        Version::Current | Version::Release { .. } => "the release".to_owned(),
    };
    Err(OpError::OtherCommit {
        given,
        found: resolved.commit.to_string(),
        expected: expected.clone(),
    })
}

/// Proves that a release serves, as after a deploy of it: every role runs it, steadily, and the
/// app answers. What it returns is what the deploy's proof returns.
pub(super) async fn prove_release(
    context: &Context,
    path: &EnvironmentPath,
    vm: VmId,
    live: &Deploy,
    run: &Run<'_>,
) -> Result<serde_json::Value, OpError> {
    let params = Params {
        path: path.clone(),
        vm,
        deploy: live.id,
        action: live.action,
        commit: live.commit.clone(),
        env_revision: live.env_revision,
        rollback: false,
        env_before: None,
        commit_before: None,
        run: None,
        from: None,
        subject: String::new(),
        committed_at: None,
        careless: false,
        unseen: None,
    };
    prove::prove(context, &params, run).await
}

pub(super) fn load(row: &OperationRow, context: &Context) -> Result<Box<dyn Operation>, String> {
    let (version, operation) = (row.version, row.id);
    let params = params(row)?;
    Ok(Box::new(steps::DeployApp { version, operation, params, context: context.clone() }))
}
