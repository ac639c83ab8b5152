//! The steps of a deploy.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use vmkit_agent_protocol::bytes::Hidden;
use vmkit_agent_protocol::calls::{Call, EnvFile};

use super::{Params, STEPS, STEPS_1, evidence, prove, service};
use crate::diagnosis::{self, Evidence};
use crate::domain::clock::Millis;
use crate::domain::deploy::{DeployAction, DeployState};
use crate::domain::ids::OperationId;
use crate::domain::names::{CommitSha, EnvironmentName};
use crate::domain::operation::OperationState;
use crate::github::{Conclusion, GitHub, JobFacts, RunFacts, RunStatus};
use crate::operations::agents::linked;
use crate::operations::changes::{CONFIG_BRANCH, Way};
use crate::operations::environments::{app, environment};
use crate::operations::services::files;
use crate::operations::{
    Context, OpError, Operation, Run, Step, StepEnd, domains, env, keys, repo,
};
use crate::pipeline::Names;
use crate::store::{AppRow, Changes, Failure};

/// How long an agent may take to write an env file.
const AGENT_WAIT: Duration = Duration::from_secs(20);
/// How long a run may take before we stop waiting for it.
pub(super) const RUN_WAIT: Duration = Duration::from_secs(60 * 60);
/// How often a run that is being cancelled is looked at.
const STOP_LOOKS: u32 = 240;
/// The first and the longest pause between two looks at a run.
pub(super) const LOOK: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));

pub(super) struct DeployApp {
    pub(super) version: u32,
    pub(super) operation: OperationId,
    pub(super) params: Params,
    pub(super) context: Context,
}

impl DeployApp {
    pub(super) async fn app(&self) -> Result<AppRow, OpError> {
        app(&self.context.store, &self.params.path.app).await
    }

    pub(super) async fn github(&self) -> Result<GitHub, OpError> {
        Ok(self.context.accounts.github().await?)
    }

    /// The domain leads to the VM before the first version is built; from then on it is looked after
    /// by whoever changes it.
    async fn point(&self, run: &Run<'_>) -> Result<Value, OpError> {
        if self.params.commit_before.is_some() || self.params.run.is_some() {
            return Ok(Value::Null);
        }
        let environment = environment(&self.context.store, &self.params.path).await?;
        let careless = self.params.careless;
        domains::before_deploy(&self.context, self.operation, &environment, careless, run).await
    }

    /// Brings the files of ours in the repo up to date, as the app's settings allow.
    async fn commit_config(&self, run: &Run<'_>) -> Result<StepEnd, OpError> {
        let (row, github) = (self.app().await?, self.github().await?);
        let (setup, files) = repo::wanted_files(&self.context, &row).await?;
        let way = Way::of(&self.context, &github, &row);
        let title = format!("Deploy {}: update the config", self.params.path.name);
        let committed = way.commit((&setup, &files), &title, run).await?;
        let body = format!(
            "The deploy config changed: {}. Merge it, then deploy again.",
            committed.files.join(", ")
        );
        way.end(committed, &title, &body, ", then deploy again").await
    }

    pub(super) async fn write_env(&self, revision: u32) -> Result<Value, OpError> {
        let path = &self.params.path;
        let environment = environment(&self.context.store, path).await?;
        let ours = Names::of(&self.app().await?.app).image(&path.name);
        service::is_free(&self.context, &environment, &ours, self.params.vm).await?;
        let content = env::file(&self.context, environment.id, revision).await?;
        let file = EnvFile {
            app: path.app.to_string(),
            environment: path.name.to_string(),
            revision,
            content: Hidden(content.expose().to_owned()),
        };
        linked(&self.context, self.params.vm).await?;
        self.context.fleet.call(self.params.vm, Call::WriteEnvFile(file), AGENT_WAIT).await?;
        files::write_all(&self.context, environment.id, path, self.params.vm).await?;
        Ok(json!({ "revision": revision }))
    }

    /// Starts the run, unless the answer to an earlier start was lost: its name carries our id.
    async fn dispatch(&self, run: &Run<'_>) -> Result<Value, OpError> {
        let (row, github) = (self.app().await?, self.github().await?);
        let nonce = self.params.deploy.to_string();
        let mut found = None;
        if run.again {
            found = self.look_for_run(&github, &row, &nonce, 3).await?;
        }
        let started = match found {
            Some(found) => found,
            None => {
                let Params { action, commit, from, .. } = &self.params;
                let how = (*action, from.as_ref());
                self.start_run(&github, &row, &nonce, how, commit).await?
            }
        };
        let url = started.html_url.clone();
        self.context.store.set_deploy_run(self.params.deploy, started.id, url).await?;
        Ok(json!({ "run": started.id, "url": started.html_url }))
    }

    /// Notes the run that a push has started.
    async fn take_up_run(&self) -> Result<Value, OpError> {
        let (row, github) = (self.app().await?, self.github().await?);
        let run = github.run(&row.app.repo, self.params.run.unwrap_or_default()).await?;
        let url = run.html_url.clone();
        self.context.store.set_deploy_run(self.params.deploy, run.id, url).await?;
        Ok(json!({ "run": run.id, "url": run.html_url }))
    }

    /// Dispatches the workflow; the run carries `nonce` in its name. With an environment to take the
    /// image from, that is copied first.
    pub(super) async fn start_run(
        &self,
        github: &GitHub,
        row: &AppRow,
        nonce: &str,
        (action, from): (DeployAction, Option<&EnvironmentName>),
        commit: &CommitSha,
    ) -> Result<RunFacts, OpError> {
        let action = match (action, from) {
            (_, Some(_)) => "promote",
            (DeployAction::Deploy, None) => "deploy",
            (DeployAction::Redeploy, None) => "redeploy",
        };
        let mut inputs = BTreeMap::from([
            ("environment".to_owned(), self.params.path.name.to_string()),
            ("action".to_owned(), action.to_owned()),
            ("sha".to_owned(), commit.to_string()),
            ("deploy_id".to_owned(), nonce.to_owned()),
        ]);
        // A workflow of an earlier VMKit does not know this input, and needs it only here.
        inputs.extend(from.map(|from| ("from".to_owned(), from.to_string())));
        let (name, branch) = (&row.app.repo, &row.app.default_branch);
        let found = match github
            .dispatch(name, &Names::of(&row.app).workflow_file(), branch, &inputs)
            .await?
        {
            Some(id) => Some(github.run(name, id).await?),
            None => self.look_for_run(github, row, nonce, 20).await?,
        };
        let (repo, deploy) = (name.to_string(), self.params.deploy);
        found.ok_or(OpError::RunLost { repo, deploy })
    }

    pub(super) async fn look_for_run(
        &self,
        github: &GitHub,
        row: &AppRow,
        nonce: &str,
        looks: u32,
    ) -> Result<Option<RunFacts>, OpError> {
        for look in 0..looks {
            if look > 0 {
                tokio::time::sleep(LOOK.0 * look.min(8)).await;
            }
            if let Some(found) =
                github.find_run(&row.app.repo, &Names::of(&row.app).workflow_file(), nonce).await?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Waits for the run's end and tells what its jobs do.
    async fn watch(&self, run: &Run<'_>) -> Result<Value, OpError> {
        let (row, github) = (self.app().await?, self.github().await?);
        let name = &row.app.repo;
        let id = run.output("dispatch")["run"].as_u64().unwrap_or_default();
        let deadline = tokio::time::Instant::now() + RUN_WAIT;
        let mut pause = LOOK.0;
        let mut said = String::new();
        let mut news = self.context.news.of_run(id);
        loop {
            let facts = github.run(name, id).await?;
            if facts.status == RunStatus::Completed {
                return self.judge(&github, &row, &facts).await;
            }
            run.stop_if_asked().await?;
            if tokio::time::Instant::now() >= deadline {
                return Err(self.failed(
                    "run_too_long",
                    "the run did not end within an hour",
                    "look at the run's page",
                ));
            }
            let now = doing(&github.jobs(name, id).await?);
            if now != said {
                run.say(now.clone()).await?;
                said = now;
            }
            news.wait(pause).await;
            pause = (pause * 3 / 2).min(LOOK.1);
        }
    }

    async fn judge(
        &self,
        github: &GitHub,
        row: &AppRow,
        facts: &RunFacts,
    ) -> Result<Value, OpError> {
        match &facts.conclusion {
            Some(Conclusion::Success) => Ok(json!({ "run": facts.id })),
            _ => Err(self.explain(github, row, facts).await?),
        }
    }

    /// The root cause of a run that did not end well, from all that can be had.
    async fn explain(
        &self,
        github: &GitHub,
        row: &AppRow,
        facts: &RunFacts,
    ) -> Result<OpError, OpError> {
        let mut evidence = Evidence::default();
        let job = evidence::of_run(github, &row.app.repo, facts, &mut evidence).await?;
        self.look_at_the_vm(&mut evidence).await?;
        let serving = prove::serving(&self.context, &self.params).await;
        let still = match serving {
            Some(version) => format!("; {} still serves", version.short()),
            None => String::new(),
        };
        if let Some(cause) = diagnosis::diagnose(&evidence) {
            let evidence = match cause.evidence.first() {
                Some(line) => format!(" ({line})"),
                None => String::new(),
            };
            let text = format!("{}{evidence}{still}", cause.cause);
            return Ok(self.failed(cause.code, &text, &cause.fix));
        }
        if facts.conclusion == Some(Conclusion::Cancelled) {
            let (text, fix) = ("the workflow run was cancelled", "deploy again when you want it");
            return Ok(self.failed("run_cancelled", text, fix));
        }
        let Some(job) = job else {
            let text = format!("the run ended without a failed job; see {}", facts.html_url);
            return Ok(self.failed("run_failed", &text, "look at the run's page"));
        };
        let step = evidence.step.map(|step| format!(" at `{step}`")).unwrap_or_default();
        let text = format!("job `{}` failed{step}; see {}{still}", job.name, facts.html_url);
        let fix =
            format!("call `get_logs` with environment `{}` and source `deploy`", self.params.path);
        Ok(self.failed("run_failed", &text, &fix))
    }

    async fn look_at_the_vm(&self, evidence: &mut Evidence) -> Result<(), OpError> {
        let environment = environment(&self.context.store, &self.params.path).await?;
        let deploy = self.context.store.deploy(self.params.deploy).await?;
        let good = self.context.store.releases(environment.id, 1).await?.pop();
        let subject = evidence::Subject {
            environment: &environment,
            commit: Some(&self.params.commit),
            env_revision: self.params.env_revision,
            good: good.as_ref(),
            since: deploy.map(|deploy| deploy.created_at),
            until: None,
        };
        evidence::of_environment(&self.context, subject, evidence).await
    }

    /// The version that really runs after a deploy that was stopped, by the agent's word; none
    /// where it cannot be asked, or the proof says it.
    async fn serving(&self, state: OperationState) -> Option<CommitSha> {
        match state {
            OperationState::Cancelled | OperationState::Failed => {
                prove::serving(&self.context, &self.params).await
            }
            _ => None,
        }
    }

    /// The keys whose values are others than before this deploy.
    async fn env_keys(&self) -> Result<Vec<String>, OpError> {
        let environment = environment(&self.context.store, &self.params.path).await?;
        let before = self.params.env_before.unwrap_or_default();
        super::env_keys(&self.context, environment.id, before, self.params.env_revision).await
    }

    pub(super) fn failed(&self, code: &str, cause: &str, fix: &str) -> OpError {
        OpError::DeployFailed {
            commit: self.params.commit.short().to_owned(),
            code: code.to_owned(),
            cause: cause.to_owned(),
            fix: fix.to_owned(),
        }
    }

    /// Stops a run of ours that is not over.
    async fn stop_run(&self, run: &Run<'_>) -> Result<(), OpError> {
        let (row, github) = (self.app().await?, self.github().await?);
        let nonce = self.params.deploy.to_string();
        // A run whose start was not answered may be listed a little later.
        let looks = if run.output("dispatch").is_null() { 3 } else { 1 };
        let found = match self.params.run {
            Some(id) => Some(github.run(&row.app.repo, id).await?),
            None => self.look_for_run(&github, &row, &nonce, looks).await?,
        };
        let Some(found) = found else { return Ok(()) };
        if found.status == RunStatus::Completed {
            return Ok(());
        }
        github.cancel_run(&row.app.repo, found.id).await?;
        let asked = tokio::time::Instant::now();
        let mut forced = false;
        for _ in 0..STOP_LOOKS {
            if !forced && asked.elapsed() >= self.context.pace.force {
                github.force_cancel_run(&row.app.repo, found.id).await?;
                forced = true;
            }
            if github.run(&row.app.repo, found.id).await?.status == RunStatus::Completed {
                return Ok(());
            }
            tokio::time::sleep(LOOK.0).await;
        }
        Err(self.failed(
            "run_not_stopped",
            &format!("GitHub has not stopped its workflow run, {}", found.html_url),
            "look at the run's page",
        ))
    }
}

/// How old a commit is, in the largest unit that says something.
fn age(ms: i64) -> String {
    let minutes = ms.max(0) / 60_000;
    match (minutes / 1440, minutes / 60, minutes) {
        (days @ 2.., ..) => format!("{days} days"),
        (_, hours @ 2.., _) => format!("{hours} hours"),
        (_, _, 1) => "1 minute".to_owned(),
        (_, _, minutes) => format!("{minutes} minutes"),
    }
}

/// What the jobs are at: `Build: Build and push`.
fn doing(jobs: &[JobFacts]) -> String {
    let Some(job) = jobs.iter().find(|job| job.status == RunStatus::InProgress) else {
        return "waiting for a runner".to_owned();
    };
    let step = job.steps.iter().find(|step| step.status == RunStatus::InProgress);
    match step {
        Some(step) => format!("{}: {}", job.name, step.name),
        None => job.name.clone(),
    }
}

impl Operation for DeployApp {
    fn steps(&self) -> &'static [Step] {
        if self.version == 1 { &STEPS_1 } else { &STEPS }
    }

    fn run<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<StepEnd, OpError>> {
        async move {
            let output = match step {
                "commit_config" | "grant_access" | "write_env" if self.params.run.is_some() => {
                    Value::Null
                }
                "point" => self.point(run).await?,
                "dispatch" if self.params.run.is_some() => self.take_up_run().await?,
                "commit_config" => return self.commit_config(run).await,
                "grant_access" => {
                    let note = keys::grant(&self.context, &self.params.path, self.params.vm);
                    if let Some(note) = note.await? {
                        run.say(note).await?;
                    }
                    Value::Null
                }
                "write_env" => self.write_env(self.params.env_revision).await?,
                "dispatch" => self.dispatch(run).await?,
                "watch" => self.watch(run).await?,
                _ => prove::prove(&self.context, &self.params, run).await?,
            };
            Ok(StepEnd::Done(output))
        }
        .boxed()
    }

    fn undo<'a>(
        &'a self,
        step: &'static str,
        run: &'a Run<'a>,
    ) -> BoxFuture<'a, Result<(), OpError>> {
        async move {
            match (step, self.params.env_before) {
                // Nothing was prepared for it; that its version is bad is put right all the same.
                ("commit_config" | "write_env", _) if self.params.run.is_some() => Ok(()),
                ("commit_config", _) => {
                    let row = self.app().await?;
                    match row.changes {
                        // The config is of the environment, and right for the next deploy too.
                        Changes::Direct => Ok(()),
                        Changes::Pr | Changes::AutoMerge => {
                            Way::of(&self.context, &self.github().await?, &row).undo().await
                        }
                    }
                }
                ("prove", Some(_)) => self.bring_back(run).await,
                ("dispatch", _) => self.stop_run(run).await,
                ("write_env", Some(revision)) => match self.write_env(revision).await {
                    // It was away all the time, so there is nothing to take back.
                    Err(OpError::AgentAway { .. }) if run.output("write_env").is_null() => Ok(()),
                    written => written.map(drop),
                },
                _ => Ok(()),
            }
        }
        .boxed()
    }

    fn ended<'a>(
        &'a self,
        state: OperationState,
        failure: Option<&'a Failure>,
        outputs: &'a BTreeMap<String, Value>,
    ) -> BoxFuture<'a, Result<Option<Value>, OpError>> {
        async move {
            let ended = match state {
                OperationState::Succeeded => DeployState::Live,
                OperationState::Cancelled => DeployState::Cancelled,
                _ => DeployState::Failed,
            };
            let failure = match failure {
                Some(failure) => Some(format!("{}: {}", failure.code, failure.message)),
                None if ended == DeployState::Failed => {
                    Some("needs_merge: the config's pull request has to be merged first".into())
                }
                None => None,
            };
            let (store, now) = (&self.context.store, self.context.clock.now());
            store.end_deploy(self.params.deploy, ended, failure, now).await?;
            let proof = outputs.get("prove").cloned().unwrap_or(Value::Null);
            let run = outputs.get("dispatch").cloned().unwrap_or(Value::Null);
            let image = Names::of(&self.app().await?.app).image(&self.params.path.name);
            Ok(Some(json!({
                "deploy": self.params.deploy,
                "commit": self.params.commit,
                "subject": self.params.subject,
                "committed_at": self.params.committed_at.map(Millis::rfc3339),
                "age": self.params.committed_at.map(|at| age(now.since_ms(at))),
                "image": format!("{image}:{}", self.params.commit),
                "proof": proof["proof"],
                "env_revision": self.params.env_revision,
                "image_not_checked": self.params.unseen,
                "env_keys": self.env_keys().await?,
                "serving": self.serving(state).await,
                "url": proof["url"],
                "roles": proof["roles"],
                "records": outputs.get("point"),
                "run_url": run["url"],
            })))
        }
        .boxed()
    }

    fn by_hand(&self, step: &'static str) -> String {
        let Params { path, deploy, .. } = &self.params;
        match step {
            "commit_config" => {
                format!("delete branch `{CONFIG_BRANCH}` in the repo of `{}`", path.app)
            }
            "dispatch" => format!(
                "cancel the workflow run whose title has {deploy} in the repo of `{}`",
                path.app
            ),
            "prove" => format!("call `rollback` with environment `{path}`"),
            _ => format!("call `deploy` with environment `{path}`: it writes the env file anew"),
        }
    }

    /// A rollback that lay still is not what is wanted any more.
    fn resumes_when_old(&self) -> Result<(), &'static str> {
        if self.params.rollback { Err("rollback") } else { Ok(()) }
    }
}
