//! Stored credentials and other sealed values.

use rusqlite::params;

use super::{Store, StoreError, collect, first, parsed};
use crate::domain::clock::Millis;
use crate::domain::ids::{AccountId, SecretId};

/// A credential that `vmkit connect` stored, still sealed.
#[derive(Debug, Clone)]
pub struct StoredAccount {
    /// Its id.
    pub id: AccountId,
    /// `hetzner`, `github`, ...
    pub provider: String,
    /// The id that the sealed token is bound to.
    pub secret: SecretId,
    /// The sealed token.
    pub sealed: Vec<u8>,
}

impl Store {
    /// Stores the token of a provider; a former one is replaced and its sealed value removed.
    pub async fn put_account(
        &self,
        provider: String,
        purpose: &'static str,
        secret: SecretId,
        sealed: Vec<u8>,
        at: Millis,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let mut select = tx.prepare("select secret from account where provider = ?1")?;
            let former = first(select.query([&provider])?, |row| Ok(row.get::<_, String>(0)?))?;
            tx.execute(
                "insert into secret (id, purpose, sealed, created_at) values (?1, ?2, ?3, ?4)",
                params![secret.to_string(), purpose, sealed, at.0],
            )?;
            tx.execute(
                "insert into account (id, provider, secret, created_at) values (?1, ?2, ?3, ?4)
                 on conflict (provider) do update set secret = excluded.secret",
                params![AccountId::generate().to_string(), provider, secret.to_string(), at.0],
            )?;
            if let Some(former) = former {
                tx.execute("delete from secret where id = ?1", [former])?;
            }
            Ok(())
        })
        .await
    }

    /// Every stored credential.
    pub async fn accounts(&self) -> Result<Vec<StoredAccount>, StoreError> {
        self.read(|db| {
            let mut select = db.prepare_cached(
                "select account.id, provider, secret, sealed from account
                 join secret on secret.id = account.secret order by provider",
            )?;
            collect(select.query([])?, |row| {
                Ok(StoredAccount {
                    id: parsed(row, "id")?,
                    provider: row.get("provider")?,
                    secret: parsed(row, "secret")?,
                    sealed: row.get("sealed")?,
                })
            })
        })
        .await
    }

    /// Stores a sealed value under its id; the same id again keeps the first value.
    pub async fn put_secret(
        &self,
        id: SecretId,
        purpose: &'static str,
        sealed: Vec<u8>,
        at: Millis,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "insert into secret (id, purpose, sealed, created_at) values (?1, ?2, ?3, ?4)
                 on conflict do nothing",
                params![id.to_string(), purpose, sealed, at.0],
            )?;
            Ok(())
        })
        .await
    }

    /// A sealed value by its id.
    pub async fn secret(&self, id: SecretId) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached("select sealed from secret where id = ?1")?;
            first(select.query([id.to_string()])?, |row| Ok(row.get(0)?))
        })
        .await
    }

    /// Forgets a sealed value; one that is gone already is fine.
    pub async fn delete_secret(&self, id: SecretId) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute("delete from secret where id = ?1", [id.to_string()])?;
            Ok(())
        })
        .await
    }

    /// The sealed values of a purpose that belongs to the installation, the oldest first.
    pub async fn secrets_of(
        &self,
        purpose: &'static str,
    ) -> Result<Vec<(SecretId, Vec<u8>)>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(
                "select id, sealed from secret where purpose = ?1 order by created_at, id",
            )?;
            collect(select.query([purpose])?, |row| Ok((parsed(row, "id")?, row.get("sealed")?)))
        })
        .await
    }

    /// The oldest sealed value of a purpose of which there is one in the installation.
    pub async fn sole_secret(
        &self,
        purpose: &'static str,
    ) -> Result<Option<(SecretId, Vec<u8>)>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(
                "select id, sealed from secret where purpose = ?1 order by created_at limit 1",
            )?;
            first(select.query([purpose])?, |row| Ok((parsed(row, "id")?, row.get("sealed")?)))
        })
        .await
    }
}
