//! The way back of a deploy that went live and then failed its proof: what served before is
//! deployed again, without a build.

use std::time::Duration;

use super::prove;
use super::steps::{DeployApp, LOOK, RUN_WAIT};
use crate::domain::deploy::DeployAction;
use crate::domain::names::CommitSha;
use crate::github::{Conclusion, RunStatus};
use crate::operations::{OpError, Run};

impl DeployApp {
    /// Deploys what served before, with its env values as of then. Nothing to do where nothing
    /// served before, or where it serves still.
    pub(super) async fn bring_back(&self, run: &Run<'_>) -> Result<(), OpError> {
        let (Some(commit), Some(revision)) = (&self.params.commit_before, self.params.env_before)
        else {
            return Ok(());
        };
        let went_live = !run.output("watch").is_null();
        let serving = prove::serving(&self.context, &self.params).await;
        if !went_live || commit == &self.params.commit || serving.as_ref() == Some(commit) {
            return Ok(());
        }
        run.say(format!("bringing back {}, which served before", commit.short())).await?;
        self.write_env(revision).await?;
        self.redeploy(commit).await
    }

    async fn redeploy(&self, commit: &CommitSha) -> Result<(), OpError> {
        let (row, github) = (self.app().await?, self.github().await?);
        let name = &row.app.repo;
        // Not the deploy's own id, by which its first run is found.
        let nonce = format!("back_{}", self.params.deploy.bare());
        let found = self.look_for_run(&github, &row, &nonce, 1).await?;
        let found = match found {
            Some(found) => found,
            None => {
                let action = DeployAction::Redeploy;
                self.start_run(&github, &row, &nonce, (action, None), commit).await?
            }
        };
        let deadline = tokio::time::Instant::now() + RUN_WAIT;
        let mut pause = LOOK.0;
        loop {
            let facts = github.run(name, found.id).await?;
            match (facts.status, facts.conclusion) {
                (RunStatus::Completed, Some(Conclusion::Success)) => return Ok(()),
                (RunStatus::Completed, _) => {
                    let text = format!(
                        "{} was to be brought back, and its run failed too: {}",
                        commit.short(),
                        facts.html_url
                    );
                    return Err(self.failed("not_brought_back", &text, "look at the run's page"));
                }
                _ if tokio::time::Instant::now() >= deadline => {
                    let text = format!("{} did not come back in time", commit.short());
                    return Err(self.failed("not_brought_back", &text, "look at the run's page"));
                }
                _ => tokio::time::sleep(pause).await,
            }
            pause = (pause * 3 / 2).min(LOOK.1).max(Duration::from_millis(1));
        }
    }
}
