//! One environment in depth.

use vmkit_agent_protocol::calls::Container;

use super::overview::{EnvironmentLine, line};
use crate::domain::names::{EnvKey, EnvironmentPath};
use crate::fleet::{Fleet, Presence};
use crate::operations::OpError;
use crate::operations::deploy::{containers, proxy_ports};
use crate::operations::environments::environment;
use crate::operations::services::{self, ServiceView};
use crate::probe::app_url;
use crate::store::{OperationRow, Store};

/// One environment in depth.
#[derive(Debug, Clone)]
pub struct Status {
    /// How it is.
    pub line: EnvironmentLine,
    /// Where the app answers, as far as its VM's agent can tell.
    pub url: Option<String>,
    /// The containers of its service, where the agent is linked.
    pub containers: Vec<Container>,
    /// The services beside the app.
    pub services: Vec<ServiceView>,
    /// Why the agent could not be asked.
    pub agent_trouble: Option<String>,
    /// Env keys whose newest value the running containers do not have.
    pub pending: Vec<EnvKey>,
    /// Its newest operations, newest first.
    pub operations: Vec<OperationRow>,
}

/// Reads the status of an environment.
///
/// # Errors
/// The environment does not exist.
pub async fn status(
    store: &Store,
    fleet: &Fleet,
    path: &EnvironmentPath,
) -> Result<Status, OpError> {
    let environment = environment(store, path).await?;
    let operations = store.recent_operations(Some(environment.id), 5).await?;
    let pending = super::env::pending_keys(store, &environment).await?;
    let line = line(store, fleet, environment).await?;
    let mut status = Status {
        line,
        url: None,
        containers: vec![],
        services: services::of(store, path, &[]).await?,
        agent_trouble: None,
        pending,
        operations,
    };
    let Some(row) = status.line.vm.clone() else { return Ok(status) };
    match containers(fleet, row.vm.id).await {
        Ok(all) => {
            let service = path.service();
            let domain = status.line.environment.settings.domain.as_ref();
            status.url = row
                .vm
                .address
                .and_then(|address| app_url(address, domain, proxy_ports(&all)))
                .map(String::from);
            status.services = services::of(store, path, &all).await?;
            let ours = |c: &Container| c.labels.get("service") == Some(&service);
            status.containers = all.into_iter().filter(ours).collect();
        }
        Err(error) => status.agent_trouble = Some(error.to_string()),
    }
    // Why it is silent says more than that it is, and a clock that is wrong is trouble to come.
    let complaint = status.line.presence.as_ref().and_then(Presence::complaint);
    status.agent_trouble = complaint.or(status.agent_trouble);
    Ok(status)
}
