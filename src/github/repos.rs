//! Repos and what is in them, read only.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::error::GitHubError;
use super::facts::{
    CommitFacts, EntryKind, RepoFacts, RepoPermissions, Tree, TreeEntry, UserFacts,
};
use super::{GitHub, checked, in_repo, wire};
use crate::domain::clock::Millis;
use crate::domain::names::{CommitSha, RepoName};
use crate::github::kept::Known;
use crate::requests::Call;

/// GitHub itself sends no content of larger files.
const FILE_MAX: u64 = 1 << 20;

impl GitHub {
    /// Who the token speaks for.
    pub async fn user(&self) -> Result<UserFacts, GitHubError> {
        let answer = self.ask(&Call::get("user"), "the token's user").await?;
        let user: wire::User = answer.json("the token's user")?;
        let scopes = answer.header("x-oauth-scopes").map(|scopes| self.api.clean(scopes));
        Ok(UserFacts { id: user.id, login: user.login, scopes })
    }

    /// A repo; one that was renamed is found by its old name too.
    pub async fn repo(&self, repo: &RepoName) -> Result<RepoFacts, GitHubError> {
        let call = in_repo(Call::get(""), repo, "");
        let answer = self.ask_again(call, &format!("repo `{repo}`")).await?;
        let found: wire::Repo = answer.json("the repo")?;
        let may = found.permissions.unwrap_or_default();
        Ok(RepoFacts {
            id: found.id,
            full_name: found.full_name.parse().unwrap_or_else(|_| repo.clone()),
            default_branch: found.default_branch,
            private: found.private,
            archived: found.archived,
            permissions: RepoPermissions { admin: may.admin, push: may.push, pull: may.pull },
        })
    }

    /// The commit that a branch, a tag or an abbreviated id stands for.
    pub async fn resolve(
        &self,
        repo: &RepoName,
        git_ref: &str,
    ) -> Result<CommitFacts, GitHubError> {
        let call = in_repo(Call::get(""), repo, "commits").under(checked("ref", git_ref)?);
        let what = || format!("ref `{git_ref}` of `{repo}`");
        let answer = match self.ask_again(call, &what()).await {
            // GitHub's words for a ref that names nothing.
            Err(GitHubError::Invalid { .. }) => Err(GitHubError::NotFound { what: what() }),
            other => other,
        }?;
        let found: wire::Commit = answer.json("the commit")?;
        let signature = found.commit.author.unwrap_or_default();
        let date = found.commit.committer.and_then(|c| c.date).or(signature.date);
        let author = found.author.and_then(|a| a.login).or(signature.name).unwrap_or_default();
        Ok(CommitFacts {
            sha: sha(&found.sha)?,
            subject: self.api.clean(found.commit.message.lines().next().unwrap_or_default()),
            author: self.api.clean(&author),
            date: date
                .and_then(|date| date.parse::<Timestamp>().ok())
                .map(|date| Millis(date.as_millisecond())),
        })
    }

    /// Every file and folder of a commit, with its path from the top.
    pub async fn tree(&self, repo: &RepoName, commit: &CommitSha) -> Result<Tree, GitHubError> {
        let call = in_repo(Call::get(""), repo, "git/trees").at(commit).query("recursive", 1);
        let what = format!("commit `{}` of `{repo}`", commit.short());
        let tree: wire::Tree = self.ask_again(call, &what).await?.json("the tree")?;
        let entries = tree.tree.into_iter().map(entry).collect();
        Ok(Tree { entries, truncated: tree.truncated })
    }

    /// The bytes of a file of a commit's tree; one with the same content as an earlier one is not
    /// asked for again, whatever its commit. None where it is gone. At most 1 MiB.
    pub async fn read_entry(
        &self,
        repo: &RepoName,
        entry: &TreeEntry,
        commit: &CommitSha,
    ) -> Result<Option<Vec<u8>>, GitHubError> {
        let name = entry.id.as_ref().map(|id| format!("{repo} {id}"));
        if let Some(known) = name.as_ref().and_then(|name| self.kept.get(name)) {
            return Ok(Some(known.body));
        }
        let bytes = self.read_file(repo, &entry.path, commit.as_str()).await?;
        if let (Some(name), Some(bytes)) = (name, &bytes) {
            self.kept.put(name, Known { etag: None, body: bytes.clone() });
        }
        Ok(bytes)
    }

    /// A file's bytes; none where there is no file of that path. At most 1 MiB.
    pub async fn read_file(
        &self,
        repo: &RepoName,
        path: &str,
        git_ref: &str,
    ) -> Result<Option<Vec<u8>>, GitHubError> {
        let call = in_repo(Call::get(""), repo, "contents")
            .under(checked("path", path)?)
            .query("ref", git_ref);
        let what = format!("file `{path}` of `{repo}`");
        let Some(answer) = self.ask_maybe(&call, &what).await? else { return Ok(None) };
        if answer.value().is_array() {
            return Ok(None);
        }
        let file: wire::Content = answer.json("the file")?;
        if file.kind != "file" {
            return Ok(None);
        }
        let bytes = match (file.encoding.as_deref(), file.content) {
            (Some("base64"), Some(text)) => {
                let packed: String = text.split_whitespace().collect();
                STANDARD.decode(packed).ok()
            }
            _ => None,
        };
        bytes
            .filter(|bytes| bytes.len() as u64 <= FILE_MAX && file.size <= FILE_MAX)
            .map(Some)
            .ok_or_else(|| GitHubError::TooLarge { path: path.to_owned() })
    }
}

/// A commit id that GitHub sent.
pub(super) fn sha(text: &str) -> Result<CommitSha, GitHubError> {
    text.parse().map_err(|_| GitHubError::BadName {
        kind: "commit id",
        given: crate::requests::clean(text),
    })
}

fn entry(entry: wire::Entry) -> TreeEntry {
    let kind = match entry.mode.as_str() {
        "100644" => EntryKind::File,
        "100755" => EntryKind::Executable,
        "120000" => EntryKind::Symlink,
        "040000" | "40000" => EntryKind::Folder,
        "160000" => EntryKind::Submodule,
        _ => EntryKind::Other(entry.mode),
    };
    let hex = entry.sha.chars().all(|c| c.is_ascii_hexdigit());
    let id = (matches!(entry.sha.len(), 40 | 64) && hex).then_some(entry.sha);
    TreeEntry { path: entry.path, kind, size: entry.size, id }
}
