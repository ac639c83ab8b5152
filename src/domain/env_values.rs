//! What may stand in an app's env file on its VM, and the file itself.
//!
//! Docker reads the file line by line and passes values on unchanged, quotes and `$` included; a
//! line break cannot be written in it at all, so such values are refused and base64 is offered.

use serde::{Deserialize, Serialize};

use super::names::{BadName, EnvKey};
use super::secret::Secret;

/// The longest line (`KEY=value`) in bytes; Docker gives up at 64 KiB.
pub const MAX_LINE_BYTES: usize = 60 * 1024;
/// The longest file in bytes: it travels to the VM in one message.
pub const MAX_FILE_BYTES: usize = 512 * 1024;
/// A secret with fewer characters than this is not masked in logs: it would ruin them.
pub const MIN_MASKED_CHARS: usize = 8;

/// Names that VMKit sets itself, under `env.clear` of the Kamal file, which would win silently.
const SYSTEM: &[&str] = &["PORT", "APP_ENV", "VMKIT_REPO_SLUG", "VMKIT_ENV_SLUG"];

/// Whether a value can be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvClass {
    /// Readable, like `LOG_LEVEL`.
    Plain,
    /// Never shown again; the default.
    #[default]
    Secret,
}

impl EnvClass {
    /// The stored and shown form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Secret => "secret",
        }
    }
}

/// A key and a value that can go into the file.
#[derive(Debug, Clone)]
pub struct EnvValue {
    /// The key.
    pub key: EnvKey,
    /// The value, unchanged.
    pub value: Secret,
    /// What the person should know about it.
    pub warning: Option<EnvWarning>,
}

/// Something to know about a value that is taken all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvWarning {
    /// A secret of fewer than [`MIN_MASKED_CHARS`] characters.
    TooShortToMask,
    /// Blanks at its beginning or end, which the app will see.
    OuterBlanks,
    /// Quotes around the whole value, which the app will see too.
    OuterQuotes,
}

impl EnvWarning {
    /// A sentence for the person.
    pub fn text(self) -> &'static str {
        match self {
            Self::TooShortToMask => {
                "the secret has fewer than 8 characters, so it is not masked where it appears in logs"
            }
            Self::OuterBlanks => "the value begins or ends with a blank, which the app will see",
            Self::OuterQuotes => "the value is in quotes, which the app will see as part of it",
        }
    }
}

/// Why a value cannot go into the file. Values never appear in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvValueError {
    /// Not the name of a variable.
    #[error(transparent)]
    Name(#[from] BadName),
    /// A name that VMKit sets itself.
    #[error(
        "`{key}` is set by VMKit for every app; read it in the app, and choose another name for a value of yours"
    )]
    System {
        /// The key.
        key: EnvKey,
    },
    /// A name that Kamal sets itself.
    #[error("`{key}` begins with `KAMAL_`, which is Kamal's; choose another name")]
    Kamal {
        /// The key.
        key: EnvKey,
    },
    /// A line break or another control character.
    #[error(
        "the value of `{key}` holds a line break or another control character, which an env file cannot carry; store it in base64 under `{key}_B64` and decode it in the app"
    )]
    Control {
        /// The key.
        key: EnvKey,
    },
    /// A line that Docker would not read.
    #[error(
        "`{key}` and its value are {bytes} bytes, and a line of an env file may have 61439; put it into a file or a volume"
    )]
    TooLong {
        /// The key.
        key: EnvKey,
        /// The line's length.
        bytes: usize,
    },
    /// All values together are too long.
    #[error("all values together are {bytes} bytes, and an env file may have 524288; remove some")]
    FileTooLong {
        /// The file's length.
        bytes: usize,
    },
}

impl EnvValueError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name(_) => "env_name",
            Self::System { .. } => "env_system_name",
            Self::Kamal { .. } => "env_kamal_name",
            Self::Control { .. } => "env_control_character",
            Self::TooLong { .. } => "env_value_too_long",
            Self::FileTooLong { .. } => "env_file_too_long",
        }
    }

    /// Whether the same call may succeed later without a person's doing: it never does.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Name(_)
            | Self::System { .. }
            | Self::Kamal { .. }
            | Self::Control { .. }
            | Self::TooLong { .. }
            | Self::FileTooLong { .. } => false,
        }
    }
}

/// Takes a key and a value if an env file can carry them.
///
/// # Errors
/// Everything but `FileTooLong`; the message says what to do instead.
pub fn parse(key: &str, value: Secret, class: EnvClass) -> Result<EnvValue, EnvValueError> {
    let key: EnvKey = key.parse()?;
    check(&key, &value)?;
    let text = value.expose();
    let quoted = |quote: char| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    let warning = if text.trim() != text {
        Some(EnvWarning::OuterBlanks)
    } else if quoted('"') || quoted('\'') {
        Some(EnvWarning::OuterQuotes)
    } else if class == EnvClass::Secret && text.chars().count() < MIN_MASKED_CHARS {
        Some(EnvWarning::TooShortToMask)
    } else {
        None
    };
    Ok(EnvValue { key, value, warning })
}

fn check(key: &EnvKey, value: &Secret) -> Result<(), EnvValueError> {
    let name = key.as_str();
    if SYSTEM.iter().any(|system| system.eq_ignore_ascii_case(name)) {
        return Err(EnvValueError::System { key: key.clone() });
    }
    if name.to_ascii_uppercase().starts_with("KAMAL_") {
        return Err(EnvValueError::Kamal { key: key.clone() });
    }
    let text = value.expose();
    if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err(EnvValueError::Control { key: key.clone() });
    }
    let bytes = name.len() + 1 + text.len();
    if bytes >= MAX_LINE_BYTES {
        return Err(EnvValueError::TooLong { key: key.clone(), bytes });
    }
    Ok(())
}

/// The env file: one line per value, sorted by key, so that equal values give an equal file. Of a
/// key that is listed twice the last one stands. Every value is checked once more.
///
/// # Errors
/// As [`parse`], and `FileTooLong`.
pub fn render(values: &[(EnvKey, Secret)]) -> Result<Secret, EnvValueError> {
    let mut lines = std::collections::BTreeMap::new();
    for (key, value) in values {
        check(key, value)?;
        lines.insert(key, value);
    }
    let text: String =
        lines.iter().map(|(key, value)| format!("{key}={}\n", value.expose())).collect();
    if text.len() > MAX_FILE_BYTES {
        return Err(EnvValueError::FileTooLong { bytes: text.len() });
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(key: &str, value: &str) -> &'static str {
        parse(key, Secret::new(value), EnvClass::Secret).map_or_else(|e| e.code(), |_| "taken")
    }

    #[test]
    fn what_docker_would_change_is_refused_and_the_rest_is_kept_byte_for_byte() {
        for value in [
            "",
            "a b",
            "$HOME",
            "`id`",
            "$(id)",
            "\"q\"",
            "'",
            "#x",
            "a=b=c",
            "<%= 1 %>",
            "{\"a\":1}",
            "ü",
            "\\n",
        ] {
            assert_eq!(code("KEY", value), "taken", "{value:?}");
            let file = render(&[("KEY".parse().expect("a key"), Secret::new(value))]);
            assert_eq!(file.expect("rendered").expose(), format!("KEY={value}\n"));
        }
        for value in ["a\nb", "a\rb", "a\tb", "\0", "a\u{1b}[0m", "a\u{85}b", "a\u{2028}b"] {
            assert_eq!(code("KEY", value), "env_control_character", "{value:?}");
            assert!(render(&[("KEY".parse().expect("a key"), Secret::new(value))]).is_err());
        }
        assert_eq!(code("KEY", &"x".repeat(MAX_LINE_BYTES - 5)), "taken");
        assert_eq!(code("KEY", &"x".repeat(MAX_LINE_BYTES - 4)), "env_value_too_long");
    }

    #[test]
    fn names_of_the_system_are_refused() {
        for key in ["PORT", "port", "APP_ENV", "VMKIT_ENV_SLUG", "VMKIT_REPO_SLUG"] {
            assert_eq!(code(key, "x"), "env_system_name", "{key}");
        }
        assert_eq!(code("KAMAL_VERSION", "x"), "env_kamal_name");
        for key in ["", "1X", "A-B", "A B", "A=B", "A\nB", "<%A"] {
            assert_eq!(code(key, "x"), "env_name", "{key:?}");
        }
        assert_eq!(code("DATABASE_URL", "postgres://db/app"), "taken");
    }

    #[test]
    fn warnings_say_what_the_app_will_see() {
        let warning =
            |value: &str, class| parse("KEY", Secret::new(value), class).expect("taken").warning;
        assert_eq!(warning("short", EnvClass::Secret), Some(EnvWarning::TooShortToMask));
        assert_eq!(warning("short", EnvClass::Plain), None);
        assert_eq!(warning("long enough", EnvClass::Secret), None);
        assert_eq!(warning("blank at end ", EnvClass::Secret), Some(EnvWarning::OuterBlanks));
        assert_eq!(warning("\"in quotes\"", EnvClass::Plain), Some(EnvWarning::OuterQuotes));
    }

    #[test]
    fn the_file_is_sorted_and_the_last_of_a_key_stands() {
        let values: Vec<(EnvKey, Secret)> = [("B", "1"), ("A", "2"), ("B", "3")]
            .into_iter()
            .map(|(key, value)| (key.parse().expect("a key"), Secret::new(value)))
            .collect();
        assert_eq!(render(&values).expect("rendered").expose(), "A=2\nB=3\n");
        assert_eq!(render(&[]).expect("rendered").expose(), "");
        let many: Vec<(EnvKey, Secret)> = (0..10)
            .map(|i| (format!("K{i}").parse().expect("a key"), Secret::new("x".repeat(60_000))))
            .collect();
        assert_eq!(render(&many).expect_err("too long").code(), "env_file_too_long");
    }

    #[test]
    fn no_message_shows_a_value() {
        let error = parse("KEY", Secret::new("not to be seen\n"), EnvClass::Secret);
        let error = error.expect_err("refused");
        assert!(!format!("{error} {error:?}").contains("seen"));
        assert!(error.to_string().contains("KEY_B64"));
    }
}
