//! The master key and the places that it may come from; the database is never one of them.

use std::fmt;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aes_gcm::aead::OsRng;
use aes_gcm::aead::generic_array::GenericArray;
use aes_gcm::aead::generic_array::typenum::U32;
use aes_gcm::aead::rand_core::RngCore;
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretBox};
use sha2::Sha256;

use super::VaultError;
use crate::domain::secret::Secret;

/// Where a master key came from; told when it is the wrong one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// `VMKIT_MASTER_KEY`.
    Variable,
    /// A key file.
    File(PathBuf),
    /// A systemd credential.
    Credential(PathBuf),
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable => f.write_str("the variable VMKIT_MASTER_KEY"),
            Self::File(path) => write!(f, "the key file {}", path.display()),
            Self::Credential(path) => write!(f, "the systemd credential {}", path.display()),
        }
    }
}

/// 32 bytes from which all other keys are derived.
pub struct MasterKey {
    bytes: SecretBox<[u8; 32]>,
    source: KeySource,
}

impl MasterKey {
    /// The key in `text`, the value of `VMKIT_MASTER_KEY`: 32 bytes in hex or base64 (either
    /// alphabet, padded or not).
    ///
    /// # Errors
    /// `KeyText`.
    pub fn from_variable(text: &Secret) -> Result<Self, VaultError> {
        Self::parse(text.expose(), KeySource::Variable)
    }

    /// The key in the file at `path`. Where there is none, one is made: mode 0600, complete from
    /// the moment it has its name, and never in the place of another process's.
    ///
    /// # Errors
    /// `KeyFile`, `KeyFileOpen` or `KeyText`.
    pub fn from_file(path: &Path) -> Result<Self, VaultError> {
        let failed = |cause| VaultError::KeyFile { path: path.to_owned(), cause };
        if !path.try_exists().map_err(failed)? {
            create(path).map_err(failed)?;
        }
        let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(VaultError::KeyFileOpen { path: path.to_owned(), mode });
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Self::parse(&text, KeySource::File(path.to_owned()))
    }

    /// The key in a credential that systemd laid down at `path`; systemd sees to its mode.
    ///
    /// # Errors
    /// `KeyFile` or `KeyText`.
    pub fn from_credential(path: &Path) -> Result<Self, VaultError> {
        let text = std::fs::read_to_string(path)
            .map_err(|cause| VaultError::KeyFile { path: path.to_owned(), cause })?;
        Self::parse(&text, KeySource::Credential(path.to_owned()))
    }

    fn parse(text: &str, source: KeySource) -> Result<Self, VaultError> {
        let text = text.trim();
        let bytes = if text.len() == 64 { hex::decode(text).ok() } else { base64(text) };
        let bytes: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.try_into().ok());
        match bytes {
            Some(bytes) => Ok(Self { bytes: SecretBox::new(Box::new(bytes)), source }),
            None => Err(VaultError::KeyText { from: source }),
        }
    }

    /// Where it came from.
    pub fn source(&self) -> &KeySource {
        &self.source
    }

    /// A key for one use, which says nothing about the others.
    pub(super) fn derive(&self, label: &str) -> GenericArray<u8, U32> {
        let mut mac = mac(self.bytes.expose_secret());
        mac.update(label.as_bytes());
        mac.finalize().into_bytes()
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey(*** from {})", self.source)
    }
}

/// HMAC-SHA256 under `key`.
pub(super) fn mac(key: &[u8]) -> Hmac<Sha256> {
    <Hmac<Sha256> as Mac>::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [base64::alphabet::STANDARD, base64::alphabet::URL_SAFE]
        .iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, lenient).decode(text).ok())
}

/// Writes a new key under a name of its own (0600, O_EXCL) and then gives it the final name
/// without replacing anything: of two processes that start at once, both end with the same key.
fn create(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut bytes = [0_u8; 32];
    OsRng.fill_bytes(&mut bytes);
    let mut file = tempfile::Builder::new().prefix(".master-key-").tempfile_in(folder)?;
    writeln!(file, "{}", hex::encode(bytes))?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e.error),
    }
}
