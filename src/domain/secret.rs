//! A value that can be neither printed, serialised nor compared.

use secrecy::{ExposeSecret, SecretString};

/// A token, a key or an env value in memory. Only [`Secret::expose`] shows it, and a test lists
/// the files that may call that.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes the value out of plain sight.
    pub fn new(value: impl Into<String>) -> Self {
        Self(SecretString::from(value.into()))
    }

    /// The value itself, for the one place that has to send or seal it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(***)")
    }
}
