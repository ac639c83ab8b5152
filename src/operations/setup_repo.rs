//! `setup_repo`: the pull request that brings the workflow and the Kamal config.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::changes::Way;
use super::repo::{Scanned, setup_files};
use super::{Ask, Context, OpError, Operation, Run, Step, StepEnd, params, queue};
use crate::domain::environment::App;
use crate::domain::ids::{AppId, OperationId};
use crate::domain::names::{AppSlug, EnvironmentName, EnvironmentPath, RepoName};
use crate::domain::operation::OperationState;
use crate::domain::run_settings::RunSettings;
use crate::domain::size::Arch;
use crate::github::GitHub;
use crate::pipeline::{EnvironmentSetup, pull_text};
pub use crate::store::Changes;
use crate::store::{AppRow, Failure, Lock, LockMode, NewOperation, OperationRow};

pub(super) const KIND: &str = "setup_repo";
pub(super) const VERSION: u32 = 1;
/// The branch of the onboarding pull request.
const BRANCH: &str = "vmkit/setup";

const STEPS: [Step; 2] = [
    Step { name: "commit_files", says: "committing the workflow and the Kamal config to a branch" },
    Step { name: "open_pull", says: "opening the pull request" },
];

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Params {
    app: AppSlug,
    environments: Vec<EnvironmentName>,
}

/// What to set up.
#[derive(Debug, Clone)]
pub struct SetupRequest {
    /// The repo.
    pub repo: RepoName,
    /// The app's name; the repo's name where none is given.
    pub app: Option<AppSlug>,
    /// The folder of the app in the repo, `.` for the top.
    pub root: String,
    /// Environments that the workflow knows from the start.
    pub environments: Vec<EnvironmentName>,
    /// How later changes of the files reach the repo.
    pub changes: Changes,
}

/// Scans the repo, notes the app, and starts the pull request.
///
/// # Errors
/// The repo does not exist, the token may not write to it, or the scan found that it cannot be
/// deployed.
pub async fn start(
    context: &Context,
    request: SetupRequest,
    ask: Ask,
) -> Result<OperationId, OpError> {
    let github = context.accounts.github().await?;
    let scanned = super::repo::scan(&github, &request.repo, None, &request.root).await?;
    let row = note_app(context, &request, &scanned).await?;
    let path =
        |name: &EnvironmentName| EnvironmentPath { app: row.app.slug.clone(), name: name.clone() };
    let environments: Vec<EnvironmentName> = request.environments;
    let setups = environments.iter().map(|name| planned(path(name), &scanned)).collect();
    setup_files(&row.app, &scanned.scan, setups)?;
    let arguments =
        json!({ "repo": request.repo, "root": request.root, "environments": environments });
    let params = Params { app: row.app.slug.clone(), environments };
    let new = NewOperation {
        id: OperationId::generate(),
        kind: KIND,
        version: VERSION,
        params: json!(params),
        environment: None,
        vm: None,
        locks: vec![Lock {
            resource: format!("repo:{}", row.app.repo_id),
            mode: LockMode::Exclusive,
        }],
        steps: STEPS.len() as u32,
        idempotency: ask.identity(KIND, &arguments),
        caller: ask.caller,
        reason: ask.reason,
        plan: None,
        deploy: None,
        created_at: context.clock.now(),
    };
    queue(context, new, &format!("repo `{}`", row.app.repo)).await
}

/// What a set-up would bring.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The files of the pull request.
    pub files: Vec<String>,
    /// What stands in the way of a first deploy.
    pub blocking: Vec<String>,
}

/// Finds out what the pull request would hold. Changes nothing.
///
/// # Errors
/// The repo does not exist, or cannot be built.
pub async fn preview(context: &Context, request: &SetupRequest) -> Result<Preview, OpError> {
    let github = context.accounts.github().await?;
    let scanned = super::repo::scan(&github, &request.repo, None, &request.root).await?;
    let app = App {
        id: AppId::generate(),
        slug: slug_of(request, &scanned)?,
        repo_id: scanned.repo.id,
        repo: scanned.repo.full_name.clone(),
        default_branch: scanned.repo.default_branch.clone(),
        root: request.root.clone(),
        named_files: is_another(context, &scanned, &request.root).await?,
        created_at: context.clock.now(),
    };
    let path =
        |name: &EnvironmentName| EnvironmentPath { app: app.slug.clone(), name: name.clone() };
    let setups = request.environments.iter().map(|name| planned(path(name), &scanned)).collect();
    let (_, files) = setup_files(&app, &scanned.scan, setups)?;
    Ok(Preview {
        files: files.into_iter().map(|file| file.path).collect(),
        blocking: super::repo::blocking(&scanned.scan),
    })
}

/// The app's name: the given one, or one made of the repo's.
fn slug_of(request: &SetupRequest, scanned: &Scanned) -> Result<AppSlug, OpError> {
    if let Some(slug) = &request.app {
        return Ok(slug.clone());
    }
    let name = scanned.repo.full_name.name();
    name.to_ascii_lowercase()
        .replace(['_', '.'], "-")
        .parse()
        .map_err(|_| OpError::Nothing { what: format!("`{name}` makes no app name; pass `app`") })
}

/// An environment that has a name only.
fn planned(path: EnvironmentPath, scanned: &Scanned) -> EnvironmentSetup {
    EnvironmentSetup {
        path,
        arch: Arch::Amd64,
        port: scanned.scan.port,
        health_path: scanned.scan.health_path.clone(),
        domain: None,
        also: None,
        address: None,
        tls: false,
        run: RunSettings::default(),
        services: Vec::new(),
    }
}

/// Whether the repo has an app already, in another folder.
async fn is_another(context: &Context, scanned: &Scanned, root: &str) -> Result<bool, OpError> {
    let apps = context.store.apps().await?;
    let mut of_repo = apps.iter().filter(|row| row.app.repo_id == scanned.repo.id);
    Ok(match of_repo.clone().find(|row| row.app.root == root) {
        Some(known) => known.app.named_files,
        None => of_repo.next().is_some(),
    })
}

async fn note_app(
    context: &Context,
    request: &SetupRequest,
    scanned: &Scanned,
) -> Result<AppRow, OpError> {
    let repo = &scanned.repo;
    let known = context.store.app_of_repo(repo.id, request.root.clone()).await?;
    let slug = match &known {
        Some(known) => known.app.slug.clone(),
        None => slug_of(request, scanned)?,
    };
    if known.is_none()
        && let Some(other) = context.store.app(slug.clone()).await?
    {
        let repo = other.app.repo.to_string();
        return Err(OpError::SlugTaken { slug: slug.to_string(), repo });
    }
    let row = AppRow {
        app: App {
            id: AppId::generate(),
            slug,
            repo_id: repo.id,
            repo: repo.full_name.clone(),
            default_branch: repo.default_branch.clone(),
            root: request.root.clone(),
            named_files: false, // the store knows
            created_at: context.clock.now(),
        },
        changes: request.changes,
        scan: json!(scanned.scan),
        written: BTreeMap::new(),
    };
    Ok(context.store.put_app(row).await?)
}

struct SetupRepo {
    params: Params,
    context: Context,
}

pub(super) fn load(row: &OperationRow, context: &Context) -> Result<Box<dyn Operation>, String> {
    Ok(Box::new(SetupRepo { params: params(row)?, context: context.clone() }))
}

impl SetupRepo {
    async fn app(&self) -> Result<AppRow, OpError> {
        super::environments::app(&self.context.store, &self.params.app).await
    }

    async fn github(&self) -> Result<GitHub, OpError> {
        Ok(self.context.accounts.github().await?)
    }

    /// The files for the environments that exist and those that were named.
    async fn files(
        &self,
        row: &AppRow,
    ) -> Result<(crate::pipeline::Setup, Vec<crate::pipeline::GeneratedFile>), OpError> {
        let scan = super::repo::kept_scan(row)?;
        let (known, _) = super::repo::wanted_files(&self.context, row).await?;
        let mut environments = known.environments;
        for name in &self.params.environments {
            if environments.iter().any(|e| e.path.name == *name) {
                continue;
            }
            environments.push(EnvironmentSetup {
                path: EnvironmentPath { app: row.app.slug.clone(), name: name.clone() },
                arch: Arch::Amd64,
                port: scan.port,
                health_path: scan.health_path.clone(),
                domain: None,
                also: None,
                address: None,
                tls: false,
                run: RunSettings::default(),
                services: Vec::new(),
            });
        }
        setup_files(&row.app, &scan, environments)
    }

    fn way<'a>(&'a self, github: &'a GitHub, row: &'a AppRow) -> Way<'a> {
        // The first files are a person's to merge, whatever later ones are.
        Way { context: &self.context, github, row, branch: BRANCH, by: Changes::Pr }
    }

    async fn commit_files(&self, run: &Run<'_>) -> Result<Value, OpError> {
        let (row, github) = (self.app().await?, self.github().await?);
        let (setup, files) = self.files(&row).await?;
        let message = "Deploy with GitHub Actions and Kamal";
        let way = self.way(&github, &row);
        let committed = way.commit((&setup, &files), message, run).await?;
        Ok(json!({
            "commit": committed.commit, "edited": committed.edited, "open": committed.open,
            "files": committed.files, "notes": committed.told()
        }))
    }

    async fn open_pull(&self, run: &Run<'_>) -> Result<StepEnd, OpError> {
        let row = self.app().await?;
        let repo = &row.app.repo;
        if let Some(note) = super::webhooks::ensure(&self.context, repo).await? {
            run.say(note).await?;
        }
        let committed = run.output("commit_files");
        if committed["commit"].is_null() {
            return Ok(StepEnd::Done(json!({
                "app": row.app.slug, "edited": committed["edited"], "notes": committed["notes"]
            })));
        }
        let github = self.github().await?;
        let (setup, files) = self.files(&row).await?;
        let text = pull_text(&setup, &files);
        let base = &row.app.default_branch;
        let pull = github.open_pull(repo, BRANCH, base, &text.title, &text.body).await?;
        Ok(StepEnd::NeedsMerge {
            result: json!({
                "app": row.app.slug, "pull": pull.number, "url": pull.html_url,
                "files": committed["files"], "notes": committed["notes"]
            }),
            message: format!("merge {} to go on", pull.html_url),
        })
    }
}

impl Operation for SetupRepo {
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
                "commit_files" => Ok(StepEnd::Done(self.commit_files(run).await?)),
                _ => self.open_pull(run).await,
            }
        }
        .boxed()
    }

    fn undo<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<(), OpError>> {
        async move {
            let (row, github) = (self.app().await?, self.github().await?);
            let repo = &row.app.repo;
            let open = self.way(&github, &row).open_pull().await?;
            match (step, open) {
                // It was open before, and somebody may be reading it.
                ("open_pull", Some(_)) if !run.output("commit_files")["open"].is_null() => {}
                ("open_pull", Some(pull)) => github.close_pull(repo, pull.number).await?,
                ("commit_files", None) => github.delete_branch(repo, BRANCH).await?,
                _ => {}
            }
            Ok(())
        }
        .boxed()
    }

    fn ended<'a>(
        &'a self,
        _state: OperationState,
        _failure: Option<&'a Failure>,
        outputs: &'a BTreeMap<String, Value>,
    ) -> BoxFuture<'a, Result<Option<Value>, OpError>> {
        async move { Ok(outputs.get("open_pull").cloned()) }.boxed()
    }

    fn by_hand(&self, step: &'static str) -> String {
        let app = &self.params.app;
        match step {
            "open_pull" => format!("close the pull request of `{BRANCH}` in the repo of `{app}`"),
            _ => format!("delete branch `{BRANCH}` in the repo of `{app}`"),
        }
    }

    fn resumes_when_old(&self) -> Result<(), &'static str> {
        Ok(())
    }
}
