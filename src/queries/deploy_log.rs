//! The job log of a deploy's workflow run.

use std::sync::LazyLock;

use regex::Regex;

use crate::diagnosis::job_lines;
use crate::domain::names::EnvironmentPath;
use crate::github::{Conclusion, JobFacts, RunStatus};
use crate::operations::deploy::evidence::failed_job;
use crate::operations::env::Mask;
use crate::operations::environments::{app, environment};
use crate::operations::{Context, OpError};

/// The log of one job.
#[derive(Debug, Clone)]
pub struct DeployLog {
    /// Of which deploy and job: `dep_… of 1a2b3c4, job Build (failure)`.
    pub what: String,
    /// The run's page.
    pub url: String,
    /// The newest lines that match, oldest first; data from outside, cleaned.
    pub lines: Vec<String>,
    /// Whether older lines match too.
    pub more: bool,
}

/// The log of the newest deploy that had a run: while that is under way, how far its jobs and steps
/// are; then the failed job's, else all jobs'. Secret values of the environment are hidden.
///
/// # Errors
/// The environment does not exist, no deploy of it had a run, or GitHub does not answer.
pub async fn deploy_log(
    context: &Context,
    path: &EnvironmentPath,
    grep: Option<&Regex>,
    limit: usize,
) -> Result<DeployLog, OpError> {
    let environment = environment(&context.store, path).await?;
    let deploys = context.store.deploys(environment.id, super::deploys::SHOWN).await?;
    let found = deploys.into_iter().find_map(|deploy| Some((deploy.run_id?, deploy)));
    let nothing = || OpError::Nothing { what: format!("no deploy of `{path}` had a run yet") };
    let (run, deploy) = found.ok_or_else(nothing)?;
    let repo = app(&context.store, &path.app).await?.app.repo;
    let github = context.accounts.github().await?;
    let jobs = github.jobs(&repo, run).await?;
    let url = deploy.run_url.clone().unwrap_or_default();
    let of = format!("{} of {}", deploy.id, deploy.commit.short());
    let failed = failed_job(&jobs);
    if failed.is_none() && jobs.iter().any(|job| job.status != RunStatus::Completed) {
        // GitHub shows no line of a job before its end, only how far it is.
        let what = format!("{of}: the run is under way; a job's lines come with its end");
        return Ok(cut(what, url, states(&jobs), grep, limit));
    }
    let shown: Vec<&JobFacts> = match failed {
        Some(job) => vec![job],
        None => jobs.iter().filter(|job| job.conclusion != Some(Conclusion::Skipped)).collect(),
    };
    let mask = Mask::of(&context.store, &context.vault, environment.id).await?;
    let (mut lines, mut names) = (Vec::new(), Vec::new());
    for job in shown {
        let ended = job.conclusion.clone().map_or("no conclusion".to_owned(), String::from);
        names.push(format!("job {} ({ended})", job.name));
        let notes = github.annotations(&repo, job.id).await?;
        let mut text: String = notes.into_iter().map(|note| note + "\n").collect();
        text += &github.job_log(&repo, job.id).await?.unwrap_or_default();
        lines.extend(job_lines(&mask.apply(&text)));
    }
    let kamal = lines.iter().rev().find(|line| KAMAL_GAVE_UP.is_match(line));
    let kamal = kamal.map(|line| format!("; Kamal gave up with: {}", line.trim()));
    let what = format!("{of}, {}{}", names.join(", "), kamal.unwrap_or_default());
    Ok(cut(what, url, lines, grep, limit))
}

/// Kamal's last words.
static KAMAL_GAVE_UP: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\s*ERROR \([A-Z][A-Za-z0-9]*(?:::[A-Za-z0-9]+)*\): ").expect("a fixed pattern")
});

fn cut(
    what: String,
    url: String,
    mut lines: Vec<String>,
    grep: Option<&Regex>,
    limit: usize,
) -> DeployLog {
    lines.retain(|line| grep.is_none_or(|grep| grep.is_match(line)));
    let more = lines.len() > limit;
    lines.drain(..lines.len().saturating_sub(limit));
    DeployLog { what, url, lines, more }
}

/// How far the jobs and their steps are, one line each.
fn states(jobs: &[JobFacts]) -> Vec<String> {
    let word = |status: &RunStatus, conclusion: &Option<Conclusion>| match conclusion {
        Some(conclusion) => String::from(conclusion.clone()),
        None => String::from(status.clone()),
    };
    let mut lines = Vec::new();
    for job in jobs {
        lines.push(format!("job {}: {}", job.name, word(&job.status, &job.conclusion)));
        let steps = job.steps.iter();
        lines.extend(
            steps.map(|step| format!("  {}: {}", step.name, word(&step.status, &step.conclusion))),
        );
    }
    lines
}
