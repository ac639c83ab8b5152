//! Runs that pushes start: the workflows of the pushed commit whose `push` trigger fits.

use std::collections::BTreeMap;

use super::GitHub;
use super::actions::FOLDER;
use super::runs::Order;
use super::store::Repo;
use crate::workflow::{PushTrigger, Workflow};

impl PushTrigger {
    /// Whether a push of `paths` to `branch` starts a run.
    fn fits(&self, branch: &str, paths: &[String]) -> bool {
        let any = |globs: &[String], text: &str| {
            globs.iter().any(|glob| matches(glob.as_bytes(), text.as_bytes()))
        };
        let ignored = |path: &String| {
            let listed = self.paths.is_empty() || any(&self.paths, path);
            !listed || any(&self.paths_ignore, path)
        };
        (self.branches.is_empty() || any(&self.branches, branch)) && !paths.iter().all(ignored)
    }
}

/// GitHub's patterns as far as they are used here: `*` stops at a slash, `**` does not.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    match glob {
        [] => text.is_empty(),
        [b'*', b'*', rest @ ..] => (0..=text.len()).any(|at| matches(rest, &text[at..])),
        [b'*', rest @ ..] => {
            let end = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
            (0..=end).any(|at| matches(rest, &text[at..]))
        }
        [first, rest @ ..] => text.first() == Some(first) && matches(rest, &text[1..]),
    }
}

/// The runs that the branches which moved since `before` start.
pub(super) fn orders(repo: &Repo, before: &BTreeMap<String, String>) -> Vec<Order> {
    let moved = repo.refs.iter().filter(|(name, sha)| before.get(*name) != Some(sha));
    let mut orders = Vec::new();
    for (name, sha) in moved {
        let Some(branch) = name.strip_prefix("heads/").or(name.strip_prefix("refs/heads/")) else {
            continue;
        };
        let files = repo.git.files(sha).unwrap_or_default();
        let old = before.get(name).and_then(|sha| repo.git.files(sha)).unwrap_or_default();
        let mut paths: Vec<String> = files.keys().chain(old.keys()).cloned().collect();
        paths.sort();
        paths.dedup();
        let bytes =
            |of: Option<&super::git::FileContent>| of.map(|file| (file.mode, file.bytes.clone()));
        paths.retain(|path| bytes(files.get(path)) != bytes(old.get(path)));
        for (path, file) in files.iter().filter(|(path, _)| path.starts_with(FOLDER)) {
            let Ok(workflow) = Workflow::parse(&String::from_utf8_lossy(&file.bytes)) else {
                continue;
            };
            if workflow.push.as_ref().is_none_or(|trigger| !trigger.fits(branch, &paths)) {
                continue;
            }
            orders.push(Order {
                repo: repo.id,
                path: path.clone(),
                name: workflow.name.clone().unwrap_or_else(|| path.clone()),
                branch: branch.to_owned(),
                sha: sha.clone(),
                event: "push",
                workflow,
                inputs: BTreeMap::new(),
            });
        }
    }
    orders
}

impl GitHub {
    /// Starts what a push starts.
    pub(super) fn start_pushed(&self, orders: Vec<Order>) {
        for order in orders {
            if let Err(refusal) = self.order_run(order) {
                tracing::warn!(?refusal, "a push starts no run");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_starts_a_run_only_where_branch_and_a_path_fit() {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let whole = PushTrigger {
            branches: words(&["main"]),
            paths: Vec::new(),
            paths_ignore: words(&[".kamal/**", "config/deploy.*.yml"]),
        };
        assert!(whole.fits("main", &words(&["src/a.rs", ".kamal/secrets"])));
        assert!(!whole.fits("main", &words(&[".kamal/hooks/pre-app-boot", "config/deploy.x.yml"])));
        assert!(whole.fits("main", &words(&["config/deploy.x/y.yml"])), "`*` stops at a slash");
        assert!(!whole.fits("other", &words(&["src/a.rs"])));
        let part = PushTrigger { paths: words(&["apps/api/**"]), ..PushTrigger::default() };
        assert!(part.fits("any", &words(&["apps/api/src/x"])));
        assert!(!part.fits("any", &words(&["apps/web/src/x"])));
    }
}
