//! The VM's containers.

use bollard::Docker;
use bollard::models::{ContainerSummary, PortSummary};
use bollard::query_parameters::ListContainersOptionsBuilder;
use futures::{StreamExt, TryStreamExt};
use vmkit_agent_protocol::calls::{Container, PublishedPort};

use super::Fault;
use crate::docker::Engine;

/// Containers that are looked at in depth at a time.
const AT_ONCE: usize = 8;

pub(crate) async fn containers(engine: &Engine) -> Result<Vec<Container>, Fault> {
    let docker = engine.get().await.map_err(|error| Fault::docker(&error))?;
    let all = ListContainersOptionsBuilder::new().all(true).build();
    let listed = match docker.list_containers(Some(all)).await {
        Ok(listed) => listed,
        Err(error) => {
            engine.forget().await;
            return Err(Fault::docker(&error));
        }
    };
    let mut containers: Vec<Container> = futures::stream::iter(listed)
        .map(|summary| look(&docker, summary))
        .buffered(AT_ONCE)
        .try_filter_map(async |found| Ok(found))
        .try_collect()
        .await?;
    containers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Ok(containers)
}

/// One container in depth; `None` where it went away meanwhile.
async fn look(docker: &Docker, summary: ContainerSummary) -> Result<Option<Container>, Fault> {
    let id = summary.id.clone().unwrap_or_default();
    let inspected = match docker.inspect_container(&id, None).await {
        Ok(inspected) => inspected,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(Fault::docker(&error)),
    };
    let state = inspected.state.unwrap_or_default();
    let status = state.status.map(|status| status.to_string());
    let name = name(&summary);
    let running = state.running.unwrap_or(false);
    let health = state.health.and_then(|health| health.status).map(|status| status.to_string());
    Ok(Some(Container {
        id,
        name,
        image: summary.image.unwrap_or_default(),
        labels: summary.labels.unwrap_or_default().into_iter().collect(),
        state: status.or_else(|| summary.state.map(|state| state.to_string())).unwrap_or_default(),
        health: health.filter(|status| !status.is_empty() && status != "none"),
        exit_code: state.exit_code.filter(|_| !running),
        oom_killed: state.oom_killed.unwrap_or(false),
        restarts: u32::try_from(inspected.restart_count.unwrap_or(0)).unwrap_or(0),
        started_at_ms: state.started_at.as_deref().and_then(started_at),
        ports: summary.ports.unwrap_or_default().into_iter().filter_map(published).collect(),
    }))
}

/// The container's own name, without the slash that Docker puts before it.
pub(crate) fn name(summary: &ContainerSummary) -> String {
    let names = summary.names.as_deref().unwrap_or_default();
    // A link's alias has a second slash.
    let own = names.iter().find(|name| name.matches('/').count() <= 1).or(names.first());
    own.map_or_else(String::new, |name| name.trim_start_matches('/').to_owned())
}

/// True where the engine says that there is no such container.
pub(crate) fn is_absent(error: &bollard::errors::Error) -> bool {
    matches!(
        error,
        bollard::errors::Error::DockerResponseServerError { status_code: 404 | 409, .. }
    )
}

/// `None` for a container that never ran: Docker says year 1 then.
fn started_at(text: &str) -> Option<i64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(time.as_millisecond()).filter(|&ms| ms > 0)
}

fn published(port: PortSummary) -> Option<PublishedPort> {
    Some(PublishedPort {
        container_port: port.private_port,
        host_ip: port.ip.unwrap_or_default(),
        host_port: port.public_port?,
        protocol: port.typ.map_or_else(|| "tcp".to_owned(), |typ| typ.to_string()),
    })
}
