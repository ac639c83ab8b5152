//! Kamal's config, its secrets and its hooks.

use super::rule::By::Tool;
use super::rule::Mends::{Person, Vmkit};
use super::rule::Row;

pub(super) const ROWS: &[Row] = &[
    (
        "secret_missing",
        Tool,
        r"Secret '(\w+)' not found in \.kamal/secrets",
        "`.kamal/secrets` has no line for $1",
        "add the line to .kamal/secrets and the value to the workflow, or remove the name from the config",
        Person,
        "table",
    ),
    (
        "kamal_config",
        Tool,
        r"ERROR \((?:Kamal::ConfigurationError|Psych::SyntaxError)\): (.*)",
        "Kamal refuses the config file: $1",
        "mend config/deploy.{name}.yml on the default branch; `kamal config -c FILE` checks it",
        Person,
        "table",
    ),
    (
        "registry_password_empty",
        Tool,
        r"flag needs an argument: 'p' in -p",
        "the registry's password was empty",
        "check that the workflow passes KAMAL_REGISTRY_PASSWORD to the deploy step",
        Person,
        "table",
    ),
    (
        "hook_failed",
        Tool,
        r"ERROR \(Kamal::Cli::HookError\): (?:Exception while executing on host \S+: )?Hook `?([\w-]+)`? failed",
        "the hook .kamal/hooks/$1 failed",
        "read its lines with `get_logs` and source `deploy`; mend the hook or what it calls",
        Person,
        "tool",
    ),
    (
        "kamal_config",
        Tool,
        r"ERROR \(Kamal::Cli::\w*ValidationError\): (.*)",
        "Kamal refuses the config file: $1",
        "call `setup_repo` again: it writes the files anew",
        Vmkit,
        "tool",
    ),
];
