//! What can go wrong with GitHub.

use crate::domain::clock::Millis;
use crate::requests::RequestError;

/// Why GitHub did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum GitHubError {
    /// A name that cannot be used.
    #[error("`{given}` cannot be used as a {kind} at GitHub")]
    BadName {
        /// What it was meant to name.
        kind: &'static str,
        /// What was given, cleaned.
        given: String,
    },
    /// It is not there, or the token may not see it.
    #[error(
        "{what} does not exist at GitHub, or the token may not see it; check the name, and the repos that the token was made for"
    )]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The token is not valid.
    #[error("GitHub does not accept the token; store a valid one with `vmkit connect github`")]
    Auth,
    /// No App can be signed in with these.
    #[error("no GitHub App can be signed in with these: {why}")]
    BadAppKey {
        /// What is wanted.
        why: &'static str,
    },
    /// The token lacks a permission.
    #[error("GitHub does not let the token use {what} ({reason}); it needs {needs}")]
    Forbidden {
        /// What was asked for.
        what: String,
        /// GitHub's reason, cleaned.
        reason: String,
        /// The permissions that would do, as GitHub names them (`contents=write`), where it did.
        needs: String,
    },
    /// Too many calls, for longer than a call waits.
    #[error("GitHub accepts no more calls before {}; wait until then", until.rfc3339())]
    RateLimited {
        /// When it accepts calls again.
        until: Millis,
    },
    /// The repo has no commit yet.
    #[error("the repo has no commit yet; push one first")]
    EmptyRepo,
    /// Somebody else changes the same thing.
    #[error("{what} was changed by somebody else at the same time; try again")]
    Conflict {
        /// What is fought over.
        what: String,
    },
    /// GitHub found the request wrong.
    #[error("GitHub refused the request for {what}: {reason}")]
    Invalid {
        /// What was asked for.
        what: String,
        /// GitHub's reason, cleaned.
        reason: String,
    },
    /// More than VMKit reads.
    #[error("`{path}` is larger than the 1 MiB that VMKit reads of a file")]
    TooLarge {
        /// The file.
        path: String,
    },
    /// A secret that GitHub does not take.
    #[error("secret `{name}` cannot be stored at GitHub: {why}")]
    BadSecret {
        /// Its name.
        name: String,
        /// The reason.
        why: &'static str,
    },
    /// A fault of GitHub's.
    #[error(
        "GitHub has a fault (HTTP {status}{}); try again, and see githubstatus.com",
        id(correlation)
    )]
    Transient {
        /// The status of its answer.
        status: u16,
        /// GitHub's own id for the exchange.
        correlation: Option<String>,
    },
    /// It took too long.
    #[error("GitHub did not answer within {limit_ms} ms; try again")]
    Timeout {
        /// How long was waited, in milliseconds.
        limit_ms: u64,
    },
    /// A refusal of a kind that VMKit does not know.
    #[error("GitHub refused {what} (HTTP {status}{}): {reason}", id(correlation))]
    Refused {
        /// What was asked for.
        what: String,
        /// The status of its answer.
        status: u16,
        /// GitHub's reason, cleaned.
        reason: String,
        /// GitHub's own id for the exchange.
        correlation: Option<String>,
    },
    /// There is no answer to use.
    #[error(transparent)]
    Request(RequestError),
}

fn id(correlation: &Option<String>) -> String {
    correlation.as_ref().map(|id| format!(", its id {id}")).unwrap_or_default()
}

impl GitHubError {
    /// A stable name for the kind.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadName { .. } => "bad_name",
            Self::NotFound { .. } => "not_found",
            Self::Auth => "token_refused",
            Self::BadAppKey { .. } => "bad_app_key",
            Self::Forbidden { .. } => "forbidden",
            Self::RateLimited { .. } => "rate_limited",
            Self::EmptyRepo => "empty_repo",
            Self::Conflict { .. } => "conflict",
            Self::Invalid { .. } => "invalid_request",
            Self::TooLarge { .. } => "file_too_large",
            Self::BadSecret { .. } => "bad_secret",
            Self::Transient { .. } => "github_fault",
            Self::Timeout { .. } => "timeout",
            Self::Refused { .. } => "refused",
            Self::Request(error) => error.code(),
        }
    }

    /// Whether the same call may work later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::RateLimited { .. }
            | Self::Conflict { .. }
            | Self::Transient { .. }
            | Self::Timeout { .. } => true,
            Self::BadName { .. }
            | Self::NotFound { .. }
            | Self::Auth
            | Self::BadAppKey { .. }
            | Self::Forbidden { .. }
            | Self::EmptyRepo
            | Self::Invalid { .. }
            | Self::TooLarge { .. }
            | Self::BadSecret { .. }
            | Self::Refused { .. } => false,
            Self::Request(error) => error.retryable(),
        }
    }

    /// Whether what was asked for may have happened all the same: look before asking again.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Transient { .. } | Self::Timeout { .. } => true,
            Self::Request(error) => error.may_have_happened(),
            _ => false,
        }
    }

    /// Not before when a retry has a point, where GitHub said so.
    pub fn retry_at(&self) -> Option<Millis> {
        match self {
            Self::RateLimited { until } => Some(*until),
            _ => None,
        }
    }
}

impl From<RequestError> for GitHubError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::RateLimited { until, .. } => Self::RateLimited { until },
            RequestError::TimedOut { after_ms, .. } => Self::Timeout { limit_ms: after_ms },
            other => Self::Request(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes are an interface: a changed one breaks whoever matches on it.
    #[test]
    fn every_code_and_whether_a_retry_has_a_point() {
        let what = || "repo `octo/shop`".to_owned();
        let (reason, correlation, until) = (|| "a reason".to_owned(), None, Millis(0));
        let errors = [
            GitHubError::BadName { kind: "path", given: "..".to_owned() },
            GitHubError::NotFound { what: what() },
            GitHubError::Auth,
            GitHubError::BadAppKey { why: "it is none" },
            GitHubError::Forbidden { what: what(), reason: reason(), needs: "x=write".to_owned() },
            RequestError::RateLimited { api: "GitHub", until }.into(),
            GitHubError::EmptyRepo,
            GitHubError::Conflict { what: what() },
            GitHubError::Invalid { what: what(), reason: reason() },
            GitHubError::TooLarge { path: "a".to_owned() },
            GitHubError::BadSecret { name: "A".to_owned(), why: "it is too large" },
            GitHubError::Transient { status: 500, correlation: correlation.clone() },
            RequestError::TimedOut { api: "GitHub", after_ms: 1 }.into(),
            GitHubError::Refused { what: what(), status: 418, reason: reason(), correlation },
            GitHubError::Request(RequestError::BadToken { api: "GitHub" }),
        ];
        let rows: Vec<(&str, bool)> = errors.iter().map(|e| (e.code(), e.retryable())).collect();
        assert_eq!(
            rows,
            [
                ("bad_name", false),
                ("not_found", false),
                ("token_refused", false),
                ("bad_app_key", false),
                ("forbidden", false),
                ("rate_limited", true),
                ("empty_repo", false),
                ("conflict", true),
                ("invalid_request", false),
                ("file_too_large", false),
                ("bad_secret", false),
                ("github_fault", true),
                ("timeout", true),
                ("refused", false),
                ("bad_token", false),
            ]
        );
        for error in errors {
            assert!(!error.to_string().ends_with('.'), "{error}");
        }
    }
}
