//! How long to wait before the next attempt: doubling, bounded, and jittered so that the agents
//! of a gateway that comes back do not all knock at once.

use std::time::Duration;

/// The wait after one failure.
pub const FIRST: Duration = Duration::from_millis(250);
/// The longest wait.
pub const LONGEST: Duration = Duration::from_secs(20);

/// The wait before attempt `attempt` (1 is the first repeat), where `random` is in 0..1: between
/// half of the doubled wait and all of it.
pub fn wait(attempt: u32, random: f64) -> Duration {
    let doubled = FIRST.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1).min(16)));
    doubled.min(LONGEST).mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

/// [`wait`] with a random number of its own.
pub(crate) fn jittered(attempt: u32) -> Duration {
    wait(attempt, rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_bounds_and_differ_by_chance() {
        assert_eq!(wait(1, 1.0), FIRST);
        assert_eq!(wait(1, 0.0), FIRST / 2);
        assert_eq!(wait(2, 1.0), FIRST * 2);
        assert_eq!(wait(50, 1.0), LONGEST);
        assert_eq!(wait(u32::MAX, 0.0), LONGEST / 2);
    }
}
