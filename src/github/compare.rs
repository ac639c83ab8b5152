//! What lies between two commits.

use super::error::GitHubError;
use super::facts::{ChangedFile, CommitLine, Comparison};
use super::repos::sha;
use super::{GitHub, in_repo, wire};
use crate::domain::names::{CommitSha, RepoName};
use crate::requests::Call;

impl GitHub {
    /// What `head` has and `base` has not: GitHub gives the first 250 commits and 300 files, and
    /// the numbers of all.
    pub async fn compare(
        &self,
        repo: &RepoName,
        base: &CommitSha,
        head: &CommitSha,
    ) -> Result<Comparison, GitHubError> {
        let call = in_repo(Call::get(""), repo, "compare").at(format!("{base}...{head}"));
        let what = format!("commits {}...{} of `{repo}`", base.short(), head.short());
        let found: wire::Comparison =
            self.ask(&call, &what).await?.json("the comparison of two commits")?;
        let mut commits = Vec::new();
        for commit in &found.commits {
            let subject = commit.commit.message.lines().next().unwrap_or_default();
            commits.push(CommitLine { sha: sha(&commit.sha)?, subject: self.api.clean(subject) });
        }
        let files = found.files.into_iter().map(|file| ChangedFile {
            path: self.api.clean(&file.filename),
            status: self.api.clean(&file.status),
        });
        Ok(Comparison {
            ahead: found.ahead_by,
            behind: found.behind_by,
            commits,
            files: files.collect(),
        })
    }
}
