//! How long VMKit waits: between polls, between retries, and for one answer.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::clock::{Clock, Millis};
use crate::domain::waits;

/// Waiting as a value, so that a test waits milliseconds where a cloud needs seconds.
#[derive(Debug, Clone)]
pub struct Pace {
    /// For the hints that providers give as points in time.
    pub clock: Clock,
    /// The first wait between two polls; each later one is longer.
    pub poll_first: Duration,
    /// The longest wait between two polls.
    pub poll_longest: Duration,
    /// The first wait before a retry; each later one is twice as long.
    pub retry_first: Duration,
    /// The longest wait before a retry, where the provider asks for no longer one.
    pub retry_longest: Duration,
    /// How long one call waits for its retries in all. A provider's hint that does not fit in
    /// becomes an error that says when to come back.
    pub retry_budget: Duration,
    /// After how many faults (5xx, lost connections; a time-out counts twice) a call gives up.
    pub faults_max: u32,
    /// How long a look for the traces of a lost answer goes on.
    pub doubt: Duration,
    /// How long after the end of a change the next one begins, where a provider asks for that.
    pub between_changes: Duration,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait for a whole answer, its body included.
    pub timeout: Duration,
}

impl Pace {
    /// The pace for real use.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            poll_first: Duration::from_millis(150),
            poll_longest: Duration::from_secs(5),
            retry_first: Duration::from_millis(200),
            retry_longest: Duration::from_secs(5),
            retry_budget: Duration::from_secs(30),
            faults_max: 4,
            doubt: Duration::from_secs(6),
            between_changes: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
        }
    }

    /// The waits between polls: from the first one, growing by half, for `limit` in all, what is
    /// done between them included.
    pub fn polls(&self, limit: Duration) -> Waits {
        Waits {
            next: self.poll_first,
            longest: self.poll_longest,
            left: limit,
            growth: 1.5,
            end: Instant::now().checked_add(limit),
        }
    }

    /// The waits between retries: doubling, with jitter, for the budget in all.
    pub fn retries(&self) -> Waits {
        Waits {
            next: self.retry_first,
            longest: self.retry_longest,
            left: self.retry_budget,
            growth: 2.0,
            end: None,
        }
    }
}

/// A bounded row of growing waits.
#[derive(Debug, Clone)]
pub struct Waits {
    next: Duration,
    longest: Duration,
    left: Duration,
    growth: f64,
    /// When it is over, however much of the time went by in other ways than waiting: polls that are
    /// slow themselves must not make a limit of minutes one of hours.
    end: Option<Instant>,
}

impl Waits {
    /// Waits for the next while; false, at once, where the time for it is used up.
    pub async fn wait(&mut self) -> bool {
        let Some(wait) = self.take(Duration::ZERO) else { return false };
        tokio::time::sleep(wait).await;
        true
    }

    /// As [`Self::wait`], but not before `until`; a long wait is told, as waiting for `what`.
    pub async fn wait_until(&mut self, until: Option<Millis>, clock: &Clock, what: &str) -> bool {
        let ms = until.map_or(0, |until| until.since_ms(clock.now()));
        let least = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        let Some(wait) = self.take(least) else { return false };
        let seconds = wait.as_secs_f32().ceil();
        let told = waits::begin(wait, || format!("{what}; going on in {seconds} s")).await;
        tokio::time::sleep(wait).await;
        if told {
            waits::end().await;
        }
        true
    }

    /// How long to wait now, where there is time left for it.
    fn take(&mut self, least: Duration) -> Option<Duration> {
        let jitter = 1.0 + rand::random::<f64>() * 0.2;
        let wait = self.next.mul_f64(jitter).max(least);
        if let Some(end) = self.end {
            self.left = self.left.min(end.saturating_duration_since(Instant::now()));
        }
        if self.left.is_zero() || (least > self.left) {
            return None;
        }
        let wait = wait.min(self.left);
        self.left -= wait;
        self.next = self.next.mul_f64(self.growth).min(self.longest);
        Some(wait)
    }
}
