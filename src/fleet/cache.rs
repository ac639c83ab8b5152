//! The log cache: bounded, sorted, without doubles. It is only a cache: the lines are on the VMs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use vmkit_agent_protocol::logs::{Batch, ResumePoint, Source, Stream};

use crate::domain::ids::VmId;

/// What a line costs beside its text, in bytes, about.
const LINE_BYTES: usize = 96;
/// Containers whose position is remembered per VM.
const POSITIONS: usize = 512;
/// Gaps that are remembered per stream.
const GAPS: usize = 64;

/// How much the cache holds.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Lines of one stream (a service's role on a VM).
    pub lines: usize,
    /// Bytes of one stream.
    pub stream_bytes: usize,
    /// Bytes of all streams together.
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { lines: 20_000, stream_bytes: 4 << 20, bytes: 256 << 20 }
    }
}

/// What a line is known by; its order is the order in which lines are shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LineKey {
    pub(super) time_ns: i64,
    pub(super) container: Arc<str>,
    pub(super) stream: Stream,
    pub(super) nth: u32,
}

/// Which lines of a stream are meant, by the VM's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) since_ns: i64,
    pub(super) until_ns: i64,
}

/// A line's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) text: Arc<str>,
    /// It goes on in the next line.
    pub(super) more: bool,
}

/// One cached line with where it came from.
pub(super) type Found = (LineKey, Arc<Source>, Kept);

/// All cached lines.
pub(super) struct LogCache {
    bounds: Bounds,
    streams: HashMap<StreamKey, Cached>,
    positions: HashMap<VmId, Positions>,
    bytes: usize,
}

/// By container and stream: the last line's time, and how many lines have that time.
type Positions = HashMap<(Arc<str>, Stream), (i64, u32)>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct StreamKey {
    vm: VmId,
    service: String,
    role: Option<String>,
}

#[derive(Default)]
struct Cached {
    lines: BTreeMap<LineKey, (Arc<Source>, Kept)>,
    bytes: usize,
    /// How many lines have been dropped for want of room, and the time of the last of them.
    evicted: u64,
    evicted_to_ns: i64,
    /// Times of first lines after a hole, and how many lines are missing: 1 where nobody knows.
    gaps: VecDeque<(i64, u64)>,
}

/// What the cache has for a query.
#[derive(Debug, Default)]
pub(super) struct Cut {
    /// The newest lines that fit, oldest first within each stream.
    pub(super) lines: Vec<Found>,
    /// True where older lines fit too, and were left out for the limit.
    pub(super) more: bool,
    /// Lines of the span that the cache had and dropped.
    pub(super) evicted: u64,
    /// Lines within the span that never came; a hole in the VM's own log counts as one.
    pub(super) gaps: u64,
}

impl LogCache {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, streams: HashMap::new(), positions: HashMap::new(), bytes: 0 }
    }

    /// Takes what a follower sent, and moves the place to resume from.
    pub(super) fn add(&mut self, vm: VmId, batch: Batch) {
        let source = Arc::new(batch.source);
        let container: Arc<str> = source.container.as_str().into();
        let key = StreamKey { vm, service: source.service.clone(), role: source.role.clone() };
        let cached = self.streams.entry(key).or_default();
        let missing = batch.dropped.max(u64::from(batch.gap));
        let at_ns = batch.lines.first().map(|line| line.time_ns).or(batch.dropped_to_ns);
        if let Some(at_ns) = at_ns.filter(|_| missing > 0) {
            cached.gaps.push_back((at_ns, missing));
            if cached.gaps.len() > GAPS {
                cached.gaps.pop_front();
            }
        }
        let positions = self.positions.entry(vm).or_default();
        let bytes_before = cached.bytes;
        for line in batch.lines {
            let place = (Arc::clone(&container), line.stream);
            positions.insert(place, (line.time_ns, line.nth + 1));
            let key = LineKey {
                time_ns: line.time_ns,
                container: Arc::clone(&container),
                stream: line.stream,
                nth: line.nth,
            };
            let size = line.text.len() + LINE_BYTES;
            let kept = Kept { text: line.text.into(), more: line.more };
            if cached.lines.insert(key, (Arc::clone(&source), kept)).is_none() {
                cached.bytes += size;
            }
        }
        while cached.lines.len() > self.bounds.lines || cached.bytes > self.bounds.stream_bytes {
            cached.evict();
        }
        self.bytes = self.bytes + cached.bytes - bytes_before;
        forget_oldest(positions);
        self.make_room();
    }

    /// Where a follower of this VM goes on.
    pub(super) fn positions(&self, vm: VmId) -> Vec<ResumePoint> {
        let positions = self.positions.get(&vm).into_iter().flatten();
        positions
            .map(|((container, stream), &(time_ns, count))| ResumePoint {
                container: container.to_string(),
                stream: *stream,
                time_ns,
                count,
            })
            .collect()
    }

    /// The newest `limit` lines of a service's streams within a span that `fits` likes.
    pub(super) fn find(
        &self,
        vm: VmId,
        service: &str,
        role: Option<&str>,
        span: Span,
        limit: usize,
        fits: impl Fn(&str) -> bool,
    ) -> Cut {
        let mut cut = Cut { lines: Vec::new(), more: false, evicted: 0, gaps: 0 };
        let wanted = |key: &StreamKey| {
            key.vm == vm
                && key.service == service
                && role.is_none_or(|role| key.role.as_deref() == Some(role))
        };
        for (_, cached) in self.streams.iter().filter(|(key, _)| wanted(key)) {
            let mut fitting = cached
                .within(span)
                .filter(|(_, (_, kept))| fits(&kept.text))
                .map(|(key, (source, kept))| (key.clone(), Arc::clone(source), kept.clone()));
            let mut lines: Vec<Found> = fitting.by_ref().take(limit).collect();
            cut.more |= fitting.next().is_some();
            lines.reverse();
            cut.lines.append(&mut lines);
            if cached.evicted > 0 && span.since_ns <= cached.evicted_to_ns {
                cut.evicted += cached.evicted;
            }
            let inside = |gap: &&(i64, u64)| (span.since_ns..span.until_ns).contains(&gap.0);
            cut.gaps += cached.gaps.iter().filter(inside).map(|gap| gap.1).sum::<u64>();
        }
        cut
    }

    pub(super) fn forget(&mut self, vm: VmId) {
        self.positions.remove(&vm);
        let gone = self.streams.extract_if(|key, _| key.vm == vm);
        self.bytes -= gone.map(|(_, cached)| cached.bytes).sum::<usize>();
    }

    /// Takes from the largest stream while all together are too large.
    fn make_room(&mut self) {
        while self.bytes > self.bounds.bytes {
            let Some(largest) = self.streams.values_mut().max_by_key(|cached| cached.bytes) else {
                return;
            };
            let before = largest.bytes;
            // A sixteenth at a time: finding the largest has its price.
            let target = before - before / 16;
            while largest.bytes > target && largest.evict() {}
            self.bytes -= before - largest.bytes;
            if before == largest.bytes {
                return;
            }
        }
    }
}

impl Cached {
    /// The lines of a span, newest first.
    fn within(&self, span: Span) -> impl Iterator<Item = (&LineKey, &(Arc<Source>, Kept))> {
        let edge =
            |time_ns| LineKey { time_ns, container: Arc::from(""), stream: Stream::Stdout, nth: 0 };
        let until_ns = span.until_ns.max(span.since_ns);
        self.lines.range(edge(span.since_ns)..edge(until_ns)).rev()
    }

    /// Drops the oldest line; false where there is none.
    fn evict(&mut self) -> bool {
        let Some((key, (_, kept))) = self.lines.pop_first() else { return false };
        self.bytes -= kept.text.len() + LINE_BYTES;
        self.evicted += 1;
        self.evicted_to_ns = self.evicted_to_ns.max(key.time_ns);
        true
    }
}

/// Containers come and go with every deploy; those that were silent longest are gone.
fn forget_oldest(positions: &mut Positions) {
    while positions.len() > POSITIONS {
        let oldest = positions.iter().min_by_key(|(_, place)| **place).map(|(key, _)| key.clone());
        let Some(oldest) = oldest else { return };
        positions.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmkit_agent_protocol::logs::Line;

    const ALL: Span = Span { since_ns: i64::MIN, until_ns: i64::MAX };

    fn batch(role: &str, times: std::ops::Range<i64>) -> Batch {
        let source = Source {
            container: format!("c-{role}"),
            service: "shop".into(),
            role: Some(role.into()),
            ..Source::default()
        };
        let line = |time_ns| Line {
            time_ns,
            nth: 0,
            stream: Stream::Stdout,
            text: format!("{role} {time_ns}"),
            more: false,
        };
        Batch { source, lines: times.map(line).collect(), ..Batch::default() }
    }

    fn texts(cut: &Cut) -> Vec<String> {
        cut.lines.iter().map(|(_, _, kept)| kept.text.to_string()).collect()
    }

    #[test]
    fn a_stream_is_bounded_in_lines_and_says_what_it_dropped() {
        let vm = VmId::generate();
        let mut cache = LogCache::new(Bounds { lines: 10, ..Bounds::default() });
        cache.add(vm, batch("web", 0..25));
        let cut = cache.find(vm, "shop", None, ALL, 100, |_| true);
        assert_eq!(texts(&cut), (15..25).map(|n| format!("web {n}")).collect::<Vec<_>>());
        assert_eq!((cut.evicted, cut.more), (15, false));
        let late = Span { since_ns: 20, until_ns: 22 };
        let cut = cache.find(vm, "shop", None, late, 100, |_| true);
        assert_eq!((texts(&cut), cut.evicted), (vec!["web 20".into(), "web 21".into()], 0));
    }

    #[test]
    fn streams_are_bounded_in_bytes_one_by_one_and_together() {
        let vm = VmId::generate();
        let line = "web 1000".len() + LINE_BYTES;
        let bounds = Bounds { lines: usize::MAX, stream_bytes: 50 * line, bytes: 60 * line };
        let mut cache = LogCache::new(bounds);
        cache.add(vm, batch("web", 1000..1100));
        assert_eq!(cache.bytes, 50 * line);
        cache.add(vm, batch("job", 1000..1100));
        let total: usize = cache.streams.values().map(|cached| cached.bytes).sum();
        assert_eq!(cache.bytes, total);
        assert!(total <= 60 * line, "{total}");
        cache.forget(vm);
        assert_eq!((cache.bytes, cache.positions(vm).len()), (0, 0));
    }

    #[test]
    fn the_same_line_twice_is_one_line_and_the_position_is_the_last() {
        let vm = VmId::generate();
        let mut cache = LogCache::new(Bounds::default());
        cache.add(vm, batch("web", 0..5));
        cache.add(vm, batch("web", 3..8));
        let cut = cache.find(vm, "shop", Some("web"), ALL, 100, |_| true);
        assert_eq!(cut.lines.len(), 8);
        let positions = cache.positions(vm);
        assert_eq!(positions.len(), 1);
        assert_eq!((positions[0].time_ns, positions[0].count), (7, 1));
    }

    #[test]
    fn lines_that_the_agent_dropped_are_counted_where_they_are_missing() {
        let vm = VmId::generate();
        let mut cache = LogCache::new(Bounds::default());
        cache.add(vm, batch("web", 0..5));
        cache.add(vm, Batch { dropped: 40, ..batch("web", 45..50) });
        cache.add(vm, Batch { gap: true, ..batch("web", 60..70) });
        assert_eq!(cache.find(vm, "shop", None, ALL, 100, |_| true).gaps, 41);
        let before = Span { since_ns: 0, until_ns: 45 };
        assert_eq!(cache.find(vm, "shop", None, before, 100, |_| true).gaps, 0);
        // Of one that has said nothing since, there is no line to hang them on.
        let silent = Batch { dropped: 7, dropped_to_ns: Some(30), ..batch("web", 0..0) };
        cache.add(vm, silent);
        assert_eq!(cache.find(vm, "shop", None, before, 100, |_| true).gaps, 7);
    }

    #[test]
    fn a_limit_keeps_the_newest_that_fit() {
        let vm = VmId::generate();
        let mut cache = LogCache::new(Bounds::default());
        cache.add(vm, batch("web", 0..100));
        let cut = cache.find(vm, "shop", None, ALL, 2, |text| text.ends_with('7'));
        assert_eq!(texts(&cut), ["web 87", "web 97"]);
        assert!(cut.more);
        assert!(cache.find(VmId::generate(), "shop", None, ALL, 2, |_| true).lines.is_empty());
        assert!(cache.find(vm, "shop", Some("job"), ALL, 2, |_| true).lines.is_empty());
    }
}
