//! Saying aloud that a test cannot run here.

/// Says that `test` was skipped because of `reason`. Where `VMKIT_TEST_NO_SKIP=1`, a skip is a
/// failure: so CI cannot go green by lacking something.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of the tests that reads this variable"
)]
pub(crate) fn skip(test: &str, reason: &str) {
    let forbidden = std::env::var("VMKIT_TEST_NO_SKIP").is_ok_and(|value| value == "1");
    assert!(!forbidden, "{test} must not be skipped here: {reason}");
    eprintln!("SKIPPED {test}: {reason}");
}
