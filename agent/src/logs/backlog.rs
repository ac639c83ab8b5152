//! What waits between the containers' logs and a gateway: bounded, the newest first to stay.
//!
//! While the gateway takes batches, readers wait for room and nothing is lost. Where it takes none
//! for long, they go on, slowly, and what is oldest goes: it is counted and said.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use vmkit_agent_protocol::logs::{Batch, Line, Source};

/// What all backlogs of an agent hold together, in bytes.
pub(crate) const BYTES: usize = 8 << 20;
/// What goes out in one batch where many small ones wait, in bytes.
const TOGETHER_BYTES: usize = 64 * 1024;
/// What an allocation costs beside what it holds, in bytes, about.
const ALLOCATION_BYTES: usize = 24;
/// A batch joins one of the same container among so many that came last.
const NEAR: usize = 16;
/// A gateway that takes nothing for so long is stalled.
const STALLED: Duration = Duration::from_secs(5);
/// While it is, readers pause after so many bytes: a flood costs little then.
const STALLED_BYTES: usize = 128 * 1024;
/// How long they pause.
const STALLED_PAUSE: Duration = Duration::from_millis(10);

/// How many backlogs there are: they share the room.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room(Arc<AtomicUsize>);

impl Room {
    fn each(&self) -> usize {
        BYTES / self.0.load(Ordering::Relaxed).max(1)
    }
}

/// One stream's backlog.
#[derive(Debug)]
pub(super) struct Backlog {
    room: Room,
    waiting: Mutex<Waiting>,
    /// A batch has come.
    come: Notify,
    /// A batch has gone.
    gone: Notify,
}

#[derive(Debug)]
struct Waiting {
    batches: VecDeque<Held>,
    /// What all of them take.
    bytes: usize,
    /// By container, what was dropped since the last batch of it went out.
    dropped: HashMap<String, Lost>,
    taken_at: Instant,
    /// Bytes that went since the gateway took something; and since readers last paused.
    lost: usize,
    unpaused: usize,
}

/// A batch that waits.
#[derive(Debug)]
struct Held {
    batch: Batch,
    /// What its strings take, in bytes.
    strings: usize,
}

impl Held {
    fn new(batch: Batch) -> Self {
        let Source { container, name, service, role, version } = &batch.source;
        let source = [Some(container), Some(name), Some(service), role.as_ref(), version.as_ref()];
        let strings = source.into_iter().flatten().map(string_bytes).sum::<usize>()
            + batch.lines.iter().map(|line| string_bytes(&line.text)).sum::<usize>();
        Self { batch, strings }
    }

    /// What it takes in memory, not its text alone: a line may be short, and a batch have one. The
    /// queue of them may be half empty.
    fn bytes(&self) -> usize {
        let lines = self.batch.lines.capacity() * size_of::<Line>() + ALLOCATION_BYTES;
        2 * size_of::<Self>() + lines + self.strings
    }

    /// Docker gives a log that is followed line by line: what waits of one container is together.
    fn takes(&self, other: &Self) -> bool {
        self.batch.source == other.batch.source
            && !other.batch.gap
            && other.batch.dropped == 0
            && other.batch.dropped_to_ns.is_none()
            && self.bytes() + other.bytes() <= TOGETHER_BYTES
    }

    fn join(&mut self, other: Self) {
        self.strings +=
            other.batch.lines.iter().map(|line| string_bytes(&line.text)).sum::<usize>();
        self.batch.lines.extend(other.batch.lines);
    }
}

fn string_bytes(text: &String) -> usize {
    text.capacity() + ALLOCATION_BYTES
}

/// Lines of a container that are not waiting any more.
#[derive(Debug)]
struct Lost {
    source: Source,
    lines: u64,
    last_ns: Option<i64>,
}

impl Backlog {
    pub(super) fn new(room: Room) -> Self {
        room.0.fetch_add(1, Ordering::Relaxed);
        let waiting = Mutex::new(Waiting::new(Instant::now()));
        Self { room, waiting, come: Notify::new(), gone: Notify::new() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch once there is room, or once it is clear that there will be none.
    pub(super) async fn push(&self, mut batch: Batch) {
        loop {
            let gone = self.gone.notified();
            let offered = self.waiting().offer(batch, Instant::now(), self.room.each());
            match offered {
                Offered::Taken => break,
                Offered::Crowded => {
                    tokio::time::sleep(STALLED_PAUSE).await;
                    break;
                }
                Offered::Wait(back, until) => {
                    batch = *back;
                    tokio::select! {
                        () = gone => {}
                        () = tokio::time::sleep_until(until) => {}
                    }
                }
            }
        }
        self.come.notify_one();
    }

    /// The oldest batch.
    pub(super) async fn take(&self) -> Batch {
        loop {
            let come = self.come.notified();
            if let Some(batch) = self.waiting().take(Instant::now()) {
                self.gone.notify_waiters();
                return batch;
            }
            come.await;
        }
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.room.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What became of a batch.
#[derive(Debug)]
enum Offered {
    Taken,
    /// It was taken, and so much that was older went that it is time to pause.
    Crowded,
    /// There is no room now; by this time it is clear whether there will be.
    Wait(Box<Batch>, Instant),
}

impl Waiting {
    fn new(now: Instant) -> Self {
        let (batches, dropped) = (VecDeque::new(), HashMap::new());
        Self { batches, bytes: 0, dropped, taken_at: now, lost: 0, unpaused: 0 }
    }

    fn offer(&mut self, batch: Batch, now: Instant, room: usize) -> Offered {
        let held = Held::new(batch);
        let cost = held.bytes();
        let fits = self.bytes + cost <= room || self.batches.is_empty();
        let stalled_at = self.taken_at + STALLED;
        if !fits && now < stalled_at {
            return Offered::Wait(Box::new(held.batch), stalled_at);
        }
        if !fits {
            if self.lost == 0 {
                tracing::warn!("a gateway takes no lines; the oldest go");
            }
            self.make_room(room.saturating_sub(cost));
        }
        self.hold(held);
        if self.unpaused < STALLED_BYTES {
            return Offered::Taken;
        }
        self.unpaused = 0;
        Offered::Crowded
    }

    fn hold(&mut self, held: Held) {
        let container = &held.batch.source.container;
        let mut near = self.batches.iter_mut().rev().take(NEAR);
        match near.find(|near| near.batch.source.container == *container) {
            Some(last) if last.takes(&held) => {
                let before = last.bytes();
                last.join(held);
                self.bytes += last.bytes() - before;
            }
            _ => {
                self.bytes += held.bytes();
                self.batches.push_back(held);
            }
        }
    }

    fn take(&mut self, now: Instant) -> Option<Batch> {
        self.taken_at = now;
        self.lost = 0;
        let Some(held) = self.batches.pop_front() else { return self.silent() };
        self.bytes -= held.bytes();
        let mut batch = held.batch;
        let lost = self.dropped.remove(&batch.source.container);
        batch.dropped += lost.map_or(0, |lost| lost.lines);
        Some(batch)
    }

    /// What was dropped of a container that has said nothing since.
    fn silent(&mut self) -> Option<Batch> {
        let container = self.dropped.keys().next()?.clone();
        let Lost { source, lines, last_ns } = self.dropped.remove(&container)?;
        Some(Batch { source, dropped: lines, dropped_to_ns: last_ns, ..Batch::default() })
    }

    fn make_room(&mut self, bytes: usize) {
        while self.bytes > bytes {
            let Some(oldest) = self.batches.pop_front() else { return };
            let cost = oldest.bytes();
            self.bytes -= cost;
            self.lost += cost;
            self.unpaused += cost;
            let Batch { source, lines, dropped, .. } = oldest.batch;
            let lost = self.dropped.entry(source.container.clone()).or_insert(Lost {
                source,
                lines: 0,
                last_ns: None,
            });
            lost.lines += dropped + lines.len() as u64;
            lost.last_ns = lines.last().map(|line| line.time_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmkit_agent_protocol::logs::Stream;

    fn batch(container: &str, first: i64, lines: i64) -> Batch {
        let source = Source { container: container.into(), ..Source::default() };
        let line = |time_ns| Line {
            time_ns,
            nth: 0,
            stream: Stream::Stdout,
            text: "x".repeat(1000),
            more: false,
        };
        Batch { source, lines: (first..first + lines).map(line).collect(), ..Batch::default() }
    }

    #[test]
    fn small_batches_of_one_container_go_out_together_and_those_of_two_do_not() {
        let now = Instant::now();
        let mut waiting = Waiting::new(now);
        for (container, first) in [("a", 1), ("a", 2), ("b", 1), ("a", 3), ("a", 4)] {
            drop(waiting.offer(batch(container, first, 1), now, BYTES));
        }
        drop(waiting.offer(Batch { gap: true, ..batch("a", 5, 1) }, now, BYTES));
        let mut taken = Vec::new();
        while let Some(batch) = waiting.take(now) {
            taken.push(batch.lines.iter().map(|line| line.time_ns).collect::<Vec<_>>());
        }
        assert_eq!(taken, [vec![1, 2, 3, 4], vec![1], vec![5]]);
        assert_eq!(waiting.bytes, 0);
    }

    #[test]
    fn a_gateway_that_is_gone_for_an_hour_finds_the_newest_8_mib_and_the_number_of_the_rest() {
        let begun = Instant::now();
        let mut waiting = Waiting::new(begun);
        // 100 MB in an hour, and nobody takes any.
        let (mut now, mut pushed) = (begun, 0);
        while now < begun + Duration::from_secs(3600) {
            match waiting.offer(batch("a", pushed, 50), now, BYTES) {
                Offered::Wait(_, until) => now = until,
                Offered::Taken | Offered::Crowded => {
                    pushed += 50;
                    now += Duration::from_millis(1800);
                }
            }
            assert!(waiting.bytes <= BYTES);
        }
        assert!(waiting.bytes > BYTES - 2 * 50 * 1064);
        let first = waiting.take(now).expect("a batch");
        let kept = first.lines[0].time_ns;
        assert_eq!(i64::try_from(first.dropped), Ok(kept), "what is not there was counted");
        assert!(kept > pushed / 2);
        let mut next = kept + 50;
        while let Some(batch) = waiting.take(now) {
            assert_eq!((batch.lines[0].time_ns, batch.dropped), (next, 0));
            next += 50;
        }
        assert_eq!(next, pushed, "to the newest");
    }

    #[test]
    fn a_slow_gateway_makes_readers_wait_and_loses_nothing() {
        let mut now = Instant::now();
        let mut waiting = Waiting::new(now);
        let (mut offered, mut taken, mut waits) = (0, 0, 0);
        while taken < 400 * 50 {
            if offered < 400 * 50 {
                match waiting.offer(batch("a", offered, 50), now, BYTES) {
                    Offered::Taken => {
                        offered += 50;
                        continue;
                    }
                    Offered::Wait(..) => waits += 1,
                    Offered::Crowded => panic!("something was dropped"),
                }
            }
            now += STALLED / 2;
            let batch = waiting.take(now).expect("a batch");
            assert_eq!((batch.lines[0].time_ns, batch.dropped), (taken, 0));
            taken += 50;
        }
        assert!(waits > 100, "{waits}");
    }

    #[tokio::test]
    async fn what_is_pushed_is_taken_in_order_and_two_gateways_share_the_room() {
        let room = Room::default();
        let (one, two) = (Backlog::new(room.clone()), Backlog::new(room.clone()));
        assert_eq!(room.each(), BYTES / 2);
        drop(two);
        assert_eq!(room.each(), BYTES);
        let pushing = async {
            for first in 0..400 {
                one.push(batch("a", first * 50, 50)).await;
            }
        };
        let taking = async {
            for first in 0..400 {
                assert_eq!(one.take().await.lines[0].time_ns, first * 50);
            }
        };
        tokio::join!(pushing, taking);
    }

    #[test]
    fn dropped_lines_are_counted_by_container_one_that_is_silent_since_included() {
        let begun = Instant::now();
        let (mut waiting, now) = (Waiting::new(begun), begun + STALLED);
        for (container, first) in [("silent", 0), ("a", 0), ("b", 0), ("a", 50), ("b", 50)] {
            assert!(!matches!(
                waiting.offer(batch(container, first, 50), now, 120_000),
                Offered::Wait(..)
            ));
        }
        let next = |waiting: &mut Waiting| {
            let batch = waiting.take(now)?;
            let time_ns = batch.lines.first().map(|line| line.time_ns).or(batch.dropped_to_ns);
            Some((batch.source.container, time_ns?, batch.dropped))
        };
        assert_eq!(next(&mut waiting), Some(("a".to_owned(), 50, 50)));
        assert_eq!(next(&mut waiting), Some(("b".to_owned(), 50, 50)));
        assert_eq!(next(&mut waiting), Some(("silent".to_owned(), 49, 50)));
        assert_eq!(next(&mut waiting), None);
    }
}
