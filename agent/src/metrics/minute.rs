//! A minute of samples, drawn together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vmkit_agent_protocol::metrics::Metrics;

use super::containers::Use;

/// One minute as it is kept. The names are short: it has to fit in its place on the disk.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Minute {
    /// Minutes since 1970.
    #[serde(rename = "t")]
    pub minute: i64,
    /// Share of all CPUs that was busy, 0 to 1, on average.
    #[serde(rename = "c")]
    pub cpu: f32,
    /// The same in the busiest sample.
    #[serde(rename = "C")]
    pub cpu_max: f32,
    /// Load over one minute, at its highest.
    #[serde(rename = "l")]
    pub load: f32,
    /// Memory in use at its highest, in bytes.
    #[serde(rename = "m")]
    pub memory_used: u64,
    /// Swap in use at its highest, in bytes.
    #[serde(rename = "s")]
    pub swap_used: u64,
    /// Received within it, in bytes.
    #[serde(rename = "r")]
    pub received: u64,
    /// Sent within it, in bytes.
    #[serde(rename = "w")]
    pub sent: u64,
    /// Pressure of CPU, memory and disk, 0 to 1, on average.
    #[serde(rename = "p", skip_serializing_if = "Option::is_none")]
    pub pressure: Option<[f32; 3]>,
    /// The disks at its end, the root first.
    #[serde(rename = "d")]
    pub disks: Vec<DiskUse>,
    /// Containers, those that take most memory first.
    #[serde(rename = "k")]
    pub containers: Vec<Share>,
}

/// A disk: where it is mounted, and the bytes in use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiskUse(pub String, pub u64);

/// A container: its lasting name, CPUs on average, and the most bytes of memory.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Share(pub String, pub f32, pub u64);

/// The samples of the minute that is under way.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    samples: u32,
    minute: Minute,
    cpu_sum: f64,
    pressure_sum: [f64; 3],
    /// By lasting name: the sum of CPUs, and the most memory.
    containers: BTreeMap<String, (f64, u64)>,
}

impl Gathering {
    /// Adds a sample; gives the minute before, where this one is of another.
    pub(super) fn add(
        &mut self,
        sample: &Metrics,
        (received, sent): (u64, u64),
        containers: &[Use],
    ) -> Option<Minute> {
        let minute = sample.time_ms.div_euclid(60_000);
        let over = if minute == self.minute.minute { None } else { self.so_far() };
        if over.is_some() || self.samples == 0 {
            *self = Self { minute: Minute { minute, ..Minute::default() }, ..Self::default() };
        }
        let so_far = &mut self.minute;
        self.samples += 1;
        self.cpu_sum += sample.cpu_busy;
        so_far.cpu_max = so_far.cpu_max.max(short(sample.cpu_busy));
        so_far.load = so_far.load.max(short(sample.load[0]));
        let used = sample.memory_bytes.saturating_sub(sample.memory_available_bytes);
        so_far.memory_used = so_far.memory_used.max(used);
        so_far.swap_used = so_far.swap_used.max(sample.swap_used_bytes);
        so_far.received += received;
        so_far.sent += sent;
        if let Some(pressure) = &sample.pressure {
            let now = [pressure.cpu, pressure.memory, pressure.io];
            for (sum, now) in self.pressure_sum.iter_mut().zip(now) {
                *sum += now;
            }
            so_far.pressure = Some([0.0; 3]);
        }
        so_far.disks = sample
            .disks
            .iter()
            .map(|disk| DiskUse(disk.mount.clone(), disk.bytes.saturating_sub(disk.free_bytes)))
            .collect();
        for one in containers.iter().filter(|one| one.shown.state == "running") {
            let (cpu, memory) = self.containers.entry(one.lasting.clone()).or_default();
            *cpu += one.shown.cpu;
            *memory = (*memory).max(one.shown.memory_bytes);
        }
        over
    }

    /// What the minute has by now; nothing where no sample was taken.
    pub(super) fn so_far(&self) -> Option<Minute> {
        if self.samples == 0 {
            return None;
        }
        let samples = f64::from(self.samples);
        let mut minute = self.minute.clone();
        minute.cpu = short(self.cpu_sum / samples);
        minute.pressure =
            minute.pressure.map(|_| self.pressure_sum.map(|sum| short(sum / samples)));
        minute.containers = self
            .containers
            .iter()
            .map(|(name, (cpu, memory))| Share(name.clone(), short(cpu / samples), *memory))
            .collect();
        minute.containers.sort_by_key(|share| std::cmp::Reverse(share.2));
        Some(minute)
    }
}

/// Four digits behind the point: more take room and say nothing.
#[expect(clippy::cast_possible_truncation, reason = "a share has few digits")]
fn short(number: f64) -> f32 {
    ((number * 10_000.0).round() / 10_000.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmkit_agent_protocol::metrics::{ContainerUse, Disk, Pressure};

    fn sample(time_ms: i64, cpu_busy: f64, available: u64) -> Metrics {
        Metrics {
            time_ms,
            cpu_busy,
            memory_bytes: 1000,
            memory_available_bytes: available,
            pressure: Some(Pressure { cpu: cpu_busy, memory: 0.0, io: 0.5 }),
            disks: vec![Disk { mount: "/".into(), bytes: 100, free_bytes: 40, ..Disk::default() }],
            ..Metrics::default()
        }
    }

    fn container(cpu: f64, memory_bytes: u64, state: &str) -> Use {
        let shown =
            ContainerUse { cpu, memory_bytes, state: state.into(), ..ContainerUse::default() };
        Use { lasting: "shop-staging.web".into(), shown }
    }

    #[test]
    fn a_minute_is_given_when_the_next_one_begins_even_if_the_clock_went_back() {
        let mut gathering = Gathering::default();
        assert_eq!(gathering.so_far(), None);
        let one = [container(0.5, 70, "running"), container(9.0, 900, "exited")];
        assert_eq!(gathering.add(&sample(120_000, 0.2, 600), (0, 0), &one), None);
        let two = [container(1.5, 60, "running")];
        assert_eq!(gathering.add(&sample(135_000, 0.4, 300), (10, 5), &two), None);
        let minute = gathering.add(&sample(180_000, 1.0, 900), (1, 1), &[]).expect("it is over");
        assert_eq!((minute.minute, minute.cpu, minute.cpu_max), (2, 0.3, 0.4));
        assert_eq!((minute.memory_used, minute.received, minute.sent), (700, 10, 5));
        assert_eq!(minute.disks, [DiskUse("/".into(), 60)]);
        assert_eq!(minute.containers, [Share("shop-staging.web".into(), 1.0, 70)]);
        assert_eq!(minute.pressure, Some([0.3, 0.0, 0.5]));
        let back = gathering.add(&sample(60_000, 0.5, 500), (2, 2), &[]).expect("it is over");
        assert_eq!((back.minute, back.cpu, back.received), (3, 1.0, 1));
        assert_eq!(gathering.so_far().map(|minute| minute.minute), Some(1));
    }
}
