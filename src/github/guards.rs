//! What a repo's settings allow: rules on branches, Actions, and pull requests as they stand.

use serde::Deserialize;
use serde_json::json;

use super::error::GitHubError;
use super::facts::PullFacts;
use super::{GitHub, checked, in_repo, wire};
use crate::domain::names::RepoName;
use crate::requests::Call;

/// What guards a branch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guards {
    /// The branch.
    pub branch: String,
    /// Whether it is protected in the older way, of which only its owner sees the details.
    pub protected: bool,
    /// The rules of rulesets that hold for it, in GitHub's words: `pull_request`, `creation`, ...
    pub rules: Vec<String>,
    /// How many approvals a pull request needs, where a rule says so.
    pub approvals: u64,
}

impl Guards {
    /// Why a commit may not be pushed straight to it; none where it may.
    pub fn told(&self) -> Option<String> {
        const HARMLESS: [&str; 3] = ["creation", "deletion", "non_fast_forward"];
        let rules: Vec<&str> =
            self.rules.iter().map(String::as_str).filter(|rule| !HARMLESS.contains(rule)).collect();
        match (self.protected, rules.is_empty()) {
            (false, true) => None,
            (true, true) => Some(format!("`{}` is protected", self.branch)),
            (_, false) => Some(format!("`{}` has rules: {}", self.branch, rules.join(", "))),
        }
    }

    /// Whether nobody may make the branch.
    pub fn forbids_creation(&self) -> bool {
        self.rules.iter().any(|rule| rule == "creation")
    }
}

/// What of Actions a repo allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionsPolicy {
    /// Whether workflows run at all.
    pub enabled: bool,
    /// Which actions they may use.
    pub allowed: AllowedActions,
}

/// Which actions workflows may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedActions {
    /// Any.
    All,
    /// Only those of the owner's repos.
    LocalOnly,
    /// Some.
    Selected {
        /// Those of GitHub itself.
        github_owned: bool,
        /// Those of creators that GitHub has verified.
        verified: bool,
        /// Such as `docker/*`.
        patterns: Vec<String>,
    },
}

impl AllowedActions {
    /// Whether it is certain that a workflow may use `action`, such as `docker/login-action`.
    pub fn allows(&self, action: &str) -> bool {
        match self {
            Self::All => true,
            Self::LocalOnly => false,
            Self::Selected { github_owned, patterns, .. } => {
                let owned = action.starts_with("actions/") || action.starts_with("github/");
                (*github_owned && owned) || patterns.iter().any(|pattern| fits(pattern, action))
            }
        }
    }
}

/// A pattern such as `docker/*` or `octo/x@v1`; the version is left aside, since ours are pinned.
fn fits(pattern: &str, action: &str) -> bool {
    let pattern = pattern.split('@').next().unwrap_or(pattern);
    match pattern.strip_suffix('*') {
        Some(start) => action.starts_with(start),
        None => pattern == action,
    }
}

#[derive(Deserialize)]
struct Rule {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Default, Deserialize)]
struct Parameters {
    #[serde(default)]
    required_approving_review_count: u64,
}

#[derive(Deserialize)]
struct Branch {
    #[serde(default)]
    protected: bool,
}

#[derive(Deserialize)]
struct Permissions {
    enabled: bool,
    #[serde(default)]
    allowed_actions: Option<String>,
}

#[derive(Default, Deserialize)]
struct Selected {
    #[serde(default)]
    github_owned_allowed: bool,
    #[serde(default)]
    verified_allowed: bool,
    #[serde(default)]
    patterns_allowed: Vec<String>,
}

#[derive(Deserialize)]
struct File {
    filename: String,
}

impl GitHub {
    /// What guards a branch, whether or not it exists.
    pub async fn guards(&self, repo: &RepoName, branch: &str) -> Result<Guards, GitHubError> {
        let name = checked("branch", branch)?;
        let call = in_repo(Call::get(""), repo, "rules/branches").under(name);
        let what = format!("the rules of branch `{branch}` of `{repo}`");
        // A plan without rulesets answers as if there were no such place.
        let rules: Vec<Rule> = match self.ask_maybe(&call, &what).await {
            Ok(Some(answer)) => answer.json("the rules")?,
            Ok(None) => Vec::new(),
            Err(error) => return Err(error),
        };
        let call = in_repo(Call::get(""), repo, "branches").under(name);
        let there = self.ask_maybe(&call, &format!("branch `{branch}` of `{repo}`")).await?;
        let found: Option<Branch> = there.map(|answer| answer.json("the branch")).transpose()?;
        Ok(Guards {
            branch: branch.to_owned(),
            // GitHub says `protected` for rulesets as well.
            protected: found.is_some_and(|branch| branch.protected),
            approvals: rules
                .iter()
                .map(|rule| rule.parameters.required_approving_review_count)
                .max()
                .unwrap_or(0),
            rules: rules.into_iter().map(|rule| self.api.clean(&rule.kind)).collect(),
        })
    }

    /// What of Actions a repo allows; none where the token may not ask, which takes
    /// administration=read.
    pub async fn actions_policy(
        &self,
        repo: &RepoName,
    ) -> Result<Option<ActionsPolicy>, GitHubError> {
        let call = in_repo(Call::get(""), repo, "actions/permissions");
        let found = match self.ask_maybe(&call, "the Actions settings").await {
            Ok(Some(answer)) => answer.json::<Permissions>("the Actions settings")?,
            Ok(None) | Err(GitHubError::Forbidden { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let allowed = match found.allowed_actions.as_deref() {
            None | Some("all") => AllowedActions::All,
            Some("local_only") => AllowedActions::LocalOnly,
            Some(_) => {
                let call = in_repo(Call::get(""), repo, "actions/permissions/selected-actions");
                let chosen = self.ask_maybe(&call, "the allowed actions").await?;
                let chosen: Selected = match chosen {
                    Some(answer) => answer.json("the allowed actions")?,
                    None => Selected::default(),
                };
                AllowedActions::Selected {
                    github_owned: chosen.github_owned_allowed,
                    verified: chosen.verified_allowed,
                    patterns: chosen.patterns_allowed,
                }
            }
        };
        Ok(Some(ActionsPolicy { enabled: found.enabled, allowed }))
    }

    /// The permissions that the token lacks among those that VMKit uses, each by a read that needs
    /// it: `secrets`, ... What a token may only read is not seen here.
    pub async fn lacking(&self, repo: &RepoName) -> Result<Vec<&'static str>, GitHubError> {
        let asked = [
            ("contents", "git/matching-refs/heads/vmkit"),
            ("pull_requests", "pulls"),
            ("actions", "actions/workflows"),
            ("secrets", "actions/secrets/public-key"),
            ("variables", "actions/variables"),
        ];
        let mut lacking = Vec::new();
        for (permission, path) in asked {
            let call = in_repo(Call::get(""), repo, path);
            match self.ask_maybe(&call, permission).await {
                Ok(Some(_)) | Err(GitHubError::EmptyRepo) => {}
                Ok(None) | Err(GitHubError::Forbidden { .. }) => lacking.push(permission),
                Err(error) => return Err(error),
            }
        }
        Ok(lacking)
    }

    /// A pull request as it stands, with whether it could be merged.
    pub async fn pull(&self, repo: &RepoName, number: u64) -> Result<PullFacts, GitHubError> {
        let call = in_repo(Call::get(""), repo, "pulls").at(number);
        let answer = self.ask(&call, &format!("pull request {number} of `{repo}`")).await?;
        Ok(super::pulls::facts(answer.json::<wire::Pull>("the pull request")?))
    }

    /// The files that a pull request changes, at most 100.
    pub async fn pull_files(
        &self,
        repo: &RepoName,
        number: u64,
    ) -> Result<Vec<String>, GitHubError> {
        let call =
            in_repo(Call::get(""), repo, "pulls").at(number).under("files").query("per_page", 100);
        let files: Vec<File> = self.read(&call, "the pull request's files").await?;
        Ok(files.into_iter().map(|file| file.filename).collect())
    }

    /// Merges a pull request; the reason where the repo's rules do not let us. One that is merged
    /// already is merged.
    pub async fn merge_pull(
        &self,
        repo: &RepoName,
        number: u64,
    ) -> Result<Option<String>, GitHubError> {
        let call = in_repo(Call::put(""), repo, "pulls")
            .at(number)
            .under("merge")
            .body(json!({ "merge_method": "merge" }));
        let refused = match self.ask(&call, &format!("pull request {number} of `{repo}`")).await {
            Ok(_) => return Ok(None),
            Err(GitHubError::Refused { reason, .. } | GitHubError::Forbidden { reason, .. }) => {
                reason
            }
            Err(GitHubError::Conflict { .. }) => "the branch moved meanwhile".to_owned(),
            Err(error) if !error.may_have_happened() => return Err(error),
            Err(_) => "its answer was lost".to_owned(),
        };
        let now = self.pull(repo, number).await?;
        Ok((!now.merged).then_some(refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_of_actions_is_read_as_github_reads_it() {
        let selected = AllowedActions::Selected {
            github_owned: true,
            verified: true,
            patterns: vec!["docker/*".to_owned(), "ruby/setup-ruby@*".to_owned()],
        };
        for (action, allowed) in [
            ("actions/checkout", true),
            ("docker/login-action", true),
            ("ruby/setup-ruby", true),
            ("buildpacks/github-actions/setup-pack", false),
        ] {
            assert_eq!(selected.allows(action), allowed, "{action}");
        }
        assert!(!AllowedActions::LocalOnly.allows("actions/checkout"));
    }

    #[test]
    fn only_rules_that_stop_a_push_stand_in_its_way() {
        let guards = |rules: &[&str], protected| Guards {
            branch: "main".to_owned(),
            protected,
            rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
            approvals: 0,
        };
        assert_eq!(guards(&["deletion", "non_fast_forward"], false).told(), None);
        let text = guards(&["deletion", "pull_request"], true).told();
        assert_eq!(text.as_deref(), Some("`main` has rules: pull_request"));
        assert_eq!(guards(&[], true).told().as_deref(), Some("`main` is protected"));
    }
}
