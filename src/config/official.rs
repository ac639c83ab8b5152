//! Tokens that the clouds' own command lines already hold: read only when `vmkit connect` is asked to.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Environment, SettingsError, read_text};
use crate::domain::secret::Secret;

/// A token and where it was found, for the question before it is stored.
#[derive(Debug, Clone)]
pub struct OfficialToken {
    /// The token.
    pub token: Secret,
    /// Such as `hcloud's context "work" in ~/.config/hcloud/cli.toml`.
    pub found_in: String,
}

/// The token of hcloud's active context, or of `HCLOUD_TOKEN`.
///
/// # Errors
/// hcloud's file is there and cannot be read.
pub fn hetzner_cli_token(
    environment: &Environment,
) -> Result<Option<OfficialToken>, SettingsError> {
    #[derive(Deserialize)]
    struct File {
        active_context: Option<String>,
        #[serde(default)]
        contexts: Vec<Context>,
    }
    #[derive(Deserialize)]
    struct Context {
        name: String,
        token: Option<String>,
    }
    if let Some(token) = variable(environment, &["HCLOUD_TOKEN"]) {
        return Ok(Some(token));
    }
    let path = environment
        .path("HCLOUD_CONFIG")
        .or_else(|| Some(config_dir(environment)?.join("hcloud").join("cli.toml")));
    let Some(path) = path else { return Ok(None) };
    let Some(text) = read_text(&path)? else { return Ok(None) };
    let file: File = toml::from_str(&text).map_err(|error| SettingsError::BadFile {
        path: path.clone(),
        message: error.message().to_owned(),
    })?;
    let wanted = environment.text("HCLOUD_CONTEXT").map(str::to_owned).or(file.active_context);
    let context = file.contexts.into_iter().find(|context| Some(&context.name) == wanted.as_ref());
    Ok(context.and_then(|context| {
        let found_in = format!("hcloud's context `{}` in {}", context.name, path.display());
        Some(OfficialToken { token: Secret::new(context.token?), found_in })
    }))
}

/// The token of gh for github.com, or of `GH_TOKEN` or `GITHUB_TOKEN`. Nothing where gh keeps it in the
/// system's keyring (`gh auth token` prints it then).
///
/// # Errors
/// gh's file is there and cannot be read.
pub fn github_cli_token(environment: &Environment) -> Result<Option<OfficialToken>, SettingsError> {
    #[derive(Deserialize)]
    struct Host {
        oauth_token: Option<String>,
    }
    if let Some(token) = variable(environment, &["GH_TOKEN", "GITHUB_TOKEN"]) {
        return Ok(Some(token));
    }
    let folder =
        environment.path("GH_CONFIG_DIR").or_else(|| Some(config_dir(environment)?.join("gh")));
    let Some(path) = folder.map(|folder| folder.join("hosts.yml")) else { return Ok(None) };
    let Some(text) = read_text(&path)? else { return Ok(None) };
    let hosts: std::collections::BTreeMap<String, Host> =
        serde_saphyr::from_str(&text).map_err(|_| SettingsError::BadFile {
            path: path.clone(),
            message: "it is not what gh writes".to_owned(),
        })?;
    let token = hosts.get("github.com").and_then(|host| host.oauth_token.clone());
    Ok(token.map(|token| OfficialToken {
        token: Secret::new(token),
        found_in: format!("gh's {}", path.display()),
    }))
}

fn variable(environment: &Environment, names: &[&str]) -> Option<OfficialToken> {
    names.iter().find_map(|name| {
        let token = Secret::new(environment.text(name)?.trim());
        Some(OfficialToken { token, found_in: format!("the variable {name}") })
    })
}

fn config_dir(environment: &Environment) -> Option<PathBuf> {
    environment.path("XDG_CONFIG_HOME").or_else(|| Some(environment.path("HOME")?.join(".config")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_official_clients_own_files_are_understood() {
        let home = tempfile::tempdir().expect("a folder");
        let environment: Environment = [("HOME", home.path())].into_iter().collect();
        assert!(hetzner_cli_token(&environment).expect("looked").is_none());
        assert!(github_cli_token(&environment).expect("looked").is_none());

        let hcloud = home.path().join(".config/hcloud");
        std::fs::create_dir_all(&hcloud).expect("made");
        std::fs::write(
            hcloud.join("cli.toml"),
            "active_context = \"work\"\n[[contexts]]\nname = \"home\"\ntoken = \"a-for-tests\"\n\
             [[contexts]]\nname = \"work\"\ntoken = \"b-for-tests\"\n",
        )
        .expect("written");
        let found = hetzner_cli_token(&environment).expect("read").expect("a token");
        assert_eq!(found.token.expose(), "b-for-tests");
        assert!(found.found_in.contains("`work`"));

        let gh = home.path().join(".config/gh");
        std::fs::create_dir_all(&gh).expect("made");
        std::fs::write(
            gh.join("hosts.yml"),
            "github.com:\n    user: anna\n    oauth_token: c-for-tests\n    git_protocol: https\n",
        )
        .expect("written");
        let found = github_cli_token(&environment).expect("read").expect("a token");
        assert_eq!(found.token.expose(), "c-for-tests");
        std::fs::write(gh.join("hosts.yml"), "github.com:\n    user: anna\n").expect("written");
        assert!(github_cli_token(&environment).expect("read").is_none(), "it is in the keyring");
    }
}
