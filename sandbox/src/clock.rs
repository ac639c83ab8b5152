//! The one place of the sandbox that reads the wall clock.

use jiff::Timestamp;

/// The time now.
#[expect(clippy::disallowed_methods, reason = "the sandbox's one reader of the wall clock")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    now().as_millisecond()
}

/// RFC 3339 as Hetzner writes it, such as `2026-11-01T09:30:00+00:00`.
pub(crate) fn rfc3339_offset(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string()
}

/// RFC 3339 with whole seconds and `Z`, as DigitalOcean writes it.
pub(crate) fn rfc3339_seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// RFC 3339 with nine digits and `Z`, as Docker writes it.
pub(crate) fn rfc3339_nanos(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}
