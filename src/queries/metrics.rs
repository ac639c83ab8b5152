//! How an environment's VM did, and whether its size fits.

use vmkit_agent_protocol::metrics::MetricsHistory;

use crate::domain::clock::Millis;
use crate::domain::environment::VmState;
use crate::domain::names::EnvironmentPath;
use crate::domain::sizing::{Seen, Sizing, judge};
use crate::fleet::Fleet;
use crate::operations::OpError;
use crate::operations::environments::environment;
use crate::store::{Store, VmRow};

/// How a VM did.
#[derive(Debug, Clone)]
pub struct VmMetrics {
    /// The VM.
    pub vm: VmRow,
    /// As its agent measured it, in times of our clock.
    pub history: MetricsHistory,
    /// Whether its size fits, by what was seen.
    pub sizing: Sizing,
}

/// Reads how the VM of an environment did from `since` to `until`, in at most `points` points.
///
/// # Errors
/// The environment does not exist or has no VM, or its agent cannot be asked.
pub async fn metrics(
    store: &Store,
    fleet: &Fleet,
    path: &EnvironmentPath,
    since: Option<Millis>,
    until: Option<Millis>,
    points: u32,
) -> Result<VmMetrics, OpError> {
    let environment = environment(store, path).await?;
    let no_vm = || OpError::NoVm { environment: path.to_string() };
    let vm = store.vm(environment.vm.ok_or_else(no_vm)?).await?.ok_or_else(no_vm)?;
    if vm.vm.state != VmState::Ready {
        return Err(no_vm());
    }
    let history = fleet.metrics(vm.vm.id, since, until, points).await?;
    let sizing = judge(&seen(&history));
    Ok(VmMetrics { vm, history, sizing })
}

fn seen(history: &MetricsHistory) -> Seen {
    let now = &history.now;
    let used = now.memory_bytes.saturating_sub(now.memory_available_bytes);
    Seen {
        minutes: history.minutes,
        memory_bytes: now.memory_bytes,
        memory_used_bytes: history.memory_used_max_bytes.max(used) + history.swap_used_max_bytes,
        cpu_p95: history.cpu_p95,
        disk_bytes: now.disk_bytes,
        disk_used_bytes: now.disk_bytes.saturating_sub(now.disk_free_bytes),
        disk_full_in_days: now.disks.first().and_then(|root| root.full_in_days),
    }
}
