//! From the evidence of a failed run to one root cause. Pure.
//!
//! A wrong cause is worse than none: a rule is a text that only its cause prints, and what the app
//! itself printed is never taken for the words of a tool.

mod lines;
mod rules;

use serde::Serialize;

use lines::{Line, cleaned};

/// The most lines of evidence.
const MAX_EVIDENCE: usize = 5;

/// Why a deploy failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// The stable code, such as `health_check_failed`.
    pub code: &'static str,
    /// What happened, in a sentence without a full stop. Parts of it are data from a log.
    pub cause: String,
    /// At most five lines that show it, the most telling first, cleaned of control characters and
    /// cut at 300.
    pub evidence: Vec<String>,
    /// What to do next.
    pub fix: &'static str,
}

/// What is known of a failed run. Everything in it is data that others wrote.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evidence<'a> {
    /// GitHub's annotations of the failed job: the only place that names billing and time-outs.
    pub annotations: &'a [String],
    /// The failed job's log.
    pub job_log: &'a str,
    /// The end of kamal-proxy's own log on the VM, which knows why a health check failed.
    pub proxy_log: &'a str,
}

/// The root cause in the log of a failed job, if a rule knows it.
pub fn explain(job_log: &str) -> Option<Cause> {
    diagnose(&Evidence { job_log, ..Evidence::default() })
}

/// The root cause in all that is known, if a rule knows it.
pub fn diagnose(evidence: &Evidence<'_>) -> Option<Cause> {
    let mut lines: Vec<Line> = evidence
        .annotations
        .iter()
        .map(|text| Line { text: cleaned(text), of_the_app: false })
        .collect();
    lines.extend(lines::of_job(evidence.job_log));
    let cause = rules::ALL.iter().find_map(|rule| {
        let (at, cause) =
            lines.iter().enumerate().find_map(|(at, line)| Some((at, rule.on(line)?)))?;
        Some(Cause { code: rule.code, cause, evidence: shown(&lines, at), fix: rule.fix })
    })?;
    Some(if cause.code == "health_check_failed" {
        refined(cause, evidence.proxy_log)
    } else {
        cause
    })
}

/// First the line that gave the cause away; then its neighbours, where a lock's holder or a command
/// stands, and Kamal's own last word.
fn shown(lines: &[Line], at: usize) -> Vec<String> {
    let last_word = lines.iter().rposition(|l| !l.of_the_app && l.text.contains("ERROR ("));
    let mut places = vec![at];
    places.extend((at.saturating_sub(1)..at).chain(at + 1..lines.len().min(at + 3)));
    places.extend(last_word);
    let mut shown: Vec<String> = Vec::new();
    for text in places.into_iter().map(|place| lines[place].text.trim()) {
        let text: String = text.chars().take(300).collect();
        if !text.is_empty() && !shown.contains(&text) {
            shown.push(text);
        }
    }
    shown.truncate(MAX_EVIDENCE);
    shown
}

/// kamal-proxy says why the new version did not get healthy; its last words count.
fn refined(mut cause: Cause, proxy_log: &str) -> Cause {
    let last = proxy_log.lines().rev().map(cleaned).find_map(|line| {
        let rule = rules::PROXY
            .iter()
            .find(|rule| line.contains("Healthcheck failed") && rule.fits(&line))?;
        Some((rule, line))
    });
    if let Some((rule, line)) = last {
        cause.code = rule.code;
        cause.cause = rule.expanded(&line).unwrap_or(cause.cause);
        cause.fix = rule.fix;
        cause.evidence.truncate(MAX_EVIDENCE - 1);
        cause.evidence.push(line.chars().take(300).collect());
    }
    cause
}

#[cfg(test)]
mod tests;
