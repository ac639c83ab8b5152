//! How a VM is doing now, and how it did over the last two days.

use serde::{Deserialize, Serialize};

/// How a VM is doing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// The VM's clock, in milliseconds since 1970.
    pub time_ms: i64,
    /// Share of all CPUs that was busy since the sample before (since boot at the first), 0 to 1.
    pub cpu_busy: f64,
    /// Load over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// Memory in all, in bytes.
    pub memory_bytes: u64,
    /// What could be had without swapping, in bytes.
    pub memory_available_bytes: u64,
    /// Swap in all, in bytes.
    pub swap_bytes: u64,
    /// Swap in use, in bytes.
    pub swap_used_bytes: u64,
    /// The root disk's size, in bytes.
    pub disk_bytes: u64,
    /// What is free of it, in bytes.
    pub disk_free_bytes: u64,
    /// Received since boot on all but the loopback, in bytes.
    pub network_received_bytes: u64,
    /// Sent since boot, likewise.
    pub network_sent_bytes: u64,
    /// Seconds since boot.
    pub uptime_s: u64,
    /// Share of the last 10 s in which work stood still for want of CPU, memory, disk, 0 to 1;
    /// absent where the kernel does not measure it.
    pub pressure: Option<Pressure>,
    /// How many CPUs.
    #[serde(skip_serializing_if = "is_zero")]
    pub cpus: u32,
    /// Each mounted disk, the root first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// Each container, those that stand still included, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerUse>,
    /// Why the containers are not known, where they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker_trouble: Option<String>,
    /// The running kernel's release.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kernel: String,
    /// Why a reboot is needed, where one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reboot_because: Option<String>,
    /// Processes that the kernel ended since boot for want of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
}

/// Pressure stall shares over 10 s, 0 to 1.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressure {
    /// Some task waited for a CPU.
    pub cpu: f64,
    /// Some task waited for memory.
    pub memory: f64,
    /// Some task waited for a disk.
    pub io: f64,
}

/// A mounted disk.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// Where it is mounted.
    pub mount: String,
    /// Its size, in bytes.
    pub bytes: u64,
    /// What is free of it for others than root, in bytes.
    pub free_bytes: u64,
    /// How many files it can hold; 0 where it has no such limit.
    pub inodes: u64,
    /// How many more it can take.
    pub inodes_free: u64,
    /// Days until it is full if it goes on filling as it did; absent where it does not fill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_in_days: Option<f64>,
}

/// What a container takes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerUse {
    /// Its name.
    pub name: String,
    /// Its Kamal service, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// As Docker says it: `running`, `exited`, …
    pub state: String,
    /// CPUs in use on average since the sample before: 1.5 is one and a half.
    pub cpu: f64,
    /// Memory without what the kernel can take back, in bytes.
    pub memory_bytes: u64,
    /// Its limit, where it has one, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// How often Docker restarted it.
    pub restarts: u32,
    /// Health as Docker says it, where the image has a health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// The kernel ended it for want of memory.
    pub oom_killed: bool,
}

/// Which minutes are wanted, by the VM's clock; absent ends are open.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricsRange {
    /// From this time on, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
    /// Into how many points the minutes are drawn together at most; 0 for the most that there are.
    pub points: u32,
}

/// The most points of one answer.
pub const POINTS_MAX: u32 = 240;

/// How a VM is doing, and how it did over the wanted time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricsHistory {
    /// Now; [`Disk::full_in_days`] is filled in from all minutes that there are.
    pub now: Metrics,
    /// The time of the oldest minute within the range, in milliseconds since 1970.
    pub covered_from_ms: Option<i64>,
    /// How many minutes of the range are known.
    pub minutes: u32,
    /// Share of all CPUs that was busy, 0 to 1: on average over the range.
    pub cpu_mean: f64,
    /// The same that 95% of the minutes stayed under.
    pub cpu_p95: f64,
    /// The most memory that was in use, in bytes.
    pub memory_used_max_bytes: u64,
    /// The most swap that was in use, in bytes.
    pub swap_used_max_bytes: u64,
    /// Oldest first.
    pub points: Vec<Point>,
    /// What each container took over the range; without the versions of an app.
    pub containers: Vec<ContainerTrend>,
}

/// Some minutes drawn together.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Point {
    /// When it begins, in milliseconds since 1970.
    pub time_ms: i64,
    /// Share of all CPUs that was busy, 0 to 1, on average.
    pub cpu: f64,
    /// The same in the busiest sample.
    pub cpu_max: f64,
    /// Load over one minute, at its highest.
    pub load: f64,
    /// Memory in use at its highest, in bytes.
    pub memory_used_bytes: u64,
    /// The root disk's use at its end, in bytes.
    pub disk_used_bytes: u64,
    /// Received per second, in bytes.
    pub received_bytes_s: u64,
    /// Sent per second, in bytes.
    pub sent_bytes_s: u64,
    /// On average, where the kernel measures it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}

/// What a container, in all its versions, took over a time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerTrend {
    /// `SERVICE.ROLE`, or the container's name where it is not Kamal's.
    pub name: String,
    /// CPUs in use on average.
    pub cpu_mean: f64,
    /// CPUs in use in the busiest minute.
    pub cpu_max: f64,
    /// The most memory, in bytes.
    pub memory_max_bytes: u64,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}
