//! Deploys and the releases that they made.

use rusqlite::{Row, params};

use super::{Outcome, Store, StoreError, collect, first, parsed, parsed_or_null, word};
use crate::domain::clock::Millis;
use crate::domain::deploy::{Deploy, DeployState};
use crate::domain::ids::{DeployId, EnvironmentId, ReleaseId};

pub(super) fn read_deploy(row: &Row<'_>) -> Outcome<Deploy> {
    Ok(Deploy {
        id: parsed(row, "id")?,
        environment: parsed(row, "environment")?,
        operation: parsed(row, "operation")?,
        action: word(row, "action")?,
        commit: parsed(row, "commit_sha")?,
        subject: row.get("subject")?,
        env_revision: row.get("env_revision")?,
        rollback_of: parsed_or_null(row, "rollback_of")?,
        state: word(row, "state")?,
        run_id: row.get("run_id")?,
        run_url: row.get("run_url")?,
        failure: row.get("failure")?,
        created_at: Millis(row.get("created_at")?),
        ended_at: row.get::<_, Option<i64>>("ended_at")?.map(Millis),
    })
}

impl Store {
    /// A deploy by its id.
    pub async fn deploy(&self, id: DeployId) -> Result<Option<Deploy>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached("select * from deploy where id = ?1")?;
            first(select.query([id.to_string()])?, read_deploy)
        })
        .await
    }

    /// The newest deploys of an environment, newest first.
    pub async fn deploys(
        &self,
        environment: EnvironmentId,
        limit: u32,
    ) -> Result<Vec<Deploy>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(
                "select * from deploy where environment = ?1 order by created_at desc, id desc limit ?2",
            )?;
            collect(select.query(params![environment.to_string(), limit])?, read_deploy)
        })
        .await
    }

    /// The deploys that became releases, the live one first.
    pub async fn releases(
        &self,
        environment: EnvironmentId,
        limit: u32,
    ) -> Result<Vec<Deploy>, StoreError> {
        self.read(move |db| {
            let mut select = db.prepare_cached(
                "select deploy.* from release join deploy on deploy.id = release.deploy
                 where release.environment = ?1 order by release.created_at desc, release.id desc limit ?2",
            )?;
            collect(select.query(params![environment.to_string(), limit])?, read_deploy)
        })
        .await
    }

    /// Notes GitHub's run of a deploy.
    pub async fn set_deploy_run(
        &self,
        id: DeployId,
        run_id: u64,
        run_url: String,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "update deploy set run_id = ?2, run_url = ?3 where id = ?1",
                params![id.to_string(), run_id, run_url],
            )?;
            Ok(())
        })
        .await
    }

    /// Ends a deploy that is running, and makes its release where it went live. A deploy that has
    /// ended stays as it is.
    pub async fn end_deploy(
        &self,
        id: DeployId,
        state: DeployState,
        failure: Option<String>,
        at: Millis,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let ended = tx.execute(
                "update deploy set state = ?2, failure = ?3, ended_at = ?4 where id = ?1 and state = 'running'",
                params![id.to_string(), state.as_str(), failure, at.0],
            )?;
            if ended == 1 && state == DeployState::Live {
                tx.execute(
                    "insert into release (id, environment, deploy, commit_sha, env_revision, created_at)
                     select ?2, environment, id, commit_sha, env_revision, ?3 from deploy where id = ?1",
                    params![id.to_string(), ReleaseId::generate().to_string(), at.0],
                )?;
            }
            Ok(())
        })
        .await
    }
}
