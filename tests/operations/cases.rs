//! Many cases, a few at a time, each on a sandbox of its own; all that fail are told.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How many cases are under way at once, over all tests of this process.
const AT_ONCE: usize = 3;
static SLOTS: Semaphore = Semaphore::const_new(AT_ONCE);
/// No case may take longer.
const CASE_MAX: Duration = Duration::from_secs(240);

/// Runs every case.
pub(crate) async fn all<F: Future<Output = ()>>(
    what: &str,
    cases: impl IntoIterator<Item = (String, F)>,
) {
    let began = Instant::now();
    let results: Vec<(String, bool)> = stream::iter(cases)
        .map(|(name, case)| async move {
            let _slot = SLOTS.acquire().await.expect("never closed");
            let began = Instant::now();
            let case = tokio::time::timeout(CASE_MAX, AssertUnwindSafe(case).catch_unwind());
            let well = matches!(case.await, Ok(Ok(())));
            eprintln!(
                "{} {name} ({} ms)",
                if well { "ok" } else { "FAILED" },
                began.elapsed().as_millis()
            );
            (name, well)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let count = results.len();
    let failed: Vec<String> =
        results.into_iter().filter(|(_, well)| !well).map(|(name, _)| name).collect();
    eprintln!("{what}: {count} cases in {} s", began.elapsed().as_secs());
    assert!(count > 0, "no case");
    assert!(failed.is_empty(), "{} of {count} failed: {failed:#?}", failed.len());
}
