//! GitHub: reads named files, opens the onboarding pull request, starts runs and watches them.
//!
//! A thin client over the shared executor; nothing of GitHub's JSON leaves this folder.

mod access;
mod app;
mod commits;
mod compare;
mod error;
mod facts;
mod guards;
mod hooks;
mod kept;
mod pulls;
mod refusal;
mod registry;
mod repos;
mod runs;
mod secrets;
mod wire;

use std::sync::Arc;

use http::StatusCode;
use serde::de::DeserializeOwned;
use url::Url;

pub use crate::requests::{Pace, RequestError, Waits};
pub use access::{CLASSIC_PAGE, FINE_GRAINED_PAGE, Installation, Missing, SignIn};
pub use app::AppKey;
pub use commits::FileChange;
pub use error::GitHubError;
pub use facts::{
    ChangedFile, CommitFacts, CommitLine, Comparison, Conclusion, EntryKind, JobFacts, PullFacts,
    PullState, RepoFacts, RepoPermissions, RunFacts, RunStatus, StepFacts, Tree, TreeEntry,
    UserFacts,
};
pub use guards::{ActionsPolicy, AllowedActions, Guards};
pub use registry::Images;

use crate::domain::names::RepoName;
use crate::domain::secret::Secret;
use crate::requests::{Answer, Api, Call, Dialect};

static DIALECT: Dialect = Dialect {
    name: "GitHub",
    headers: &[("accept", "application/vnd.github+json"), ("x-github-api-version", "2026-03-10")],
    correlation: "x-github-request-id",
    refusal: refusal::for_now,
};

/// GitHub with one token, or as one App.
#[derive(Clone)]
pub struct GitHub {
    api: Api,
    /// The App itself, where we are one.
    app: Option<Api>,
    kept: kept::Kept,
    /// Held while something is changed, with when the last change ended: GitHub asks for one change
    /// after the other, and for a second between two.
    writes: Arc<tokio::sync::Mutex<Option<tokio::time::Instant>>>,
}

impl std::fmt::Debug for GitHub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GitHub")
    }
}

impl GitHub {
    /// A client at `base_url` (`https://api.github.com`, or a server's own); talks to nobody yet.
    pub fn new(base_url: &Url, token: Secret, pace: Pace) -> Result<Self, GitHubError> {
        let api = Api::new(&DIALECT, base_url, token, pace)?;
        Ok(Self { api, app: None, kept: kept::Kept::default(), writes: Arc::default() })
    }

    /// Sends a call; a refusal becomes an error that speaks of `what`.
    async fn ask(&self, call: &Call, what: &str) -> Result<Answer, GitHubError> {
        let mut turn = match *call.method() == http::Method::GET {
            true => None,
            false => Some(self.writes.lock().await),
        };
        if let Some(last) = turn.as_deref().copied().flatten() {
            tokio::time::sleep_until(last + self.api.pace().between_changes).await;
        }
        let answer = self.api.send(call).await;
        if let Some(last) = turn.as_deref_mut() {
            *last = Some(tokio::time::Instant::now());
        }
        let answer = answer?;
        if answer.is_success() { Ok(answer) } else { Err(refusal::error(&self.api, &answer, what)) }
    }

    /// As [`Self::ask`], for what is asked again and again: an answer that GitHub says to be the
    /// known one is taken from memory, and costs nothing of its limit.
    async fn ask_again(&self, call: Call, what: &str) -> Result<Answer, GitHubError> {
        let name = call.name();
        let known = self.kept.get(&name);
        let call = call.unless(known.as_ref().and_then(|known| known.etag.clone()));
        let mut answer = self.api.send(&call).await?;
        match known {
            Some(known) if answer.status == StatusCode::NOT_MODIFIED => {
                answer.status = StatusCode::OK;
                answer.body = known.body;
                return Ok(answer);
            }
            _ => {}
        }
        if !answer.is_success() {
            return Err(refusal::error(&self.api, &answer, what));
        }
        if let Some(etag) = answer.header("etag").map(str::to_owned) {
            self.kept.put(name, kept::Known { etag: Some(etag), body: answer.body.clone() });
        }
        Ok(answer)
    }

    /// As [`Self::ask`], with none for "not found".
    async fn ask_maybe(&self, call: &Call, what: &str) -> Result<Option<Answer>, GitHubError> {
        match self.ask(call, what).await {
            Ok(answer) => Ok(Some(answer)),
            Err(GitHubError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads something.
    async fn read<T: DeserializeOwned>(
        &self,
        call: &Call,
        what: &'static str,
    ) -> Result<T, GitHubError> {
        Ok(self.ask(call, what).await?.json(what)?)
    }
}

/// Where a repo's resources begin.
fn in_repo(call: Call, repo: &RepoName, path: &str) -> Call {
    call.at("repos").at(repo.owner()).at(repo.name()).under(path)
}

/// A branch, a path or another text that goes into a URL with its slashes. `..` and control
/// characters would change what the URL means.
fn checked<'a>(kind: &'static str, text: &'a str) -> Result<&'a str, GitHubError> {
    let fine = !text.is_empty()
        && !text.chars().any(char::is_control)
        && text.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if fine {
        return Ok(text);
    }
    Err(GitHubError::BadName { kind, given: crate::requests::clean(text) })
}
