//! Builds an installation out of its settings: the file, the vault, the clients, the links.
//!
//! This is where the parts meet. It knows no rules, and only the command line uses it.

use std::sync::Arc;

use crate::accounts::{Accounts, CLOUDFLARE, GITHUB, Provider, REGISTRY, packed_app};
use crate::agent_releases::AgentReleases;
use crate::config::{Settings, SettingsError};
use crate::dns::resolve::Resolver;
use crate::domain::clock::Clock;
use crate::domain::ids::InstallationId;
use crate::fleet::{Fleet, Limits};
use crate::operations::agents::{AgentBinaries, StoredRoster};
use crate::operations::webhooks::News;
use crate::operations::{AgentGateway, Context, OpError, Pace, identity};
use crate::store::{Installation as Row, Mode, Store, StoreError};
use crate::vault::{MasterKey, Vault, VaultError};

/// How long the agent of a new VM may take to link: a first boot with `apt` takes a minute or two.
const AGENT_WAIT: std::time::Duration = std::time::Duration::from_secs(600);

/// Why an installation cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    /// The settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The state file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The master key, or something that it sealed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The key that agents know it by.
    #[error(transparent)]
    Identity(#[from] OpError),
    /// The file is a gateway's and the caller is not, or the other way round.
    #[error("this state is {found}, and `{wanted}` needs one of the other kind")]
    OtherMode {
        /// What the file is, and where its gateway is.
        found: String,
        /// What was tried.
        wanted: &'static str,
        /// What to do instead.
        fix: String,
    },
}

impl InstallationError {
    /// A stable word for it.
    pub fn code(&self) -> &str {
        match self {
            Self::Settings(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::Vault(error) => error.code(),
            Self::Identity(error) => error.code(),
            Self::OtherMode { .. } => "other_mode",
        }
    }

    /// What to do next, where the message does not say it.
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::OtherMode { fix, .. } => Some(fix.clone()),
            Self::Settings(_) | Self::Store(_) | Self::Vault(_) | Self::Identity(_) => None,
        }
    }

    fn other_mode(row: &Row, wanted: &'static str) -> Self {
        const ELSEWHERE: &str = "choose another folder with --home or VMKIT_HOME";
        let url = row.url.as_deref().map(|url| url.trim_end_matches('/'));
        let (found, fix) = match (row.mode, url) {
            (Mode::Gateway, Some(url)) => (
                format!("a gateway's, at {url}"),
                format!(
                    "connect the client to {url}/mcp with a key (`vmkit keys create`), or {ELSEWHERE}"
                ),
            ),
            (Mode::Gateway, None) => (
                "a gateway's".to_owned(),
                format!("run `vmkit serve`, which says where clients connect, or {ELSEWHERE}"),
            ),
            (Mode::Local, _) => (
                "a local installation's".to_owned(),
                format!("for a gateway, which alone has keys, {ELSEWHERE}"),
            ),
        };
        Self::OtherMode { found, wanted, fix }
    }
}

/// Which of an installation's processes this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `vmkit mcp`, `vmkit call` and the like: they reach agents through the worker.
    Face,
    /// `vmkit worker`: it drives operations and holds the links of a local installation.
    Worker,
    /// `vmkit serve`: it does both for a gateway.
    Gateway,
    /// A command beside `vmkit serve`, which reaches agents through it.
    Desk,
}

impl Part {
    fn mode(self) -> Mode {
        match self {
            Self::Face | Self::Worker => Mode::Local,
            Self::Gateway | Self::Desk => Mode::Gateway,
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::Face => "vmkit mcp",
            Self::Worker => "vmkit worker",
            Self::Gateway | Self::Desk => "vmkit serve",
        }
    }
}

/// Opens the installation that the settings name; makes it where there is none yet.
///
/// # Errors
/// Every reason for which the folder, the file or the key cannot be used.
pub async fn open(
    settings: &Settings,
    part: Part,
    clock: Clock,
) -> Result<Context, InstallationError> {
    settings.home.prepare()?;
    let vault = Arc::new(Vault::open(master_key(settings)?));
    let store = Store::open(&settings.home.database()).await?;
    let fresh = Row {
        id: InstallationId::generate(),
        mode: part.mode(),
        url: None,
        key_fingerprint: vault.fingerprint().to_owned(),
    };
    let row = store.installation(fresh, clock.now()).await?;
    vault.check(&row.key_fingerprint)?;
    if row.mode != part.mode() {
        return Err(InstallationError::other_mode(&row, part.command()));
    }
    let identity = identity::first(&store, &vault, &clock).await?;
    let listens = part == Part::Gateway || settings.agent_listen.is_some();
    let gateway = settings.public_url.clone().filter(|_| listens);
    let gateway = gateway.map(|url| AgentGateway { url });
    let fleet = match part {
        Part::Face | Part::Desk => Fleet::remote(settings.home.socket()),
        Part::Worker | Part::Gateway => {
            let roster = StoredRoster::new(store.clone(), Arc::clone(&vault), clock.clone());
            Fleet::local(Arc::new(roster), identity, clock.clone(), Limits::default())
        }
    };
    let pace = crate::requests::Pace {
        between_changes: settings.github_write,
        ..crate::requests::Pace::new(clock.clone())
    };
    let releases = settings.agent_releases.clone();
    let releases = AgentReleases::new(releases, settings.home.agents(), pace.clone());
    let accounts = Accounts::new(store.clone(), Arc::clone(&vault), providers(settings), pace);
    Ok(Context {
        accounts,
        fleet,
        vault,
        store,
        clock,
        pace: Pace::default(),
        resolver: Resolver::new(settings.resolver),
        news: News::new(settings.public_url.as_ref().filter(|_| part == Part::Gateway)),
        agent_binaries: Arc::new(AgentBinaries::new(settings.agent_dir.clone(), releases)),
        settings: crate::operations::Settings {
            installation: row.id,
            gateway,
            ssh_port: settings.ssh_port,
            registry_mirror: settings.registry_mirror.clone(),
            owner_key: settings.owner_key.clone(),
            steady: settings.steady,
            agent_wait: AGENT_WAIT,
        },
    })
}

/// The variable before systemd's credential before the key file, which is made on first use.
fn master_key(settings: &Settings) -> Result<MasterKey, VaultError> {
    if let Some(text) = &settings.master_key {
        return MasterKey::from_variable(text);
    }
    let credential =
        settings.credentials_dir.as_ref().map(|folder| folder.join("vmkit-master-key"));
    match credential.filter(|path| path.is_file()) {
        Some(path) => MasterKey::from_credential(&path),
        None => MasterKey::from_file(&settings.home.key_file()),
    }
}

fn providers(settings: &Settings) -> Vec<Provider> {
    let registry = settings.registry_url.clone();
    let registry = registry.map(|url| Provider { name: REGISTRY, url, token: None });
    let others = vec![
        Provider {
            name: "hetzner",
            url: settings.hetzner_url.clone(),
            token: settings.hetzner_token.clone(),
        },
        Provider {
            name: "digitalocean",
            url: settings.digitalocean_url.clone(),
            token: settings.digitalocean_token.clone(),
        },
        Provider {
            name: GITHUB,
            url: settings.github_url.clone(),
            token: settings
                .github_token
                .clone()
                .or_else(|| settings.github_app.as_ref().map(|(id, key)| packed_app(id, key))),
        },
        Provider {
            name: CLOUDFLARE,
            url: settings.cloudflare_url.clone(),
            token: settings.cloudflare_token.clone(),
        },
    ];
    others.into_iter().chain(registry).collect()
}
