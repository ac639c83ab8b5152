//! What a new VM gets that nobody knew before: a token for its first contact, and a key pair.

use crate::domain::names::EnvironmentPath;
use crate::domain::secret::Secret;
use crate::operations::OpError;

/// 256 random bits in hexadecimal digits.
pub(in crate::operations) fn random_token() -> Secret {
    Secret::new(hex::encode(rand::random::<[u8; 32]>()))
}

/// A fresh ed25519 pair: the public line, and the private key in OpenSSH's form.
pub(in crate::operations) fn deploy_key_pair(
    path: &EnvironmentPath,
) -> Result<(String, Secret), OpError> {
    use ssh_key::{Algorithm, LineEnding, PrivateKey, rand_core::OsRng};
    let pair = || -> Result<(String, Secret), ssh_key::Error> {
        let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519)?;
        key.set_comment(format!("vmkit-{}", path.service()));
        let private = key.to_openssh(LineEnding::LF)?;
        Ok((key.public_key().to_openssh()?, Secret::new(private.as_str())))
    };
    pair().map_err(|error| OpError::KeyPair { detail: error.to_string() })
}
