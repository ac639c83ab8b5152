//! Whether a VM's size fits what it does, by how it did.

const GIB: u64 = 1 << 30;
/// A VM is not judged by less than an hour.
const MINUTES_MIN: u32 = 60;
/// It is not called too large by less than a day: the night is quiet everywhere.
const MINUTES_DAY: u32 = 20 * 60;
/// Disks should last so long.
const DAYS: f64 = 30.0;

/// How a VM did.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Over how many minutes.
    pub minutes: u32,
    /// Memory in all, in bytes.
    pub memory_bytes: u64,
    /// The most memory and swap that were in use, in bytes.
    pub memory_used_bytes: u64,
    /// The share of its CPUs that was busy, which 95% of the minutes stayed under, 0 to 1.
    pub cpu_p95: f64,
    /// The root disk, in bytes.
    pub disk_bytes: u64,
    /// What is in use of it, in bytes.
    pub disk_used_bytes: u64,
    /// Days until it is full, where it fills.
    pub disk_full_in_days: Option<f64>,
}

/// What to do about a size, and what `list_sizes` should be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizing {
    /// The verdict.
    pub verdict: Verdict,
    /// Memory that what runs there needs, with a quarter of room, in whole GB.
    pub memory_gb: u64,
    /// Disk that it needs for a month, with a quarter of room, in whole GB.
    pub disk_gb: u64,
}

/// Whether a size fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is too little to go by.
    TooEarly,
    /// It fits.
    Fits,
    /// What is short: `memory`, `disk`, `cores`.
    TooSmall(Vec<&'static str>),
    /// Half of it would do.
    TooLarge,
}

/// Judges a size.
pub fn judge(seen: &Seen) -> Sizing {
    let memory_gb = gb_up(with_room(seen.memory_used_bytes)).max(1);
    let used = seen.disk_used_bytes;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole GB are wanted"
    )]
    let month = seen.disk_full_in_days.map_or(0, |days| {
        let free = seen.disk_bytes.saturating_sub(used) as f64;
        (free / days.max(0.1) * DAYS) as u64
    });
    let disk_gb = gb_up(with_room(used.saturating_add(month))).max(1);
    let mut short = Vec::new();
    if memory_gb > gb_up(seen.memory_bytes) {
        short.push("memory");
    }
    if disk_gb > gb_up(seen.disk_bytes) {
        short.push("disk");
    }
    if seen.cpu_p95 > 0.85 {
        short.push("cores");
    }
    let roomy = memory_gb * 2 <= gb_up(seen.memory_bytes)
        && seen.cpu_p95 < 0.2
        && disk_gb * 2 <= gb_up(seen.disk_bytes);
    let verdict = if seen.minutes < MINUTES_MIN {
        Verdict::TooEarly
    } else if !short.is_empty() {
        Verdict::TooSmall(short)
    } else if roomy && seen.minutes >= MINUTES_DAY {
        Verdict::TooLarge
    } else {
        Verdict::Fits
    };
    Sizing { verdict, memory_gb, disk_gb }
}

fn with_room(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 4)
}

/// What is sold as 4 GB shows itself as a little less.
fn gb_up(bytes: u64) -> u64 {
    bytes.div_ceil(GIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen {
            minutes: 2880,
            memory_bytes: 4 * GIB - (200 << 20),
            memory_used_bytes: 5 * GIB / 2,
            cpu_p95: 0.5,
            disk_bytes: 40 * GIB,
            disk_used_bytes: 12 * GIB,
            disk_full_in_days: None,
        }
    }

    #[test]
    fn a_size_is_judged_by_what_is_short_and_by_what_lies_idle() {
        assert_eq!(judge(&seen()), Sizing { verdict: Verdict::Fits, memory_gb: 4, disk_gb: 15 });
        let short = Seen { memory_used_bytes: 7 * GIB / 2, cpu_p95: 0.9, ..seen() };
        let judged = judge(&short);
        assert_eq!(judged.verdict, Verdict::TooSmall(vec!["memory", "cores"]));
        assert_eq!(judged.memory_gb, 5);
        // 28 GB in 14 days: 60 more in a month.
        let filling = judge(&Seen { disk_full_in_days: Some(14.0), ..seen() });
        assert_eq!((filling.verdict, filling.disk_gb), (Verdict::TooSmall(vec!["disk"]), 90));
        let idle = Seen { memory_used_bytes: GIB / 2, cpu_p95: 0.03, ..seen() };
        assert_eq!(judge(&idle).verdict, Verdict::TooLarge);
        assert_eq!(judge(&Seen { minutes: 600, ..idle.clone() }).verdict, Verdict::Fits);
        assert_eq!(judge(&Seen { minutes: 59, ..idle }).verdict, Verdict::TooEarly);
    }
}
