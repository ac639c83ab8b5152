//! Many minutes drawn together into few points, and where the disks are heading.

use std::collections::BTreeMap;

use vmkit_agent_protocol::metrics::{
    ContainerTrend, Metrics, MetricsHistory, MetricsRange, POINTS_MAX, Point, Pressure,
};

use super::minute::Minute;

const DAY_MINUTES: f64 = 1440.0;
/// A line through less than an hour says nothing about days.
const TREND_MINUTES: f64 = 60.0;
/// How much of the disk's movement the line must explain, 0 to 1: a disk that goes up and down is
/// not filling.
const TREND_FIT: f64 = 0.3;
/// What is further away is no news.
const TREND_DAYS: f64 = 365.0;

/// Draws what is kept, and the minute under way, together.
pub(super) fn draw(
    mut now: Metrics,
    mut minutes: Vec<Minute>,
    so_far: Option<Minute>,
    range: &MetricsRange,
) -> MetricsHistory {
    if let Some(so_far) = so_far {
        minutes.retain(|minute| minute.minute != so_far.minute);
        minutes.push(so_far);
    }
    for disk in &mut now.disks {
        let line = Line::through(&minutes, &disk.mount);
        disk.full_in_days = line.days_until_full(disk.free_bytes);
    }
    let since = range.since_ms.map_or(i64::MIN, |ms| ms.div_euclid(60_000));
    let until = range.until_ms.map_or(i64::MAX, |ms| (ms - 1).div_euclid(60_000));
    minutes.retain(|minute| (since..=until).contains(&minute.minute));
    minutes.sort_by_key(|minute| minute.minute);
    let mut shares: Vec<f32> = minutes.iter().map(|minute| minute.cpu).collect();
    shares.sort_by(f32::total_cmp);
    MetricsHistory {
        covered_from_ms: minutes.first().map(|minute| minute.minute * 60_000),
        minutes: u32::try_from(minutes.len()).unwrap_or(u32::MAX),
        cpu_mean: mean(minutes.iter().map(|minute| minute.cpu)),
        cpu_p95: shares.get(shares.len() * 95 / 100).copied().map_or(0.0, f64::from),
        memory_used_max_bytes: most(&minutes, |minute| minute.memory_used),
        swap_used_max_bytes: most(&minutes, |minute| minute.swap_used),
        points: points(&minutes, range.points),
        containers: containers(&minutes),
        now,
    }
}

fn points(minutes: &[Minute], wanted: u32) -> Vec<Point> {
    let (Some(first), Some(last)) = (minutes.first(), minutes.last()) else { return Vec::new() };
    let wanted = i64::from(if wanted == 0 { POINTS_MAX } else { wanted.min(POINTS_MAX) });
    let span = (last.minute - first.minute + 1 + wanted - 1) / wanted;
    minutes
        .chunk_by(|a, b| (a.minute - first.minute) / span == (b.minute - first.minute) / span)
        .map(point)
        .collect()
}

fn point(minutes: &[Minute]) -> Point {
    let seconds = 60 * minutes.len() as u64;
    let sum = |of: fn(&Minute) -> u64| minutes.iter().map(of).sum::<u64>();
    let stalled: Vec<[f32; 3]> = minutes.iter().filter_map(|minute| minute.pressure).collect();
    let stall = |which: usize| mean(stalled.iter().map(|shares| shares[which]));
    Point {
        time_ms: minutes[0].minute * 60_000,
        cpu: mean(minutes.iter().map(|minute| minute.cpu)),
        cpu_max: highest(minutes.iter().map(|minute| minute.cpu_max)),
        load: highest(minutes.iter().map(|minute| minute.load)),
        memory_used_bytes: most(minutes, |minute| minute.memory_used),
        disk_used_bytes: minutes
            .last()
            .and_then(|minute| minute.disks.first())
            .map_or(0, |disk| disk.1),
        received_bytes_s: sum(|minute| minute.received) / seconds,
        sent_bytes_s: sum(|minute| minute.sent) / seconds,
        pressure: (!stalled.is_empty()).then(|| Pressure {
            cpu: stall(0),
            memory: stall(1),
            io: stall(2),
        }),
    }
}

fn containers(minutes: &[Minute]) -> Vec<ContainerTrend> {
    let mut by_name: BTreeMap<&str, (Vec<f32>, u64)> = BTreeMap::new();
    for share in minutes.iter().flat_map(|minute| &minute.containers) {
        let (cpus, memory) = by_name.entry(&share.0).or_default();
        cpus.push(share.1);
        *memory = (*memory).max(share.2);
    }
    let mut trends: Vec<ContainerTrend> = by_name
        .into_iter()
        .map(|(name, (cpus, memory_max_bytes))| ContainerTrend {
            name: name.to_owned(),
            cpu_mean: mean(cpus.iter().copied()),
            cpu_max: highest(cpus.iter().copied()),
            memory_max_bytes,
        })
        .collect();
    trends.sort_by_key(|trend| std::cmp::Reverse(trend.memory_max_bytes));
    trends
}

fn most(minutes: &[Minute], of: impl Fn(&Minute) -> u64) -> u64 {
    minutes.iter().map(of).max().unwrap_or(0)
}

fn highest(numbers: impl Iterator<Item = f32>) -> f64 {
    f64::from(numbers.fold(0.0, f32::max))
}

fn mean(numbers: impl Iterator<Item = f32>) -> f64 {
    let (mut sum, mut count) = (0.0, 0_u32);
    for number in numbers {
        sum += f64::from(number);
        count += 1;
    }
    // Four digits behind the point, as the minutes have them.
    if count == 0 { 0.0 } else { (sum / f64::from(count) * 10_000.0).round() / 10_000.0 }
}

/// The straight line that a disk's use follows most closely (least squares).
#[derive(Debug, Default)]
struct Line {
    bytes_per_day: f64,
    fit: f64,
    minutes: f64,
}

impl Line {
    #[expect(clippy::cast_precision_loss, reason = "bytes and minutes relative to the first")]
    fn through(minutes: &[Minute], mount: &str) -> Self {
        let mut first = None;
        let points: Vec<(f64, f64)> = minutes
            .iter()
            .filter_map(|minute| {
                let used = minute.disks.iter().find(|disk| disk.0 == mount)?.1;
                let &mut (at, base) = first.get_or_insert((minute.minute, used));
                Some(((minute.minute - at) as f64 / DAY_MINUTES, used as f64 - base as f64))
            })
            .collect();
        let count = points.len() as f64;
        let (mean_x, mean_y) = points
            .iter()
            .fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for (x, y) in &points {
            let (x, y) = (x - mean_x, y - mean_y);
            (xx, xy, yy) = (xx + x * x, xy + x * y, yy + y * y);
        }
        if xx <= 0.0 || yy <= 0.0 {
            return Self::default();
        }
        Self { bytes_per_day: xy / xx, fit: xy * xy / (xx * yy), minutes: count }
    }

    #[expect(clippy::cast_precision_loss, reason = "days need no more than 52 bits")]
    fn days_until_full(&self, free_bytes: u64) -> Option<f64> {
        let fills =
            self.minutes >= TREND_MINUTES && self.fit >= TREND_FIT && self.bytes_per_day > 0.0;
        let days = free_bytes as f64 / self.bytes_per_day;
        (fills && days <= TREND_DAYS).then_some((days * 10.0).round() / 10.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::minute::{DiskUse, Share};
    use super::*;
    use vmkit_agent_protocol::metrics::Disk;

    const GB: u64 = 1 << 30;

    fn minutes(count: i64, used: impl Fn(i64) -> u64) -> Vec<Minute> {
        (0..count)
            .map(|minute| Minute {
                minute,
                cpu: if minute % 10 == 0 { 0.9 } else { 0.1 },
                cpu_max: 0.95,
                memory_used: minute.unsigned_abs(),
                received: 600,
                disks: vec![DiskUse("/".into(), used(minute))],
                containers: vec![Share("shop.web".into(), 0.5, 100)],
                ..Minute::default()
            })
            .collect()
    }

    fn days(minutes: Vec<Minute>) -> Option<f64> {
        let root = Disk { mount: "/".into(), free_bytes: 10 * GB, ..Disk::default() };
        let now = Metrics { disks: vec![root], ..Metrics::default() };
        draw(now, minutes, None, &MetricsRange::default()).now.disks[0].full_in_days
    }

    #[test]
    fn the_days_until_a_disk_is_full_follow_its_trend_and_no_noise() {
        let gb_a_day = |minute: i64| minute.unsigned_abs() * GB / 1440;
        assert_eq!(days(minutes(2880, gb_a_day)), Some(10.0));
        // With a wave of 100 MB on it.
        let wave = |minute: i64| gb_a_day(minute) + (minute.unsigned_abs() % 60) * (100 << 20) / 60;
        assert!((days(minutes(2880, wave)).expect("it fills") - 10.0).abs() < 0.5);
        assert_eq!(days(minutes(2880, |_| GB)), None, "it stands still");
        assert_eq!(days(minutes(2880, |m| GB * 5 - gb_a_day(m))), None, "it empties");
        assert_eq!(days(minutes(2880, |m| GB + (m.unsigned_abs() % 2) * GB)), None, "it trembles");
        assert_eq!(days(minutes(30, gb_a_day)), None, "half an hour is no trend");
        assert_eq!(days(minutes(2880, |m| m.unsigned_abs())), None, "in a hundred years");
        assert_eq!(days(Vec::new()), None);
    }

    #[test]
    fn few_points_cover_all_minutes_of_the_range() {
        let range =
            MetricsRange { since_ms: Some(60 * 60_000), until_ms: Some(180 * 60_000), points: 7 };
        let drawn = draw(Metrics::default(), minutes(500, |m| m.unsigned_abs()), None, &range);
        assert_eq!((drawn.minutes, drawn.covered_from_ms), (120, Some(60 * 60_000)));
        assert_eq!(drawn.points.len(), 7);
        assert_eq!((drawn.points[0].time_ms, drawn.points[1].time_ms), (3_600_000, 4_680_000));
        assert_eq!(
            (drawn.points[0].memory_used_bytes, drawn.points[6].memory_used_bytes),
            (77, 179)
        );
        assert_eq!((drawn.points[6].disk_used_bytes, drawn.points[6].received_bytes_s), (179, 10));
        assert_eq!((drawn.cpu_mean, drawn.memory_used_max_bytes), (0.18, 179));
        assert!(drawn.cpu_p95 > 0.8, "{}", drawn.cpu_p95);
        let trend = &drawn.containers[0];
        assert_eq!(
            (trend.name.as_str(), trend.cpu_mean, trend.memory_max_bytes),
            ("shop.web", 0.5, 100)
        );
        let all = MetricsRange::default();
        assert_eq!(draw(Metrics::default(), minutes(2880, |_| 0), None, &all).points.len(), 240);
        assert_eq!(draw(Metrics::default(), minutes(3, |_| 0), None, &all).points.len(), 3);
        assert_eq!(draw(Metrics::default(), Vec::new(), None, &all).points, []);
    }

    #[test]
    fn a_minute_that_was_put_down_and_goes_on_counts_once() {
        let so_far = Minute { minute: 2, cpu: 1.0, ..Minute::default() };
        let drawn =
            draw(Metrics::default(), minutes(3, |_| 0), Some(so_far), &MetricsRange::default());
        assert_eq!((drawn.minutes, drawn.points[2].cpu), (3, 1.0));
    }
}
