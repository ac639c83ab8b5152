//! GitHub's refusals: which are only for the moment, and what each means.

use super::error::GitHubError;
use crate::domain::clock::Millis;
use crate::requests::{Answer, Api, Refusal};

/// A secondary limit without a hint is waited out for a minute, as GitHub asks.
const SECONDARY_LIMIT_MS: i64 = 60_000;

/// Whether GitHub limits our rate. The primary limit has nothing remaining and names its reset;
/// the secondary one answers 403 or 429 with quota left, and a hint or a sentence.
pub(super) fn for_now(answer: &Answer, now: Millis) -> Option<Refusal> {
    if !matches!(answer.status.as_u16(), 403 | 429) {
        return None;
    }
    if let Some(until) = answer.retry_after(now) {
        return Some(Refusal::Limited { until: Some(until) });
    }
    if answer.header_number("x-ratelimit-remaining") == Some(0) {
        let reset = answer.header_number("x-ratelimit-reset");
        let until = reset.map(|seconds| Millis(seconds.saturating_mul(1000)));
        return Some(Refusal::Limited { until });
    }
    let secondary = message(answer).to_ascii_lowercase().contains("rate limit");
    (secondary || answer.status.as_u16() == 429)
        .then(|| Refusal::Limited { until: Some(now.plus_ms(SECONDARY_LIMIT_MS)) })
}

/// The sentence of a refusal.
fn message(answer: &Answer) -> String {
    answer.value()["message"].as_str().unwrap_or_default().to_owned()
}

/// Everything that a refusal says, in one line: GitHub has three shapes of `errors`.
pub(super) fn reason(api: &Api, answer: &Answer) -> String {
    let value = answer.value();
    let mut parts = vec![message(answer)];
    for error in value["errors"].as_array().into_iter().flatten() {
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        parts.push(match (error.as_str(), text("message")) {
            (Some(sentence), _) => sentence.to_owned(),
            (None, sentence) if !sentence.is_empty() => sentence,
            (None, _) => format!("{} {} {}", text("resource"), text("field"), text("code")),
        });
    }
    parts.retain(|part| !part.trim().is_empty());
    api.clean(&parts.join("; "))
}

/// The error that an answer means; `what` is what the call was about.
pub(super) fn error(api: &Api, answer: &Answer, what: &str) -> GitHubError {
    let (what, status) = (what.to_owned(), answer.status.as_u16());
    let reason = reason(api, answer);
    let correlation = answer.correlation.clone();
    if reason.contains("without `workflow") {
        // Said with several statuses where a commit touches `.github/workflows`.
        return GitHubError::Forbidden { what, reason, needs: "workflows=write".to_owned() };
    }
    match status {
        401 => GitHubError::Auth,
        403 => {
            let named = answer.header("x-accepted-github-permissions").map(|p| api.clean(p));
            let needs = named
                .filter(|needs| !needs.is_empty())
                .unwrap_or_else(|| "a permission that GitHub did not name".to_owned());
            GitHubError::Forbidden { what, reason, needs }
        }
        404 => GitHubError::NotFound { what },
        409 if reason.to_ascii_lowercase().contains("empty") => GitHubError::EmptyRepo,
        409 => GitHubError::Conflict { what },
        422 => GitHubError::Invalid { what, reason },
        500..=599 => GitHubError::Transient { status, correlation },
        _ => GitHubError::Refused { what, status, reason, correlation },
    }
}
