//! Which credential speaks to whom: tokens from the environment before stored ones, and the
//! clients that they open. Nobody above holds a token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use url::Url;

use crate::clouds::{AnyCloud, CloudError};
use crate::dns::{AnyDns, Cloudflare, DnsError};
use crate::domain::ids::SecretId;
use crate::domain::secret::Secret;
use crate::github::{AppKey, GitHub, GitHubError, Pace};
use crate::store::{Store, StoreError};
use crate::vault::{Purpose, Vault, VaultError};

/// The provider that credentials for repos belong to.
pub const GITHUB: &str = "github";
/// The provider of the images' registry, which takes the token of [`GITHUB`].
pub const REGISTRY: &str = "registry";
/// The provider that has nothing but zones for us.
pub const CLOUDFLARE: &str = "cloudflare";
/// The clouds that VMs can be ordered from.
pub const CLOUDS: [&str; 2] = AnyCloud::PROVIDERS;

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
    /// The token's first characters say that it is another provider's; it was not sent.
    #[error("that is a token of {issuer}, and was not sent to {provider}")]
    OtherProviders {
        /// Who would have got it.
        provider: String,
        /// Whose it is.
        issuer: &'static str,
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
    /// A DNS provider's client could not be made.
    #[error(transparent)]
    Dns(#[from] DnsError),
}

impl AccountError {
    /// A stable word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotConnected { .. } => "not_connected",
            Self::OtherProviders { .. } => "other_providers_token",
            Self::Sealed { source, .. } => source.code(),
            Self::Store(error) => error.code(),
            Self::Cloud(error) => error.code(),
            Self::GitHub(error) => error.code(),
            Self::Dns(error) => error.code(),
        }
    }

    /// Whether the same call may go through later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::NotConnected { .. } | Self::OtherProviders { .. } | Self::Sealed { .. } => false,
            Self::Store(error) => error.retryable(),
            Self::Cloud(error) => error.retryable(),
            Self::GitHub(error) => error.retryable(),
            Self::Dns(error) => error.retryable(),
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
    dns: Mutex<HashMap<(String, Option<SecretId>), AnyDns>>,
    pace: Pace,
}

impl Accounts {
    /// The credentials that `providers` and the state file hold.
    pub fn new(store: Store, vault: Arc<Vault>, providers: Vec<Provider>, pace: Pace) -> Self {
        let clouds = Mutex::default();
        let github = Mutex::default();
        let dns = Mutex::default();
        Self { shared: Arc::new(Shared { store, vault, providers, clouds, github, dns, pace }) }
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
        let cloud = self.cloud_with(name, token)?;
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
        let github = self.github_with(token)?;
        let mut clients = self.shared.github.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(clients.entry(id).or_insert(github).clone())
    }

    /// The client of a DNS provider.
    ///
    /// # Errors
    /// [`AccountError::NotConnected`] where nobody gave a token for it.
    pub async fn dns(&self, name: &str) -> Result<AnyDns, AccountError> {
        let (token, id) = self.token(name).await?;
        let key = (name.to_owned(), id);
        let known =
            self.shared.dns.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(dns) = known {
            return Ok(dns);
        }
        let dns =
            AnyDns::connect(name, &self.provider(name)?.url, token, self.shared.pace.clone())?;
        let mut clients = self.shared.dns.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(clients.entry(key).or_insert(dns).clone())
    }

    /// The clients of every DNS provider that a token is known for.
    ///
    /// # Errors
    /// A token that is known and cannot be used.
    pub async fn all_dns(&self) -> Result<Vec<AnyDns>, AccountError> {
        let mut all = Vec::new();
        for name in AnyDns::PROVIDERS {
            match self.dns(name).await {
                Ok(dns) => all.push(dns),
                Err(AccountError::NotConnected { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// A client of Cloudflare with a token that is only being tried.
    ///
    /// # Errors
    /// The token cannot be sent.
    pub fn cloudflare_with(&self, token: Secret) -> Result<Cloudflare, AccountError> {
        let url = &self.provider(CLOUDFLARE)?.url;
        Ok(Cloudflare::new(url, token, self.shared.pace.clone())?)
    }

    /// A client of a cloud with a token that is only being tried.
    ///
    /// # Errors
    /// The token cannot be sent, or is another provider's.
    pub fn cloud_with(&self, name: &str, token: Secret) -> Result<AnyCloud, AccountError> {
        check_issuer(name, &token)?;
        let url = &self.provider(name)?.url;
        Ok(AnyCloud::connect(name, url, token, self.shared.pace.clone())?)
    }

    /// A client of GitHub with a token, or a packed App, that is only being tried.
    ///
    /// # Errors
    /// The token cannot be sent, or is another provider's; the App's key is none.
    pub fn github_with(&self, token: Secret) -> Result<GitHub, AccountError> {
        check_issuer(GITHUB, &token)?;
        let url = &self.provider(GITHUB)?.url;
        if let Some(app) = AppKey::unpacked(&token)? {
            return Ok(GitHub::of_app(url, app, self.shared.pace.clone())?);
        }
        Ok(GitHub::new(url, token, self.shared.pace.clone())?)
    }

    /// Where a provider's API is.
    pub fn url(&self, name: &str) -> Option<Url> {
        self.provider(name).ok().map(|provider| provider.url.clone())
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

/// A GitHub App's id and private key, in one, where a token of GitHub would be.
pub fn packed_app(id: &str, pem: &Secret) -> Secret {
    AppKey::packed(id, pem)
}

/// Refuses a token whose first characters say that it is another provider's: it is not to be sent
/// to somebody whom it does not concern.
fn check_issuer(provider: &str, token: &Secret) -> Result<(), AccountError> {
    match token.issuer() {
        Some(issuer) if issuer != provider => {
            Err(AccountError::OtherProviders { provider: provider.to_owned(), issuer })
        }
        _ => Ok(()),
    }
}
