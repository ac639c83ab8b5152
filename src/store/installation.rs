//! The one row that says whose file this is.

use std::path::Path;

use rusqlite::params;

use super::{Fault, Store, StoreError, explain, first, parsed, word};
use crate::domain::clock::Millis;
use crate::domain::ids::InstallationId;

/// How this installation is run. A file belongs to one mode for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// `vmkit mcp` with a worker beside it.
    Local,
    /// `vmkit serve`.
    Gateway,
}

impl Mode {
    /// The stored and shown form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Gateway => "gateway",
        }
    }
}

/// Whose file this is.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The label that every resource carries.
    pub id: InstallationId,
    /// Local or gateway.
    pub mode: Mode,
    /// A gateway's public address.
    pub url: Option<String>,
    /// The fingerprint of the master key that sealed what is in the file.
    pub key_fingerprint: String,
}

impl Store {
    /// The installation's row, made from `fresh` where the file is new.
    pub async fn installation(
        &self,
        fresh: Installation,
        at: Millis,
    ) -> Result<Installation, StoreError> {
        self.write(move |tx| {
            tx.execute(
                "insert into installation (only_row, id, mode, url, key_fingerprint, created_at)
                 values (1, ?1, ?2, ?3, ?4, ?5) on conflict do nothing",
                params![
                    fresh.id.to_string(),
                    fresh.mode.as_str(),
                    fresh.url,
                    fresh.key_fingerprint,
                    at.0
                ],
            )?;
            let mut select = tx.prepare("select * from installation")?;
            let found = first(select.query([])?, |row| {
                Ok(Installation {
                    id: parsed(row, "id")?,
                    mode: word(row, "mode")?,
                    url: row.get("url")?,
                    key_fingerprint: row.get("key_fingerprint")?,
                })
            })?;
            Ok(found.unwrap_or(fresh))
        })
        .await
    }

    /// Writes the whole state as it is at one moment to the empty file at `target`, while others
    /// read and write on. What the file's own SQLite needs beside it, it does not.
    ///
    /// # Errors
    /// Those of a file, of the state's or of `target`'s.
    pub async fn copy_to(&self, target: &Path) -> Result<(), StoreError> {
        let target = target.to_path_buf();
        self.read(move |reader| {
            let written = reader.execute("vacuum into ?1", params![target.to_string_lossy()]);
            written.map_err(|fault| Fault::Store(explain(&target, fault.into())))?;
            Ok(())
        })
        .await
    }

    /// Remembers a gateway's public address.
    pub async fn set_url(&self, url: Option<String>) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute("update installation set url = ?1", params![url])?;
            Ok(())
        })
        .await
    }
}
