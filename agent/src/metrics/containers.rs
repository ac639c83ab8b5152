//! What each container takes, as the engine measures it.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::ContainerStatsResponse;
use bollard::query_parameters::StatsOptionsBuilder;
use futures::StreamExt;
use tokio::time::Instant;
use vmkit_agent_protocol::calls::Container;
use vmkit_agent_protocol::metrics::ContainerUse;

use crate::calls::containers;
use crate::docker::Engine;

/// Containers that are measured at a time.
const AT_ONCE: usize = 4;
/// More are not measured.
const CONTAINERS: usize = 100;

/// A container's use, and the name under which its versions are one.
#[derive(Debug, Clone)]
pub(super) struct Use {
    pub(super) lasting: String,
    pub(super) shown: ContainerUse,
}

/// CPU time that containers had taken at the last sample, by id.
#[derive(Debug, Default)]
pub(super) struct Taken(HashMap<String, (u64, Instant)>);

/// Looks at all containers; says why where it cannot.
pub(super) async fn look(engine: &Engine, taken: &mut Taken) -> Result<Vec<Use>, String> {
    let listed = containers::containers(engine).await.map_err(|fault| fault.message)?;
    let docker = engine.get().await.map_err(|error| error.to_string())?;
    let measured: Vec<(Container, Option<ContainerStatsResponse>)> =
        futures::stream::iter(listed.into_iter().take(CONTAINERS))
            .map(|container| measure(&docker, container))
            .buffered(AT_ONCE)
            .collect()
            .await;
    let (before, now) = (std::mem::take(&mut taken.0), Instant::now());
    Ok(measured
        .into_iter()
        .map(|(container, stats)| {
            let total_ns = stats.as_ref().and_then(cpu_ns);
            let cpu = total_ns.map_or(0.0, |total_ns| {
                taken.0.insert(container.id.clone(), (total_ns, now));
                before.get(&container.id).map_or(0.0, |&(then_ns, then)| {
                    cpus(total_ns.saturating_sub(then_ns), (now - then).as_secs_f64())
                })
            });
            let (memory, limit) = stats.as_ref().map_or((0, None), memory);
            use_of(container, cpu, memory, limit)
        })
        .collect())
}

async fn measure(
    docker: &Docker,
    container: Container,
) -> (Container, Option<ContainerStatsResponse>) {
    if container.state != "running" {
        return (container, None);
    }
    let once = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
    let mut answers = docker.stats(&container.id, Some(once)).boxed();
    // One that ends meanwhile is one that takes nothing.
    let stats = answers.next().await.and_then(Result::ok);
    drop(answers);
    (container, stats)
}

fn use_of(container: Container, cpu: f64, memory_bytes: u64, limit: Option<u64>) -> Use {
    let service = container.labels.get("service").cloned();
    let lasting = match (&service, container.labels.get("role")) {
        (Some(service), Some(role)) => format!("{service}.{role}"),
        (Some(service), None) => service.clone(),
        (None, _) => container.name.clone(),
    };
    let shown = ContainerUse {
        name: container.name,
        service,
        state: container.state,
        cpu,
        memory_bytes,
        memory_limit_bytes: limit,
        restarts: container.restarts,
        health: container.health,
        oom_killed: container.oom_killed,
    };
    Use { lasting, shown }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of one sample are few")]
fn cpus(nanos: u64, seconds: f64) -> f64 {
    if seconds <= 0.0 { 0.0 } else { nanos as f64 / 1e9 / seconds }
}

fn cpu_ns(stats: &ContainerStatsResponse) -> Option<u64> {
    stats.cpu_stats.as_ref()?.cpu_usage.as_ref()?.total_usage
}

/// What Docker's own client shows: without file pages that nobody has used lately. A limit of the
/// whole machine is none.
fn memory(stats: &ContainerStatsResponse) -> (u64, Option<u64>) {
    let Some(memory) = &stats.memory_stats else { return (0, None) };
    let count = |key: &str| memory.stats.as_ref().and_then(|counts| counts.get(key)).copied();
    // The one is cgroup v1's word, the other v2's.
    let idle = count("total_inactive_file").or(count("inactive_file")).unwrap_or(0);
    let limit =
        memory.limit.filter(|&limit| limit > 0 && procfs_total().is_none_or(|total| limit < total));
    (memory.usage.unwrap_or(0).saturating_sub(idle), limit)
}

fn procfs_total() -> Option<u64> {
    use procfs::Current;
    procfs::Meminfo::current().ok().map(|memory| memory.mem_total)
}
