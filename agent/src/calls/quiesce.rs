//! Taking the VM's apps down for work on the VM, and bringing back exactly what ran.
//!
//! Docker does not start again what was stopped by hand, so what ran is kept in a file. After a
//! boot the agent starts it by itself: nobody's apps stay down because VMKit went away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{StartContainerOptions, StopContainerOptionsBuilder};
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use vmkit_agent_protocol::calls::{Container, Reply};

use super::containers::{self, is_absent};
use super::{Fault, blocking, facts};
use crate::agent::Agent;
use crate::files;
use crate::host::Host;

/// How long an app may take to end: Kamal's own drain time.
const APP_GRACE_S: i32 = 30;
/// How long a service beside the apps may take: a database writes out what it holds.
const SERVICE_GRACE_S: i32 = 60;
/// How long Docker may take beyond the grace.
const DOCKER_S: u64 = 30;
/// How often, and with which longest pause, the agent tries by itself after a boot.
const TRIES: u32 = 30;
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// What ran before it was stopped.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    /// Whose work it was.
    operation: String,
    /// The boot in which it was stopped.
    boot_id: String,
    /// In the order in which they start: services first.
    containers: Vec<Stopped>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Stopped {
    id: String,
    name: String,
    /// Started before the apps, stopped after them.
    service: bool,
}

impl Record {
    fn names(&self) -> Vec<String> {
        self.containers.iter().map(|one| one.name.clone()).collect()
    }
}

/// One of Kamal's: an app's container has a role, a service's beside it has none.
fn stopped(container: &Container) -> Option<Stopped> {
    let ours = container.labels.contains_key("service");
    let runs = ["running", "restarting"].contains(&container.state.as_str());
    (ours && runs).then(|| Stopped {
        id: container.id.clone(),
        name: container.name.clone(),
        service: !container.labels.contains_key("role"),
    })
}

/// Stops the apps, then their services. What was recorded before and not started again since
/// stays recorded: it ran.
pub(super) async fn quiesce(agent: &Arc<Agent>, operation: &str) -> Result<Reply, Fault> {
    let _one = agent.upkeep().lock().await;
    let running = containers::containers(agent.engine()).await?;
    let mut record = read(agent).await?.unwrap_or_default();
    let known: BTreeSet<String> = record.containers.iter().map(|one| one.id.clone()).collect();
    let new = running.iter().filter_map(stopped).filter(|one| !known.contains(&one.id));
    record.containers.extend(new);
    record.containers.sort_by(|a, b| (!a.service, &a.name).cmp(&(!b.service, &b.name)));
    operation.clone_into(&mut record.operation);
    record.boot_id = facts::boot_id(agent.host());
    let names = record.names();
    let (host, kept) = (agent.host().clone(), record.clone());
    blocking(move || write(&host, &kept)).await??;
    let docker = agent.engine().get().await.map_err(|error| Fault::docker(&error))?;
    for (service, grace_s) in [(false, APP_GRACE_S), (true, SERVICE_GRACE_S)] {
        let limit = Duration::from_secs(u64::from(grace_s.unsigned_abs()) + DOCKER_S);
        let docker = docker.clone().with_timeout(limit);
        let these = record.containers.iter().filter(|one| one.service == service);
        try_join_all(these.map(|one| stop(&docker, &one.id, grace_s))).await?;
    }
    Ok(Reply::Quiesced { containers: names })
}

async fn stop(docker: &Docker, id: &str, grace_s: i32) -> Result<(), Fault> {
    let options = StopContainerOptionsBuilder::new().t(grace_s).build();
    match docker.stop_container(id, Some(options)).await {
        Err(error) if !is_absent(&error) => Err(Fault::docker(&error)),
        _ => Ok(()),
    }
}

/// Starts what [`quiesce`] stopped; nothing where nothing is recorded.
pub(super) async fn resume(agent: &Arc<Agent>) -> Result<Reply, Fault> {
    let _one = agent.upkeep().lock().await;
    let record = read(agent).await?.unwrap_or_default();
    let (mut running, mut missing, mut failed) = (Vec::new(), Vec::new(), None);
    if !record.containers.is_empty() {
        let docker = agent.engine().get().await.map_err(|error| Fault::docker(&error))?;
        for one in &record.containers {
            match docker.start_container(&one.id, None::<StartContainerOptions>).await {
                Ok(()) => running.push(one.name.clone()),
                Err(error) if is_absent(&error) => missing.push(one.name.clone()),
                // The others are started all the same.
                Err(error) => failed = Some(Fault::docker(&error)),
            }
        }
    }
    if let Some(fault) = failed {
        return Err(fault);
    }
    let host = agent.host().clone();
    blocking(move || forget(&host)).await??;
    Ok(Reply::Resumed { containers: running, missing })
}

/// Starts what was stopped before the machine went down. Where only the agent was started again,
/// whoever stopped it goes on.
pub(crate) async fn resume_after_boot(agent: &Arc<Agent>) {
    let mut pause = Duration::from_millis(200);
    for _ in 0..TRIES {
        match read(agent).await {
            Ok(Some(record)) if record.boot_id != facts::boot_id(agent.host()) => {}
            Ok(_) => return,
            Err(fault) => tracing::warn!(fault.message, "what ran before the boot is not known"),
        }
        match resume(agent).await {
            Ok(_) => return,
            Err(fault) => {
                tracing::warn!(fault.message, "what ran before the boot does not start yet");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The ids of containers that are stopped for a while, and will run again.
pub(crate) fn resting(host: &Host) -> Result<Vec<String>, Fault> {
    let record = read_file(host)?.unwrap_or_default();
    Ok(record.containers.into_iter().map(|one| one.id).collect())
}

/// Their names.
pub(crate) fn resting_names(host: &Host) -> Result<Vec<String>, Fault> {
    Ok(read_file(host)?.unwrap_or_default().names())
}

async fn read(agent: &Arc<Agent>) -> Result<Option<Record>, Fault> {
    let host = agent.host().clone();
    blocking(move || read_file(&host)).await?
}

fn read_file(host: &Host) -> Result<Option<Record>, Fault> {
    match std::fs::read(file(host)) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Fault::invalid(format!("the record of what ran cannot be read: {error}"))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Fault::files(&error)),
    }
}

fn write(host: &Host, record: &Record) -> Result<(), Fault> {
    let file = file(host);
    let text = serde_json::to_vec(record).map_err(|error| Fault::invalid(error.to_string()))?;
    host.make_dir(file.parent().unwrap_or(host.root()), 0o700)
        .and_then(|()| files::write_whole(&file, &text, files::PRIVATE))
        .map_err(|error| Fault::files(&error))
}

fn forget(host: &Host) -> Result<(), Fault> {
    match std::fs::remove_file(file(host)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Fault::files(&error)),
        _ => Ok(()),
    }
}

fn file(host: &Host) -> std::path::PathBuf {
    host.path("var/lib/vmkit/quiesced.json")
}
