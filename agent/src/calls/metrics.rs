//! How the VM is doing, from `/proc`.

use procfs::{Current, CurrentSI};
use vmkit_agent_protocol::calls::{Metrics, Pressure};

use super::facts;
use crate::agent::Agent;
use crate::time::now_ms;

/// Ticks of all CPUs since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CpuSample {
    busy: u64,
    all: u64,
}

impl CpuSample {
    /// The share of time between `before` and this sample that was busy, 0 to 1.
    fn busy_since(self, before: Option<Self>) -> f64 {
        let before = before.unwrap_or(Self { busy: 0, all: 0 });
        let all = self.all.saturating_sub(before.all);
        let busy = self.busy.saturating_sub(before.busy);
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
        if all == 0 { 0.0 } else { (busy as f64 / all as f64).clamp(0.0, 1.0) }
    }
}

pub(crate) fn metrics(agent: &Agent) -> Metrics {
    let mut metrics = Metrics { time_ms: now_ms(), ..Metrics::default() };
    if let Some(now) = cpu() {
        let mut last = agent.cpu().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        metrics.cpu_busy = now.busy_since(last.replace(now));
    }
    if let Ok(load) = procfs::LoadAverage::current() {
        metrics.load = [load.one.into(), load.five.into(), load.fifteen.into()];
    }
    if let Ok(memory) = procfs::Meminfo::current() {
        metrics.memory_bytes = memory.mem_total;
        metrics.memory_available_bytes = memory.mem_available.unwrap_or(memory.mem_free);
        metrics.swap_bytes = memory.swap_total;
        metrics.swap_used_bytes = memory.swap_total.saturating_sub(memory.swap_free);
    }
    if let Ok(devices) = procfs::net::dev_status() {
        for device in devices.values().filter(|device| device.name != "lo") {
            metrics.network_received_bytes += device.recv_bytes;
            metrics.network_sent_bytes += device.sent_bytes;
        }
    }
    if let Ok(uptime) = procfs::Uptime::current() {
        metrics.uptime_s = uptime.uptime_duration().as_secs();
    }
    (metrics.disk_bytes, metrics.disk_free_bytes) = facts::disk(agent.host());
    metrics.pressure = pressure();
    metrics
}

fn cpu() -> Option<CpuSample> {
    let total = procfs::KernelStats::current().ok()?.total;
    let waiting = total.idle + total.iowait.unwrap_or(0);
    let busy = total.user
        + total.nice
        + total.system
        + total.irq.unwrap_or(0)
        + total.softirq.unwrap_or(0)
        + total.steal.unwrap_or(0);
    Some(CpuSample { busy, all: busy + waiting })
}

/// `None` where the kernel is built or started without pressure stall information.
fn pressure() -> Option<Pressure> {
    let share = |percent: f32| f64::from(percent) / 100.0;
    Some(Pressure {
        cpu: share(procfs::CpuPressure::current().ok()?.some.avg10),
        memory: share(procfs::MemoryPressure::current().ok()?.some.avg10),
        io: share(procfs::IoPressure::current().ok()?.some.avg10),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busy_share_is_that_between_two_samples() {
        let first = CpuSample { busy: 50, all: 100 };
        assert!((first.busy_since(None) - 0.5).abs() < 1e-9);
        let second = CpuSample { busy: 60, all: 200 };
        assert!((second.busy_since(Some(first)) - 0.1).abs() < 1e-9);
        assert!(second.busy_since(Some(second)).abs() < 1e-9);
    }
}
