//! `vmkit.toml`: what a person may write down instead of setting variables. It holds no secrets.

use std::path::Path;

use serde::Deserialize;

use super::{SettingsError, read_text};

/// What `vmkit.toml` says; every line may be absent.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// As `VMKIT_HETZNER_URL`.
    pub hetzner_url: Option<String>,
    /// As `VMKIT_DIGITALOCEAN_URL`.
    pub digitalocean_url: Option<String>,
    /// As `VMKIT_GITHUB_URL`.
    pub github_url: Option<String>,
    /// As `VMKIT_REGISTRY_URL`.
    pub registry_url: Option<String>,
    /// As `VMKIT_CLOUDFLARE_URL`.
    pub cloudflare_url: Option<String>,
    /// As `VMKIT_RESOLVER`.
    pub resolver: Option<String>,
    /// As `VMKIT_AGENT_LISTEN`.
    pub agent_listen: Option<String>,
    /// As `VMKIT_PUBLIC_URL`.
    pub public_url: Option<String>,
    /// As `VMKIT_AGENT_DIR`.
    pub agent_dir: Option<String>,
    /// As `VMKIT_AGENT_AMD64`.
    pub agent_amd64: Option<String>,
    /// As `VMKIT_AGENT_ARM64`.
    pub agent_arm64: Option<String>,
    /// As `VMKIT_REGISTRY_MIRROR`.
    pub registry_mirror: Option<String>,
    /// As `VMKIT_OWNER_KEY`.
    pub owner_key: Option<String>,
    /// As `VMKIT_STEADY_SECONDS`.
    pub steady_seconds: Option<u64>,
    /// As `VMKIT_WORKER_IDLE_SECONDS`.
    pub worker_idle_seconds: Option<u64>,
    /// As `VMKIT_LOG`.
    pub log: Option<String>,
}

impl FileSettings {
    /// Reads the file; nothing is set where there is none.
    ///
    /// # Errors
    /// The file cannot be read, or says something that is not a setting.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let Some(text) = read_text(path)? else { return Ok(Self::default()) };
        toml::from_str(&text).map_err(|error| {
            let asks_for_secret = ["token", "master_key"].iter().any(|word| {
                error.message().contains("unknown field") && error.message().contains(word)
            });
            let message = if asks_for_secret {
                "secrets do not belong in it; use `vmkit connect` or an environment variable"
                    .to_owned()
            } else {
                error.to_string().trim().replace('\n', " ")
            };
            SettingsError::BadFile { path: path.to_owned(), message }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_line_is_refused_and_a_token_is_sent_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vmkit.toml");
        assert_eq!(FileSettings::read(&path).expect("absent"), FileSettings::default());

        std::fs::write(&path, "steady = 3\n").expect("written");
        let text = FileSettings::read(&path).expect_err("unknown").to_string();
        assert!(text.contains("steady") && text.contains("vmkit.toml"), "{text}");

        std::fs::write(&path, "hetzner_token = \"x\"\n").expect("written");
        let text = FileSettings::read(&path).expect_err("secret").to_string();
        assert!(text.contains("vmkit connect"), "{text}");
    }
}
