//! The settings: the only reader of environment variables and of configuration files.
//!
//! Flags beat `VMKIT_*` variables, which beat `vmkit.toml`, which beats what `vmkit connect` stored.

mod file;
mod home;
mod official;
mod owner;
mod shell;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use crate::domain::agent_release::AgentRelease;
use crate::domain::secret::Secret;
use crate::domain::size::Arch;

pub use file::FileSettings;
pub use home::Home;
pub use official::{
    OfficialToken, cloudflare_token, digitalocean_cli_token, github_cli_token, hetzner_cli_token,
};
pub use shell::coding_agent;

/// Where GitHub is, unless it is said otherwise.
const GITHUB_URL: &str = "https://api.github.com";

/// Every variable of ours, with what it is for: `vmkit doctor` names those that are not here.
pub const VARIABLES: &[(&str, &str)] = &[
    ("VMKIT_HOME", "the folder of the state: database, master key, vmkit.toml"),
    ("VMKIT_HETZNER_URL", "base URL of the Hetzner Cloud API, with /v1"),
    ("VMKIT_DIGITALOCEAN_URL", "base URL of the DigitalOcean API, without /v2"),
    ("VMKIT_GITHUB_URL", "base URL of the GitHub API"),
    ("VMKIT_REGISTRY_URL", "base URL of the registry that answers for ghcr.io"),
    ("VMKIT_CLOUDFLARE_URL", "base URL of the Cloudflare API, with /client/v4"),
    ("VMKIT_RESOLVER", "name server that is asked in place of the authoritative ones, as ip:port"),
    ("VMKIT_HETZNER_TOKEN", "Hetzner Cloud token; beats a stored one"),
    ("VMKIT_DIGITALOCEAN_TOKEN", "DigitalOcean token; beats a stored one"),
    ("VMKIT_GITHUB_TOKEN", "GitHub token; beats a stored one"),
    ("VMKIT_GITHUB_APP_ID", "a GitHub App's id, in place of a GitHub token"),
    ("VMKIT_GITHUB_APP_KEY", "that App's private key: the PEM text, or the file that holds it"),
    ("VMKIT_GITHUB_WRITE_SECONDS", "how long two changes at GitHub are apart; GitHub asks for 1"),
    ("VMKIT_CLOUDFLARE_TOKEN", "Cloudflare token; beats a stored one"),
    ("VMKIT_GATEWAY_KEY", "the key with which `vmkit mcp --gateway` calls a gateway"),
    ("VMKIT_MASTER_KEY", "the vault's key: 32 bytes in base64 or hexadecimal digits"),
    ("VMKIT_AGENT_LISTEN", "address that the local worker listens on for agents"),
    ("VMKIT_PUBLIC_URL", "where agents and clients reach this installation"),
    ("VMKIT_AGENT_DIR", "folder with the agent's binaries that VMs download"),
    ("VMKIT_AGENT_AMD64", "where a release of the agent lies, as https://...#sha256=..."),
    ("VMKIT_AGENT_ARM64", "the same for arm64 VMs"),
    ("VMKIT_REGISTRY_MIRROR", "a mirror of Docker Hub that the Docker of new VMs asks first"),
    ("VMKIT_SSH_PORT", "port of the VMs' SSH servers, in a sandbox that may not use 22"),
    ("VMKIT_OWNER_KEY", "your SSH public key, or a file with it"),
    ("VMKIT_STEADY_SECONDS", "how long a new version must run before it counts as live"),
    ("VMKIT_WORKER_IDLE_SECONDS", "how long the worker stays with nothing to do"),
    ("VMKIT_TETHER", "Unix socket whose closing ends this process"),
    ("VMKIT_LOG", "what is logged to stderr, such as `info` or `vmkit=debug`"),
];

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A flag, variable or line of the file has a value of the wrong form.
    #[error("{name} is `{given}`, which is not {wanted}")]
    BadValue {
        /// The flag, variable or key.
        name: String,
        /// What was given, cut short; never a secret.
        given: String,
        /// The rule, with an example.
        wanted: &'static str,
    },
    /// `vmkit.toml` cannot be understood.
    #[error("the settings file `{path}` is wrong: {message}; correct it or move it away")]
    BadFile {
        /// Its path.
        path: PathBuf,
        /// Line, column and reason.
        message: String,
    },
    /// A file or folder of ours cannot be read or made.
    #[error(
        "cannot {action} `{path}`; check who owns it, or choose another folder with VMKIT_HOME"
    )]
    Io {
        /// `read` or `create`.
        action: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The state would lie on a network file system, where SQLite loses data.
    #[error(
        "`{path}` is on a network file system ({kind}), where a database can be corrupted; set VMKIT_HOME to a folder on a local disk"
    )]
    NetworkFileSystem {
        /// The folder.
        path: PathBuf,
        /// Such as `nfs4`.
        kind: String,
    },
    /// There is no home directory and VMKIT_HOME is not set.
    #[error("there is no home directory to keep the state in; set VMKIT_HOME to a folder")]
    NoHome,
}

impl SettingsError {
    /// A stable name for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadValue { .. } => "bad_setting",
            Self::BadFile { .. } => "bad_settings_file",
            Self::Io { .. } => "state_folder_unusable",
            Self::NetworkFileSystem { .. } => "network_file_system",
            Self::NoHome => "no_home",
        }
    }
}

/// What the command line may set, for every subcommand.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--home`.
    pub home: Option<PathBuf>,
    /// `--log`.
    pub log: Option<String>,
}

/// The environment variables, read once.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// Those of this process.
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
                .collect(),
        )
    }

    /// The text of a variable; nothing where it is absent, empty or not UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().filter(|text| !text.is_empty())
    }

    /// A variable that holds a path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.0.get(name).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    /// Names that begin with `VMKIT_` and mean nothing to us: most often a slip of the pen.
    pub fn unknown(&self) -> Vec<String> {
        let known = |name: &str| VARIABLES.iter().any(|(variable, _)| *variable == name);
        self.0.keys().filter(|name| name.starts_with("VMKIT_") && !known(name)).cloned().collect()
    }
}

impl<K: Into<String>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl std::fmt::Debug for Environment {
    /// The names only: values may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Everything that is set, resolved.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the state lies.
    pub home: Home,
    /// Base URL of the Hetzner Cloud API, with `/v1`.
    pub hetzner_url: Url,
    /// Base URL of the DigitalOcean API, without `/v2`.
    pub digitalocean_url: Url,
    /// Base URL of the GitHub API.
    pub github_url: Url,
    /// Base URL of the registry of images; none where GitHub is another than github.com and nobody
    /// said which registry belongs to it.
    pub registry_url: Option<Url>,
    /// Base URL of the Cloudflare API, with `/client/v4`.
    pub cloudflare_url: Url,
    /// The name server that is asked in place of the authoritative ones.
    pub resolver: Option<SocketAddr>,
    /// A Hetzner token from the environment: it beats a stored one.
    pub hetzner_token: Option<Secret>,
    /// A DigitalOcean token from the environment: it beats a stored one.
    pub digitalocean_token: Option<Secret>,
    /// A GitHub token from the environment: it beats a stored one.
    pub github_token: Option<Secret>,
    /// A GitHub App's id and private key from the environment: a GitHub token there beats them.
    pub github_app: Option<(String, Secret)>,
    /// A Cloudflare token from the environment: it beats a stored one.
    pub cloudflare_token: Option<Secret>,
    /// The key with which `vmkit mcp --gateway` calls a gateway.
    pub gateway_key: Option<Secret>,
    /// The vault's key from the environment, as it was given.
    pub master_key: Option<Secret>,
    /// systemd's folder of credentials, where the unit has any.
    pub credentials_dir: Option<PathBuf>,
    /// Where the local worker listens for agents.
    pub agent_listen: Option<SocketAddr>,
    /// Where agents and clients reach this installation.
    pub public_url: Option<Url>,
    /// The folder with the agent's binaries.
    pub agent_dir: Option<PathBuf>,
    /// Where agents that are not in that folder come from.
    pub agent_releases: Vec<AgentRelease>,
    /// What the Docker of a new VM asks before Docker Hub.
    pub registry_mirror: Option<Url>,
    /// The port of the VMs' SSH servers: 22, but in a sandbox.
    pub ssh_port: u16,
    /// The owner's SSH public key: one line of `authorized_keys`.
    pub owner_key: Option<String>,
    /// How long two changes at GitHub are apart.
    pub github_write: Duration,
    /// How long a new version must run before it counts as live.
    pub steady: Duration,
    /// How long the worker stays with nothing to do.
    pub worker_idle: Duration,
    /// Unix socket whose closing ends this process.
    pub tether: Option<PathBuf>,
    /// What is logged to stderr.
    pub log: String,
}

impl Settings {
    /// Reads flags, environment and file, in that order of strength. Makes nothing.
    ///
    /// # Errors
    /// A [`SettingsError`] that names the flag, the variable or the file.
    pub fn resolve(flags: &Flags, environment: &Environment) -> Result<Self, SettingsError> {
        let home = Home::find(flags.home.as_deref(), environment)?;
        let file = FileSettings::read(&home.settings_file())?;
        let text = |name: &str, stored: &Option<String>| {
            environment.text(name).map(str::to_owned).or_else(|| stored.clone())
        };
        let secret = |name: &str| environment.text(name).map(|value| Secret::new(value.trim()));
        let seconds = |name: &'static str, stored: Option<u64>, otherwise: u64| match environment
            .text(name)
        {
            Some(given) => parse_seconds(name, given),
            None => Ok(Duration::from_secs(stored.unwrap_or(otherwise))),
        };
        let base = |name: &'static str, stored: &Option<String>, otherwise: &str| {
            parse_base_url(name, text(name, stored).as_deref().unwrap_or(otherwise))
        };
        let github_url = base("VMKIT_GITHUB_URL", &file.github_url, GITHUB_URL)?;
        // The token of another GitHub is nothing for ghcr.io.
        let registry_url = text("VMKIT_REGISTRY_URL", &file.registry_url).or_else(|| {
            (github_url.as_str().trim_end_matches('/') == GITHUB_URL)
                .then(|| "https://ghcr.io".to_owned())
        });
        let public_url = text("VMKIT_PUBLIC_URL", &file.public_url);
        let agent_listen = text("VMKIT_AGENT_LISTEN", &file.agent_listen);
        let log = flags.log.clone().or_else(|| text("VMKIT_LOG", &file.log));
        Ok(Self {
            hetzner_url: base(
                "VMKIT_HETZNER_URL",
                &file.hetzner_url,
                "https://api.hetzner.cloud/v1",
            )?,
            digitalocean_url: base(
                "VMKIT_DIGITALOCEAN_URL",
                &file.digitalocean_url,
                "https://api.digitalocean.com",
            )?,
            github_url,
            registry_url: registry_url
                .map(|given| parse_base_url("VMKIT_REGISTRY_URL", &given))
                .transpose()?,
            cloudflare_url: base(
                "VMKIT_CLOUDFLARE_URL",
                &file.cloudflare_url,
                "https://api.cloudflare.com/client/v4",
            )?,
            resolver: text("VMKIT_RESOLVER", &file.resolver)
                .map(|given| parse_address("VMKIT_RESOLVER", &given))
                .transpose()?,
            hetzner_token: secret("VMKIT_HETZNER_TOKEN"),
            digitalocean_token: secret("VMKIT_DIGITALOCEAN_TOKEN"),
            github_token: secret("VMKIT_GITHUB_TOKEN"),
            github_app: official::github_app(environment)?,
            cloudflare_token: secret("VMKIT_CLOUDFLARE_TOKEN"),
            gateway_key: secret("VMKIT_GATEWAY_KEY"),
            master_key: secret("VMKIT_MASTER_KEY"),
            credentials_dir: environment.path("CREDENTIALS_DIRECTORY"),
            agent_listen: agent_listen
                .map(|given| parse_address("VMKIT_AGENT_LISTEN", &given))
                .transpose()?,
            public_url: public_url
                .map(|given| parse_base_url("VMKIT_PUBLIC_URL", &given))
                .transpose()?,
            agent_dir: environment
                .path("VMKIT_AGENT_DIR")
                .or_else(|| file.agent_dir.clone().map(PathBuf::from)),
            agent_releases: [
                ("VMKIT_AGENT_AMD64", Arch::Amd64, &file.agent_amd64),
                ("VMKIT_AGENT_ARM64", Arch::Arm64, &file.agent_arm64),
            ]
            .into_iter()
            .filter_map(|(name, arch, stored)| {
                text(name, stored).map(|given| parse_release(name, arch, &given))
            })
            .collect::<Result<_, _>>()?,
            registry_mirror: text("VMKIT_REGISTRY_MIRROR", &file.registry_mirror)
                .map(|given| parse_base_url("VMKIT_REGISTRY_MIRROR", &given))
                .transpose()?,
            ssh_port: match environment.text("VMKIT_SSH_PORT") {
                Some(given) => parse_port("VMKIT_SSH_PORT", given)?,
                None => 22,
            },
            owner_key: owner::find(
                text("VMKIT_OWNER_KEY", &file.owner_key).as_deref(),
                environment,
            )?,
            github_write: match environment.text("VMKIT_GITHUB_WRITE_SECONDS") {
                Some(given) => parse_seconds("VMKIT_GITHUB_WRITE_SECONDS", given)?,
                None => Duration::from_secs(1),
            },
            steady: seconds("VMKIT_STEADY_SECONDS", file.steady_seconds, 20)?,
            worker_idle: seconds("VMKIT_WORKER_IDLE_SECONDS", file.worker_idle_seconds, 600)?,
            tether: environment.path("VMKIT_TETHER"),
            log: log.unwrap_or_else(|| "warn,vmkit=info".to_owned()),
            home,
        })
    }
}

fn parse_seconds(name: &str, given: &str) -> Result<Duration, SettingsError> {
    const WANTED: &str = "a number of seconds up to 86400, such as `20` or `0.5`";
    match given.trim().parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(bad(name, given, WANTED)),
    }
}

fn parse_release(name: &str, arch: Arch, given: &str) -> Result<AgentRelease, SettingsError> {
    AgentRelease::parse(arch, given).ok_or_else(|| bad(name, given, AgentRelease::WANTED))
}

fn parse_port(name: &str, given: &str) -> Result<u16, SettingsError> {
    let port = given.trim().parse::<u16>().ok().filter(|port| *port > 0);
    port.ok_or_else(|| bad(name, given, "a port from 1 to 65535, such as `22`"))
}

/// `host:port`, where the host is an IP address.
///
/// # Errors
/// Says which setting is wrong.
pub fn parse_address(name: &str, given: &str) -> Result<SocketAddr, SettingsError> {
    given
        .trim()
        .parse()
        .map_err(|_| bad(name, given, "an IP address and a port, such as `127.0.0.1:8787`"))
}

/// An `https` URL, or `http` on a loopback address: a token never travels in the clear. `name` is
/// what it was given as.
///
/// # Errors
/// `BadValue`.
pub(crate) fn parse_base_url(name: &str, given: &str) -> Result<Url, SettingsError> {
    const WANTED: &str = "an https:// URL without query (http:// only on a loopback address), such as `https://api.example.com`";
    let url = Url::parse(given.trim()).map_err(|_| bad(name, given, WANTED))?;
    let loopback = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(host)) => host == "localhost",
        None => false,
    };
    let scheme_is_safe = url.scheme() == "https" || (url.scheme() == "http" && loopback);
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if scheme_is_safe && plain { Ok(url) } else { Err(bad(name, given, WANTED)) }
}

fn bad(name: &str, given: &str, wanted: &'static str) -> SettingsError {
    let given = given.chars().take(80).collect();
    SettingsError::BadValue { name: name.to_owned(), given, wanted }
}

fn read_text(path: &Path) -> Result<Option<String>, SettingsError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(SettingsError::Io { action: "read", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(
        home: &Path,
        pairs: &[(&str, &str)],
        flags: &Flags,
    ) -> Result<Settings, SettingsError> {
        let mut environment: Environment = pairs.iter().copied().collect();
        environment.0.insert("VMKIT_HOME".to_owned(), home.into());
        Settings::resolve(flags, &environment)
    }

    #[test]
    fn a_flag_beats_a_variable_and_a_variable_beats_the_file() {
        let home = tempfile::tempdir().expect("a folder");
        std::fs::write(
            home.path().join("vmkit.toml"),
            "log = \"file\"\nsteady_seconds = 7\nhetzner_url = \"http://127.0.0.1:9/v1\"\n",
        )
        .expect("written");
        let from_file = settings(home.path(), &[], &Flags::default()).expect("settings");
        assert_eq!(from_file.log, "file");
        assert_eq!(from_file.steady, Duration::from_secs(7));
        assert_eq!(from_file.hetzner_url.as_str(), "http://127.0.0.1:9/v1");
        assert_eq!(from_file.github_url.as_str(), "https://api.github.com/");
        assert_eq!(from_file.registry_url.expect("GitHub's").as_str(), "https://ghcr.io/");
        let other = [("VMKIT_GITHUB_URL", "https://git.example.com/api/v3")];
        let other = settings(home.path(), &other, &Flags::default()).expect("settings");
        assert_eq!(other.registry_url, None, "another GitHub's token is nothing for ghcr.io");

        let variables = [("VMKIT_LOG", "variable"), ("VMKIT_STEADY_SECONDS", "0.5")];
        let from_variable = settings(home.path(), &variables, &Flags::default()).expect("settings");
        assert_eq!(from_variable.log, "variable");
        assert_eq!(from_variable.steady, Duration::from_millis(500));

        let flags = Flags { log: Some("flag".to_owned()), home: None };
        assert_eq!(settings(home.path(), &variables, &flags).expect("settings").log, "flag");
    }

    #[test]
    fn a_wrong_value_is_named_with_an_example() {
        let home = tempfile::tempdir().expect("a folder");
        let cases = [
            ("VMKIT_STEADY_SECONDS", "soon", "such as `20`"),
            ("VMKIT_AGENT_LISTEN", "localhost", "such as `127.0.0.1:8787`"),
            ("VMKIT_HETZNER_URL", "http://api.example.com", "https://"),
            ("VMKIT_RESOLVER", "ns1.example.com", "an IP address and a port"),
            ("VMKIT_PUBLIC_URL", "https://example.com/?x=1", "without query"),
        ];
        for (name, given, hint) in cases {
            let error = settings(home.path(), &[(name, given)], &Flags::default());
            let error = error.expect_err(name);
            assert_eq!(error.code(), "bad_setting");
            let text = error.to_string();
            assert!(text.contains(name) && text.contains(given) && text.contains(hint), "{text}");
        }
    }

    #[test]
    fn a_slip_in_a_name_is_found_and_a_token_is_not_shown() {
        let environment: Environment =
            [("VMKIT_HETZNER_TOKN", "x"), ("VMKIT_LOG", "info"), ("PATH", "/bin")]
                .into_iter()
                .collect();
        assert_eq!(environment.unknown(), ["VMKIT_HETZNER_TOKN"]);
        let home = tempfile::tempdir().expect("a folder");
        let tokens =
            [("VMKIT_HETZNER_TOKEN", "token-for-tests"), ("VMKIT_MASTER_KEY", "key-for-tests")];
        let settings = settings(home.path(), &tokens, &Flags::default()).expect("settings");
        assert!(settings.hetzner_token.is_some());
        assert!(!format!("{settings:?}").contains("for-tests"));
    }
}
