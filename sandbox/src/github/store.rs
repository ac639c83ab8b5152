//! What the simulated GitHub remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crypto_box::SecretKey;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::git::{Commit, FileContent, Files, GitStore, Mode, Person};
use crate::workflow::Workflow;
use crate::{SandboxError, clock};

/// The user whom the token belongs to.
pub(crate) const LOGIN: &str = "octo";
/// Folders of a checkout that are not part of a commit.
const SKIPPED: &[&str] = &[".git", "target", "node_modules"];
/// The largest file that is taken from a folder.
const FILE_BYTES_MAX: u64 = 5 * 1024 * 1024;

/// Everything.
#[derive(Default)]
pub(super) struct State {
    pub(super) repos: Vec<Repo>,
    last_id: u64,
    pub(super) requests_used: u64,
    pub(super) knobs: Knobs,
    /// Addresses of job logs that are good for a minute: (job, until, in seconds since 1970).
    pub(super) log_tickets: BTreeMap<String, (u64, i64)>,
    pub(super) apps: Vec<super::apps::App>,
    /// Tokens of Apps' installations that are still good.
    pub(super) app_tokens: BTreeMap<String, super::apps::AppToken>,
    pub(super) app_tokens_made: u64,
    pub(super) deliveries_sent: u64,
}

/// What a test can change.
#[derive(Default, Clone, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Knobs {
    /// Permissions that the token lacks, such as `contents=write` or `actions=read`.
    pub(super) missing_permissions: BTreeSet<String>,
    /// Requests that are left in this hour; as many as GitHub gives where none.
    pub(super) requests_left: Option<u64>,
    /// Steps whose name contains this wait until it is taken back.
    pub(super) hold_step: Option<String>,
    /// Workflow files are not known to Actions yet.
    pub(super) workflows_not_indexed: bool,
    /// A run goes on until its cancellation is forced.
    pub(super) ignores_cancel: bool,
    /// Rules of rulesets by branch, each as GitHub lists it: `{"type": .., "parameters": {..}}`.
    pub(super) rules: BTreeMap<String, Vec<serde_json::Value>>,
    /// Branches that are protected in the older way.
    pub(super) protected: BTreeSet<String>,
    /// The Actions settings; everything is allowed where they are absent.
    pub(super) actions: Option<ActionsSettings>,
    /// How long tokens of Apps are good, in seconds; an hour where none.
    pub(super) app_token_seconds: Option<i64>,
    /// Anybody may pull the images.
    pub(super) public_images: bool,
    /// How the network treats webhooks.
    pub(super) webhooks: super::hooks::Weather,
    /// Every call is refused for a moment with the secondary limit, asking to wait so many seconds.
    pub(super) secondary_limit_seconds: Option<u64>,
}

/// Which actions a repo's workflows may use.
#[derive(Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActionsSettings {
    pub(super) enabled: bool,
    /// `all`, `local_only` or `selected`.
    pub(super) allowed: String,
    /// Whether those of GitHub itself are among the selected ones.
    #[serde(default)]
    pub(super) github_owned: bool,
    /// Patterns of the selected ones, such as `docker/*`.
    #[serde(default)]
    pub(super) patterns: Vec<String>,
}

impl Knobs {
    /// Whether somebody may push to a branch; GitHub's words where not.
    pub(super) fn push_refused(&self, branch: &str) -> Option<String> {
        let rules = self.rules.get(branch).into_iter().flatten();
        let stops = |rule: &&serde_json::Value| {
            matches!(
                rule["type"].as_str(),
                Some("pull_request" | "required_status_checks" | "update")
            )
        };
        if rules.into_iter().find(stops).is_some() {
            return Some(format!(
                "Repository rule violations found\n\nChanges must be made through a pull request.\n\nrefs/heads/{branch}"
            ));
        }
        self.protected
            .contains(branch)
            .then(|| format!("Protected branch update failed for refs/heads/{branch}."))
    }

    /// Whether a pull request to a branch may be merged as it is: nobody ever reviews here.
    pub(super) fn merge_refused(&self, branch: &str) -> Option<String> {
        let needs = self.rules.get(branch).into_iter().flatten().find_map(|rule| {
            rule["parameters"]["required_approving_review_count"].as_u64().filter(|n| *n > 0)
        });
        let protected = self.protected.contains(branch).then_some(1);
        needs.or(protected).map(|n| {
            format!("Repository rule violations found\n\nAt least {n} approving review is required by reviewers with write access.\n\n")
        })
    }
}

/// One repo.
pub(super) struct Repo {
    pub(super) id: u64,
    pub(super) owner: String,
    pub(super) name: String,
    pub(super) default_branch: String,
    pub(super) archived: bool,
    pub(super) git: GitStore,
    /// Full names (`refs/heads/main`) to commits.
    pub(super) refs: BTreeMap<String, String>,
    pub(super) pulls: Vec<Pull>,
    pub(super) secret_key: SecretKey,
    pub(super) secrets: BTreeMap<String, Stored>,
    pub(super) variables: BTreeMap<String, Stored>,
    /// Paths of workflow files to their ids.
    pub(super) workflows: BTreeMap<String, u64>,
    pub(super) runs: Vec<Run>,
    pub(super) hooks: Vec<super::hooks::Hook>,
    pub(super) created_at: String,
    pub(super) pushed_at: String,
}

/// A secret or a variable.
pub(super) struct Stored {
    pub(super) value: String,
    pub(super) created_at: String,
    pub(super) updated_at: String,
}

/// One pull request.
pub(super) struct Pull {
    pub(super) id: u64,
    pub(super) number: u64,
    /// The branch with the changes.
    pub(super) head: String,
    /// The branch they are for.
    pub(super) base: String,
    pub(super) title: String,
    pub(super) body: Option<String>,
    pub(super) closed_at: Option<String>,
    pub(super) merged_sha: Option<String>,
    /// The head's commit when it was closed.
    pub(super) last_head: String,
    pub(super) last_base: String,
    pub(super) created_at: String,
    pub(super) updated_at: String,
}

impl Pull {
    pub(super) fn state(&self) -> &'static str {
        if self.closed_at.is_some() { "closed" } else { "open" }
    }
}

/// One run of a workflow.
pub(super) struct Run {
    pub(super) id: u64,
    pub(super) number: u64,
    pub(super) attempt: u64,
    pub(super) path: String,
    pub(super) workflow_name: String,
    pub(super) workflow: Arc<Workflow>,
    pub(super) title: String,
    pub(super) branch: String,
    pub(super) sha: String,
    /// `workflow_dispatch` or `push`.
    pub(super) event: &'static str,
    pub(super) inputs: BTreeMap<String, Value>,
    pub(super) group: Option<String>,
    pub(super) started: bool,
    pub(super) conclusion: Option<&'static str>,
    pub(super) jobs: Vec<JobState>,
    pub(super) cancelled: CancellationToken,
    pub(super) created_at: String,
    pub(super) updated_at: String,
}

impl Run {
    pub(super) fn status(&self) -> &'static str {
        match (self.conclusion, self.started, &self.group) {
            (Some(_), ..) => "completed",
            (None, true, _) => "in_progress",
            (None, false, Some(_)) => "pending",
            (None, false, None) => "queued",
        }
    }
}

/// One job of a run.
pub(super) struct JobState {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) labels: Vec<String>,
    pub(super) created_at: String,
    pub(super) started_at: Option<String>,
    pub(super) completed_at: Option<String>,
    pub(super) conclusion: Option<&'static str>,
    pub(super) steps: Vec<StepState>,
    pub(super) log: String,
    pub(super) annotations: Vec<String>,
}

/// One step of a job.
pub(super) struct StepState {
    pub(super) name: String,
    pub(super) started_at: Option<String>,
    pub(super) completed_at: Option<String>,
    pub(super) conclusion: Option<&'static str>,
}

impl State {
    /// The next number for anything that needs one; far from small numbers, as GitHub's are.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        8_000_000 + self.last_id
    }

    pub(super) fn repo_mut(&mut self, owner: &str, name: &str) -> Option<&mut Repo> {
        self.repos.iter_mut().find(|repo| {
            repo.owner.eq_ignore_ascii_case(owner) && repo.name.eq_ignore_ascii_case(name)
        })
    }

    pub(super) fn repo_by_id(&mut self, id: u64) -> Option<&mut Repo> {
        self.repos.iter_mut().find(|repo| repo.id == id)
    }

    pub(super) fn add_repo(&mut self, owner: &str, name: &str, files: &Files) {
        if self.repo_mut(owner, name).is_some() {
            return;
        }
        let now = super::now();
        let mut repo = Repo {
            id: self.next_id(),
            owner: owner.to_owned(),
            name: name.to_owned(),
            default_branch: "main".to_owned(),
            archived: false,
            git: GitStore::default(),
            refs: BTreeMap::new(),
            pulls: Vec::new(),
            secret_key: SecretKey::generate(&mut crypto_box::aead::OsRng),
            secrets: BTreeMap::new(),
            variables: BTreeMap::new(),
            workflows: BTreeMap::new(),
            runs: Vec::new(),
            hooks: Vec::new(),
            created_at: now.clone(),
            pushed_at: now,
        };
        let tree = repo.git.put_files(files);
        let person = person(owner);
        let commit = Commit {
            tree,
            parents: Vec::new(),
            author: person.clone(),
            committer: person,
            message: "Initial commit\n".to_owned(),
        };
        let sha = repo.git.put_commit(commit);
        repo.refs.insert("refs/heads/main".to_owned(), sha);
        self.repos.push(repo);
    }
}

/// Somebody who commits, now.
pub(super) fn person(login: &str) -> Person {
    Person {
        name: login.to_owned(),
        email: format!("{login}@users.noreply.github.com"),
        at_s: clock::now().as_second(),
    }
}

impl Repo {
    pub(super) fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The head of the default branch.
    pub(super) fn head(&self) -> Option<&str> {
        self.branch(&self.default_branch)
    }

    pub(super) fn branch(&self, name: &str) -> Option<&str> {
        self.refs.get(&format!("refs/heads/{name}")).map(String::as_str)
    }

    /// The commit of a branch, a tag, a full reference, an id or the beginning of one.
    pub(super) fn resolve(&self, name: &str) -> Option<String> {
        let full = name.strip_prefix("heads/").or(name.strip_prefix("refs/heads/")).unwrap_or(name);
        let tag = name.strip_prefix("tags/").or(name.strip_prefix("refs/tags/")).unwrap_or(name);
        let by_ref = self
            .branch(full)
            .or_else(|| self.refs.get(&format!("refs/tags/{tag}")).map(String::as_str));
        match name {
            "HEAD" => self.head().map(str::to_owned),
            _ => by_ref
                .map(str::to_owned)
                .or_else(|| self.git.commit(name).map(|_| name.to_owned()))
                .or_else(|| self.git.commit_by_prefix(name)),
        }
    }

    /// Notes a push: the time, and workflow files that came with it.
    pub(super) fn pushed(&mut self) {
        self.pushed_at = super::now();
    }

    /// Adds a commit with other files on top of a branch; answers its id.
    pub(super) fn commit_tree(
        &mut self,
        branch: &str,
        parents: Vec<String>,
        tree: String,
        message: &str,
        login: &str,
    ) -> String {
        let person = person(login);
        let commit = Commit {
            tree,
            parents,
            author: person.clone(),
            committer: person,
            message: message.to_owned(),
        };
        let sha = self.git.put_commit(commit);
        self.refs.insert(format!("refs/heads/{branch}"), sha.clone());
        self.pushed();
        sha
    }
}

/// The repos of a folder: `DIR/OWNER/NAME`.
pub(super) fn folders(dir: &Path) -> Result<Vec<(String, String, Files)>, SandboxError> {
    let mut found = Vec::new();
    for (owner, owner_dir) in below(dir)? {
        if !owner_dir.is_dir() || owner.starts_with('.') {
            continue;
        }
        for (name, repo_dir) in below(&owner_dir)? {
            if repo_dir.is_dir() && !name.starts_with('.') {
                let mut files = Files::new();
                collect(&repo_dir, "", &mut files)?;
                found.push((owner.clone(), name, files));
            }
        }
    }
    Ok(found)
}

fn below(dir: &Path) -> Result<Vec<(String, std::path::PathBuf)>, SandboxError> {
    let fail = |source| SandboxError::io("read the folder", dir, source);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

fn collect(dir: &Path, prefix: &str, files: &mut Files) -> Result<(), SandboxError> {
    use std::os::unix::fs::PermissionsExt as _;
    for (name, path) in below(dir)? {
        let meta = std::fs::symlink_metadata(&path)
            .map_err(|source| SandboxError::io("read", &path, source))?;
        if meta.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                collect(&path, &format!("{prefix}{name}/"), files)?;
            }
            continue;
        }
        let file = if meta.is_symlink() {
            let target = std::fs::read_link(&path)
                .map_err(|source| SandboxError::io("read", &path, source))?;
            FileContent { mode: Mode::Symlink, bytes: target.to_string_lossy().as_bytes().into() }
        } else if meta.len() > FILE_BYTES_MAX || !meta.is_file() {
            continue;
        } else {
            let bytes =
                std::fs::read(&path).map_err(|source| SandboxError::io("read", &path, source))?;
            let executable = meta.permissions().mode() & 0o100 != 0;
            FileContent {
                mode: if executable { Mode::Executable } else { Mode::File },
                bytes: bytes.into(),
            }
        };
        files.insert(format!("{prefix}{name}"), file);
    }
    Ok(())
}
