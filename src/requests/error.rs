//! Why a call has no answer.

use std::time::Duration;

use crate::domain::clock::Millis;

/// Why a call to a provider has no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The base URL cannot be used.
    #[error("the base URL for {api} cannot be used: {why}")]
    BadBaseUrl {
        /// The provider.
        api: &'static str,
        /// The reason.
        why: &'static str,
    },
    /// The token cannot be sent.
    #[error(
        "the token for {api} has characters that no token has; store it again with `vmkit connect`"
    )]
    BadToken {
        /// The provider.
        api: &'static str,
    },
    /// No token can be had for this call; it was not sent.
    #[error("{api} gives no token for this call: {reason}")]
    NoToken {
        /// The provider.
        api: &'static str,
        /// Why, and what to do about it.
        reason: String,
        /// Whether it may give one later.
        passing: bool,
    },
    /// The HTTP client could not be made.
    #[error(
        "the HTTP client for {api} cannot start; check this machine's TLS certificates and proxy settings"
    )]
    NoClient {
        /// The provider.
        api: &'static str,
        /// What it said.
        #[source]
        source: reqwest::Error,
    },
    /// No connection: nothing was sent.
    #[error("{api} cannot be reached; check the network")]
    Unreachable {
        /// The provider.
        api: &'static str,
        /// What went wrong.
        #[source]
        source: reqwest::Error,
    },
    /// The connection was lost with the call under way: it may have had its effect.
    #[error("the connection to {api} was lost before its answer was complete; try again")]
    Broken {
        /// The provider.
        api: &'static str,
        /// What went wrong.
        #[source]
        source: reqwest::Error,
    },
    /// No answer in time: the call may have had its effect.
    #[error("{api} did not answer within {after_ms} ms; try again")]
    TimedOut {
        /// The provider.
        api: &'static str,
        /// How long was waited, in milliseconds.
        after_ms: u64,
    },
    /// Too many calls, for longer than a call waits.
    #[error("{api} accepts no more calls before {}; wait until then", until.rfc3339())]
    RateLimited {
        /// The provider.
        api: &'static str,
        /// When it accepts calls again.
        until: Millis,
    },
    /// A redirect that our token must not follow.
    #[error("{api} redirected to {host}, where our token must not go; check the base URL")]
    RedirectedAway {
        /// The provider.
        api: &'static str,
        /// Where it pointed.
        host: String,
    },
    /// More than we keep.
    #[error("{api} sent more than {limit} bytes")]
    TooLarge {
        /// The provider.
        api: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
    /// An answer of another form than its documentation's.
    #[error(
        "{api} sent {what} in a form that VMKit does not know; try again, and report it if it stays"
    )]
    BadAnswer {
        /// The provider.
        api: &'static str,
        /// What was asked for.
        what: &'static str,
        /// Where it differs.
        #[source]
        source: serde_json::Error,
    },
}

impl RequestError {
    /// From the HTTP client's error; the URL is taken out, since it may carry a signature.
    pub(super) fn of_transport(api: &'static str, after: Duration, error: reqwest::Error) -> Self {
        let source = error.without_url();
        if source.is_connect() || source.is_builder() {
            Self::Unreachable { api, source }
        } else if source.is_timeout() {
            let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            Self::TimedOut { api, after_ms }
        } else {
            Self::Broken { api, source }
        }
    }

    /// A stable name for the kind.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadBaseUrl { .. } => "bad_base_url",
            Self::BadToken { .. } => "bad_token",
            Self::NoToken { .. } => "no_token",
            Self::NoClient { .. } => "no_client",
            Self::Unreachable { .. } => "unreachable",
            Self::Broken { .. } => "connection_lost",
            Self::TimedOut { .. } => "timeout",
            Self::RateLimited { .. } => "rate_limited",
            Self::RedirectedAway { .. } => "redirected_away",
            Self::TooLarge { .. } => "too_large",
            Self::BadAnswer { .. } => "bad_answer",
        }
    }

    /// Whether the same call may work later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::TimedOut { .. }
            | Self::RateLimited { .. }
            | Self::BadAnswer { .. } => true,
            Self::NoToken { passing, .. } => *passing,
            Self::BadBaseUrl { .. }
            | Self::BadToken { .. }
            | Self::NoClient { .. }
            | Self::RedirectedAway { .. }
            | Self::TooLarge { .. } => false,
        }
    }

    /// Whether what was asked for may have happened all the same: look before asking again.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Broken { .. }
            | Self::TimedOut { .. }
            | Self::TooLarge { .. }
            | Self::BadAnswer { .. } => true,
            Self::BadBaseUrl { .. }
            | Self::BadToken { .. }
            | Self::NoToken { .. }
            | Self::NoClient { .. }
            | Self::Unreachable { .. }
            | Self::RateLimited { .. }
            | Self::RedirectedAway { .. } => false,
        }
    }

    /// Whether trying again within the same call has a point.
    pub(super) fn is_passing(&self) -> bool {
        self.retryable() && !matches!(self, Self::RateLimited { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes are an interface: a changed one breaks whoever matches on it.
    #[test]
    fn every_code_and_whether_it_may_have_happened() {
        let api = "GitHub";
        let http = || reqwest::Proxy::all("").expect_err("no proxy");
        let json = serde_json::from_str::<u8>("x").expect_err("no number");
        let errors = [
            RequestError::BadBaseUrl { api, why: "it is no address" },
            RequestError::BadToken { api },
            RequestError::NoToken { api, reason: "x".to_owned(), passing: false },
            RequestError::NoClient { api, source: http() },
            RequestError::Unreachable { api, source: http() },
            RequestError::Broken { api, source: http() },
            RequestError::TimedOut { api, after_ms: 1 },
            RequestError::RateLimited { api, until: Millis(0) },
            RequestError::RedirectedAway { api, host: "x".to_owned() },
            RequestError::TooLarge { api, limit: 1 },
            RequestError::BadAnswer { api, what: "a run", source: json },
        ];
        let rows: Vec<(&str, bool, bool)> =
            errors.iter().map(|e| (e.code(), e.retryable(), e.may_have_happened())).collect();
        assert_eq!(
            rows,
            [
                ("bad_base_url", false, false),
                ("bad_token", false, false),
                ("no_token", false, false),
                ("no_client", false, false),
                ("unreachable", true, false),
                ("connection_lost", true, true),
                ("timeout", true, true),
                ("rate_limited", true, false),
                ("redirected_away", false, false),
                ("too_large", false, true),
                ("bad_answer", true, true),
            ]
        );
    }
}
