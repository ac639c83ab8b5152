//! Time as the store keeps it, and the one place that reads the wall clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Milliseconds since 1970 in UTC; RFC 3339 with `Z` outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    /// This time, `ms` milliseconds later (earlier where negative).
    pub fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// How many milliseconds lie between `earlier` and this time.
    pub fn since_ms(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// RFC 3339 with seconds and `Z`, such as `2026-11-01T09:30:00Z`.
    pub fn rfc3339(self) -> String {
        Timestamp::from_millisecond(self.0)
            .map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
            .unwrap_or_else(|_| format!("{} ms", self.0))
    }
}

/// Where times come from: the wall clock in `main`, a hand that is set in tests.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    Wall,
    Hand(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's own clock.
    pub fn wall() -> Self {
        Self(Source::Wall)
    }

    /// A clock that stands at `at` until [`Clock::advance_ms`] moves it.
    pub fn hand(at: Millis) -> Self {
        Self(Source::Hand(Arc::new(AtomicI64::new(at.0))))
    }

    /// The time now.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn now(&self) -> Millis {
        match &self.0 {
            Source::Wall => Millis(Timestamp::now().as_millisecond()),
            Source::Hand(at) => Millis(at.load(Ordering::SeqCst)),
        }
    }

    /// Moves a hand clock; does nothing to the wall clock.
    pub fn advance_ms(&self, ms: i64) {
        match &self.0 {
            Source::Wall => {}
            Source::Hand(at) => {
                at.fetch_add(ms, Ordering::SeqCst);
            }
        }
    }
}
