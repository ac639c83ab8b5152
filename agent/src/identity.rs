//! The agent's key pair: made on the VM, kept on the VM.

use std::io;
use std::path::PathBuf;

use ed25519_dalek::SigningKey;
use vmkit_agent_protocol::bytes::Bytes;

use crate::files;
use crate::host::Host;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("the agent's key `{path}` cannot be read or written")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("the agent's key `{path}` is damaged; remove it and enrol the VM again")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// The host's key; made at the first call.
pub(crate) fn load_or_make(host: &Host) -> Result<SigningKey, IdentityError> {
    let path = host.key_file();
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let seed: Bytes<32> = text.parse().map_err(|_| IdentityError::Damaged { path })?;
            Ok(SigningKey::from_bytes(&seed.0))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = SigningKey::from_bytes(&rand::random());
            let written =
                host.make_dir(path.parent().unwrap_or(host.root()), 0o700).and_then(|()| {
                    let text = format!("{}\n", Bytes(key.to_bytes()));
                    files::write_whole(&path, text.as_bytes(), files::PRIVATE)
                });
            written.map(|()| key).map_err(|source| IdentityError::File { path, source })
        }
        Err(source) => Err(IdentityError::File { path, source }),
    }
}
