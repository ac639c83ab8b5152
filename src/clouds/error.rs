//! What can go wrong with a cloud, in words that hold for every cloud.

use crate::domain::clock::Millis;
use crate::requests::RequestError;

/// One field of a refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFault {
    /// The field, in the cloud's word.
    pub field: String,
    /// What is wrong with it, in the cloud's words, cleaned.
    pub message: String,
}

fn list(fields: &[FieldFault]) -> String {
    let parts: Vec<String> =
        fields.iter().map(|f| format!("`{}` ({})", f.field, f.message)).collect();
    if parts.is_empty() { "it named no field".to_owned() } else { parts.join(", ") }
}

/// Why a cloud did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// A cloud that VMKit does not know.
    #[error("`{provider}` is not a cloud that VMKit knows; use `hetzner` or `digitalocean`")]
    UnknownProvider {
        /// What was given.
        provider: String,
    },
    /// The cloud does not have such a thing.
    #[error("{provider} does not offer {what}")]
    NotOffered {
        /// The cloud.
        provider: &'static str,
        /// What was asked for.
        what: String,
    },
    /// It is not there.
    #[error("{what} does not exist at {provider}")]
    NotFound {
        /// The cloud.
        provider: &'static str,
        /// What was looked for.
        what: String,
    },
    /// Somebody else changes the same thing.
    #[error("{provider} could not do it because {what} is being changed; try again")]
    Conflict {
        /// The cloud.
        provider: &'static str,
        /// What is fought over.
        what: String,
    },
    /// A resource of that name exists and is not this installation's.
    #[error(
        "{what} exists at {provider} and was not made by this installation; rename or delete it there, VMKit does not touch it"
    )]
    NameTaken {
        /// The cloud.
        provider: &'static str,
        /// What has the name.
        what: String,
    },
    /// The resource is not this installation's, so it is not changed.
    #[error("{what} at {provider} was not made by this installation, so VMKit does not touch it")]
    Foreign {
        /// The cloud.
        provider: &'static str,
        /// What it is.
        what: String,
    },
    /// The size cannot be had there now.
    #[error("size `{size}` cannot be ordered in `{region}` now; choose another from `list_sizes`")]
    SoldOut {
        /// The size.
        size: String,
        /// The region.
        region: String,
    },
    /// The account's limit is reached.
    #[error(
        "the account's limit at {provider} is reached ({what}); delete something or ask {provider} to raise it"
    )]
    Limit {
        /// The cloud.
        provider: &'static str,
        /// Which limit.
        what: String,
    },
    /// Too many calls, for longer than a call waits.
    #[error("{provider} accepts no more calls before {}; wait until then", until.rfc3339())]
    RateLimited {
        /// The cloud.
        provider: &'static str,
        /// When it accepts calls again.
        until: Millis,
    },
    /// The token is not valid.
    #[error("{provider} does not accept the token; store a valid one with `vmkit connect`")]
    Auth {
        /// The cloud.
        provider: &'static str,
    },
    /// The token is valid, but may not do this.
    #[error(
        "the token for {provider} may not do this ({reason}); store one with read and write permission with `vmkit connect`"
    )]
    Forbidden {
        /// The cloud.
        provider: &'static str,
        /// The cloud's reason, cleaned.
        reason: String,
    },
    /// The cloud found the request wrong.
    #[error("{provider} refused the request: {}", list(fields))]
    Invalid {
        /// The cloud.
        provider: &'static str,
        /// What it found wrong.
        fields: Vec<FieldFault>,
    },
    /// It is protected against deletion.
    #[error("{what} is protected at {provider}; lift the protection in its console first")]
    Protected {
        /// The cloud.
        provider: &'static str,
        /// What is protected.
        what: String,
    },
    /// Another action on it is under way.
    #[error("{what} is locked at {provider} by another action; try again in a minute")]
    Locked {
        /// The cloud.
        provider: &'static str,
        /// What is locked.
        what: String,
    },
    /// Something still uses it.
    #[error("{what} is still in use at {provider}; try again when what uses it is gone")]
    InUse {
        /// The cloud.
        provider: &'static str,
        /// What is in use.
        what: String,
    },
    /// An action was accepted and ended badly.
    #[error("{provider} could not finish {command} ({reason}); try again")]
    ActionFailed {
        /// The cloud.
        provider: &'static str,
        /// The action, in the cloud's word.
        command: String,
        /// The cloud's reason, cleaned.
        reason: String,
    },
    /// A fault of the cloud's.
    #[error("{provider} has a fault (HTTP {status}{}); try again", id(correlation))]
    Transient {
        /// The cloud.
        provider: &'static str,
        /// The status of its answer.
        status: u16,
        /// The cloud's own id for the exchange.
        correlation: Option<String>,
    },
    /// It took too long.
    #[error("{what} took longer than {limit_ms} ms at {provider}; try again")]
    Timeout {
        /// The cloud.
        provider: &'static str,
        /// What was waited for.
        what: String,
        /// How long was waited, in milliseconds.
        limit_ms: u64,
    },
    /// A refusal of a kind that VMKit does not know.
    #[error("{provider} refused with `{refusal}` (HTTP {status}{}): {reason}", id(correlation))]
    Refused {
        /// The cloud.
        provider: &'static str,
        /// The status of its answer.
        status: u16,
        /// The cloud's code.
        refusal: String,
        /// The cloud's reason, cleaned.
        reason: String,
        /// The cloud's own id for the exchange.
        correlation: Option<String>,
    },
    /// It bills in a currency that VMKit has no caps for.
    #[error("{provider} bills this account in `{currency}`, which VMKit does not know")]
    Currency {
        /// The cloud.
        provider: &'static str,
        /// The currency, cleaned.
        currency: String,
    },
    /// There is no answer to use.
    #[error(transparent)]
    Request(RequestError),
}

fn id(correlation: &Option<String>) -> String {
    correlation.as_ref().map(|id| format!(", its id {id}")).unwrap_or_default()
}

impl CloudError {
    /// A stable name for the kind.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownProvider { .. } => "unknown_provider",
            Self::NotOffered { .. } => "not_offered",
            Self::NotFound { .. } => "not_found",
            Self::Conflict { .. } => "conflict",
            Self::NameTaken { .. } => "name_taken",
            Self::Foreign { .. } => "not_ours",
            Self::SoldOut { .. } => "sold_out",
            Self::Limit { .. } => "limit_reached",
            Self::RateLimited { .. } => "rate_limited",
            Self::Auth { .. } => "token_refused",
            Self::Forbidden { .. } => "forbidden",
            Self::Invalid { .. } => "invalid_request",
            Self::Protected { .. } => "protected",
            Self::Locked { .. } => "locked",
            Self::InUse { .. } => "in_use",
            Self::ActionFailed { .. } => "action_failed",
            Self::Transient { .. } => "cloud_fault",
            Self::Timeout { .. } => "timeout",
            Self::Refused { .. } => "refused",
            Self::Currency { .. } => "unknown_currency",
            Self::Request(error) => error.code(),
        }
    }

    /// Whether the same call may work later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Conflict { .. }
            | Self::RateLimited { .. }
            | Self::Locked { .. }
            | Self::InUse { .. }
            | Self::ActionFailed { .. }
            | Self::Transient { .. }
            | Self::Timeout { .. } => true,
            Self::UnknownProvider { .. }
            | Self::NotOffered { .. }
            | Self::NotFound { .. }
            | Self::NameTaken { .. }
            | Self::Foreign { .. }
            | Self::SoldOut { .. }
            | Self::Limit { .. }
            | Self::Auth { .. }
            | Self::Forbidden { .. }
            | Self::Invalid { .. }
            | Self::Protected { .. }
            | Self::Refused { .. }
            | Self::Currency { .. } => false,
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

    /// Not before when a retry has a point, where the cloud said so.
    pub fn retry_at(&self) -> Option<Millis> {
        match self {
            Self::RateLimited { until, .. } => Some(*until),
            _ => None,
        }
    }
}

impl From<RequestError> for CloudError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::RateLimited { api, until } => Self::RateLimited { provider: api, until },
            RequestError::TimedOut { api, after_ms } => {
                Self::Timeout { provider: api, what: "an answer".to_owned(), limit_ms: after_ms }
            }
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
        let (provider, what) = ("Hetzner", "server `x`".to_owned());
        let (reason, correlation, until) = ("a reason".to_owned(), None, Millis(0));
        let limited = RequestError::RateLimited { api: provider, until };
        let late = RequestError::TimedOut { api: provider, after_ms: 1 };
        let errors = [
            CloudError::UnknownProvider { provider: "x".to_owned() },
            CloudError::NotOffered { provider, what: "reserved addresses".to_owned() },
            CloudError::NotFound { provider, what: what.clone() },
            CloudError::Conflict { provider, what: what.clone() },
            CloudError::NameTaken { provider, what: what.clone() },
            CloudError::Foreign { provider, what: what.clone() },
            CloudError::SoldOut { size: "cax11".to_owned(), region: "fsn1".to_owned() },
            CloudError::Limit { provider, what: what.clone() },
            limited.into(),
            CloudError::Auth { provider },
            CloudError::Forbidden { provider, reason: reason.clone() },
            CloudError::Invalid { provider, fields: Vec::new() },
            CloudError::Protected { provider, what: what.clone() },
            CloudError::Locked { provider, what: what.clone() },
            CloudError::InUse { provider, what },
            CloudError::ActionFailed {
                provider,
                command: "delete_server".to_owned(),
                reason: reason.clone(),
            },
            CloudError::Transient { provider, status: 500, correlation: correlation.clone() },
            late.into(),
            CloudError::Refused {
                provider,
                status: 418,
                refusal: "tea".to_owned(),
                reason,
                correlation,
            },
            CloudError::Currency { provider, currency: "CHF".to_owned() },
            CloudError::Request(RequestError::BadToken { api: provider }),
        ];
        let rows: Vec<(&str, bool)> = errors.iter().map(|e| (e.code(), e.retryable())).collect();
        assert_eq!(
            rows,
            [
                ("unknown_provider", false),
                ("not_offered", false),
                ("not_found", false),
                ("conflict", true),
                ("name_taken", false),
                ("not_ours", false),
                ("sold_out", false),
                ("limit_reached", false),
                ("rate_limited", true),
                ("token_refused", false),
                ("forbidden", false),
                ("invalid_request", false),
                ("protected", false),
                ("locked", true),
                ("in_use", true),
                ("action_failed", true),
                ("cloud_fault", true),
                ("timeout", true),
                ("refused", false),
                ("unknown_currency", false),
                ("bad_token", false),
            ]
        );
        for error in errors {
            assert!(!error.to_string().ends_with('.'), "{error}");
        }
    }
}
