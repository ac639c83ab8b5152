//! Reading a repo over the API: what a scan needs of it, and what of ours is in it.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};

use super::{Context, OpError, edits};
use crate::domain::environment::{App, Environment};
use crate::domain::names::{CommitSha, RepoName};
use crate::domain::service::ServiceState;
use crate::domain::size::Arch;
pub use crate::github::GitHub;
use crate::github::{EntryKind, FileChange, GitHubError, RepoFacts, TreeEntry};
use crate::pipeline::scan::{Build, Entry, Scan};
use crate::pipeline::{EnvironmentSetup, GeneratedFile, ServiceSetup, Setup};
use crate::store::{AppRow, Store, Written};

/// How many files of a repo are asked for at once.
const READS_AT_ONCE: usize = 6;

/// A repo, what a scan found in it, and the commit that was scanned.
#[derive(Debug, Clone)]
pub struct Scanned {
    /// The repo.
    pub repo: RepoFacts,
    /// The commit.
    pub commit: crate::github::CommitFacts,
    /// What was found.
    pub scan: Scan,
}

impl Scanned {
    /// How the image would be built, in words.
    pub fn built(&self) -> Option<String> {
        Some(match self.scan.build.as_ref()? {
            Build::Buildpacks { language } => format!("Buildpacks ({})", language.as_str()),
            Build::Dockerfile { path } => format!("the repo's {path}"),
        })
    }
}

/// Scans the folder `root` of a repo at `git_ref` (the default branch where none is given),
/// without a clone: the tree and a few named files.
///
/// # Errors
/// The repo or the ref does not exist, or the token may not read it.
pub async fn scan(
    github: &GitHub,
    repo: &RepoName,
    git_ref: Option<&str>,
    root: &str,
) -> Result<Scanned, OpError> {
    let facts = github.repo(repo).await?;
    let git_ref = git_ref.unwrap_or(&facts.default_branch);
    let commit = resolve(github, &facts.full_name, git_ref).await?;
    let tree = github.tree(&facts.full_name, &commit.sha).await?;
    let entries: Vec<Entry> = tree
        .entries
        .iter()
        .filter(|entry| matches!(entry.kind, EntryKind::File | EntryKind::Executable))
        .map(|entry| Entry { path: entry.path.clone(), size: entry.size })
        .collect();
    let wanted = crate::pipeline::scan::wanted_files(&entries, root);
    let mut reads = Vec::new();
    for entry in tree.entries.iter().filter(|entry| wanted.contains(&entry.path)) {
        reads.push(read(github, &facts.full_name, entry, &commit.sha));
    }
    let read: Vec<_> = futures::stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
    let files: BTreeMap<String, Vec<u8>> = read.into_iter().flatten().collect();
    let mut scan = crate::pipeline::scan::scan(&entries, &files, root);
    if tree.truncated {
        scan.tree_was_cut(entries.len());
    }
    Ok(Scanned { repo: facts, commit, scan })
}

/// A file with its path; none where it is gone or too large to be sent.
async fn read(
    github: &GitHub,
    repo: &RepoName,
    entry: &TreeEntry,
    commit: &CommitSha,
) -> Result<Option<(String, Vec<u8>)>, GitHubError> {
    match github.read_entry(repo, entry, commit).await {
        Ok(content) => Ok(content.map(|content| (entry.path.clone(), content))),
        Err(GitHubError::TooLarge { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The commit that a branch, tag or commit id stands for.
pub(super) async fn resolve(
    github: &GitHub,
    repo: &RepoName,
    git_ref: &str,
) -> Result<crate::github::CommitFacts, OpError> {
    match github.resolve(repo, git_ref).await {
        Ok(commit) => Ok(commit),
        Err(error) if error.code() == "github_not_found" || error.code() == "not_found" => {
            Err(OpError::UnknownRef { given: git_ref.to_owned(), repo: repo.to_string() })
        }
        Err(error) => Err(error.into()),
    }
}

/// What the scan of an app found, as it was kept.
pub(super) fn kept_scan(row: &AppRow) -> Result<Scan, OpError> {
    serde_json::from_value(row.scan.clone()).map_err(|error| OpError::Unreadable {
        what: format!("the scan of `{}`", row.app.slug),
        detail: error.to_string(),
    })
}

/// The files that an app's repo should hold, with all its environments.
pub(super) async fn wanted_files(
    context: &Context,
    row: &AppRow,
) -> Result<(Setup, Vec<GeneratedFile>), OpError> {
    wanted_files_with(context, row, None).await
}

/// The same as if `changed` were stored.
pub(super) async fn wanted_files_with(
    context: &Context,
    row: &AppRow,
    changed: Option<&Environment>,
) -> Result<(Setup, Vec<GeneratedFile>), OpError> {
    let scan = kept_scan(row)?;
    let mut environments = Vec::new();
    for environment in context.store.environments().await? {
        if environment.app != row.app.id {
            continue;
        }
        let environment = match changed {
            Some(changed) if changed.id == environment.id => changed.clone(),
            _ => environment,
        };
        let vm = match environment.vm {
            Some(id) => context.store.vm(id).await?.map(|row| row.vm),
            None => None,
        };
        let also = context.store.alias_of(environment.id).await?;
        let setup = EnvironmentSetup::of(&environment, vm.as_ref(), Arch::Amd64);
        let services = context.store.services(environment.id).await?;
        let services = services
            .iter()
            .filter(|one| one.state != ServiceState::Removing)
            .map(|one| ServiceSetup {
                kind: one.kind,
                version: one.version,
                memory_mb: one.memory_mb,
            })
            .collect();
        environments.push(EnvironmentSetup { also, services, ..setup });
    }
    setup_files(&row.app, &scan, environments)
}

/// The files for `environments` of an app.
pub(super) fn setup_files(
    app: &App,
    scan: &Scan,
    environments: Vec<EnvironmentSetup>,
) -> Result<(Setup, Vec<GeneratedFile>), OpError> {
    let build = scan.build.clone().ok_or_else(|| OpError::Blocked {
        app: app.slug.to_string(),
        reasons: blocking(scan).join("; "),
    })?;
    let setup = Setup::of(app, build, scan, environments);
    let files = crate::pipeline::files(&setup)?;
    Ok((setup, files))
}

/// The rows of a checklist that stand in the way of a first deploy.
pub(super) fn blocking(scan: &Scan) -> Vec<String> {
    blocking_but(scan, &[])
}

/// The same without the rows of these codes, which the caller has accepted. Without a way to build
/// the image there is nothing to accept.
pub(super) fn blocking_but(scan: &Scan, ignored: &[String]) -> Vec<String> {
    let ignored = if scan.build.is_some() { ignored } else { &[] };
    scan.blocking()
        .filter(|check| !ignored.contains(&check.code))
        .map(|check| format!("{} ({})", check.told(), check.code))
        .collect()
}

/// How the files of ours in a repo differ from the wanted ones.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// What has to be written: our files, with people's edits kept in them.
    pub(super) changes: Vec<FileChange>,
    /// The paths among `changes` that keep an edit of a person's.
    pub(super) merged: Vec<String>,
    /// Files that a person has edited where we would change them: they stay as they are.
    pub(super) edited: Vec<Edited>,
    /// What the files that differ hold now, by path.
    pub(super) before: BTreeMap<String, String>,
    /// What is as wanted, or will be once the changes are written. What is as wanted belongs in the
    /// notes too: whoever wrote it may have died before it noted that.
    pub(super) written: BTreeMap<String, Written>,
}

/// A file that a person has edited where we would change it.
#[derive(Debug)]
pub(super) struct Edited {
    /// Its path.
    pub(super) path: String,
    /// What we would have written.
    pub(super) wanted: String,
}

fn content_digest(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

/// Compares `files` with those at `git_ref`. A file that is not as we wrote it at some time is a
/// person's: what they changed is kept.
pub(super) async fn difference(
    store: &Store,
    github: &GitHub,
    row: &AppRow,
    files: &[GeneratedFile],
    git_ref: &str,
) -> Result<Difference, OpError> {
    let mut difference = Difference::default();
    for file in files {
        let there = github.read_file(&row.app.repo, &file.path, git_ref).await?;
        let wanted = file.content.as_bytes();
        let written = Written::of(&file.content);
        let mut content = file.content.clone();
        if let Some(there) = &there {
            if there == wanted {
                difference.written.insert(file.path.clone(), written);
                continue;
            }
            let text = String::from_utf8_lossy(there).into_owned();
            difference.before.insert(file.path.clone(), text.clone());
            if !row.wrote(&file.path, &content_digest(there)) {
                let known = store.written_contents(row.app.id, file.path.clone()).await?;
                match edits::with_theirs(&file.path, &known, &text, &file.content) {
                    Some(both) if both == text => {
                        // Our side of it has not changed since.
                        difference.written.insert(file.path.clone(), written);
                        difference.before.remove(&file.path);
                        continue;
                    }
                    Some(both) => {
                        difference.merged.push(file.path.clone());
                        content = both;
                    }
                    None => {
                        let (path, wanted) = (file.path.clone(), file.content.clone());
                        difference.edited.push(Edited { path, wanted });
                        continue;
                    }
                }
            }
        }
        difference.written.insert(file.path.clone(), written);
        difference.changes.push(FileChange {
            path: file.path.clone(),
            content: Some(content.into_bytes()),
            executable: file.executable,
        });
    }
    Ok(difference)
}
