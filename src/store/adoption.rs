//! Machines that are to be adopted, and the keys with which VMKit looks at them.

use rusqlite::{Row, Transaction, params};

use super::{Outcome, Store, StoreError, collect, first, parsed};
use crate::domain::clock::Millis;
use crate::domain::ids::{EnvironmentId, SecretId, VmId};
use crate::domain::names::{RegionName, SizeName};

/// A machine that is to be adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// For which environment.
    pub environment: EnvironmentId,
    /// As a person named it.
    pub target: String,
    /// The key with which VMKit logs in, in OpenSSH form.
    pub public_key: String,
    /// Where its private half is sealed.
    pub secret: SecretId,
}

fn read_adoption(row: &Row<'_>) -> Outcome<Adoption> {
    Ok(Adoption {
        environment: parsed(row, "environment")?,
        target: row.get("target")?,
        public_key: row.get("public_key")?,
        secret: parsed(row, "secret")?,
    })
}

/// Forgets every machine that an environment was to adopt, with the keys.
pub(super) fn forget(tx: &Transaction<'_>, environment: &str) -> Outcome<()> {
    let mut select = tx.prepare("select secret from adoption where environment = ?1")?;
    let secrets = collect(select.query([environment])?, |row| Ok(row.get::<_, String>(0)?))?;
    tx.execute("delete from adoption where environment = ?1", [environment])?;
    for secret in secrets {
        tx.execute("delete from secret where id = ?1", [secret])?;
    }
    Ok(())
}

impl Store {
    /// Notes a machine that is to be adopted, with the sealed half of its key; where it is noted
    /// already, the first stays. Returns what stands.
    pub async fn put_adoption(
        &self,
        adoption: Adoption,
        purpose: &'static str,
        sealed: Vec<u8>,
        at: Millis,
    ) -> Result<Adoption, StoreError> {
        self.write(move |tx| {
            let environment = adoption.environment.to_string();
            let select = "select * from adoption where environment = ?1 and target = ?2";
            let kept =
                first(tx.prepare(select)?.query([&environment, &adoption.target])?, read_adoption)?;
            if let Some(kept) = kept {
                return Ok(kept);
            }
            let secret = adoption.secret.to_string();
            tx.execute(
                "insert into secret (id, purpose, sealed, created_at) values (?1, ?2, ?3, ?4)",
                params![secret, purpose, sealed, at.0],
            )?;
            tx.execute(
                "insert into adoption (environment, target, public_key, secret, created_at)
                 values (?1, ?2, ?3, ?4, ?5)",
                params![environment, adoption.target, adoption.public_key, secret, at.0],
            )?;
            Ok(adoption)
        })
        .await
    }

    /// What is noted of a machine that is to be adopted.
    pub async fn adoption(
        &self,
        environment: EnvironmentId,
        target: String,
    ) -> Result<Option<Adoption>, StoreError> {
        self.read(move |db| {
            let mut select =
                db.prepare_cached("select * from adoption where environment = ?1 and target = ?2")?;
            first(select.query([environment.to_string(), target])?, read_adoption)
        })
        .await
    }

    /// Forgets what an environment was to adopt, with the keys.
    pub async fn forget_adoptions(&self, environment: EnvironmentId) -> Result<(), StoreError> {
        self.write(move |tx| forget(tx, &environment.to_string())).await
    }

    /// Chooses what an environment runs on, as it is: an adopted machine is what it is.
    pub async fn set_environment_place(
        &self,
        id: EnvironmentId,
        provider: Option<String>,
        size: SizeName,
        region: RegionName,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "update environment set provider = ?2, size = ?3, region = ?4 where id = ?1",
                params![id.to_string(), provider, size.as_str(), region.as_str()],
            )?;
            Ok(())
        })
        .await
    }

    /// Notes where a machine answers that VMKit did not order.
    pub async fn set_vm_address(
        &self,
        id: VmId,
        address: std::net::IpAddr,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let pair = params![id.to_string(), address.to_string()];
            tx.execute("update vm set address = ?2 where id = ?1", pair)?;
            Ok(())
        })
        .await
    }
}
