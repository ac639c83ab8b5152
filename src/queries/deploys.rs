//! History: what was deployed, what is live, where one can go back to.

use crate::domain::deploy::Deploy;
use crate::domain::ids::DeployId;
use crate::domain::names::EnvironmentPath;
use crate::operations::OpError;
use crate::operations::environments::environment;
use crate::store::Store;

/// How many deploys are shown of an environment.
pub const SHOWN: u32 = 50;

/// The history of an environment.
#[derive(Debug, Clone)]
pub struct History {
    /// The newest deploys, newest first.
    pub deploys: Vec<Deploy>,
    /// The deploy that is live.
    pub live: Option<DeployId>,
    /// Where `rollback` goes without a `to`.
    pub rollback_to: Option<DeployId>,
}

/// Reads the history of an environment.
///
/// # Errors
/// The environment does not exist.
pub async fn history(
    store: &Store,
    path: &EnvironmentPath,
    limit: u32,
) -> Result<History, OpError> {
    let environment = environment(store, path).await?;
    let deploys = store.deploys(environment.id, limit.clamp(1, SHOWN)).await?;
    let releases = store.releases(environment.id, SHOWN).await?;
    let live = releases.first();
    let differs = |past: &&Deploy| {
        live.is_some_and(|live| {
            past.commit != live.commit || past.env_revision != live.env_revision
        })
    };
    let rollback_to = releases.iter().find(differs).map(|deploy| deploy.id);
    Ok(History { live: live.map(|deploy| deploy.id), rollback_to, deploys })
}
