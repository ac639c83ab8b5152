//! `.kamal/secrets`: names to values from the step's environment.

use super::Failure;
use crate::workflow::shell::Shell;

/// The value of a secret (`NAME` or `NAME:ALIAS`).
pub(super) fn value(shell: &Shell, name: &str) -> Result<String, Failure> {
    let wanted = name.split_once(':').map_or(name, |(_, alias)| alias);
    let text = shell.read(".kamal/secrets").unwrap_or_default();
    let line = text
        .lines()
        .map(str::trim)
        .rfind(|line| line.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('=')));
    let Some(line) = line else {
        return Err(Failure::config(format!("Secret '{wanted}' not found in .kamal/secrets")));
    };
    let source = line[wanted.len() + 1..].trim_matches('"');
    let value = match source.strip_prefix('$') {
        None => source.to_owned(),
        Some(command) if command.starts_with('(') => {
            return Err(Failure::config(format!(
                "the sandbox does not run `${command}` of .kamal/secrets"
            )));
        }
        Some(variable) => {
            let variable = variable.trim_start_matches('{').trim_end_matches('}');
            shell.env.get(variable).cloned().unwrap_or_default()
        }
    };
    Ok(value)
}
