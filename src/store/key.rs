//! API keys of a gateway: only their hashes.

use rusqlite::{Row, params};

use super::{Outcome, Store, StoreError, collect, first, json, parsed, word};
use crate::domain::clock::Millis;
use crate::domain::ids::KeyId;
use crate::domain::names::EnvironmentPath;

/// What a key may do.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    Read,
    /// Look, deploy, and set env values.
    Deploy,
    /// Everything.
    Admin,
}

impl Role {
    /// The stored and shown form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Deploy => "deploy",
            Self::Admin => "admin",
        }
    }
}

/// A key without its secret.
#[derive(Debug, Clone)]
pub struct KeyRow {
    /// Its id.
    pub id: KeyId,
    /// What a person calls it.
    pub name: String,
    /// SHA-256 of its secret part.
    pub hash: [u8; 32],
    /// What it may do.
    pub role: Role,
    /// The environments that it is for; none means all.
    pub environments: Vec<EnvironmentPath>,
    /// When it was made.
    pub created_at: Millis,
    /// When it ends by itself.
    pub expires_at: Option<Millis>,
    /// When it was last used.
    pub last_used_at: Option<Millis>,
    /// When it was revoked.
    pub revoked_at: Option<Millis>,
}

fn read_key(row: &Row<'_>) -> Outcome<KeyRow> {
    let hash: Vec<u8> = row.get("hash")?;
    Ok(KeyRow {
        id: parsed(row, "id")?,
        name: row.get("name")?,
        hash: hash.try_into().map_err(|_| super::unreadable("key", "its hash is not 32 bytes"))?,
        role: word(row, "role")?,
        environments: json(row, "environments")?,
        created_at: Millis(row.get("created_at")?),
        expires_at: row.get::<_, Option<i64>>("expires_at")?.map(Millis),
        last_used_at: row.get::<_, Option<i64>>("last_used_at")?.map(Millis),
        revoked_at: row.get::<_, Option<i64>>("revoked_at")?.map(Millis),
    })
}

impl Store {
    /// Writes a new key.
    pub async fn insert_key(&self, key: KeyRow) -> Result<(), StoreError> {
        self.write(move |tx| {
            let environments = serde_json::to_string(&key.environments)
                .map_err(|error| super::unreadable("key", error))?;
            tx.execute(
                "insert into key (id, name, hash, role, environments, created_at, expires_at)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    key.id.to_string(),
                    key.name,
                    key.hash.as_slice(),
                    key.role.as_str(),
                    environments,
                    key.created_at.0,
                    key.expires_at.map(|at| at.0)
                ],
            )?;
            Ok(())
        })
        .await
    }

    /// A key by its id.
    pub async fn key(&self, id: KeyId) -> Result<Option<KeyRow>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached("select * from key where id = ?1")?;
            first(select.query([id.to_string()])?, read_key)
        })
        .await
    }

    /// Every key, oldest first.
    pub async fn keys(&self) -> Result<Vec<KeyRow>, StoreError> {
        self.read(|db| {
            let mut select = db.prepare_cached("select * from key order by id")?;
            collect(select.query([])?, read_key)
        })
        .await
    }

    /// Revokes a key. `false` where there is none of that id, or it was revoked before.
    pub async fn revoke_key(&self, id: KeyId, at: Millis) -> Result<bool, StoreError> {
        self.write(move |tx| {
            let changed = tx.execute(
                "update key set revoked_at = ?2 where id = ?1 and revoked_at is null",
                params![id.to_string(), at.0],
            )?;
            Ok(changed == 1)
        })
        .await
    }

    /// Notes that a key was used, at most once a minute.
    pub async fn touch_key(&self, id: KeyId, at: Millis) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "update key set last_used_at = ?2 where id = ?1 and coalesce(last_used_at, 0) < ?2 - 60000",
                params![id.to_string(), at.0],
            )?;
            Ok(())
        })
        .await
    }
}
