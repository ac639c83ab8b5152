//! The names of environments, and the DNS records of ours.

use rusqlite::{Row, params};

use super::{Outcome, Store, StoreError, collect, first, parsed};
use crate::domain::clock::Millis;
use crate::domain::ids::{EnvironmentId, OperationId};
use crate::domain::names::{Domain, EnvironmentPath};

/// A DNS record of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsRecordRow {
    /// Its whole name.
    pub name: Domain,
    /// `A`, `AAAA`.
    pub kind: String,
    /// What it is for.
    pub environment: EnvironmentId,
    /// `cloudflare`, `hetzner`, `digitalocean`.
    pub provider: String,
    /// The zone that it is in.
    pub zone: Domain,
    /// The provider's id, once the provider has answered.
    pub provider_id: Option<String>,
    /// What it says.
    pub value: String,
    /// The operation that made it.
    pub made_by: OperationId,
    /// When the row was made, before the record was.
    pub created_at: Millis,
}

/// How taking a name ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The environment has it.
    Done,
    /// Another one has it.
    Taken(Domain, EnvironmentPath),
}

fn read_record(row: &Row<'_>) -> Outcome<DnsRecordRow> {
    Ok(DnsRecordRow {
        name: parsed(row, "name")?,
        kind: row.get("kind")?,
        environment: parsed(row, "environment")?,
        provider: row.get("provider")?,
        zone: parsed(row, "zone")?,
        provider_id: row.get("provider_id")?,
        value: row.get("value")?,
        made_by: parsed(row, "made_by")?,
        created_at: Millis(row.get("created_at")?),
    })
}

const OWNER: &str = "select app.slug as app_slug, environment.name as name from environment
    join app on app.id = environment.app
    where environment.deleted_at is null and environment.id != ?2
      and (environment.domain = ?1 or environment.id in
           (select environment from domain_alias where domain_alias.name = ?1))";

impl Store {
    /// The environment, other than `except`, that has a name.
    pub async fn owner_of(
        &self,
        name: Domain,
        except: Option<EnvironmentId>,
    ) -> Result<Option<EnvironmentPath>, StoreError> {
        self.read(move |db| {
            let except = except.map(|id| id.to_string()).unwrap_or_default();
            let mut select = db.prepare_cached(OWNER)?;
            first(select.query([name.as_str(), &except])?, read_path)
        })
        .await
    }

    /// Gives an environment its names in place of those that it had; none takes them away.
    pub async fn set_domains(
        &self,
        environment: EnvironmentId,
        domain: Option<Domain>,
        also: Option<Domain>,
    ) -> Result<Claim, StoreError> {
        self.write(move |tx| {
            let id = environment.to_string();
            for name in domain.iter().chain(&also) {
                let owner = first(tx.prepare(OWNER)?.query([name.as_str(), &id])?, read_path)?;
                if let Some(owner) = owner {
                    return Ok(Claim::Taken(name.clone(), owner));
                }
            }
            tx.execute(
                "update environment set domain = ?2 where id = ?1",
                params![id, domain.as_ref().map(Domain::as_str)],
            )?;
            tx.execute("delete from domain_alias where environment = ?1", [&id])?;
            if let Some(also) = also {
                // What is left belongs to an environment that is gone.
                tx.execute(
                    "insert into domain_alias (name, environment) values (?1, ?2)
                     on conflict (name) do update set environment = excluded.environment",
                    [also.as_str(), &id],
                )?;
            }
            Ok(Claim::Done)
        })
        .await
    }

    /// The second name of an environment.
    pub async fn alias_of(&self, environment: EnvironmentId) -> Result<Option<Domain>, StoreError> {
        self.read(move |db| {
            let mut select =
                db.prepare_cached("select name from domain_alias where environment = ?1")?;
            first(select.query([environment.to_string()])?, |row| parsed(row, "name"))
        })
        .await
    }

    /// The record of ours for a name, if there is one.
    pub async fn dns_record(
        &self,
        name: Domain,
        kind: String,
    ) -> Result<Option<DnsRecordRow>, StoreError> {
        self.read(move |db| {
            let select = "select * from dns_record where name = ?1 and kind = ?2";
            first(db.prepare_cached(select)?.query([name.as_str(), &kind])?, read_record)
        })
        .await
    }

    /// The records of ours for an environment.
    pub async fn dns_records(
        &self,
        environment: EnvironmentId,
    ) -> Result<Vec<DnsRecordRow>, StoreError> {
        self.read(move |db| {
            let select = "select * from dns_record where environment = ?1 order by name, kind";
            collect(db.prepare_cached(select)?.query([environment.to_string()])?, read_record)
        })
        .await
    }

    /// Writes down a record of ours: before it is made, and again once it is.
    pub async fn put_dns_record(&self, row: DnsRecordRow) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "insert into dns_record (name, kind, environment, provider, zone, provider_id,
                     value, made_by, created_at)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 on conflict (name, kind) do update set environment = excluded.environment,
                     provider = excluded.provider, zone = excluded.zone,
                     provider_id = excluded.provider_id, value = excluded.value",
                params![
                    row.name.as_str(),
                    row.kind,
                    row.environment.to_string(),
                    row.provider,
                    row.zone.as_str(),
                    row.provider_id,
                    row.value,
                    row.made_by.to_string(),
                    row.created_at.0
                ],
            )?;
            Ok(())
        })
        .await
    }

    /// Forgets a record of ours that is gone.
    pub async fn forget_dns_record(&self, name: Domain, kind: String) -> Result<(), StoreError> {
        self.write(move |tx| {
            let delete = "delete from dns_record where name = ?1 and kind = ?2";
            tx.execute(delete, [name.as_str(), &kind])?;
            Ok(())
        })
        .await
    }
}

fn read_path(row: &Row<'_>) -> Outcome<EnvironmentPath> {
    Ok(EnvironmentPath { app: parsed(row, "app_slug")?, name: parsed(row, "name")? })
}
