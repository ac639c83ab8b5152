//! Env values by revision: a change is a row, and a value at a revision is the newest row up to it.

use rusqlite::{Row, params};

use super::{Outcome, Store, StoreError, collect, parsed, word};
use crate::domain::clock::Millis;
use crate::domain::env_values::EnvClass;
use crate::domain::ids::EnvironmentId;
use crate::domain::names::EnvKey;

/// One change: a sealed value, or none to unset the key.
#[derive(Debug, Clone)]
pub struct EnvChange {
    /// The key.
    pub key: EnvKey,
    /// Who may read it.
    pub class: EnvClass,
    /// Makes the sealed value for the revision that the change gets; none unsets the key.
    pub sealed: Option<Vec<u8>>,
    /// 8 hexadecimal digits that tell two values apart.
    pub mark: Option<String>,
}

/// A value as of a revision.
#[derive(Debug, Clone)]
pub struct EnvRow {
    /// The key.
    pub key: EnvKey,
    /// Who may read it.
    pub class: EnvClass,
    /// The revision that set it, which its sealed value is bound to.
    pub revision: u32,
    /// The sealed value; none where the key was unset.
    pub sealed: Option<Vec<u8>>,
    /// 8 hexadecimal digits that tell two values apart.
    pub mark: Option<String>,
    /// When it was set.
    pub changed_at: Millis,
}

fn read_row(row: &Row<'_>) -> Outcome<EnvRow> {
    Ok(EnvRow {
        key: parsed(row, "key")?,
        class: word(row, "class")?,
        revision: row.get("revision")?,
        sealed: row.get("sealed")?,
        mark: row.get("mark")?,
        changed_at: Millis(row.get("created_at")?),
    })
}

impl Store {
    /// Writes changes as the revision after `base`. `false` where another change came first: the
    /// caller seals again for the new revision.
    pub async fn put_env(
        &self,
        environment: EnvironmentId,
        base: u32,
        changes: Vec<EnvChange>,
        at: Millis,
    ) -> Result<bool, StoreError> {
        self.write(move |tx| {
            let environment = environment.to_string();
            let moved = tx.execute(
                "update environment set env_revision = ?2 + 1
                 where id = ?1 and env_revision = ?2 and deleted_at is null",
                params![environment, base],
            )?;
            if moved == 0 {
                return Ok(false);
            }
            for change in &changes {
                tx.execute(
                    "insert into env_var (environment, key, revision, class, sealed, mark, created_at)
                     values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    params![
                        environment,
                        change.key.as_str(),
                        base + 1,
                        change.class.as_str(),
                        change.sealed,
                        change.mark,
                        at.0
                    ],
                )?;
            }
            Ok(true)
        })
        .await
    }

    /// Every secret value that an environment ever had.
    pub async fn secrets_ever(
        &self,
        environment: EnvironmentId,
    ) -> Result<Vec<EnvRow>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(
                "select * from env_var where environment = ?1 and class = 'secret'
                 and sealed is not null order by key, revision",
            )?;
            collect(select.query([environment.to_string()])?, read_row)
        })
        .await
    }

    /// The values as of a revision, by key; keys that are unset then are left out.
    pub async fn env_at(
        &self,
        environment: EnvironmentId,
        revision: u32,
    ) -> Result<Vec<EnvRow>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(
                "select * from env_var as v where environment = ?1 and revision =
                     (select max(revision) from env_var as w where w.environment = v.environment
                      and w.key = v.key and w.revision <= ?2)
                 and sealed is not null order by key",
            )?;
            collect(select.query(params![environment.to_string(), revision])?, read_row)
        })
        .await
    }
}
