//! Pull requests.

use serde_json::json;

use super::error::GitHubError;
use super::facts::{PullFacts, PullState};
use super::{GitHub, checked, in_repo, wire};
use crate::domain::names::RepoName;
use crate::requests::Call;

impl GitHub {
    /// The pull request of a branch of the repo itself: the open one, else the newest.
    pub async fn pull_request(
        &self,
        repo: &RepoName,
        head: &str,
    ) -> Result<Option<PullFacts>, GitHubError> {
        let call = in_repo(Call::get(""), repo, "pulls")
            .query("head", format!("{}:{}", repo.owner(), checked("branch", head)?))
            .query("state", "all")
            .query("sort", "created")
            .query("direction", "desc")
            .query("per_page", 50);
        let pulls: Vec<wire::Pull> = self.read(&call, "the pull requests").await?;
        // A filter that GitHub does not understand would list every branch's.
        let mut pulls: Vec<wire::Pull> =
            pulls.into_iter().filter(|pull| pull.head.branch == head).collect();
        let open = pulls.iter().position(|pull| pull.state == "open").unwrap_or(0);
        Ok((!pulls.is_empty()).then(|| facts(pulls.swap_remove(open))))
    }

    /// Opens a pull request, or finds the one that is open for the branch.
    pub async fn open_pull(
        &self,
        repo: &RepoName,
        head: &str,
        base: &str,
        title: &str,
        body: &str,
    ) -> Result<PullFacts, GitHubError> {
        if let Some(open) = self.open_pull_of(repo, head).await? {
            return Ok(open);
        }
        let call = in_repo(Call::post(""), repo, "pulls")
            .body(json!({ "title": title, "head": head, "base": base, "body": body }));
        let what = format!("a pull request from `{head}` in `{repo}`");
        let made = match self.ask(&call, &what).await {
            Ok(answer) => answer.json::<wire::Pull>("the new pull request").map_err(Into::into),
            Err(error) => Err(error),
        };
        match made {
            Ok(made) => Ok(facts(made)),
            Err(error) if error.may_have_happened() || is_there(&error) => {
                self.open_pull_of(repo, head).await?.ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    async fn open_pull_of(
        &self,
        repo: &RepoName,
        head: &str,
    ) -> Result<Option<PullFacts>, GitHubError> {
        Ok(self.pull_request(repo, head).await?.filter(|pull| pull.state == PullState::Open))
    }

    /// Closes a pull request without merging it; absent or closed is fine.
    pub async fn close_pull(&self, repo: &RepoName, number: u64) -> Result<(), GitHubError> {
        let call =
            in_repo(Call::patch(""), repo, "pulls").at(number).body(json!({ "state": "closed" }));
        self.ask_maybe(&call, &format!("pull request {number} of `{repo}`")).await?;
        Ok(())
    }
}

fn is_there(error: &GitHubError) -> bool {
    matches!(error, GitHubError::Invalid { reason, .. } if reason.contains("already exists"))
}

pub(super) fn facts(pull: wire::Pull) -> PullFacts {
    PullFacts {
        number: pull.number,
        state: match pull.state.as_str() {
            "open" => PullState::Open,
            "closed" => PullState::Closed,
            _ => PullState::Other(pull.state),
        },
        // A list leaves `merged` out and says when instead.
        merged: pull.merged.unwrap_or(false) || pull.merged_at.is_some(),
        html_url: pull.html_url,
        head_sha: pull.head.sha,
        mergeable: pull.mergeable,
    }
}
