//! The clients of outside APIs against small fakes: every body that they send is held against the
//! provider's own specification, and every fault ends in a clean result or a clear error.

mod app;
mod dns;
mod fake;
mod fake_dns;
mod fake_github;
mod fake_hetzner;
mod github;
mod hetzner;
mod hetzner_faults;
mod requests;
mod spec;

use std::time::Duration;

use vmkit::clouds::Pace;
use vmkit::domain::clock::Clock;
use vmkit::domain::secret::Secret;

/// A text that no log and no other host may see.
const TOKEN: &str = "token-for-tests";

fn token() -> Secret {
    Secret::new(TOKEN)
}

/// A driver spawns what it waits for, so every call has to be able to change threads.
#[test]
fn calls_can_change_threads() {
    fn can_change_threads<T: Send>(_: T) {}
    let url: url::Url = "http://127.0.0.1:1".parse().expect("a URL");
    let github = vmkit::github::GitHub::new(&url, token(), pace()).expect("a client");
    let repo = "octo/shop".parse().expect("a repo");
    let sha = "0".repeat(40).parse().expect("a commit id");
    let none = std::collections::BTreeMap::new();
    let secret = token();
    can_change_threads(github.commit_files(&repo, "x", &sha, "m", &[]));
    can_change_threads(github.open_pull(&repo, "x", "main", "t", "b"));
    can_change_threads(github.put_secret(&repo, "A", &secret));
    can_change_threads(github.dispatch(&repo, "x.yml", "main", &none));
    can_change_threads(github.job_log(&repo, 1));
}

/// Waits of milliseconds; the time-out is long enough for a busy machine.
fn pace() -> Pace {
    // Another test of this process may have installed it before.
    drop(rustls::crypto::ring::default_provider().install_default());
    Pace {
        poll_first: Duration::from_millis(2),
        poll_longest: Duration::from_millis(20),
        retry_first: Duration::from_millis(2),
        retry_longest: Duration::from_millis(10),
        retry_budget: Duration::from_millis(80),
        doubt: Duration::from_millis(60),
        timeout: Duration::from_secs(2),
        between_changes: Duration::ZERO,
        ..Pace::new(Clock::wall())
    }
}
