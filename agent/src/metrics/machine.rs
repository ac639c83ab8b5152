//! One look at the machine itself, from its `/proc`.

use procfs::{FromRead, FromReadSI};
use vmkit_agent_protocol::metrics::{Metrics, Pressure};

use super::disks;
use crate::host::Host;

/// What the kernel counts from boot on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    busy: u64,
    all: u64,
    received: u64,
    sent: u64,
}

impl Counters {
    /// The share of time since `before` (since boot where there is none) that was busy, 0 to 1;
    /// `None` where no time has passed.
    pub(super) fn busy_since(self, before: Option<&Self>) -> Option<f64> {
        let before = before.copied().unwrap_or_default();
        let all = self.all.saturating_sub(before.all);
        let busy = self.busy.saturating_sub(before.busy);
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
        (all > 0).then(|| (busy as f64 / all as f64).clamp(0.0, 1.0))
    }

    /// Bytes received and sent since `before`; none since nothing.
    pub(super) fn network_since(self, before: Option<&Self>) -> (u64, u64) {
        before.map_or((0, 0), |before| {
            (self.received.saturating_sub(before.received), self.sent.saturating_sub(before.sent))
        })
    }
}

/// All but the share of the CPUs that was busy and the containers.
pub(super) fn read(host: &Host, time_ms: i64) -> (Metrics, Counters) {
    let mut metrics = Metrics { time_ms, ..Metrics::default() };
    let mut counters = Counters::default();
    if let Ok(stat) =
        procfs::KernelStats::from_file(host.proc("stat"), procfs::current_system_info())
    {
        let total = stat.total;
        let waiting = total.idle + total.iowait.unwrap_or(0);
        counters.busy = total.user
            + total.nice
            + total.system
            + total.irq.unwrap_or(0)
            + total.softirq.unwrap_or(0)
            + total.steal.unwrap_or(0);
        counters.all = counters.busy + waiting;
        metrics.cpus = u32::try_from(stat.cpu_time.len()).unwrap_or(u32::MAX);
    }
    if let Ok(load) = procfs::LoadAverage::from_file(host.proc("loadavg")) {
        metrics.load = [load.one.into(), load.five.into(), load.fifteen.into()];
    }
    if let Ok(memory) = procfs::Meminfo::from_file(host.proc("meminfo")) {
        metrics.memory_bytes = memory.mem_total;
        metrics.memory_available_bytes = memory.mem_available.unwrap_or(memory.mem_free);
        metrics.swap_bytes = memory.swap_total;
        metrics.swap_used_bytes = memory.swap_total.saturating_sub(memory.swap_free);
    }
    if let Ok(devices) = procfs::net::InterfaceDeviceStatus::from_file(host.proc("net/dev")) {
        for device in devices.0.values().filter(|device| is_wire(&device.name)) {
            counters.received += device.recv_bytes;
            counters.sent += device.sent_bytes;
        }
    }
    (metrics.network_received_bytes, metrics.network_sent_bytes) =
        (counters.received, counters.sent);
    if let Ok(uptime) = procfs::Uptime::from_file(host.proc("uptime")) {
        metrics.uptime_s = uptime.uptime_duration().as_secs();
    }
    metrics.pressure = pressure(host);
    metrics.oom_kills = oom_kills(host);
    metrics.kernel = kernel(host);
    metrics.reboot_because = reboot_because(host, &metrics.kernel);
    metrics.disks = disks::read(host);
    if let Some(root) = metrics.disks.first() {
        (metrics.disk_bytes, metrics.disk_free_bytes) = (root.bytes, root.free_bytes);
    }
    (metrics, counters)
}

/// Containers' own devices carry again what the machine's carry.
fn is_wire(name: &str) -> bool {
    name != "lo" && !["veth", "docker", "br-"].iter().any(|inner| name.starts_with(inner))
}

/// `None` where the kernel is built or started without pressure stall information.
fn pressure(host: &Host) -> Option<Pressure> {
    let share = |percent: f32| f64::from(percent) / 100.0;
    let of = |what: &str| host.proc("pressure").join(what);
    Some(Pressure {
        cpu: share(procfs::CpuPressure::from_file(of("cpu")).ok()?.some.avg10),
        memory: share(procfs::MemoryPressure::from_file(of("memory")).ok()?.some.avg10),
        io: share(procfs::IoPressure::from_file(of("io")).ok()?.some.avg10),
    })
}

fn oom_kills(host: &Host) -> Option<u64> {
    let counts = std::fs::read_to_string(host.proc("vmstat")).ok()?;
    counts.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

fn kernel(host: &Host) -> String {
    let release = host.read_line("proc/sys/kernel/osrelease");
    if release.is_empty() {
        rustix::system::uname().release().to_string_lossy().into_owned()
    } else {
        release
    }
}

/// Debian and Ubuntu leave a note where a package wants a reboot; a newer kernel beside the running
/// one says so too, where the note was not written.
fn reboot_because(host: &Host, running: &str) -> Option<String> {
    if ["run/reboot-required", "var/run/reboot-required"]
        .iter()
        .any(|note| host.path(note).exists())
    {
        let packages = host.read_line("run/reboot-required.pkgs");
        let mut packages: Vec<&str> = packages.split_whitespace().take(5).collect();
        packages.dedup();
        return Some(if packages.is_empty() {
            "an upgrade asked for it".to_owned()
        } else {
            format!("upgraded: {}", packages.join(", "))
        });
    }
    let installed = std::fs::read_dir(host.path("boot")).ok()?;
    let kernels: Vec<String> = installed
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned()))
        .collect();
    // In a container the kernel is not that of this file system.
    if !kernels.iter().any(|kernel| kernel == running) {
        return None;
    }
    let newest = kernels.iter().max_by_key(|kernel| numbers(kernel))?;
    (numbers(newest) > numbers(running))
        .then(|| format!("kernel {newest} is installed, and {running} runs"))
}

/// `6.1.0-28-amd64` as 6, 1, 0, 28: so that 28 is more than 9.
fn numbers(version: &str) -> Vec<u64> {
    let digits = version.split(|c: char| !c.is_ascii_digit());
    digits.filter_map(|digits| digits.parse().ok()).take(5).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &std::path::Path, file: &str, text: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    #[test]
    fn the_busy_share_is_that_between_two_samples() {
        let first = Counters { busy: 50, all: 100, received: 10, sent: 5 };
        assert_eq!(first.busy_since(None), Some(0.5));
        let second = Counters { busy: 60, all: 200, received: 30, sent: 4 };
        assert!((second.busy_since(Some(&first)).expect("time has passed") - 0.1).abs() < 1e-9);
        assert_eq!(second.busy_since(Some(&second)), None);
        assert_eq!(second.network_since(Some(&first)), (20, 0), "a counter may begin anew");
    }

    #[test]
    fn a_machine_is_read_below_its_root() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        put(
            root,
            "proc/stat",
            "cpu 10 0 10 80 0 0 0 0 0 0\ncpu0 5 0 5 40 0 0 0 0 0 0\ncpu1 5 0 5 40 0 0 0 0 0 0\nctxt 1\nbtime 1700000000\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n",
        );
        put(root, "proc/loadavg", "0.50 0.40 0.30 1/100 42\n");
        put(
            root,
            "proc/net/dev",
            "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    lo: 9 0 0 0 0 0 0 0 9 0 0 0 0 0 0 0\n  eth0: 100 0 0 0 0 0 0 0 50 0 0 0 0 0 0 0\nvetha1: 7 0 0 0 0 0 0 0 7 0 0 0 0 0 0 0\n",
        );
        for what in ["cpu", "memory", "io"] {
            let text = "some avg10=12.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
            put(root, &format!("proc/pressure/{what}"), text);
        }
        put(root, "proc/vmstat", "nr_free_pages 1\noom_kill 3\n");
        put(root, "proc/sys/kernel/osrelease", "6.1.0-9-amd64\n");
        for kernel in ["6.1.0-9-amd64", "6.1.0-28-amd64"] {
            put(root, &format!("boot/vmlinuz-{kernel}"), "");
        }
        let host = Host::new(root);
        let (metrics, counters) = read(&host, 7);
        assert_eq!(counters, Counters { busy: 20, all: 100, received: 100, sent: 50 });
        assert_eq!((metrics.cpus, metrics.time_ms, metrics.oom_kills), (2, 7, Some(3)));
        assert_eq!(metrics.pressure.expect("measured").io, 0.125);
        assert_eq!(metrics.disks.len(), 1, "the root directory's own disk");
        assert!(metrics.disks[0].inodes > 0 && metrics.disk_bytes == metrics.disks[0].bytes);
        let because = metrics.reboot_because.expect("a newer kernel waits");
        assert!(because.contains("6.1.0-28-amd64"), "{because}");
        put(root, "run/reboot-required", "");
        put(root, "run/reboot-required.pkgs", "libc6\nlibc6\n");
        assert_eq!(read(&host, 7).0.reboot_because.as_deref(), Some("upgraded: libc6"));
    }
}
