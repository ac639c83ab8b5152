//! Restarts, stops and starts the containers of one app, or of one service beside it.
//!
//! Kamal runs them with `--restart unless-stopped`: what is stopped here stays stopped over a reboot,
//! until it is started or deployed again.

use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{
    RestartContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
};
use vmkit_agent_protocol::beside::{Control, ControlAction, Controlled};
use vmkit_agent_protocol::calls::{Container, Reply};

use super::beside::{self, check_names};
use super::containers::{containers, is_absent};
use super::{Fault, env_files};
use crate::agent::Agent;

/// How long an app may take to end: Kamal's own drain time.
const APP_GRACE_S: i32 = 30;
/// How long Docker may take beyond the grace.
const DOCKER_S: u64 = 30;

/// Does it, and tells how they are afterwards.
pub(super) async fn control(agent: &Arc<Agent>, wanted: Control) -> Result<Reply, Fault> {
    let Control { app, environment, beside, action, version } = wanted;
    check_names(&app, &environment, beside.as_deref().unwrap_or("x"))?;
    env_files::refuse_if_locked(agent.host(), &app, &environment)?;
    let _one = agent.upkeep().lock().await;
    let mut service = format!("{app}-{environment}");
    let grace_s = if beside.is_some() { beside::GRACE_S } else { APP_GRACE_S };
    if let Some(name) = &beside {
        service = format!("{service}-{name}");
    }
    // An app's containers have a role, and those beside it have none.
    let of_it = |one: &Container| {
        one.labels.get("service") == Some(&service)
            && one.labels.contains_key("role") == beside.is_none()
    };
    let all: Vec<Container> = containers(agent.engine()).await?.into_iter().filter(of_it).collect();
    let limit = Duration::from_secs(u64::from(grace_s.unsigned_abs()) + DOCKER_S);
    let docker = agent.engine().get().await.map_err(|error| Fault::docker(&error))?;
    let docker = docker.with_timeout(limit);
    let runs = |one: &&Container| one.state != "exited" && one.state != "created";
    let meant: Vec<&Container> = match action {
        ControlAction::Stop => all.iter().filter(runs).collect(),
        ControlAction::Restart if all.iter().any(|one| runs(&one)) => {
            all.iter().filter(runs).collect()
        }
        // Containers of earlier versions are kept too, and must not come back to life.
        ControlAction::Restart | ControlAction::Start => {
            let found: Vec<&Container> =
                all.iter().filter(|one| is_of(one, version.as_deref())).collect();
            if found.is_empty() {
                let text = format!("there is no container of `{service}` to start");
                return Err(Fault::no_container(text));
            }
            found
        }
    };
    for container in &meant {
        act(&docker, action, container, grace_s).await?;
    }
    let ids: Vec<&str> = meant.iter().map(|one| one.id.as_str()).collect();
    let mut now = containers(agent.engine()).await?;
    now.retain(|one| ids.contains(&one.id.as_str()));
    Ok(Reply::Controlled(Controlled { containers: now }))
}

/// Whether a container is of the version: `SERVICE-ROLE-VERSION`.
fn is_of(container: &Container, version: Option<&str>) -> bool {
    version.is_none_or(|version| container.name.ends_with(&format!("-{version}")))
}

async fn act(
    docker: &Docker,
    action: ControlAction,
    container: &Container,
    grace_s: i32,
) -> Result<(), Fault> {
    let id = &container.id;
    let done = match action {
        ControlAction::Stop => {
            let options = StopContainerOptionsBuilder::new().t(grace_s).build();
            docker.stop_container(id, Some(options)).await
        }
        ControlAction::Restart => {
            let options = RestartContainerOptionsBuilder::new().t(grace_s).build();
            docker.restart_container(id, Some(options)).await
        }
        ControlAction::Start => docker.start_container(id, None::<StartContainerOptions>).await,
    };
    match done {
        Err(error) if is_absent(&error) => {
            Err(Fault::no_container(format!("container `{}` went away meanwhile", container.name)))
        }
        Err(error) => Err(Fault::docker(&error)),
        Ok(()) => Ok(()),
    }
}
