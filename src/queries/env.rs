//! Env values: what is set, and what the running containers have of it.

use crate::domain::environment::Environment;
use crate::domain::names::{EnvKey, EnvironmentPath};
use crate::operations::OpError;
use crate::operations::env::{difference, shown};
use crate::operations::environments::environment;
use crate::store::{EnvRow, Store};
use crate::vault::Vault;

/// A key with what may be shown of its value.
#[derive(Debug, Clone)]
pub struct EnvLine {
    /// The row.
    pub row: EnvRow,
    /// A plain value; a secret one is never shown.
    pub value: Option<String>,
    /// Whether the running containers have this value.
    pub applied: bool,
}

/// The env values of an environment.
#[derive(Debug, Clone)]
pub struct EnvList {
    /// The environment.
    pub environment: Environment,
    /// Every key that is set, by name.
    pub lines: Vec<EnvLine>,
    /// Keys that are unset by now and that the running containers still have.
    pub unset_pending: Vec<EnvKey>,
    /// The revision that is live.
    pub live_revision: Option<u32>,
}

/// Reads the env values of an environment.
///
/// # Errors
/// The environment does not exist.
pub async fn list(
    store: &Store,
    vault: &Vault,
    path: &EnvironmentPath,
) -> Result<EnvList, OpError> {
    let environment = environment(store, path).await?;
    let (now, then, live_revision) = both(store, &environment).await?;
    let mut lines = Vec::new();
    for row in &now {
        let value = shown(vault, environment.id, row)?;
        let same = |old: &EnvRow| old.key == row.key && old.revision == row.revision;
        lines.push(EnvLine { row: row.clone(), value, applied: then.iter().any(same) });
    }
    let gone = |old: &&EnvRow| !now.iter().any(|row| row.key == old.key);
    let unset_pending = then.iter().filter(gone).map(|row| row.key.clone()).collect();
    Ok(EnvList { environment, lines, unset_pending, live_revision })
}

/// The values as they are now, as they were when what is live was deployed, and its revision.
async fn both(
    store: &Store,
    environment: &Environment,
) -> Result<(Vec<EnvRow>, Vec<EnvRow>, Option<u32>), OpError> {
    let now = store.env_at(environment.id, environment.env_revision).await?;
    let live = store.releases(environment.id, 1).await?.into_iter().next();
    let Some(live) = live else { return Ok((now, Vec::new(), None)) };
    let then = store.env_at(environment.id, live.env_revision).await?;
    Ok((now, then, Some(live.env_revision)))
}

/// Keys whose newest value the running containers do not have.
pub(super) async fn pending_keys(
    store: &Store,
    environment: &Environment,
) -> Result<Vec<EnvKey>, OpError> {
    let live = store.releases(environment.id, 1).await?.into_iter().next();
    let applied = live.map_or(0, |live| live.env_revision);
    let keys = difference(store, environment.id, applied, environment.env_revision).await?;
    Ok(keys.into_iter().map(|(key, _)| key).collect())
}
