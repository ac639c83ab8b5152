//! The one place of the agent that reads the wall clock.

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the agent's one place that reads the wall clock")]
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// The same for a person, to the second.
#[expect(clippy::disallowed_methods, reason = "the agent's one place that reads the wall clock")]
pub(crate) fn now_rfc3339() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}
