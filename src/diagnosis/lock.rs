//! Kamal's deploy lock.

use super::rule::By::Tool;
use super::rule::Mends::Person;
use super::rule::Row;

pub(super) const ROWS: &[Row] = &[(
    "deploy_locked",
    Tool,
    r"Kamal::Cli::LockError|Deploy lock found",
    "another deploy, alive or dead, holds the deploy lock",
    "if that deploy is alive, wait for it; if it died, run the workflow with the action unlock and deploy again",
    Person,
    "table",
)];

/// Who holds the lock, in the words that stand above the error.
pub(super) fn holder(lines: &[super::lines::Line]) -> Option<(usize, &str)> {
    let tool = |line: &super::lines::Line| line.voice == super::lines::Voice::Tool;
    lines.iter().enumerate().rev().filter(|(_, line)| tool(line)).find_map(|(at, line)| {
        Some((at, line.text.trim_start().strip_prefix("Locked by: ")?.trim()))
    })
}
