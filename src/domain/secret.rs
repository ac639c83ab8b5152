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

/// Whose tokens begin so, by the name under which VMKit keeps the provider.
const PREFIXES: [(&str, &str); 10] = [
    ("ghp_", "github"),
    ("gho_", "github"),
    ("ghu_", "github"),
    ("ghs_", "github"),
    ("ghr_", "github"),
    ("github_pat_", "github"),
    // DigitalOcean: personal, OAuth and refresh tokens.
    ("dop_v1_", "digitalocean"),
    ("doo_v1_", "digitalocean"),
    ("dor_v1_", "digitalocean"),
    // Our own keys, which no provider knows.
    ("vmk_", "vmkit"),
];
/// How long a token of Hetzner Cloud is: letters and digits without a prefix.
const HETZNER_LENGTH: usize = 64;

impl Secret {
    /// Whose token it is, where its first characters say so: `github`, `digitalocean`, `vmkit`.
    pub fn issuer(&self) -> Option<&'static str> {
        let text = self.expose().trim();
        PREFIXES.iter().find(|(prefix, _)| text.starts_with(prefix)).map(|(_, issuer)| *issuer)
    }

    /// Whose token it may be by its form, for a hint after a refusal.
    pub fn likely_issuer(&self) -> Option<&'static str> {
        let text = self.expose().trim();
        let plain = text.len() == HETZNER_LENGTH && text.chars().all(|c| c.is_ascii_alphanumeric());
        self.issuer().or(plain.then_some("hetzner"))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_whose_it_is_by_its_first_characters() {
        let issuer = |text: &str| Secret::new(text).issuer();
        assert_eq!(issuer(" dop_v1_token-for-tests\n"), Some("digitalocean"));
        assert_eq!(issuer("github_pat_token-for-tests"), Some("github"));
        assert_eq!(issuer("vmk_token-for-tests"), Some("vmkit"));
        assert_eq!(issuer("token-for-tests"), None);
        let plain = "t".repeat(64);
        assert_eq!(Secret::new(plain.clone()).likely_issuer(), Some("hetzner"));
        assert_eq!(Secret::new(plain).issuer(), None);
    }
}
