//! The job log of a deploy's workflow run.

use regex::Regex;

use crate::diagnosis::job_lines;
use crate::domain::names::EnvironmentPath;
use crate::github::RunStatus;
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

/// The log of the failed job of the newest deploy that had a run, else of its last job; secret
/// values of the environment are hidden.
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
    let ended = jobs.iter().rev().find(|job| job.status == RunStatus::Completed);
    let job = failed_job(&jobs).or(ended);
    let url = deploy.run_url.clone().unwrap_or_default();
    let of = format!("{} of {}", deploy.id, deploy.commit.short());
    let Some(job) = job else {
        let what = format!("{of}: no job has ended yet");
        return Ok(DeployLog { what, url, lines: vec![], more: false });
    };
    let mask = Mask::of(&context.store, &context.vault, environment.id).await?;
    let mut text: String =
        github.annotations(&repo, job.id).await?.into_iter().map(|note| note + "\n").collect();
    text += &github.job_log(&repo, job.id).await?.unwrap_or_default();
    let mut lines = job_lines(&mask.apply(&text));
    lines.retain(|line| grep.is_none_or(|grep| grep.is_match(line)));
    let more = lines.len() > limit;
    lines.drain(..lines.len().saturating_sub(limit));
    let ended = job.conclusion.clone().map_or("no conclusion".to_owned(), String::from);
    Ok(DeployLog { what: format!("{of}, job {} ({ended})", job.name), url, lines, more })
}
