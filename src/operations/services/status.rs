//! How the services of an environment are, by the agent's word.

use vmkit_agent_protocol::calls::Container;

use crate::domain::names::EnvironmentPath;
use crate::domain::service::Service;
use crate::operations::deploy::containers;
use crate::operations::environments::environment;
use crate::operations::{Context, OpError};
use crate::store::{EnvRow, Store};

/// How a service is.
#[derive(Debug, Clone)]
pub struct ServiceView {
    /// The service.
    pub service: Service,
    /// The name that the app reaches it by.
    pub host: String,
    /// Its container; none where there is none, or the agent cannot be asked.
    pub container: Option<Container>,
    /// The keys of its address that what runs of the app does not have yet.
    pub pending: Vec<&'static str>,
}

impl ServiceView {
    /// In one line: `PostgreSQL 17.6 as shop-staging-db: running, healthy; DATABASE_URL applied`.
    pub fn told(&self) -> String {
        let service = &self.service;
        let state = match &self.container {
            Some(one) => {
                let health = one.health.as_ref().map(|word| format!(", {word}"));
                format!("{}{}", one.state, health.unwrap_or_default())
            }
            None => format!("no container is seen ({})", service.state.as_str()),
        };
        let limit = service.memory_mb.map(|mb| format!(", at most {mb} MiB")).unwrap_or_default();
        let keys: Vec<&str> = service.kind.keys().collect();
        let applied = match self.pending.is_empty() {
            true => "applied",
            false => "NOT APPLIED yet (`deploy` with ref `current` applies it)",
        };
        format!(
            "{} {} as {}: {state}{limit}; {} {applied}",
            service.kind.title(),
            service.version,
            self.host,
            keys.join(", ")
        )
    }
}

/// The services of an environment.
///
/// # Errors
/// The environment does not exist.
pub async fn views(context: &Context, path: &EnvironmentPath) -> Result<Vec<ServiceView>, OpError> {
    let environment = environment(&context.store, path).await?;
    let running = match environment.vm {
        Some(vm) => containers(&context.fleet, vm).await.unwrap_or_default(),
        None => Vec::new(),
    };
    of(&context.store, path, &running).await
}

/// The same, with the containers of the VM at hand.
///
/// # Errors
/// As [`views`].
pub async fn of(
    store: &Store,
    path: &EnvironmentPath,
    running: &[Container],
) -> Result<Vec<ServiceView>, OpError> {
    let environment = environment(store, path).await?;
    let live = store.releases(environment.id, 1).await?;
    let live = live.first().map_or(0, |live| live.env_revision);
    let (now, then) = (
        store.env_at(environment.id, environment.env_revision).await?,
        store.env_at(environment.id, live).await?,
    );
    let mark = |rows: &[EnvRow], key: &str| {
        rows.iter().find(|row| row.key.as_str() == key).and_then(|row| row.mark.clone())
    };
    let services = store.services(environment.id).await?;
    Ok(services
        .into_iter()
        .map(|service| {
            let host = service.kind.host(path);
            let container = running.iter().find(|one| one.name == host).cloned();
            let pending = |key: &&'static str| mark(&now, key) != mark(&then, key);
            let pending = service.kind.keys().filter(pending).collect();
            ServiceView { service, host, container, pending }
        })
        .collect())
}
