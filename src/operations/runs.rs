//! Workflow runs that are no deploys: started once, found again by a word in their name, waited for.

use std::collections::BTreeMap;
use std::time::Duration;

use super::deploy::evidence;
use super::{Context, OpError, Run};
use crate::diagnosis::{self, Evidence};
use crate::domain::names::{EnvironmentName, EnvironmentPath};
use crate::github::{Conclusion, GitHub, JobFacts, RunFacts, RunStatus};
use crate::pipeline::Names;
use crate::store::AppRow;

/// How long a run may take before we stop waiting for it.
const RUN_WAIT: Duration = Duration::from_secs(30 * 60);
/// The first and the longest pause between two looks at a run.
const LOOK: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));
/// How often a run that is being cancelled is looked at.
const STOP_LOOKS: u32 = 240;
/// What to do about a run that says no more than that it failed.
const LOOK_AT_THE_PAGE: &str = "look at the run's page";

/// What a run is asked to do.
pub(super) struct Asked<'a> {
    /// The workflow's action.
    pub(super) action: &'a str,
    /// The inputs of that action.
    pub(super) more: BTreeMap<&'a str, &'a str>,
}

/// Why a run did not end well.
pub(super) struct Trouble {
    /// The stable code.
    pub(super) code: &'static str,
    /// What happened.
    pub(super) cause: String,
    /// What to do next.
    pub(super) fix: String,
}

/// A run of the deploy workflow.
pub(super) struct Work<'a> {
    pub(super) context: &'a Context,
    pub(super) github: GitHub,
    pub(super) row: AppRow,
    /// The word in its name.
    pub(super) nonce: String,
}

impl Work<'_> {
    /// Starts it, unless the answer to an earlier start was lost. None where it cannot be found.
    pub(super) async fn start(
        &self,
        environment: &EnvironmentName,
        asked: Asked<'_>,
        again: bool,
    ) -> Result<Option<RunFacts>, OpError> {
        if again && let Some(found) = self.find(3).await? {
            return Ok(Some(found));
        }
        let mut inputs = BTreeMap::from([
            ("environment".to_owned(), environment.to_string()),
            ("action".to_owned(), asked.action.to_owned()),
            ("deploy_id".to_owned(), self.nonce.clone()),
        ]);
        let more = asked.more.into_iter();
        inputs.extend(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let (name, branch) = (&self.row.app.repo, &self.row.app.default_branch);
        match self
            .github
            .dispatch(name, &Names::of(&self.row.app).workflow_file(), branch, &inputs)
            .await?
        {
            Some(id) => Ok(Some(self.github.run(name, id).await?)),
            None => self.find(20).await,
        }
    }

    async fn find(&self, looks: u32) -> Result<Option<RunFacts>, OpError> {
        let file = Names::of(&self.row.app).workflow_file();
        for look in 0..looks {
            if look > 0 {
                tokio::time::sleep(LOOK.0 * look.min(8)).await;
            }
            let found = self.github.find_run(&self.row.app.repo, &file, &self.nonce).await?;
            if let Some(found) = found {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Waits for its end. With `run`, it tells what the jobs do and stops where that is asked for.
    /// None where it does not end.
    pub(super) async fn end(
        &self,
        id: u64,
        run: Option<&Run<'_>>,
    ) -> Result<Option<RunFacts>, OpError> {
        let name = &self.row.app.repo;
        let deadline = tokio::time::Instant::now() + RUN_WAIT;
        let (mut pause, mut said) = (LOOK.0, String::new());
        while tokio::time::Instant::now() < deadline {
            let facts = self.github.run(name, id).await?;
            if facts.status == RunStatus::Completed {
                return Ok(Some(facts));
            }
            if let Some(run) = run {
                run.stop_if_asked().await?;
                let now = doing(&self.github.jobs(name, id).await?);
                if now != said {
                    run.say(now.clone()).await?;
                    said = now;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LOOK.1);
        }
        Ok(None)
    }

    /// Waits for the end of a run for an environment, as [`Self::end`]; none where it ended well.
    pub(super) async fn trouble(
        &self,
        id: u64,
        path: &EnvironmentPath,
        run: &Run<'_>,
    ) -> Result<Option<Trouble>, OpError> {
        let Some(facts) = self.end(id, Some(run)).await? else {
            return Ok(Some(Trouble {
                code: "run_too_long",
                cause: "the workflow run did not end within half an hour".to_owned(),
                fix: LOOK_AT_THE_PAGE.to_owned(),
            }));
        };
        if went_well(&facts) {
            return Ok(None);
        }
        let mut evidence = Evidence { environment: Some(path.to_string()), ..Evidence::default() };
        evidence::of_run(&self.github, &self.row.app.repo, &facts, &mut evidence).await?;
        Ok(Some(root_cause(&evidence, &facts.html_url)))
    }

    /// Stops it where it is not over. False where GitHub does not.
    pub(super) async fn stop(&self, looks: u32) -> Result<bool, OpError> {
        let name = &self.row.app.repo;
        let Some(found) = self.find(looks).await? else { return Ok(true) };
        if found.status == RunStatus::Completed {
            return Ok(true);
        }
        self.github.cancel_run(name, found.id).await?;
        let asked = tokio::time::Instant::now();
        let mut forced = false;
        for _ in 0..STOP_LOOKS {
            if !forced && asked.elapsed() >= self.context.pace.force {
                self.github.force_cancel_run(name, found.id).await?;
                forced = true;
            }
            if self.github.run(name, found.id).await?.status == RunStatus::Completed {
                return Ok(true);
            }
            tokio::time::sleep(LOOK.0).await;
        }
        Ok(false)
    }
}

/// The root cause of a run that failed, in the words of `diagnose`.
fn root_cause(evidence: &Evidence, page: &str) -> Trouble {
    if let Some(cause) = diagnosis::diagnose(evidence) {
        let line = cause.evidence.first().map(|line| format!(" ({line})")).unwrap_or_default();
        let diagnosis::Cause { code, cause, fix, .. } = cause;
        return Trouble { code, cause: format!("{cause}{line}"), fix };
    }
    let at = evidence.job.as_ref().map(|job| format!(" at job `{job}`")).unwrap_or_default();
    let cause = format!("the workflow run failed{at}; see {page}");
    Trouble { code: "run_failed", cause, fix: LOOK_AT_THE_PAGE.to_owned() }
}

/// Whether a run ended well.
pub(super) fn went_well(facts: &RunFacts) -> bool {
    facts.conclusion == Some(Conclusion::Success)
}

/// What the jobs are at: `Deploy: Start what runs beside staging with Kamal`.
fn doing(jobs: &[JobFacts]) -> String {
    let Some(job) = jobs.iter().find(|job| job.status == RunStatus::InProgress) else {
        return "waiting for a runner".to_owned();
    };
    match job.steps.iter().find(|step| step.status == RunStatus::InProgress) {
        Some(step) => format!("{}: {}", job.name, step.name),
        None => job.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trouble_of_a_run_names_its_environment_or_at_least_its_job() {
        let mut evidence = Evidence {
            environment: Some("shop/staging".to_owned()),
            job: Some("Build".to_owned()),
            ..Evidence::default()
        };
        let unknown = root_cause(&evidence, "https://example.com/run");
        assert_eq!((unknown.code, unknown.fix.as_str()), ("run_failed", LOOK_AT_THE_PAGE));
        let cause = "the workflow run failed at job `Build`; see https://example.com/run";
        assert_eq!(unknown.cause, cause);

        evidence.annotations = vec!["The hosted runner lost communication with the server.".into()];
        let known = root_cause(&evidence, "https://example.com/run");
        assert!(known.fix.contains("environment `shop/staging`"), "{}: {}", known.code, known.fix);
    }
}
