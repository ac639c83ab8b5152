//! Sealing and opening secrets: the only user of aes-gcm.
//!
//! A sealed value is one byte of key version, a random 96-bit nonce and the ciphertext. What it is
//! for and the row that it stands in are authenticated with it, so that a ciphertext which was
//! moved to another row, or to another use, does not open.

mod key;

pub use key::{KeySource, MasterKey};

use std::fmt;
use std::path::PathBuf;

use aes_gcm::aead::rand_core::RngCore;
use aes_gcm::aead::{Aead, KeyInit, OsRng, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::domain::secret::Secret;

/// The key version that is written. Rotation will add versions; the byte is there already.
const KEY_VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// What a sealed value is for. A value sealed for one purpose does not open for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A cloud account's API token.
    CloudToken,
    /// A GitHub token.
    GitHubToken,
    /// The value of an env variable.
    EnvValue,
    /// The private half of an environment's deploy key.
    DeployKey,
    /// The key that the gateway shows to agents.
    GatewayIdentity,
    /// The single-use token of a VM's first boot, kept so that a retried order is the same order.
    EnrolmentToken,
    /// The private half of the key with which VMKit comes to a VM.
    LinkKey,
    /// The private half of the host key of a VM's first boot, until the agent has replaced it.
    HostKey,
    /// The secret of the webhooks that GitHub sends.
    WebhookSecret,
    /// The password of a service beside an app, which nobody sees.
    ServicePassword,
}

impl Purpose {
    /// The stored form: it is authenticated, so it must never change.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CloudToken => "cloud_token",
            Self::GitHubToken => "github_token",
            Self::EnvValue => "env_value",
            Self::DeployKey => "deploy_key",
            Self::GatewayIdentity => "gateway_identity",
            Self::EnrolmentToken => "enrolment_token",
            Self::LinkKey => "link_key",
            Self::HostKey => "host_key",
            Self::WebhookSecret => "webhook_secret",
            Self::ServicePassword => "service_password",
        }
    }
}

/// Why something cannot be sealed or opened. No variant carries a key or a value.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The text of a master key is not 32 bytes in hex or base64.
    #[error(
        "{from} does not hold a master key: 32 bytes in hex or base64 are needed, such as `openssl rand -hex 32` prints"
    )]
    KeyText {
        /// Where the text came from.
        from: KeySource,
    },
    /// A key file can be read by other users of the machine.
    #[error(
        "the key file {} can be read by others (mode {mode:04o}); run `chmod 600` on it",
        path.display()
    )]
    KeyFileOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A key file could not be read or made.
    #[error("the key file {} cannot be used; check that it and its folder belong to you", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// The key is not the one that this installation's secrets were sealed with.
    #[error(
        "the master key from {from} (fingerprint {given}) is not the one that this installation was sealed with (fingerprint {wanted}); put the right key there, or restore it from your backup"
    )]
    WrongKey {
        /// Where the key came from.
        from: KeySource,
        /// Its fingerprint.
        given: String,
        /// The installation's.
        wanted: String,
    },
    /// The value was sealed by a newer VMKit.
    #[error(
        "the {} of `{row}` was sealed with key version {version}, which this VMKit does not know; use a newer one",
        purpose.as_str()
    )]
    Version {
        /// The version byte.
        version: u8,
        /// What the value is for.
        purpose: Purpose,
        /// The row it stands in.
        row: String,
    },
    /// The value was changed, cut, moved from another row or sealed with another key.
    #[error(
        "the {} of `{row}` does not open: it was changed, or moved from another row, or sealed with another key; store it again",
        purpose.as_str()
    )]
    Unopenable {
        /// What the value is for.
        purpose: Purpose,
        /// The row it stands in.
        row: String,
    },
    /// The value is too long for the cipher.
    #[error("the {} of `{row}` is too long to be sealed", purpose.as_str())]
    TooLong {
        /// What the value is for.
        purpose: Purpose,
        /// The row it stands in.
        row: String,
    },
}

impl VaultError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::KeyText { .. } => "vault_key_text",
            Self::KeyFileOpen { .. } => "vault_key_file_open",
            Self::KeyFile { .. } => "vault_key_file",
            Self::WrongKey { .. } => "vault_wrong_key",
            Self::Version { .. } => "vault_version",
            Self::Unopenable { .. } => "vault_unopenable",
            Self::TooLong { .. } => "vault_too_long",
        }
    }

    /// Whether the same call may succeed later without a person's doing: it never does.
    pub fn retryable(&self) -> bool {
        match self {
            Self::KeyText { .. }
            | Self::KeyFileOpen { .. }
            | Self::KeyFile { .. }
            | Self::WrongKey { .. }
            | Self::Version { .. }
            | Self::Unopenable { .. }
            | Self::TooLong { .. } => false,
        }
    }
}

/// Seals and opens with one master key.
#[derive(Clone)]
pub struct Vault {
    cipher: Aes256Gcm,
    marks: Hmac<Sha256>,
    fingerprint: String,
    source: KeySource,
}

impl Vault {
    /// A vault on `key`. Sealing and marking use keys of their own, derived from it.
    pub fn open(key: MasterKey) -> Self {
        Self {
            cipher: Aes256Gcm::new(&key.derive("vmkit-seal-v1")),
            marks: key::mac(&key.derive("vmkit-mark-v1")),
            fingerprint: hex::encode(&key.derive("vmkit-fingerprint-v1")[..8]),
            source: key.source().clone(),
        }
    }

    /// 16 hex digits that tell master keys apart and say nothing about them; the installation's
    /// row keeps them.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Where the key came from.
    pub fn source(&self) -> &KeySource {
        &self.source
    }

    /// Whether this key is the installation's, by the fingerprint that its row keeps.
    ///
    /// # Errors
    /// `WrongKey`, which names the source of the key.
    pub fn check(&self, wanted: &str) -> Result<(), VaultError> {
        if self.fingerprint == wanted {
            return Ok(());
        }
        Err(VaultError::WrongKey {
            from: self.source.clone(),
            given: self.fingerprint.clone(),
            wanted: wanted.to_owned(),
        })
    }

    /// Seals `secret` for `purpose` in the row with the id `row`.
    ///
    /// # Errors
    /// `TooLong` only.
    pub fn seal(
        &self,
        secret: &Secret,
        purpose: Purpose,
        row: &str,
    ) -> Result<Vec<u8>, VaultError> {
        let mut nonce = [0_u8; NONCE_BYTES];
        OsRng.fill_bytes(&mut nonce);
        let aad = associated_data(KEY_VERSION, purpose, row);
        let payload = Payload { msg: secret.expose().as_bytes(), aad: &aad };
        let body = self
            .cipher
            .encrypt(Nonce::from_slice(&nonce), payload)
            .map_err(|_| VaultError::TooLong { purpose, row: row.to_owned() })?;
        Ok([&[KEY_VERSION][..], &nonce, &body].concat())
    }

    /// Opens what [`Vault::seal`] made for the same purpose and row.
    ///
    /// # Errors
    /// `Version` for a value of a newer VMKit, `Unopenable` for everything else.
    pub fn unseal(&self, sealed: &[u8], purpose: Purpose, row: &str) -> Result<Secret, VaultError> {
        let unopenable = || VaultError::Unopenable { purpose, row: row.to_owned() };
        let (&version, rest) = sealed.split_first().ok_or_else(unopenable)?;
        if version != KEY_VERSION {
            return Err(VaultError::Version { version, purpose, row: row.to_owned() });
        }
        if rest.len() < NONCE_BYTES + TAG_BYTES {
            return Err(unopenable());
        }
        let (nonce, body) = rest.split_at(NONCE_BYTES);
        let aad = associated_data(version, purpose, row);
        let clear = self
            .cipher
            .decrypt(Nonce::from_slice(nonce), Payload { msg: body, aad: &aad })
            .map_err(|_| unopenable())?;
        String::from_utf8(clear).map(Secret::new).map_err(|_| unopenable())
    }

    /// 8 hex digits (32 bits of an HMAC) that tell two values apart without showing either.
    pub fn mark(&self, secret: &Secret) -> String {
        let mut mac = self.marks.clone();
        mac.update(secret.expose().as_bytes());
        hex::encode(&mac.finalize().into_bytes()[..4])
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("fingerprint", &self.fingerprint)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// No purpose holds a NUL, so two different pairs never give the same bytes.
fn associated_data(version: u8, purpose: Purpose, row: &str) -> Vec<u8> {
    [&[version][..], purpose.as_str().as_bytes(), &[0], row.as_bytes()].concat()
}

#[cfg(test)]
mod tests;
