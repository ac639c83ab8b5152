//! GitHub's JSON, as much of it as is read. What is not always there has a default.

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct User {
    pub(super) id: u64,
    pub(super) login: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct App {
    #[serde(default)]
    pub(super) slug: String,
    #[serde(default)]
    pub(super) html_url: String,
    #[serde(default)]
    pub(super) owner: Option<Login>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Installation {
    pub(super) id: u64,
    #[serde(default)]
    pub(super) account: Option<Login>,
    #[serde(default)]
    pub(super) html_url: String,
    #[serde(default)]
    pub(super) permissions: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    pub(super) suspended_at: Option<String>,
}

/// Without `Debug`: it is a token.
#[derive(Deserialize)]
pub(super) struct AccessToken {
    pub(super) token: String,
    #[serde(default)]
    pub(super) expires_at: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Repo {
    pub(super) id: u64,
    pub(super) full_name: String,
    pub(super) default_branch: String,
    #[serde(default)]
    pub(super) private: bool,
    #[serde(default)]
    pub(super) archived: bool,
    #[serde(default)]
    pub(super) permissions: Option<Permissions>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Permissions {
    #[serde(default)]
    pub(super) admin: bool,
    #[serde(default)]
    pub(super) push: bool,
    #[serde(default)]
    pub(super) pull: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Commit {
    pub(super) sha: String,
    pub(super) commit: CommitBody,
    #[serde(default)]
    pub(super) author: Option<Login>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Login {
    #[serde(default)]
    pub(super) login: Option<String>,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct CommitBody {
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) author: Option<Signature>,
    #[serde(default)]
    pub(super) committer: Option<Signature>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Signature {
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) date: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Tree {
    #[serde(default)]
    pub(super) tree: Vec<Entry>,
    #[serde(default)]
    pub(super) truncated: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    #[serde(default)]
    pub(super) path: String,
    #[serde(default)]
    pub(super) mode: String,
    #[serde(default)]
    pub(super) size: Option<u64>,
    #[serde(default)]
    pub(super) sha: String,
}

/// A file of the contents API; a folder is a list instead.
#[derive(Debug, Deserialize)]
pub(super) struct Content {
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) encoding: Option<String>,
    #[serde(default)]
    pub(super) content: Option<String>,
    #[serde(default)]
    pub(super) size: u64,
}

/// An object that git names by its hash.
#[derive(Debug, Deserialize)]
pub(super) struct Object {
    pub(super) sha: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Ref {
    pub(super) object: Object,
}

#[derive(Debug, Deserialize)]
pub(super) struct GitCommit {
    pub(super) tree: Object,
}

#[derive(Debug, Deserialize)]
pub(super) struct Pull {
    pub(super) number: u64,
    #[serde(default)]
    pub(super) state: String,
    #[serde(default)]
    pub(super) merged: Option<bool>,
    #[serde(default)]
    pub(super) merged_at: Option<String>,
    #[serde(default)]
    pub(super) mergeable: Option<bool>,
    #[serde(default)]
    pub(super) html_url: String,
    pub(super) head: Head,
}

#[derive(Debug, Deserialize)]
pub(super) struct Head {
    #[serde(default, rename = "ref")]
    pub(super) branch: String,
    #[serde(default)]
    pub(super) sha: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Dispatched {
    #[serde(default)]
    pub(super) workflow_run_id: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Runs {
    #[serde(default)]
    pub(super) workflow_runs: Vec<Run>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Run {
    pub(super) id: u64,
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) display_title: Option<String>,
    #[serde(default)]
    pub(super) status: Option<String>,
    #[serde(default)]
    pub(super) conclusion: Option<String>,
    #[serde(default)]
    pub(super) html_url: String,
    #[serde(default)]
    pub(super) head_sha: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Jobs {
    #[serde(default)]
    pub(super) jobs: Vec<Job>,
    #[serde(default)]
    pub(super) total_count: usize,
}

#[derive(Debug, Deserialize)]
pub(super) struct Job {
    pub(super) id: u64,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) status: Option<String>,
    #[serde(default)]
    pub(super) conclusion: Option<String>,
    #[serde(default)]
    pub(super) steps: Option<Vec<Step>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Step {
    #[serde(default)]
    pub(super) number: u64,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) status: Option<String>,
    #[serde(default)]
    pub(super) conclusion: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Annotation {
    #[serde(default)]
    pub(super) annotation_level: Option<String>,
    #[serde(default)]
    pub(super) path: Option<String>,
    #[serde(default)]
    pub(super) start_line: Option<u64>,
    #[serde(default)]
    pub(super) title: Option<String>,
    #[serde(default)]
    pub(super) message: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Hook {
    pub(super) id: u64,
    #[serde(default)]
    pub(super) active: bool,
    #[serde(default)]
    pub(super) events: Vec<String>,
    #[serde(default)]
    pub(super) config: HookConfig,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct HookConfig {
    #[serde(default)]
    pub(super) url: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PublicKey {
    pub(super) key_id: String,
    /// Base64 of 32 bytes.
    pub(super) key: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Comparison {
    #[serde(default)]
    pub(super) ahead_by: u64,
    #[serde(default)]
    pub(super) behind_by: u64,
    #[serde(default)]
    pub(super) commits: Vec<Commit>,
    #[serde(default)]
    pub(super) files: Vec<ComparedFile>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ComparedFile {
    pub(super) filename: String,
    #[serde(default)]
    pub(super) status: String,
}
