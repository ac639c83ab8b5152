//! Environments and the keys that deploy to them.

use rusqlite::{Row, params};

use super::{Outcome, Store, StoreError, collect, first, json, parsed, parsed_or_null};
use crate::domain::clock::Millis;
use crate::domain::environment::{Environment, Settings};
use crate::domain::ids::{EnvironmentId, SecretId, VmId};
use crate::domain::names::{EnvironmentPath, SizeName};
use crate::domain::run_settings::RunSettings;

/// The key pair that deploys to one VM for one environment.
#[derive(Debug, Clone)]
pub struct DeployKey {
    /// The environment.
    pub environment: EnvironmentId,
    /// The VM.
    pub vm: VmId,
    /// `ssh-ed25519 AAAA...`.
    pub public_key: String,
    /// The id that the sealed private key is bound to.
    pub secret: SecretId,
}

const SELECT: &str = "select environment.*, app.slug as app_slug from environment
    join app on app.id = environment.app where deleted_at is null";

fn read_environment(row: &Row<'_>) -> Outcome<Environment> {
    Ok(Environment {
        id: parsed(row, "id")?,
        app: parsed(row, "app")?,
        path: EnvironmentPath { app: parsed(row, "app_slug")?, name: parsed(row, "name")? },
        vm: parsed_or_null(row, "vm")?,
        settings: Settings {
            provider: row.get("provider")?,
            size: parsed(row, "size")?,
            region: parsed(row, "region")?,
            domain: parsed_or_null(row, "domain")?,
            port: row.get("port")?,
            health_path: row.get("health_path")?,
            protected: row.get("protected")?,
        },
        run: json(row, "run")?,
        env_revision: row.get("env_revision")?,
        created_at: Millis(row.get("created_at")?),
    })
}

impl Store {
    /// Writes a new environment. `false` where the app has one of that name already.
    pub async fn insert_environment(&self, environment: Environment) -> Result<bool, StoreError> {
        let run = run_text(&environment.run)?;
        self.write(move |tx| {
            let e = &environment;
            let inserted = tx.execute(
                "insert into environment (id, app, name, vm, size, region, domain, port, health_path,
                     protected, env_revision, created_at, provider, run)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) on conflict do nothing",
                params![
                    e.id.to_string(),
                    e.app.to_string(),
                    e.path.name.as_str(),
                    e.vm.map(|vm| vm.to_string()),
                    e.settings.size.as_str(),
                    e.settings.region.as_str(),
                    e.settings.domain.as_ref().map(|domain| domain.as_str()),
                    e.settings.port,
                    e.settings.health_path,
                    e.settings.protected,
                    e.env_revision,
                    e.created_at.0,
                    e.settings.provider,
                    run
                ],
            )?;
            Ok(inserted == 1)
        })
        .await
    }

    /// An environment by `app/name`.
    pub async fn environment(
        &self,
        path: EnvironmentPath,
    ) -> Result<Option<Environment>, StoreError> {
        self.read(move |db| {
            let mut select = db
                .prepare_cached(&format!("{SELECT} and app.slug = ?1 and environment.name = ?2"))?;
            first(select.query([path.app.as_str(), path.name.as_str()])?, read_environment)
        })
        .await
    }

    /// An environment by its id, unless it was removed.
    pub async fn environment_by_id(
        &self,
        id: EnvironmentId,
    ) -> Result<Option<Environment>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(&format!("{SELECT} and environment.id = ?1"))?;
            first(select.query([id.to_string()])?, read_environment)
        })
        .await
    }

    /// Every environment, by app and name.
    pub async fn environments(&self) -> Result<Vec<Environment>, StoreError> {
        self.read(|db| {
            let mut select =
                db.prepare_cached(&format!("{SELECT} order by app.slug, environment.name"))?;
            collect(select.query([])?, read_environment)
        })
        .await
    }

    /// Puts an environment on a VM, or on none.
    pub async fn set_environment_vm(
        &self,
        id: EnvironmentId,
        vm: Option<VmId>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "update environment set vm = ?2 where id = ?1",
                params![id.to_string(), vm.map(|vm| vm.to_string())],
            )?;
            Ok(())
        })
        .await
    }

    /// Chooses the size that an environment's VM is to have.
    pub async fn set_environment_size(
        &self,
        id: EnvironmentId,
        size: SizeName,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let pair = params![id.to_string(), size.as_str()];
            tx.execute("update environment set size = ?2 where id = ?1", pair)?;
            Ok(())
        })
        .await
    }

    /// Chooses how an environment's app is built and run, and on which port and path it answers,
    /// unless somebody changed what was read before. `false` where somebody did.
    pub async fn set_environment_run(
        &self,
        before: Environment,
        after: Environment,
    ) -> Result<bool, StoreError> {
        let (old, new) = (run_text(&before.run)?, run_text(&after.run)?);
        self.write(move |tx| {
            let (old_settings, settings) = (&before.settings, &after.settings);
            let changed = tx.execute(
                "update environment set run = ?2, port = ?3, health_path = ?4
                 where id = ?1 and run = ?5 and port = ?6 and health_path = ?7",
                params![
                    after.id.to_string(),
                    new,
                    settings.port,
                    settings.health_path,
                    old,
                    old_settings.port,
                    old_settings.health_path
                ],
            )?;
            Ok(changed == 1)
        })
        .await
    }

    /// Removes an environment: its deploys stay as history, its env values and keys go.
    pub async fn remove_environment(
        &self,
        id: EnvironmentId,
        at: Millis,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let id = id.to_string();
            tx.execute("delete from env_var where environment = ?1", [&id])?;
            super::adoption::forget(tx, &id)?;
            let mut select = tx.prepare("select secret from deploy_key where environment = ?1")?;
            let secrets = collect(select.query([&id])?, |row| Ok(row.get::<_, String>(0)?))?;
            tx.execute("delete from deploy_key where environment = ?1", [&id])?;
            for secret in secrets {
                tx.execute(
                    "delete from secret where id = ?1
                     and not exists (select 1 from deploy_key where secret = ?1)",
                    [secret],
                )?;
            }
            super::service::remove_all(tx, &id)?;
            tx.execute(
                "update environment set deleted_at = coalesce(deleted_at, ?2), vm = null where id = ?1",
                params![id, at.0],
            )?;
            Ok(())
        })
        .await
    }

    /// Stores the deploy key of an environment on a VM; a second one for the pair is ignored, and
    /// the kept one returned.
    pub async fn put_deploy_key(
        &self,
        key: DeployKey,
        purpose: &'static str,
        sealed: Vec<u8>,
        at: Millis,
    ) -> Result<DeployKey, StoreError> {
        self.write(move |tx| {
            let pair = [key.environment.to_string(), key.vm.to_string()];
            let select = "select * from deploy_key where environment = ?1 and vm = ?2";
            if let Some(kept) = first(tx.prepare(select)?.query([&pair[0], &pair[1]])?, read_key)? {
                return Ok(kept);
            }
            tx.execute(
                "insert into secret (id, purpose, sealed, created_at) values (?1, ?2, ?3, ?4)",
                params![key.secret.to_string(), purpose, sealed, at.0],
            )?;
            tx.execute(
                "insert into deploy_key (environment, vm, public_key, secret, created_at)
                 values (?1, ?2, ?3, ?4, ?5)",
                params![pair[0], pair[1], key.public_key, key.secret.to_string(), at.0],
            )?;
            Ok(key)
        })
        .await
    }

    /// Another deploy key for an environment on a VM, whose private half is sealed already.
    pub async fn point_deploy_key(
        &self,
        environment: EnvironmentId,
        vm: VmId,
        public_key: String,
        secret: SecretId,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "update deploy_key set public_key = ?3, secret = ?4
                 where environment = ?1 and vm = ?2",
                params![environment.to_string(), vm.to_string(), public_key, secret.to_string()],
            )?;
            Ok(())
        })
        .await
    }

    /// The deploy key of an environment on a VM.
    pub async fn deploy_key(
        &self,
        environment: EnvironmentId,
        vm: VmId,
    ) -> Result<Option<DeployKey>, StoreError> {
        self.read(move |db| {
            let mut select =
                db.prepare_cached("select * from deploy_key where environment = ?1 and vm = ?2")?;
            first(select.query([environment.to_string(), vm.to_string()])?, read_key)
        })
        .await
    }
}

fn run_text(run: &RunSettings) -> Result<String, StoreError> {
    serde_json::to_string(run)
        .map_err(|error| StoreError::Unreadable { what: "environment", detail: error.to_string() })
}

fn read_key(row: &Row<'_>) -> Outcome<DeployKey> {
    Ok(DeployKey {
        environment: parsed(row, "environment")?,
        vm: parsed(row, "vm")?,
        public_key: row.get("public_key")?,
        secret: parsed(row, "secret")?,
    })
}
