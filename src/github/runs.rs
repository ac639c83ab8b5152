//! Workflow runs: started, found again, watched, stopped.

use std::collections::BTreeMap;

use serde_json::json;

use super::error::GitHubError;
use super::facts::{JobFacts, RunFacts, RunStatus, StepFacts};
use super::{GitHub, checked, in_repo, refusal, wire};
use crate::domain::names::RepoName;
use crate::requests::Call;

/// Of a longer log the end is kept: that is where a failure says why.
const LOG_MAX: usize = 8 << 20;
/// GitHub's largest page.
const PER_PAGE: usize = 100;
/// A run of ours has a handful of jobs.
const PAGES_MAX: usize = 10;

impl GitHub {
    /// Starts a workflow and tells the run's id; none where GitHub did not say it, so that
    /// [`Self::find_run`] has to. Sent once: where the error says `may_have_happened()`, look for
    /// the run before starting another.
    pub async fn dispatch(
        &self,
        repo: &RepoName,
        workflow_file: &str,
        git_ref: &str,
        inputs: &BTreeMap<String, String>,
    ) -> Result<Option<u64>, GitHubError> {
        let call = in_repo(Call::post(""), repo, "actions/workflows")
            .at(checked("workflow file", workflow_file)?)
            .under("dispatches")
            .body(json!({ "ref": git_ref, "inputs": inputs }));
        let what = format!("workflow `{workflow_file}` of `{repo}`");
        let answer = self.ask(&call, &what).await?;
        if answer.body.is_empty() {
            return Ok(None);
        }
        Ok(answer.json::<wire::Dispatched>("the new run")?.workflow_run_id)
    }

    /// The newest dispatched run whose title or name has `nonce` in it, among the last 100.
    pub async fn find_run(
        &self,
        repo: &RepoName,
        workflow_file: &str,
        nonce: &str,
    ) -> Result<Option<RunFacts>, GitHubError> {
        let call = in_repo(Call::get(""), repo, "actions/workflows")
            .at(checked("workflow file", workflow_file)?)
            .under("runs")
            .query("event", "workflow_dispatch")
            .query("per_page", PER_PAGE);
        let what = format!("workflow `{workflow_file}` of `{repo}`");
        let Some(answer) = self.ask_maybe(&call, &what).await? else { return Ok(None) };
        let runs: wire::Runs = answer.json("the runs")?;
        let has = |text: &Option<String>| text.as_ref().is_some_and(|text| text.contains(nonce));
        let found =
            runs.workflow_runs.into_iter().find(|run| has(&run.display_title) || has(&run.name));
        Ok(found.map(|run| self.run_facts(run)))
    }

    /// The newest dispatched runs whose title begins with `start`, newest first, among the last 100.
    pub async fn runs_named(
        &self,
        repo: &RepoName,
        workflow_file: &str,
        start: &str,
    ) -> Result<Vec<RunFacts>, GitHubError> {
        let call = in_repo(Call::get(""), repo, "actions/workflows")
            .at(checked("workflow file", workflow_file)?)
            .under("runs")
            .query("event", "workflow_dispatch")
            .query("per_page", PER_PAGE);
        let what = format!("workflow `{workflow_file}` of `{repo}`");
        let runs: wire::Runs = self.ask_again(call, &what).await?.json("the runs")?;
        let runs = runs.workflow_runs.into_iter().map(|run| self.run_facts(run));
        Ok(runs.filter(|run| run.title.starts_with(start)).collect())
    }

    /// How far a run is; where that did not change since the last look, it costs nothing.
    pub async fn run(&self, repo: &RepoName, id: u64) -> Result<RunFacts, GitHubError> {
        let call = in_repo(Call::get(""), repo, "actions/runs").at(id);
        let answer = self.ask_again(call, &format!("run {id} of `{repo}`")).await?;
        Ok(self.run_facts(answer.json("the run")?))
    }

    /// The jobs of a run's newest attempt, with their steps.
    pub async fn jobs(&self, repo: &RepoName, run: u64) -> Result<Vec<JobFacts>, GitHubError> {
        let mut all = Vec::new();
        for page in 1..=PAGES_MAX {
            let call = in_repo(Call::get(""), repo, "actions/runs")
                .at(run)
                .under("jobs")
                .query("filter", "latest")
                .query("per_page", PER_PAGE)
                .query("page", page);
            let answer = self.ask_again(call, &format!("run {run} of `{repo}`")).await?;
            let jobs: wire::Jobs = answer.json("the jobs")?;
            let last = jobs.jobs.len() < PER_PAGE;
            all.extend(jobs.jobs.into_iter().map(job_facts));
            if last || all.len() >= jobs.total_count {
                break;
            }
        }
        Ok(all)
    }

    /// A job's log, at most its last 8 MiB; none until GitHub has it, which is after the job's end,
    /// or once it has expired. It lies on another host, which never sees our token.
    pub async fn job_log(&self, repo: &RepoName, job: u64) -> Result<Option<String>, GitHubError> {
        let call = in_repo(Call::get(""), repo, "actions/jobs")
            .at(job)
            .under("logs")
            .leaves_host()
            .keep_tail(LOG_MAX);
        let answer = self.api.send(&call).await?;
        match answer.status.as_u16() {
            200..=299 => {
                let text = String::from_utf8_lossy(&answer.body);
                Ok(Some(text.trim_start_matches('\u{feff}').to_owned()))
            }
            404 | 410 => Ok(None),
            status if answer.foreign => Err(GitHubError::Transient { status, correlation: None }),
            _ => Err(refusal::error(&self.api, &answer, &format!("job {job} of `{repo}`"))),
        }
    }

    /// What GitHub and the steps noted about a job: `failure: message (path:line)`, cleaned.
    pub async fn annotations(&self, repo: &RepoName, job: u64) -> Result<Vec<String>, GitHubError> {
        let call = in_repo(Call::get(""), repo, "check-runs")
            .at(job)
            .under("annotations")
            .query("per_page", 50);
        let what = format!("job {job} of `{repo}`");
        let answer = match self.ask_maybe(&call, &what).await {
            // A token may see the run and its log without the permission for checks.
            Ok(None) | Err(GitHubError::Forbidden { .. }) => return Ok(Vec::new()),
            Ok(Some(answer)) => answer,
            Err(error) => return Err(error),
        };
        let notes: Vec<wire::Annotation> = answer.json("the annotations")?;
        Ok(notes.iter().map(|note| self.api.clean(&sentence(note))).collect())
    }

    /// Asks GitHub to stop a run; false where there was nothing to stop any more.
    pub async fn cancel_run(&self, repo: &RepoName, id: u64) -> Result<bool, GitHubError> {
        self.stop_run(repo, id, "cancel").await
    }

    /// Tells GitHub to stop a run that does not honour [`Self::cancel_run`]: its last steps do not
    /// run then. False where there was nothing to stop any more.
    pub async fn force_cancel_run(&self, repo: &RepoName, id: u64) -> Result<bool, GitHubError> {
        self.stop_run(repo, id, "force-cancel").await
    }

    async fn stop_run(&self, repo: &RepoName, id: u64, how: &str) -> Result<bool, GitHubError> {
        let call = in_repo(Call::post(""), repo, "actions/runs").at(id).under(how).repeatable();
        match self.ask(&call, &format!("run {id} of `{repo}`")).await {
            Ok(_) => Ok(true),
            Err(GitHubError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn run_facts(&self, run: wire::Run) -> RunFacts {
        RunFacts {
            id: run.id,
            status: status(run.status),
            conclusion: run.conclusion.map(Into::into),
            html_url: run.html_url,
            title: self.api.clean(&run.display_title.or(run.name).unwrap_or_default()),
            head_sha: run.head_sha,
        }
    }
}

/// A status that is missing is one of a thing that has not begun.
fn status(word: Option<String>) -> RunStatus {
    word.map_or(RunStatus::Queued, Into::into)
}

fn job_facts(job: wire::Job) -> JobFacts {
    let step = |step: wire::Step| StepFacts {
        number: step.number,
        name: step.name,
        status: status(step.status),
        conclusion: step.conclusion.map(Into::into),
    };
    JobFacts {
        id: job.id,
        name: job.name,
        status: status(job.status),
        conclusion: job.conclusion.map(Into::into),
        steps: job.steps.unwrap_or_default().into_iter().map(step).collect(),
    }
}

fn sentence(note: &wire::Annotation) -> String {
    let level = note.annotation_level.as_deref().unwrap_or("notice");
    let title = note.title.as_deref().filter(|title| !title.is_empty());
    let message = note.message.as_deref().unwrap_or_default();
    let text = title.map_or(message.to_owned(), |title| format!("{title}: {message}"));
    match (note.path.as_deref(), note.start_line) {
        // GitHub files what belongs to no file under `.github`.
        (Some(path), Some(line)) if path != ".github" => format!("{level}: {text} ({path}:{line})"),
        _ => format!("{level}: {text}"),
    }
}
