//! The image built and pushed, and nothing else: what shows that an app builds before a VM is bought.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::config_files::{self, Why};
use super::deploy::{DeployRequest, Version, buildable};
use super::environments::{app, environment, not_retired};
use super::runs::{Asked, Work};
use super::{Ask, Context, OpError, Operation, Run, Step, StepEnd, params, queue};
use crate::domain::ids::OperationId;
use crate::domain::names::{CommitSha, EnvironmentPath};
use crate::domain::operation::OperationState;
use crate::pipeline::Names;
use crate::store::{AppRow, Changes, Failure, Lock, LockMode, NewOperation, OperationRow};

pub(super) const KIND: &str = "test_build";
pub(super) const VERSION: u32 = 1;

const STEPS: [Step; 3] = [
    Step { name: "commit_config", says: "comparing the workflow in the repo" },
    Step { name: "dispatch", says: "starting the workflow run" },
    Step { name: "watch", says: "waiting for the build" },
];

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Params {
    path: EnvironmentPath,
    commit: CommitSha,
    subject: String,
}

/// Starts a build of a version for an environment, which needs no VM for it.
///
/// # Errors
/// The repo is not set up, the ref does not exist or is not at the expected commit, or the request is
/// for a version that is built already.
pub async fn start(
    context: &Context,
    request: DeployRequest,
    ask: Ask,
) -> Result<OperationId, OpError> {
    let environment = environment(&context.store, &request.environment).await?;
    not_retired(&context.store, &environment).await?;
    let row = app(&context.store, &environment.path.app).await?;
    if !matches!(request.version, Version::Ref(_)) {
        let what = "a build takes a branch, a tag or a commit as `ref`; other versions are built";
        return Err(OpError::Nothing { what: what.to_owned() });
    }
    let (commit, subject) = buildable(context, &request, &row, &environment).await?;
    let path = environment.path.clone();
    let arguments = json!({ "environment": path, "commit": commit });
    let new = NewOperation {
        id: OperationId::generate(),
        kind: KIND,
        version: VERSION,
        params: json!(Params { path: path.clone(), commit, subject }),
        environment: Some(environment.id),
        vm: None,
        locks: vec![Lock {
            resource: format!("env:{}", environment.id),
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
    queue(context, new, &format!("environment `{path}`")).await
}

struct TestBuild {
    operation: OperationId,
    params: Params,
    context: Context,
}

pub(super) fn load(row: &OperationRow, context: &Context) -> Result<Box<dyn Operation>, String> {
    let params = params(row)?;
    Ok(Box::new(TestBuild { operation: row.id, params, context: context.clone() }))
}

impl TestBuild {
    async fn app(&self) -> Result<AppRow, OpError> {
        app(&self.context.store, &self.params.path.app).await
    }

    async fn work(&self) -> Result<Work<'_>, OpError> {
        let (row, github) = (self.app().await?, self.context.accounts.github().await?);
        Ok(Work { context: &self.context, github, row, nonce: self.operation.to_string() })
    }

    fn failed(&self, code: &str, cause: String, fix: String) -> OpError {
        let commit = self.params.commit.short().to_owned();
        OpError::DeployFailed { commit, code: code.to_owned(), cause, fix }
    }

    /// The workflow on the default branch has to know the environment.
    async fn commit_config(&self, run: &Run<'_>) -> Result<StepEnd, OpError> {
        let what = format!("A build for {}", self.params.path);
        let why = Why { what: &what, then: "call `deploy` with build_only again" };
        config_files::commit(&self.context, &self.app().await?, run, why).await
    }

    async fn dispatch(&self, again: bool) -> Result<Value, OpError> {
        let work = self.work().await?;
        let asked = Asked { action: "build", more: [("sha", self.params.commit.as_str())].into() };
        let started = work.start(&self.params.path.name, asked, again).await?;
        let lost = || {
            let repo = &work.row.app.repo;
            let cause = format!("the run was not found in {repo} after it was started");
            self.failed("run_lost", cause, "look at the repo's Actions tab".to_owned())
        };
        let started = started.ok_or_else(lost)?;
        Ok(json!({ "run": started.id, "url": started.html_url }))
    }

    async fn watch(&self, run: &Run<'_>) -> Result<Value, OpError> {
        let work = self.work().await?;
        let id = run.output("dispatch")["run"].as_u64().unwrap_or_default();
        match work.trouble(id, &self.params.path, run).await? {
            None => Ok(json!({ "run": id })),
            Some(trouble) => Err(self.failed(trouble.code, trouble.cause, trouble.fix)),
        }
    }

    async fn stop_run(&self, run: &Run<'_>) -> Result<(), OpError> {
        // A run whose start was not answered may be listed a little later.
        let looks = if run.output("dispatch").is_null() { 3 } else { 1 };
        if self.work().await?.stop(looks).await? {
            return Ok(());
        }
        let cause = "GitHub has not stopped its workflow run".to_owned();
        Err(self.failed("run_not_stopped", cause, "look at the repo's Actions tab".to_owned()))
    }
}

impl Operation for TestBuild {
    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    fn run<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<StepEnd, OpError>> {
        async move {
            Ok(StepEnd::Done(match step {
                "commit_config" => return self.commit_config(run).await,
                "dispatch" => self.dispatch(run.again).await?,
                _ => self.watch(run).await?,
            }))
        }
        .boxed()
    }

    fn undo<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<(), OpError>> {
        async move {
            match step {
                "dispatch" => self.stop_run(run).await,
                "commit_config" => {
                    let row = self.app().await?;
                    match row.changes {
                        // The workflow is right for the next build too.
                        Changes::Direct => Ok(()),
                        Changes::Pr | Changes::AutoMerge => {
                            config_files::take_back(&self.context, &row).await
                        }
                    }
                }
                _ => Ok(()),
            }
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
            let Params { path, commit, subject } = &self.params;
            if state != OperationState::Succeeded {
                return Ok(outputs.get("commit_config").cloned());
            }
            let image = Names::of(&self.app().await?.app).image(&path.name);
            let run = outputs.get("dispatch").map(|started| started["url"].clone());
            Ok(Some(json!({
                "environment": path, "commit": commit, "subject": subject,
                "image": format!("{image}:{commit}"), "run_url": run, "live": false,
            })))
        }
        .boxed()
    }

    fn by_hand(&self, step: &'static str) -> String {
        let Params { path, .. } = &self.params;
        match step {
            "dispatch" => format!(
                "cancel the workflow run whose title has {} in the repo of `{}`",
                self.operation, path.app
            ),
            _ => format!("close the pull request of VMKit's config in the repo of `{}`", path.app),
        }
    }

    /// A build that lay still is asked for again by whoever still wants to know.
    fn resumes_when_old(&self) -> Result<(), &'static str> {
        Err("deploy")
    }
}
