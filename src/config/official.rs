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

/// The token of doctl's current context, or of `DIGITALOCEAN_ACCESS_TOKEN` or `DIGITALOCEAN_TOKEN`.
///
/// # Errors
/// doctl's file is there and cannot be read.
pub fn digitalocean_cli_token(
    environment: &Environment,
) -> Result<Option<OfficialToken>, SettingsError> {
    /// The first context is called `default`, and its token stands at the top.
    #[derive(Deserialize)]
    struct File {
        #[serde(default, rename = "access-token")]
        access_token: Option<String>,
        #[serde(default, rename = "auth-contexts")]
        contexts: Option<std::collections::BTreeMap<String, String>>,
        #[serde(default)]
        context: Option<String>,
    }
    let names = ["DIGITALOCEAN_ACCESS_TOKEN", "DIGITALOCEAN_TOKEN"];
    if let Some(token) = variable(environment, &names) {
        return Ok(Some(token));
    }
    let Some(mut folder) = config_dir(environment) else { return Ok(None) };
    if cfg!(target_os = "macos") && environment.path("XDG_CONFIG_HOME").is_none() {
        // Go's word for it there.
        folder = folder.with_file_name("Library").join("Application Support");
    }
    let path = folder.join("doctl").join("config.yaml");
    let Some(text) = read_text(&path)? else { return Ok(None) };
    let file: File = serde_saphyr::from_str(&text).map_err(|_| SettingsError::BadFile {
        path: path.clone(),
        message: "it is not what doctl writes".to_owned(),
    })?;
    let context = environment.text("DIGITALOCEAN_CONTEXT").map(str::to_owned).or(file.context);
    let context = context.unwrap_or_else(|| "default".to_owned());
    let token = match context.as_str() {
        "default" => file.access_token,
        name => file.contexts.and_then(|mut all| all.remove(name)),
    };
    Ok(token.filter(|token| !token.is_empty()).map(|token| OfficialToken {
        token: Secret::new(token),
        found_in: format!("doctl's context `{context}` in {}", path.display()),
    }))
}

/// The GitHub App that `VMKIT_GITHUB_APP_ID` and `VMKIT_GITHUB_APP_KEY` name.
///
/// # Errors
/// One is set without the other, or the key's file cannot be read.
pub(super) fn github_app(
    environment: &Environment,
) -> Result<Option<(String, Secret)>, SettingsError> {
    const ID: &str = "VMKIT_GITHUB_APP_ID";
    const KEY: &str = "VMKIT_GITHUB_APP_KEY";
    let lone = |name: &str, wanted| super::bad(name, "not set", wanted);
    let (id, key) = match (environment.text(ID), environment.text(KEY)) {
        (None, None) => return Ok(None),
        (Some(id), Some(key)) => (id.trim().to_owned(), key),
        (Some(_), None) => {
            return Err(lone(KEY, "the private key of the App in VMKIT_GITHUB_APP_ID"));
        }
        (None, Some(_)) => return Err(lone(ID, "the id of the App in VMKIT_GITHUB_APP_KEY")),
    };
    if key.contains("-----BEGIN") {
        return Ok(Some((id, Secret::new(key))));
    }
    match read_text(key.trim().as_ref())? {
        Some(pem) => Ok(Some((id, Secret::new(pem)))),
        None => Err(lone(KEY, "PEM text or a file that exists")),
    }
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

/// The token that Cloudflare's own clients take from the variable `CLOUDFLARE_API_TOKEN`: its command
/// line's sign-in may not edit DNS.
pub fn cloudflare_token(environment: &Environment) -> Option<OfficialToken> {
    variable(environment, &["CLOUDFLARE_API_TOKEN"])
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

        assert!(digitalocean_cli_token(&environment).expect("looked").is_none());
        let doctl = environment_dir(home.path());
        std::fs::create_dir_all(&doctl).expect("made");
        let file =
            "access-token: d-for-tests\nauth-contexts:\n  team: e-for-tests\ncontext: team\n";
        std::fs::write(doctl.join("config.yaml"), file).expect("written");
        let found = digitalocean_cli_token(&environment).expect("read").expect("a token");
        assert_eq!(found.token.expose(), "e-for-tests");
        assert!(found.found_in.contains("`team`"));
        let default = file.replace("context: team", "context: default");
        std::fs::write(doctl.join("config.yaml"), default).expect("written");
        let found = digitalocean_cli_token(&environment).expect("read").expect("a token");
        assert_eq!(found.token.expose(), "d-for-tests");

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

    /// Where doctl keeps its file on this system.
    fn environment_dir(home: &std::path::Path) -> PathBuf {
        let folder =
            if cfg!(target_os = "macos") { "Library/Application Support" } else { ".config" };
        home.join(folder).join("doctl")
    }
}
