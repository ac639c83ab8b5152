//! Several files in one commit, and the branch that it lands on.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::error::GitHubError;
use super::repos::sha;
use super::{GitHub, checked, in_repo, wire};
use crate::domain::names::{CommitSha, RepoName};
use crate::requests::Call;

/// How often a commit is made anew because the branch moved meanwhile.
const ROUNDS_MAX: usize = 4;

/// One file to write or delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Its path from the top of the repo.
    pub path: String,
    /// Its new content; none deletes it.
    pub content: Option<Vec<u8>>,
    /// Whether it may be run.
    pub executable: bool,
}

impl GitHub {
    /// Puts all `changes` into one commit on `branch`, and tells the branch's commit afterwards.
    ///
    /// A branch that exists gets the commit on top of what it has; one that is absent begins at
    /// `base`. Where the files are as wanted already there is no commit: the answer is the branch's
    /// head, or `base` (and no branch is made). A lost answer leads to no second commit.
    pub async fn commit_files(
        &self,
        repo: &RepoName,
        branch: &str,
        base: &CommitSha,
        message: &str,
        changes: &[FileChange],
    ) -> Result<CommitSha, GitHubError> {
        checked("branch", branch)?;
        let written = self.entries(repo, changes).await?;
        for _ in 0..ROUNDS_MAX {
            let head = self.branch_head(repo, branch).await?;
            let parent = head.as_ref().unwrap_or(base);
            let before = self.tree_of(repo, parent).await?;
            let mut entries = written.clone();
            entries.extend(self.deletions(repo, parent, changes).await?);
            let after = self.write_tree(repo, &before, entries).await?;
            if after == before {
                return Ok(parent.clone());
            }
            let made = self.write_commit(repo, message, &after, &[parent]).await?;
            if self.move_branch(repo, branch, head.is_some(), &made).await? {
                return Ok(made);
            }
        }
        Err(GitHubError::Conflict { what: format!("branch `{branch}` of `{repo}`") })
    }

    /// Puts a commit on `branch` that takes the place of what it has: its files are those of `base`
    /// with `changes`, and it follows both, so that a conflict with `base` is gone.
    pub async fn commit_over(
        &self,
        repo: &RepoName,
        branch: &str,
        head: &CommitSha,
        base: &CommitSha,
        message: &str,
        changes: &[FileChange],
    ) -> Result<CommitSha, GitHubError> {
        checked("branch", branch)?;
        let written = self.entries(repo, changes).await?;
        let tree = self.write_tree(repo, &self.tree_of(repo, base).await?, written).await?;
        let made = self.write_commit(repo, message, &tree, &[head, base]).await?;
        if self.move_branch(repo, branch, true, &made).await? {
            return Ok(made);
        }
        Err(GitHubError::Conflict { what: format!("branch `{branch}` of `{repo}`") })
    }

    /// The newest commit of a branch; none where it does not exist.
    pub async fn branch_head(
        &self,
        repo: &RepoName,
        branch: &str,
    ) -> Result<Option<CommitSha>, GitHubError> {
        let call = in_repo(Call::get(""), repo, "git/ref/heads").under(checked("branch", branch)?);
        let what = format!("branch `{branch}` of `{repo}`");
        match self.ask_maybe(&call, &what).await? {
            Some(answer) => sha(&answer.json::<wire::Ref>("the branch")?.object.sha).map(Some),
            None => Ok(None),
        }
    }

    /// Deletes a branch; absent is fine.
    pub async fn delete_branch(&self, repo: &RepoName, branch: &str) -> Result<(), GitHubError> {
        let call =
            in_repo(Call::delete(""), repo, "git/refs/heads").under(checked("branch", branch)?);
        match self.ask_maybe(&call, &format!("branch `{branch}` of `{repo}`")).await {
            Ok(_) => Ok(()),
            Err(GitHubError::Invalid { reason, .. }) if reason.contains("does not exist") => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The files of `changes` that have content, as entries of a tree. Text stands in the entry
    /// itself, since writes go one a second; only what is no text needs a blob of its own. Git
    /// names content by its hash, so writing the same twice is writing it once.
    async fn entries(
        &self,
        repo: &RepoName,
        changes: &[FileChange],
    ) -> Result<Vec<Value>, GitHubError> {
        let mut entries = Vec::new();
        for change in changes {
            checked("path", &change.path)?;
            let Some(content) = &change.content else { continue };
            let mode = if change.executable { "100755" } else { "100644" };
            let mut entry = json!({ "path": change.path, "mode": mode, "type": "blob" });
            match std::str::from_utf8(content) {
                Ok(text) => entry["content"] = text.into(),
                Err(_) => entry["sha"] = self.write_blob(repo, content).await?.into(),
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    async fn write_blob(&self, repo: &RepoName, content: &[u8]) -> Result<String, GitHubError> {
        let call = in_repo(Call::post(""), repo, "git/blobs")
            .body(json!({ "content": STANDARD.encode(content), "encoding": "base64" }))
            .repeatable();
        let answer = self.ask(&call, &files_of(repo)).await.map_err(hidden_refusal)?;
        Ok(answer.json::<wire::Object>("the blob")?.sha)
    }

    /// The deletions among `changes` that have something to delete: GitHub refuses the others.
    async fn deletions(
        &self,
        repo: &RepoName,
        parent: &CommitSha,
        changes: &[FileChange],
    ) -> Result<Vec<Value>, GitHubError> {
        let mut entries = Vec::new();
        for change in changes.iter().filter(|change| change.content.is_none()) {
            let call =
                in_repo(Call::get(""), repo, "contents").under(&change.path).query("ref", parent);
            if self.ask_maybe(&call, &format!("file `{}`", change.path)).await?.is_some() {
                let gone = Value::Null;
                entries.push(
                    json!({ "path": change.path, "mode": "100644", "type": "blob", "sha": gone }),
                );
            }
        }
        Ok(entries)
    }

    async fn tree_of(&self, repo: &RepoName, commit: &CommitSha) -> Result<String, GitHubError> {
        let call = in_repo(Call::get(""), repo, "git/commits").at(commit);
        let what = format!("commit `{}` of `{repo}`", commit.short());
        Ok(self.ask(&call, &what).await?.json::<wire::GitCommit>("the commit")?.tree.sha)
    }

    async fn write_tree(
        &self,
        repo: &RepoName,
        before: &str,
        entries: Vec<Value>,
    ) -> Result<String, GitHubError> {
        if entries.is_empty() {
            return Ok(before.to_owned());
        }
        let call = in_repo(Call::post(""), repo, "git/trees")
            .body(json!({ "base_tree": before, "tree": entries }))
            .repeatable();
        let answer = self.ask(&call, &files_of(repo)).await.map_err(hidden_refusal)?;
        Ok(answer.json::<wire::Object>("the new tree")?.sha)
    }

    /// A second commit object, made because an answer was lost, is on no branch and goes away.
    async fn write_commit(
        &self,
        repo: &RepoName,
        message: &str,
        tree: &str,
        parents: &[&CommitSha],
    ) -> Result<CommitSha, GitHubError> {
        let call = in_repo(Call::post(""), repo, "git/commits")
            .body(json!({ "message": message, "tree": tree, "parents": parents }))
            .repeatable();
        let what = format!("a commit in `{repo}`");
        sha(&self.ask(&call, &what).await?.json::<wire::Object>("the new commit")?.sha)
    }

    /// Points the branch at `commit`; false where it moved or appeared meanwhile, or where nobody
    /// knows, so that the caller looks at it again.
    async fn move_branch(
        &self,
        repo: &RepoName,
        branch: &str,
        exists: bool,
        commit: &CommitSha,
    ) -> Result<bool, GitHubError> {
        let call = if exists {
            in_repo(Call::patch(""), repo, "git/refs/heads")
                .under(branch)
                .body(json!({ "sha": commit, "force": false }))
        } else {
            in_repo(Call::post(""), repo, "git/refs")
                .body(json!({ "ref": format!("refs/heads/{branch}"), "sha": commit }))
        };
        match self.ask(&call, &format!("branch `{branch}` of `{repo}`")).await {
            Ok(_) => Ok(true),
            Err(GitHubError::Conflict { .. } | GitHubError::NotFound { .. }) => Ok(false),
            Err(GitHubError::Invalid { reason, .. }) if is_about_the_moment(&reason) => Ok(false),
            Err(error) if error.may_have_happened() => {
                tracing::debug!(code = error.code(), "looking at {branch} again");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

fn files_of(repo: &RepoName) -> String {
    format!("the files of `{repo}`")
}

/// Writing finds nothing only where the token may not write: GitHub hides that as "not found".
fn hidden_refusal(error: GitHubError) -> GitHubError {
    match error {
        GitHubError::NotFound { what } => GitHubError::Forbidden {
            what,
            reason: "it answers as if the repo were not there".to_owned(),
            needs: "contents=write, and workflows=write for `.github/workflows`".to_owned(),
        },
        other => other,
    }
}

/// GitHub has one status and no code for all of these; a rule of the repo's is not among them.
fn is_about_the_moment(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["already exists", "not a fast forward", "does not exist", "fast-forward"]
        .iter()
        .any(|sentence| reason.contains(sentence))
}
