//! Whether a coding agent holds this shell: `vmkit approve` is for people.

use super::Environment;

/// The variables by which coding agents mark the shells that they run commands in.
const MARKS: &[(&str, &str)] = &[
    ("CLAUDECODE", "Claude Code"),
    ("CLAUDE_CODE_ENTRYPOINT", "Claude Code"),
    ("CURSOR_AGENT", "Cursor"),
    ("CODEX_SANDBOX", "Codex"),
    ("CODEX_THREAD_ID", "Codex"),
    ("GEMINI_CLI", "Gemini CLI"),
    ("OPENCODE", "opencode"),
    ("COPILOT_CLI", "Copilot"),
    ("GOOSE_TERMINAL", "Goose"),
    ("AMP_THREAD_ID", "Amp"),
    ("CLINE_ACTIVE", "Cline"),
    ("AI_AGENT", "a coding agent"),
];

/// The coding agent in whose shell this process runs, as far as its variables tell.
pub fn coding_agent(environment: &Environment) -> Option<&'static str> {
    MARKS.iter().find(|(name, _)| environment.text(name).is_some()).map(|(_, agent)| *agent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coding_agents_shell_is_known_by_its_marks() {
        assert_eq!(coding_agent(&[("TERM", "xterm")].into_iter().collect()), None);
        let marked: Environment = [("CLAUDECODE", "1")].into_iter().collect();
        assert_eq!(coding_agent(&marked), Some("Claude Code"));
    }
}
