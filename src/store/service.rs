//! Services beside the apps, and their sealed passwords.

use rusqlite::{Row, Transaction, params};

use super::{Fault, Outcome, Store, StoreError, collect, first, parsed, word};
use crate::domain::clock::Millis;
use crate::domain::ids::{EnvironmentId, ServiceId};
use crate::domain::service::{Service, ServiceKind, ServiceState, ServiceVersion};

fn read_service(row: &Row<'_>) -> Outcome<Service> {
    let kind: ServiceKind = word(row, "kind")?;
    let version: String = row.get("version")?;
    let version = ServiceVersion::parse(kind, &version).map_err(|error| {
        let detail = error.to_string();
        Fault::Store(StoreError::Unreadable { what: "service", detail })
    })?;
    Ok(Service {
        id: parsed(row, "id")?,
        environment: parsed(row, "environment")?,
        kind,
        version,
        memory_mb: row.get("memory_mb")?,
        secret: parsed(row, "secret")?,
        state: word(row, "state")?,
        created_at: Millis(row.get("created_at")?),
    })
}

/// Forgets every service of an environment that is no more, with the passwords.
pub(super) fn remove_all(tx: &Transaction<'_>, environment: &str) -> Outcome<()> {
    let mut select = tx.prepare("select secret from service where environment = ?1")?;
    let secrets = collect(select.query([environment])?, |row| Ok(row.get::<_, String>(0)?))?;
    tx.execute("delete from service where environment = ?1", [environment])?;
    for secret in secrets {
        tx.execute("delete from secret where id = ?1", [secret])?;
    }
    Ok(())
}

impl Store {
    /// Writes a service before it is made, with its sealed password as (purpose, sealed); where the
    /// environment has one of the kind, that one stays. Returns what stands.
    pub async fn put_service(
        &self,
        service: Service,
        password: (&'static str, Vec<u8>),
    ) -> Result<Service, StoreError> {
        self.write(move |tx| {
            let s = &service;
            let pair = params![s.environment.to_string(), s.kind.as_str()];
            let select = "select * from service where environment = ?1 and kind = ?2";
            if let Some(kept) = first(tx.prepare(select)?.query(pair)?, read_service)? {
                return Ok(kept);
            }
            tx.execute(
                "insert into secret (id, purpose, sealed, created_at) values (?1, ?2, ?3, ?4)",
                params![s.secret.to_string(), password.0, password.1, s.created_at.0],
            )?;
            tx.execute(
                "insert into service (id, environment, kind, version, memory_mb, secret, state,
                     created_at)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    s.id.to_string(),
                    s.environment.to_string(),
                    s.kind.as_str(),
                    s.version.to_string(),
                    s.memory_mb,
                    s.secret.to_string(),
                    s.state.as_str(),
                    s.created_at.0
                ],
            )?;
            Ok(service)
        })
        .await
    }

    /// The services of an environment, in a stable order.
    pub async fn services(&self, environment: EnvironmentId) -> Result<Vec<Service>, StoreError> {
        self.read(move |db| {
            let mut select =
                db.prepare_cached("select * from service where environment = ?1 order by id")?;
            collect(select.query([environment.to_string()])?, read_service)
        })
        .await
    }

    /// Every service, in a stable order.
    pub async fn all_services(&self) -> Result<Vec<Service>, StoreError> {
        self.read(|db| {
            let mut select = db.prepare_cached("select * from service order by id")?;
            collect(select.query([])?, read_service)
        })
        .await
    }

    /// Moves a service along.
    pub async fn set_service_state(
        &self,
        id: ServiceId,
        state: ServiceState,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let pair = params![id.to_string(), state.as_str()];
            tx.execute("update service set state = ?2 where id = ?1", pair)?;
            Ok(())
        })
        .await
    }

    /// Notes the version and the memory that a service is to have.
    pub async fn set_service_version(
        &self,
        id: ServiceId,
        version: ServiceVersion,
        memory_mb: Option<u32>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "update service set version = ?2, memory_mb = ?3 where id = ?1",
                params![id.to_string(), version.to_string(), memory_mb],
            )?;
            Ok(())
        })
        .await
    }

    /// Forgets a service that is gone, with its password.
    pub async fn remove_service(&self, id: ServiceId) -> Result<(), StoreError> {
        self.write(move |tx| {
            let id = id.to_string();
            let mut select = tx.prepare("select secret from service where id = ?1")?;
            let secret = first(select.query([&id])?, |row| Ok(row.get::<_, String>(0)?))?;
            tx.execute("delete from service where id = ?1", [&id])?;
            if let Some(secret) = secret {
                tx.execute("delete from secret where id = ?1", [secret])?;
            }
            Ok(())
        })
        .await
    }
}
