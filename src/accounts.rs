//! Which credential speaks to whom: tokens from the environment before stored ones, and the
//! clients that they open. Nobody above holds a token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use url::Url;

use crate::clouds::{AnyCloud, CloudError};
use crate::domain::ids::SecretId;
use crate::domain::secret::Secret;
use crate::github::{GitHub, GitHubError, Pace};
use crate::store::{Store, StoreError};
use crate::vault::{Purpose, Vault, VaultError};

/// The provider that credentials for repos belong to.
pub const GITHUB: &str = "github";
/// The clouds that VMs can be ordered from.
pub const CLOUDS: [&str; 1] = ["hetzner"];

/// Why no client could be had.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// Nobody gave a token.
    #[error("no {provider} token is known: none is stored, and {variable} is not set")]
    NotConnected {
        /// The provider.
        provider: String,
        /// The variable that could hold it.
        variable: String,
    },
    /// The stored token does not open.
    #[error("the stored {provider} token cannot be opened")]
    Sealed {
        /// The provider.
        provider: String,
        /// Why.
        #[source]
        source: VaultError,
    },
    /// The state file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cloud's client could not be made.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// GitHub's client could not be made.
    #[error(transparent)]
    GitHub(#[from] GitHubError),
}

impl AccountError {
    /// A stable word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotConnected { .. } => "not_connected",
            Self::Sealed { source, .. } => source.code(),
            Self::Store(error) => error.code(),
            Self::Cloud(error) => error.code(),
            Self::GitHub(error) => error.code(),
        }
    }

    /// Whether the same call may go through later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::NotConnected { .. } | Self::Sealed { .. } => false,
            Self::Store(error) => error.retryable(),
            Self::Cloud(error) => error.retryable(),
            Self::GitHub(error) => error.retryable(),
        }
    }
}

/// What the environment and the settings say of one provider.
#[derive(Debug, Clone)]
pub struct Provider {
    /// `hetzner`, `github`, ...
    pub name: &'static str,
    /// Its API's base address.
    pub url: Url,
    /// A token from the environment; it beats a stored one.
    pub token: Option<Secret>,
}

impl Provider {
    /// The environment variable that could hold its token.
    pub fn variable(&self) -> String {
        format!("VMKIT_{}_TOKEN", self.name.to_ascii_uppercase())
    }
}

/// Where a token came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenSource {
    /// An environment variable or a settings file.
    Environment,
    /// `vmkit connect`.
    Stored,
}

/// The credentials of this installation, and the clients that they open.
#[derive(Clone)]
pub struct Accounts {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    vault: Arc<Vault>,
    providers: Vec<Provider>,
    clouds: Mutex<HashMap<(String, Option<SecretId>), AnyCloud>>,
    github: Mutex<HashMap<Option<SecretId>, GitHub>>,
    pace: Pace,
}

impl Accounts {
    /// The credentials that `providers` and the state file hold.
    pub fn new(store: Store, vault: Arc<Vault>, providers: Vec<Provider>, pace: Pace) -> Self {
        let clouds = Mutex::default();
        let github = Mutex::default();
        Self { shared: Arc::new(Shared { store, vault, providers, clouds, github, pace }) }
    }

    /// No account at all, for tests.
    #[cfg(test)]
    pub(crate) fn none(store: Store, vault: Arc<Vault>) -> Self {
        let pace = Pace::new(crate::domain::clock::Clock::wall());
        Self::new(store, vault, Vec::new(), pace)
    }

    fn provider(&self, name: &str) -> Result<&Provider, AccountError> {
        self.shared.providers.iter().find(|p| p.name == name).ok_or_else(|| {
            AccountError::NotConnected {
                provider: name.to_owned(),
                variable: format!("VMKIT_{}_TOKEN", name.to_ascii_uppercase()),
            }
        })
    }

    async fn token(&self, name: &str) -> Result<(Secret, Option<SecretId>), AccountError> {
        let provider = self.provider(name)?;
        if let Some(token) = &provider.token {
            return Ok((token.clone(), None));
        }
        let stored = self.shared.store.accounts().await?;
        let account =
            stored.into_iter().find(|account| account.provider == name).ok_or_else(|| {
                AccountError::NotConnected {
                    provider: name.to_owned(),
                    variable: provider.variable(),
                }
            })?;
        let purpose = if name == GITHUB { Purpose::GitHubToken } else { Purpose::CloudToken };
        let token = self
            .shared
            .vault
            .unseal(&account.sealed, purpose, &account.secret.to_string())
            .map_err(|source| AccountError::Sealed { provider: name.to_owned(), source })?;
        Ok((token, Some(account.secret)))
    }

    /// The client of a cloud.
    ///
    /// # Errors
    /// [`AccountError::NotConnected`] where nobody gave a token for it.
    pub async fn cloud(&self, name: &str) -> Result<AnyCloud, AccountError> {
        let (token, id) = self.token(name).await?;
        let key = (name.to_owned(), id);
        let known =
            self.shared.clouds.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(cloud) = known {
            return Ok(cloud);
        }
        let cloud =
            AnyCloud::connect(name, &self.provider(name)?.url, token, self.shared.pace.clone())?;
        let mut clouds = self.shared.clouds.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(clouds.entry(key).or_insert(cloud).clone())
    }

    /// The client of GitHub.
    ///
    /// # Errors
    /// [`AccountError::NotConnected`] where nobody gave a token for it.
    pub async fn github(&self) -> Result<GitHub, AccountError> {
        let (token, id) = self.token(GITHUB).await?;
        let known =
            self.shared.github.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some(github) = known {
            return Ok(github);
        }
        let github = GitHub::new(&self.provider(GITHUB)?.url, token, self.shared.pace.clone())?;
        let mut clients = self.shared.github.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(clients.entry(id).or_insert(github).clone())
    }

    /// A client of a cloud with a token that is only being tried.
    ///
    /// # Errors
    /// The token cannot be sent.
    pub fn cloud_with(&self, name: &str, token: Secret) -> Result<AnyCloud, AccountError> {
        let url = &self.provider(name)?.url;
        Ok(AnyCloud::connect(name, url, token, self.shared.pace.clone())?)
    }

    /// A client of GitHub with a token that is only being tried.
    ///
    /// # Errors
    /// The token cannot be sent.
    pub fn github_with(&self, token: Secret) -> Result<GitHub, AccountError> {
        let url = &self.provider(GITHUB)?.url;
        Ok(GitHub::new(url, token, self.shared.pace.clone())?)
    }

    /// Where the token of a provider would come from, if there is one.
    pub async fn source(&self, name: &str) -> Result<Option<TokenSource>, AccountError> {
        if self.provider(name).is_ok_and(|provider| provider.token.is_some()) {
            return Ok(Some(TokenSource::Environment));
        }
        let stored = self.shared.store.accounts().await?;
        Ok(stored.iter().any(|account| account.provider == name).then_some(TokenSource::Stored))
    }

    /// Stores a token that somebody typed; a former one is forgotten.
    pub async fn remember(
        &self,
        name: &str,
        token: &Secret,
        at: crate::domain::clock::Millis,
    ) -> Result<(), AccountError> {
        let purpose = if name == GITHUB { Purpose::GitHubToken } else { Purpose::CloudToken };
        let id = SecretId::generate();
        let sealed = self
            .shared
            .vault
            .seal(token, purpose, &id.to_string())
            .map_err(|source| AccountError::Sealed { provider: name.to_owned(), source })?;
        let stored =
            self.shared.store.put_account(name.to_owned(), purpose.as_str(), id, sealed, at);
        Ok(stored.await?)
    }
}
