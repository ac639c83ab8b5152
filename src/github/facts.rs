//! What GitHub tells, in our words.

use serde::{Deserialize, Serialize};

use crate::domain::clock::Millis;
use crate::domain::names::{CommitSha, RepoName};

/// Who a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserFacts {
    /// The user's numeric id.
    pub id: u64,
    /// The user's name.
    pub login: String,
    /// A classic token's scopes; none for fine-grained ones.
    pub scopes: Option<String>,
}

/// What the token may do with a repo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RepoPermissions {
    /// Change its settings.
    pub admin: bool,
    /// Push commits.
    pub push: bool,
    /// Read it.
    pub pull: bool,
}

/// A repo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoFacts {
    /// Its numeric id, which a rename keeps.
    pub id: u64,
    /// Its name now.
    pub full_name: RepoName,
    /// Its default branch.
    pub default_branch: String,
    /// Whether only some may read it.
    pub private: bool,
    /// Whether it is read-only for all.
    pub archived: bool,
    /// What the token may do.
    pub permissions: RepoPermissions,
}

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitFacts {
    /// Its full id.
    pub sha: CommitSha,
    /// The first line of its message, cleaned: data of others.
    pub subject: String,
    /// Who wrote it: the login, else the name in the commit.
    pub author: String,
    /// When it was committed.
    pub date: Option<Millis>,
}

/// What an entry of a tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File,
    /// A file that may be run.
    Executable,
    /// A symbolic link.
    Symlink,
    /// A folder.
    Folder,
    /// Another repo.
    Submodule,
    /// Anything else, by its mode.
    Other(String),
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// Its path from the top of the repo.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Its size in bytes, for files.
    pub size: Option<u64>,
    /// The id of its content in git, 40 or 64 hex digits, where GitHub sent one.
    pub id: Option<String>,
}

/// Every entry under a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The entries.
    pub entries: Vec<TreeEntry>,
    /// Whether GitHub left some out because there are too many.
    pub truncated: bool,
}

/// Whether a pull request is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullState {
    /// It can be merged.
    Open,
    /// It was merged or closed.
    Closed,
    /// Anything else, in GitHub's word.
    Other(String),
}

/// A pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullFacts {
    /// Its number in the repo.
    pub number: u64,
    /// Whether it is open.
    pub state: PullState,
    /// Whether it was merged.
    pub merged: bool,
    /// Its page.
    pub html_url: String,
    /// The newest commit of its branch.
    pub head_sha: String,
    /// Whether it could be merged without a conflict; none in a list, or while GitHub finds out.
    pub mergeable: Option<bool>,
}

/// How far a run, job or step is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum RunStatus {
    /// Waits for a runner.
    Queued,
    /// Under way.
    InProgress,
    /// Ended; the conclusion says how.
    Completed,
    /// Waits for an approval or another run.
    Waiting,
    /// Anything else, in GitHub's word.
    Other(String),
}

impl From<String> for RunStatus {
    fn from(word: String) -> Self {
        match word.as_str() {
            "queued" | "requested" | "pending" => Self::Queued,
            "in_progress" => Self::InProgress,
            "completed" => Self::Completed,
            "waiting" => Self::Waiting,
            _ => Self::Other(word),
        }
    }
}

impl From<RunStatus> for String {
    fn from(status: RunStatus) -> Self {
        match status {
            RunStatus::Queued => "queued".to_owned(),
            RunStatus::InProgress => "in_progress".to_owned(),
            RunStatus::Completed => "completed".to_owned(),
            RunStatus::Waiting => "waiting".to_owned(),
            RunStatus::Other(word) => word,
        }
    }
}

/// How a run, job or step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Conclusion {
    /// Well.
    Success,
    /// Badly.
    Failure,
    /// Somebody stopped it.
    Cancelled,
    /// It was not to run.
    Skipped,
    /// It took too long.
    TimedOut,
    /// It could not even start: most often the workflow file is wrong.
    StartupFailure,
    /// Anything else, in GitHub's word.
    Other(String),
}

impl From<String> for Conclusion {
    fn from(word: String) -> Self {
        match word.as_str() {
            "success" => Self::Success,
            "failure" => Self::Failure,
            "cancelled" => Self::Cancelled,
            "skipped" => Self::Skipped,
            "timed_out" => Self::TimedOut,
            "startup_failure" => Self::StartupFailure,
            _ => Self::Other(word),
        }
    }
}

impl From<Conclusion> for String {
    fn from(conclusion: Conclusion) -> Self {
        match conclusion {
            Conclusion::Success => "success".to_owned(),
            Conclusion::Failure => "failure".to_owned(),
            Conclusion::Cancelled => "cancelled".to_owned(),
            Conclusion::Skipped => "skipped".to_owned(),
            Conclusion::TimedOut => "timed_out".to_owned(),
            Conclusion::StartupFailure => "startup_failure".to_owned(),
            Conclusion::Other(word) => word,
        }
    }
}

/// A run of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFacts {
    /// Its id.
    pub id: u64,
    /// How far it is.
    pub status: RunStatus,
    /// How it ended, once it has.
    pub conclusion: Option<Conclusion>,
    /// Its page.
    pub html_url: String,
    /// Its title, which carries what the workflow puts into `run-name`.
    pub title: String,
    /// The commit that the workflow file was taken from.
    pub head_sha: String,
}

/// A job of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFacts {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// How far it is.
    pub status: RunStatus,
    /// How it ended, once it has.
    pub conclusion: Option<Conclusion>,
    /// Its steps, as far as they are known.
    pub steps: Vec<StepFacts>,
}

/// A step of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepFacts {
    /// Its place, from 1.
    pub number: u64,
    /// Its name.
    pub name: String,
    /// How far it is.
    pub status: RunStatus,
    /// How it ended, once it has.
    pub conclusion: Option<Conclusion>,
}

/// What one commit has and another has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// How many commits the later one has that the earlier one has not.
    pub ahead: u64,
    /// How many the earlier one has that the later one has not.
    pub behind: u64,
    /// Those of `ahead`, oldest first, as many as GitHub gives.
    pub commits: Vec<CommitLine>,
    /// The files that differ, as many as GitHub gives.
    pub files: Vec<ChangedFile>,
}

/// A commit in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitLine {
    /// The commit.
    pub sha: CommitSha,
    /// The first line of its message, cleaned.
    pub subject: String,
}

/// A file that differs between two commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedFile {
    /// Its path from the top of the repo, cleaned.
    pub path: String,
    /// In GitHub's word: `added`, `modified`, `removed`, `renamed`, ...
    pub status: String,
}
