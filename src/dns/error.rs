//! What can go wrong with a DNS provider, in words that hold for each.

use crate::domain::clock::Millis;
use crate::requests::{Answer, Api, RequestError};

/// Why a DNS provider did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// A provider that VMKit does not know.
    #[error(
        "`{provider}` is not a DNS provider that VMKit knows; use `cloudflare`, `hetzner` or `digitalocean`"
    )]
    UnknownProvider {
        /// What was given.
        provider: String,
    },
    /// It is not there.
    #[error("{what} does not exist at {provider}")]
    NotFound {
        /// The provider.
        provider: &'static str,
        /// What was looked for.
        what: String,
    },
    /// A record of that name and kind is there already.
    #[error("{provider} has a record for {what} already; try again")]
    Taken {
        /// The provider.
        provider: &'static str,
        /// The name.
        what: String,
    },
    /// A record that is not ours stands where ours has to be.
    #[error("{provider} has the record `{line}`, which VMKit did not make and does not touch")]
    Foreign {
        /// The provider.
        provider: &'static str,
        /// The record, as a zone's file has it.
        line: String,
        /// Whether the provider carries its traffic.
        proxied: bool,
    },
    /// Too many calls, for longer than a call waits.
    #[error("{provider} accepts no more calls before {}; wait until then", until.rfc3339())]
    RateLimited {
        /// The provider.
        provider: &'static str,
        /// When it accepts calls again.
        until: Millis,
    },
    /// The token is not valid.
    #[error("{provider} does not accept the token; store a valid one with `vmkit connect`")]
    Auth {
        /// The provider.
        provider: &'static str,
    },
    /// The token is valid, but may not do this.
    #[error(
        "the token for {provider} may not do this ({reason}); store one that may edit the zone's DNS with `vmkit connect`"
    )]
    Forbidden {
        /// The provider.
        provider: &'static str,
        /// Its reason, cleaned.
        reason: String,
    },
    /// It found the request wrong.
    #[error("{provider} refused the request for {what}: {reason}")]
    Invalid {
        /// The provider.
        provider: &'static str,
        /// What it was about.
        what: String,
        /// Its reason, cleaned.
        reason: String,
    },
    /// It is protected against changes.
    #[error("{what} is protected at {provider}; take the protection off there")]
    Protected {
        /// The provider.
        provider: &'static str,
        /// What it is.
        what: String,
    },
    /// Somebody else changes the same thing.
    #[error("{provider} could not do it because {what} is being changed; try again")]
    Conflict {
        /// The provider.
        provider: &'static str,
        /// What is fought over.
        what: String,
    },
    /// What was accepted failed later, or did not end.
    #[error("{provider} accepted the change of {what}, and then it failed: {reason}")]
    ActionFailed {
        /// The provider.
        provider: &'static str,
        /// What was changed.
        what: String,
        /// Its reason, cleaned.
        reason: String,
    },
    /// A fault on the provider's side.
    #[error("{provider} had a fault (HTTP {status}{}); try again", id(correlation))]
    Transient {
        /// The provider.
        provider: &'static str,
        /// The status of its answer.
        status: u16,
        /// Its own id for the exchange.
        correlation: Option<String>,
    },
    /// A refusal of a kind that VMKit does not know.
    #[error("{provider} refused with `{refusal}` (HTTP {status}{}): {reason}", id(correlation))]
    Refused {
        /// The provider.
        provider: &'static str,
        /// The status of its answer.
        status: u16,
        /// Its code.
        refusal: String,
        /// Its reason, cleaned.
        reason: String,
        /// Its own id for the exchange.
        correlation: Option<String>,
    },
    /// There is no answer to use.
    #[error(transparent)]
    Request(RequestError),
}

fn id(correlation: &Option<String>) -> String {
    correlation.as_ref().map(|id| format!(", its id {id}")).unwrap_or_default()
}

impl DnsError {
    /// A stable name for the kind.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownProvider { .. } => "unknown_provider",
            Self::NotFound { .. } => "not_found",
            Self::Taken { .. } => "record_taken",
            Self::Foreign { .. } => "foreign_record",
            Self::RateLimited { .. } => "rate_limited",
            Self::Auth { .. } => "token_refused",
            Self::Forbidden { .. } => "forbidden",
            Self::Invalid { .. } => "invalid_request",
            Self::Protected { .. } => "protected",
            Self::Conflict { .. } => "conflict",
            Self::ActionFailed { .. } => "action_failed",
            Self::Transient { .. } => "dns_fault",
            Self::Refused { .. } => "refused",
            Self::Request(error) => error.code(),
        }
    }

    /// Whether the same call may work later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Taken { .. }
            | Self::RateLimited { .. }
            | Self::Conflict { .. }
            | Self::ActionFailed { .. }
            | Self::Transient { .. } => true,
            Self::UnknownProvider { .. }
            | Self::NotFound { .. }
            | Self::Foreign { .. }
            | Self::Auth { .. }
            | Self::Forbidden { .. }
            | Self::Invalid { .. }
            | Self::Protected { .. }
            | Self::Refused { .. } => false,
            Self::Request(error) => error.retryable(),
        }
    }

    /// Whether what was asked for may have happened all the same: look before asking again.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Transient { .. } | Self::ActionFailed { .. } => true,
            Self::Request(error) => error.may_have_happened(),
            _ => false,
        }
    }

    /// From an answer with a status that no provider uses in its own way.
    pub(super) fn of_status(
        api: &Api,
        answer: &Answer,
        what: &str,
        refusal: &str,
        reason: &str,
    ) -> Self {
        let (provider, what, status) = (api.name(), what.to_owned(), answer.status.as_u16());
        let (reason, correlation) = (api.clean(reason), answer.correlation.clone());
        match status {
            401 => Self::Auth { provider },
            403 => Self::Forbidden { provider, reason },
            404 => Self::NotFound { provider, what },
            409 => Self::Conflict { provider, what },
            400 | 422 => Self::Invalid { provider, what, reason },
            500..=599 => Self::Transient { provider, status, correlation },
            _ => {
                let refusal = api.clean(refusal);
                Self::Refused { provider, status, refusal, reason, correlation }
            }
        }
    }
}

impl From<RequestError> for DnsError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::RateLimited { api, until } => Self::RateLimited { provider: api, until },
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
        let (provider, what, reason) = ("Cloudflare", "x".to_owned(), "a reason".to_owned());
        let (status, correlation, line) = (500, None, "A x 1".to_owned());
        let refusal = "9".to_owned();
        let errors = [
            DnsError::UnknownProvider { provider: what.clone() },
            DnsError::NotFound { provider, what: what.clone() },
            DnsError::Taken { provider, what: what.clone() },
            DnsError::Foreign { provider, line, proxied: false },
            DnsError::RateLimited { provider, until: Millis(0) },
            DnsError::Auth { provider },
            DnsError::Forbidden { provider, reason: reason.clone() },
            DnsError::Invalid { provider, what: what.clone(), reason: reason.clone() },
            DnsError::Protected { provider, what: what.clone() },
            DnsError::Conflict { provider, what: what.clone() },
            DnsError::ActionFailed { provider, what, reason: reason.clone() },
            DnsError::Transient { provider, status, correlation: None },
            DnsError::Refused { provider, status, refusal, reason, correlation },
            RequestError::TimedOut { api: provider, after_ms: 1 }.into(),
        ];
        let rows: Vec<(&str, bool, bool)> =
            errors.iter().map(|e| (e.code(), e.retryable(), e.may_have_happened())).collect();
        assert_eq!(
            rows,
            [
                ("unknown_provider", false, false),
                ("not_found", false, false),
                ("record_taken", true, false),
                ("foreign_record", false, false),
                ("rate_limited", true, false),
                ("token_refused", false, false),
                ("forbidden", false, false),
                ("invalid_request", false, false),
                ("protected", false, false),
                ("conflict", true, false),
                ("action_failed", true, true),
                ("dns_fault", true, true),
                ("refused", false, false),
                ("timeout", true, true),
            ]
        );
        assert!(errors.iter().all(|error| !error.to_string().ends_with('.')));
    }
}
