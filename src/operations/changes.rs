//! How changes of our files reach a repo: as commits on the default branch, or on a branch with a
//! pull request, which a person merges or we do.
//!
//! What people edited is theirs: their edit and our change are merged where they touch different
//! lines; where they touch the same, the file stays as it is and is named.

use serde_json::json;

use super::configure_app::FileDiff;
use super::repo::{Difference, difference, resolve};
use super::{Context, OpError, Run, StepEnd};
use crate::domain::names::CommitSha;
use crate::github::{FileChange, GitHub, PullFacts, PullState};
use crate::pipeline::{GeneratedFile, Setup, readme_section, with_readme_section};
use crate::store::{AppRow, Changes, Written};

/// The branch on which later changes of the config gather.
pub(super) const CONFIG_BRANCH: &str = "vmkit/config";

/// One change on its way.
pub(super) struct Way<'a> {
    pub(super) context: &'a Context,
    pub(super) github: &'a GitHub,
    pub(super) row: &'a AppRow,
    /// The branch of the pull request.
    pub(super) branch: &'static str,
    /// How the change reaches the default branch: as the app's settings say, or for a reason of the
    /// caller's in another way.
    pub(super) by: Changes,
}

/// The file with a section of ours, under which the section is noted.
const README: &str = "README.md";
/// Other names of it, beside which none is made.
const READMES: [&str; 5] = ["readme.md", "Readme.md", "README.rst", "README.txt", "README"];

/// What a commit brought.
#[derive(Debug, Default)]
pub(super) struct Committed {
    /// The commit; none where the repo is as wanted.
    pub(super) commit: Option<CommitSha>,
    /// The files that differ from the default branch's.
    pub(super) files: Vec<String>,
    /// Files with a person's edit beside our change.
    pub(super) merged: Vec<String>,
    /// Files that a person edited where we would change them, and that stay as they are.
    pub(super) edited: Vec<String>,
    /// The pull request that was open before.
    pub(super) open: Option<u64>,
    /// Why the change does not go straight to the default branch although it was to.
    pub(super) detour: Option<String>,
}

impl Committed {
    fn seen(difference: &Difference) -> Self {
        Self {
            files: difference.changes.iter().map(|change| change.path.clone()).collect(),
            merged: difference.merged.clone(),
            edited: difference.edited.iter().map(|edit| edit.path.clone()).collect(),
            ..Self::default()
        }
    }

    /// What people edited, in a sentence each.
    pub(super) fn told(&self) -> Vec<String> {
        let merged = self
            .merged
            .iter()
            .map(|path| format!("`{path}` was edited by hand; the edit is kept beside our change"));
        let edited = self.edited.iter().map(|path| {
            format!("`{path}` was edited by hand where VMKit would change it, and is left as it is: `configure_app` with `dry_run` shows the lines to put in")
        });
        merged.chain(edited).collect()
    }
}

impl<'a> Way<'a> {
    /// The way of later changes of an app's files.
    pub(super) fn of(context: &'a Context, github: &'a GitHub, row: &'a AppRow) -> Self {
        Self { context, github, row, branch: CONFIG_BRANCH, by: row.changes }
    }
}

impl Way<'_> {
    /// Whether the change goes straight to the default branch; why not, where it was to.
    async fn straight(&self) -> Result<(bool, Option<String>), OpError> {
        let app = &self.row.app;
        match self.by {
            Changes::Pr | Changes::AutoMerge => Ok((false, None)),
            Changes::Direct => {
                let guards = self.github.guards(&app.repo, &app.default_branch).await?;
                let why = guards.told();
                Ok((why.is_none(), why))
            }
        }
    }

    /// Commits the files that are not as wanted, to where the app's settings say.
    pub(super) async fn commit(
        &self,
        (setup, files): (&Setup, &[GeneratedFile]),
        message: &str,
        run: &Run<'_>,
    ) -> Result<Committed, OpError> {
        let (store, github, row) = (&self.context.store, self.github, self.row);
        let (name, branch) = (&row.app.repo, &row.app.default_branch);
        let head = resolve(github, name, branch).await?;
        let mut seen = difference(store, github, row, files, head.sha.as_str()).await?;
        if !seen.changes.is_empty() {
            self.add_readme(setup, head.sha.as_str(), &mut seen).await?;
        }
        let mut committed = Committed::seen(&seen);
        for line in committed.told() {
            run.say(line).await?;
        }
        if seen.changes.is_empty() {
            store.note_written(row.app.id, seen.written, self.context.clock.now()).await?;
            return Ok(committed);
        }
        let (straight, detour) = self.straight().await?;
        let target = if straight { branch.as_str() } else { self.branch };
        run.say(format!("committing {} to `{target}`", committed.files.join(", "))).await?;
        committed.commit = Some(if straight {
            github.commit_files(name, target, &head.sha, message, &seen.changes).await?
        } else {
            committed.detour = detour;
            self.commit_aside(files, message, &head.sha, &seen, &mut committed).await?
        });
        store.note_written(row.app.id, seen.written, self.context.clock.now()).await?;
        Ok(committed)
    }

    /// Commits to the branch of the pull request. A branch that no open pull request needs is left
    /// from an earlier one; an edit that somebody made on it counts as one on the default branch.
    async fn commit_aside(
        &self,
        files: &[GeneratedFile],
        message: &str,
        base: &CommitSha,
        seen: &Difference,
        committed: &mut Committed,
    ) -> Result<CommitSha, OpError> {
        let (store, github, row) = (&self.context.store, self.github, self.row);
        let name = &row.app.repo;
        let Some(open) = self.open_pull().await? else {
            github.delete_branch(name, self.branch).await?;
            return Ok(github
                .commit_files(name, self.branch, base, message, &seen.changes)
                .await?);
        };
        committed.open = Some(open.number);
        if github.pull(name, open.number).await?.mergeable == Some(false)
            && let Ok(head) = open.head_sha.parse()
            && self.is_ours(&open, seen, files).await?
        {
            // On top of both: what is on the branch is replaced, and the conflict is gone.
            let changes = &seen.changes;
            return Ok(github
                .commit_over(name, self.branch, &head, base, message, changes)
                .await?);
        }
        let mut aside = difference(store, github, row, files, self.branch).await?;
        aside.changes.extend(seen.changes.iter().filter(|one| one.path == README).cloned());
        for edit in &aside.edited {
            if !committed.edited.contains(&edit.path) {
                committed.edited.push(edit.path.clone());
            }
        }
        Ok(github.commit_files(name, self.branch, base, message, &aside.changes).await?)
    }

    /// Whether a pull request brings nothing but files of ours.
    async fn is_ours(
        &self,
        pull: &PullFacts,
        seen: &Difference,
        files: &[GeneratedFile],
    ) -> Result<bool, OpError> {
        let paths = self.github.pull_files(&self.row.app.repo, pull.number).await?;
        let ours = |path: &String| {
            files.iter().any(|file| file.path == *path)
                || seen.changes.iter().any(|change| change.path == *path)
        };
        Ok(paths.iter().all(ours))
    }

    /// Adds the section of the README, which is written anew where the rest changes; one that a
    /// person edited or removed stays so.
    async fn add_readme(
        &self,
        setup: &Setup,
        git_ref: &str,
        seen: &mut Difference,
    ) -> Result<(), OpError> {
        let (store, github, row) = (&self.context.store, self.github, self.row);
        let (name, names) = (&row.app.repo, setup.names());
        let there = github.read_file(name, README, git_ref).await?;
        if there.is_none() {
            for other in READMES {
                if github.read_file(name, other, git_ref).await?.is_some() {
                    return Ok(());
                }
            }
        }
        let known = store.written_contents(row.app.id, README.to_owned()).await?;
        let old = there.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let old = old.unwrap_or_default();
        let theirs = match readme_section(&old, &names) {
            Some(section) => !known.is_empty() && !known.iter().any(|one| one == section),
            // Only the set-up brings it.
            None => self.branch == CONFIG_BRANCH,
        };
        let new = with_readme_section(&old, setup);
        if theirs || new == old {
            return Ok(());
        }
        if let Some(section) = readme_section(&new, &names) {
            seen.written.insert(README.to_owned(), Written::of(section));
        }
        seen.before.insert(README.to_owned(), old);
        seen.changes.push(FileChange {
            path: README.to_owned(),
            content: Some(new.into_bytes()),
            executable: false,
        });
        Ok(())
    }

    /// The pull request of the branch, if it is open.
    pub(super) async fn open_pull(&self) -> Result<Option<PullFacts>, OpError> {
        let pull = self.github.pull_request(&self.row.app.repo, self.branch).await?;
        Ok(pull.filter(|pull| pull.state == PullState::Open))
    }

    /// Ends a step behind a commit: done where the change is on the default branch, else with the
    /// pull request that a person has to merge.
    pub(super) async fn end(
        &self,
        committed: Committed,
        title: &str,
        body: &str,
        then: &str,
    ) -> Result<StepEnd, OpError> {
        let row = self.row;
        let notes = committed.told();
        let mut result = json!({
            "files": committed.files, "edited": committed.edited, "merged": committed.merged,
            "notes": notes
        });
        if committed.commit.is_none() || (self.by == Changes::Direct && committed.detour.is_none())
        {
            return Ok(StepEnd::Done(result));
        }
        let (name, base) = (&row.app.repo, &row.app.default_branch);
        let pull = self.github.open_pull(name, self.branch, base, title, body).await?;
        result["pull"] = json!(pull.number);
        result["url"] = json!(pull.html_url);
        let mut why = committed.detour.map(|why| format!(" ({why})"));
        if self.by == Changes::AutoMerge {
            match self.github.merge_pull(name, pull.number).await? {
                None => {
                    result["merged_pull"] = json!(true);
                    return Ok(StepEnd::Done(result));
                }
                Some(refusal) => why = Some(format!(" (GitHub would not let us: {refusal})")),
            }
        }
        let message = format!("merge {}{}{then}", pull.html_url, why.unwrap_or_default());
        Ok(StepEnd::NeedsMerge { result, message })
    }

    /// Takes back what [`Self::commit`] left on a branch that no open pull request needs.
    pub(super) async fn undo(&self) -> Result<(), OpError> {
        if self.open_pull().await?.is_none() {
            self.github.delete_branch(&self.row.app.repo, self.branch).await?;
        }
        Ok(())
    }
}

/// The change that files would be to the repo; empty where nothing would change.
pub(super) fn shown(difference: &Difference) -> Vec<FileDiff> {
    let before = |path: &String| difference.before.get(path).map_or("", String::as_str);
    let written = difference.changes.iter().map(|change| {
        let new = change.content.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        (change.path.clone(), diff(before(&change.path), &new), false)
    });
    let by_hand = difference
        .edited
        .iter()
        .map(|edit| (edit.path.clone(), diff(before(&edit.path), &edit.wanted), true));
    written.chain(by_hand).map(|(path, diff, by_hand)| FileDiff { path, diff, by_hand }).collect()
}

fn diff(old: &str, new: &str) -> String {
    let text = diffy::create_patch(old, new).to_string();
    // The two lines of names say nothing here.
    text.lines().skip(2).collect::<Vec<_>>().join("\n")
}
