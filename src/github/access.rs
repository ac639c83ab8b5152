//! How we are signed in, and everything at once that we may not do, with where it is granted.

use std::collections::BTreeMap;

use serde_json::json;

use super::error::GitHubError;
use super::{GitHub, in_repo, wire};
use crate::domain::names::RepoName;
use crate::requests::Call;

/// What VMKit needs in a repo, by GitHub's names for an App's permissions. Metadata comes with all.
const NEEDED: [&str; 6] =
    ["actions", "actions_variables", "contents", "pull_requests", "secrets", "workflows"];
/// What a classic token needs.
const SCOPES: [&str; 2] = ["repo", "workflow"];
/// Makes a classic token with its scopes ticked.
pub const CLASSIC_PAGE: &str =
    "https://github.com/settings/tokens/new?scopes=repo,workflow&description=VMKit";
/// Makes a fine-grained token; GitHub ticks nothing there by itself.
pub const FINE_GRAINED_PAGE: &str = "https://github.com/settings/personal-access-tokens/new";

/// How we are signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignIn {
    /// A classic token, or one of an OAuth app such as gh's.
    Classic {
        /// Whose.
        login: String,
        /// What it may do.
        scopes: Vec<String>,
    },
    /// A fine-grained token: GitHub does not tell what it may do.
    FineGrained {
        /// Whose.
        login: String,
    },
    /// An App.
    App {
        /// Its name in URLs.
        slug: String,
        /// Where it was installed.
        installations: Vec<Installation>,
        /// Where its owner sets what it may do.
        settings: String,
        /// Where it is installed.
        install: String,
    },
}

/// An account that an App was installed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// Whose repos.
    pub account: String,
    /// Whether somebody suspended it.
    pub suspended: bool,
    /// What it may do there: `contents` to `write`.
    pub permissions: BTreeMap<String, String>,
    /// Where the account's owner accepts more.
    pub page: String,
}

/// What may not be done, and where it is granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Every missing permission or scope, as GitHub's pages name it.
    pub names: Vec<String>,
    /// The page and what to do there.
    pub grant: String,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "missing: {}; grant at {}", self.names.join(", "), self.grant)
    }
}

impl SignIn {
    /// In a few words.
    pub fn told(&self) -> String {
        match self {
            Self::Classic { login, scopes } => {
                format!("user {login}, scopes {}", scopes.join(", "))
            }
            Self::FineGrained { login } => format!("user {login}, fine-grained"),
            Self::App { slug, installations, install, .. } if installations.is_empty() => {
                format!("App {slug}, NOT INSTALLED: install it at {install}")
            }
            Self::App { slug, installations, .. } => {
                let on: Vec<String> = installations
                    .iter()
                    .map(|one| {
                        let note = if one.suspended { " (SUSPENDED)" } else { "" };
                        format!("{}{note}", one.account)
                    })
                    .collect();
                format!("App {slug}, installed on {}", on.join(", "))
            }
        }
    }

    /// What is missing as far as the sign-in itself tells, all at once.
    pub fn missing(&self) -> Option<Missing> {
        match self {
            Self::Classic { scopes, .. } => {
                let names: Vec<String> = SCOPES
                    .iter()
                    .filter(|wanted| !scopes.iter().any(|scope| scope == *wanted))
                    .map(|scope| format!("scope {scope}"))
                    .collect();
                let grant = format!(
                    "{CLASSIC_PAGE} (for gh's own token: `gh auth refresh -s repo,workflow`)"
                );
                some(names, grant)
            }
            Self::FineGrained { .. } => None,
            Self::App { installations, settings, .. } => {
                let lacking: Vec<(&Installation, Vec<&str>)> = installations
                    .iter()
                    .map(|one| (one, lacking(&one.permissions)))
                    .filter(|(_, names)| !names.is_empty())
                    .collect();
                let names = lacking.iter().flat_map(|(one, names)| {
                    names.iter().map(|name| format!("{} on {}", title(name), one.account))
                });
                let pages: Vec<&str> = lacking.iter().map(|(one, _)| one.page.as_str()).collect();
                let grant = format!("{settings}, then accept it at {}", pages.join(" and "));
                some(names.collect(), grant)
            }
        }
    }
}

fn some(mut names: Vec<String>, grant: String) -> Option<Missing> {
    names.sort();
    (!names.is_empty()).then_some(Missing { names, grant })
}

fn lacking(permissions: &BTreeMap<String, String>) -> Vec<&'static str> {
    let has = |name: &str| {
        permissions.get(name).is_some_and(|level| level == "write" || level == "admin")
    };
    NEEDED.into_iter().filter(|name| !has(name)).collect()
}

/// A permission as GitHub's pages write it.
fn title(name: &str) -> &'static str {
    match name {
        "actions" => "Actions: read and write",
        "actions_variables" => "Variables: read and write",
        "contents" => "Contents: read and write",
        "pull_requests" => "Pull requests: read and write",
        "secrets" => "Secrets: read and write",
        "workflows" => "Workflows: read and write",
        _ => "Webhooks: read and write",
    }
}

impl GitHub {
    /// How we are signed in.
    pub async fn sign_in(&self) -> Result<SignIn, GitHubError> {
        let Some(app) = &self.app else {
            let user = self.user().await?;
            return Ok(match user.scopes {
                Some(scopes) => {
                    let scopes = scopes.split(',').map(|scope| scope.trim().to_owned());
                    let scopes = scopes.filter(|scope| !scope.is_empty()).collect();
                    SignIn::Classic { login: user.login, scopes }
                }
                None => SignIn::FineGrained { login: user.login },
            });
        };
        let ask = async |call: Call, what: &str| {
            let answer = app.send(&call).await?;
            if answer.is_success() {
                Ok(answer)
            } else {
                Err(super::refusal::error(app, &answer, what))
            }
        };
        let found: wire::App = ask(Call::get("app"), "the App").await?.json("the App")?;
        let call = Call::get("app/installations").query("per_page", 100);
        let all: Vec<wire::Installation> =
            ask(call, "the App's installations").await?.json("the App's installations")?;
        let installations = all
            .into_iter()
            .map(|one| Installation {
                account: one.account.and_then(|account| account.login).unwrap_or_default(),
                suspended: one.suspended_at.is_some(),
                permissions: one.permissions,
                page: one.html_url,
            })
            .collect();
        let owner =
            found.owner.and_then(|owner| owner.login.filter(|_| owner.kind == "Organization"));
        let place =
            owner.map_or("settings".to_owned(), |org| format!("organizations/{org}/settings"));
        Ok(SignIn::App {
            settings: format!("https://github.com/{place}/apps/{}/permissions", found.slug),
            install: format!("{}/installations/new", found.html_url),
            slug: found.slug,
            installations,
        })
    }

    /// Everything that VMKit needs in a repo and may not do, all at once.
    ///
    /// An App and a classic token say it themselves. A fine-grained token is tried with changes of
    /// things that do not exist, so that nothing can change: GitHub looks at the permission first.
    /// Its Workflows permission cannot be tried so, and shows when the first file is written.
    pub async fn missing(&self, repo: &RepoName) -> Result<Option<Missing>, GitHubError> {
        let sign_in = self.sign_in().await?;
        if !matches!(sign_in, SignIn::FineGrained { .. }) {
            return Ok(sign_in.missing());
        }
        let nowhere = "vmkit-looks-whether-it-may-write";
        let here = |call: Call, path: &str| in_repo(call, repo, path);
        let tries = [
            ("actions", here(Call::post(""), "actions/runs/0/cancel")),
            ("actions_variables", here(Call::delete(""), "actions/variables/VMKIT_LOOKS")),
            (
                "contents",
                here(Call::patch(""), "git/refs/heads")
                    .at(nowhere)
                    .body(json!({ "sha": "0".repeat(40) })),
            ),
            ("pull_requests", here(Call::patch(""), "pulls/0").body(json!({}))),
            ("secrets", here(Call::delete(""), "actions/secrets/VMKIT_LOOKS")),
        ];
        let mut names = Vec::new();
        for (name, call) in tries {
            match self.ask(&call, &format!("repo `{repo}`")).await {
                Err(GitHubError::Forbidden { .. }) => names.push(title(name).to_owned()),
                Err(GitHubError::Auth) => return Err(GitHubError::Auth),
                Err(error) if error.retryable() => return Err(error),
                _ => {}
            }
        }
        let grant = "https://github.com/settings/personal-access-tokens (the token, Edit, Repository permissions)";
        Ok(some(names, grant.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_names_all_that_it_lacks_at_once() {
        let scopes = vec!["gist".to_owned(), "repo".to_owned()];
        let missing = SignIn::Classic { login: "octo".to_owned(), scopes }.missing().expect("some");
        assert_eq!(missing.names, ["scope workflow"]);
        assert!(missing.grant.contains("tokens/new?scopes=repo,workflow"), "{missing}");
        let write = |name: &&str| ((*name).to_owned(), "write".to_owned());
        let mut permissions: BTreeMap<String, String> = NEEDED.iter().map(write).collect();
        let app = |permissions: &BTreeMap<String, String>| SignIn::App {
            slug: "vmkit".to_owned(),
            installations: vec![Installation {
                account: "octo".to_owned(),
                suspended: false,
                permissions: permissions.clone(),
                page: "https://example.com/installations/1".to_owned(),
            }],
            settings: "https://example.com/permissions".to_owned(),
            install: String::new(),
        };
        assert_eq!(app(&permissions).missing(), None);
        permissions.insert("secrets".to_owned(), "read".to_owned());
        permissions.remove("actions");
        let missing = app(&permissions).missing().expect("some");
        let wanted = ["Actions: read and write on octo", "Secrets: read and write on octo"];
        assert_eq!(missing.names, wanted);
        assert!(missing.to_string().contains(
            "https://example.com/permissions, then accept it at https://example.com/installations/1"
        ));
    }
}
