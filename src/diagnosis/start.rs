//! Before anything of ours runs: GitHub, its bill, its rules, the workflow, and what our own
//! workflow checks first.

use super::rule::By::Tool;
use super::rule::Mends::{Person, Vmkit};
use super::rule::Row;

/// What GitHub notes about a job. Scripts can write notes too, so where one is believed is decided
/// by [`believed`].
pub(super) const NOTES: &[Row] = &[
    (
        "github_billing",
        Tool,
        r"recent account payments have failed or your spending limit needs to be increased|account is locked due to a billing issue",
        "GitHub did not start the job: the account's payment failed, or its spending limit is reached",
        "open Billing in the GitHub account's settings; then call `deploy` with environment `{environment}`",
        Person,
        "table",
    ),
    (
        "job_timeout",
        Tool,
        r"The job has exceeded the maximum execution time of (\S+)",
        "the job ran longer than its limit of $1 and was stopped",
        "see in `get_logs` with source `deploy` which step took the time; raise timeout-minutes in the workflow if it needs it",
        Person,
        "table",
    ),
    (
        "github_down",
        Tool,
        r"The hosted runner (?:.{0,80} )?lost communication with the server|The job was not acquired by Runner of type hosted|GitHub Actions has encountered an internal error|The runner has received a shutdown signal",
        "GitHub lost the machine on which the job ran",
        "call `deploy` with environment `{environment}` again; githubstatus.com tells of disturbances",
        Vmkit,
        "tool",
    ),
];

/// Whether a note of GitHub's can be true: a job that printed something was started, and one that
/// failed by itself did not run out of time.
pub(super) fn believed(code: &str, has_log: bool, conclusion: Option<&str>) -> bool {
    match code {
        "github_billing" => !has_log,
        "job_timeout" => !matches!(conclusion, Some("failure" | "success")),
        _ => true,
    }
}

/// What GitHub answers to the start of a run, and what runs before the build.
pub(super) const ROWS: &[Row] = &[
    (
        "workflow_not_indexed",
        Tool,
        r"Workflow does not have 'workflow_dispatch' trigger",
        "GitHub does not know the workflow's inputs yet, or its YAML does not parse",
        "wait a minute and deploy again; then check that the workflow on the default branch is valid",
        Vmkit,
        "table",
    ),
    (
        "workflow_outdated",
        Tool,
        r"Unexpected inputs provided: (.*)",
        "the workflow on the default branch is older than this VMKit and does not take $1",
        "merge the open pull request of VMKit, or call `setup_repo` again",
        Person,
        "table",
    ),
    (
        "ref_missing",
        Tool,
        r"No ref found for: (\S+)",
        "the repo has no branch or tag $1",
        "push it first, or name one that exists",
        Person,
        "table",
    ),
    (
        "github_permission",
        Tool,
        r"Resource not accessible by (?:integration|personal access token)",
        "the GitHub token lacks a permission for this repo",
        "grant it Actions, Contents, Pull requests, Secrets and Variables (write) on the repo",
        Person,
        "table",
    ),
    (
        "commit_missing",
        Tool,
        r"fatal: (?:remote error: upload-pack: not our ref (\w+)|reference is not a tree: (\w+))|couldn't find remote ref (\w+)",
        "the repo does not have the commit $1$2$3 any more: its branch was deleted or rewritten",
        "push the commit again, or call `deploy` with a ref that exists",
        Person,
        "tool",
    ),
    (
        "github_down",
        Tool,
        r"(?:fatal: unable to access 'https://github\.com/.*(?:error: 5\d\d|Could not resolve host|Failed to connect|timed out)|Failed to download action 'https://api\.github\.com|Unable to download (?:actions|.*github\.com).*50\d)",
        "GitHub did not answer its own runner",
        "call `deploy` with environment `{environment}` again in some minutes; githubstatus.com tells of disturbances",
        Vmkit,
        "tool",
    ),
    (
        "deploy_key_missing",
        Tool,
        r"^(?:##\[error\]|::error::)the secret (\w+) is empty",
        "the repo has no secret $1, so nothing can log in to the VM",
        "call `deploy` with environment `{environment}`: it writes the secret",
        Vmkit,
        "seen",
    ),
    (
        "host_key_missing",
        Tool,
        r"^(?:##\[error\]|::error::)the variable (\w+) is empty",
        "the repo has no variable $1 with the VM's host key, so nothing was sent to the VM",
        "call `deploy` with environment `{environment}`: it writes the variable",
        Vmkit,
        "seen",
    ),
    (
        "config_not_merged",
        Tool,
        r"^(?:##\[error\]|::error::)(\S+) is not on the default branch",
        "$1 is not on the default branch",
        "merge the open pull request of VMKit; if there is none, call `provision_vm` with environment `{environment}` first",
        Person,
        "seen",
    ),
    (
        "bad_commit_id",
        Tool,
        r"^(?:##\[error\]|::error::)sha must be a full commit id",
        "the workflow was given something else than a full commit id",
        "give all 40 digits, or leave the field empty",
        Person,
        "seen",
    ),
    (
        "lock_of_a_person",
        Tool,
        r"^(?:##\[error\]|::error::)a person holds this lock",
        "a person holds the deploy lock",
        "ask them; or release it by hand with `kamal lock release -c config/deploy.{name}.yml`",
        Person,
        "seen",
    ),
    (
        "kamal_not_installed",
        Tool,
        r"ERROR:  (?:Could not find a valid gem 'kamal'|While executing gem)(.*)",
        "the runner could not install Kamal$1",
        "call `deploy` with environment `{environment}` again in some minutes",
        Vmkit,
        "tool",
    ),
];
