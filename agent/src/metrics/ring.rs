//! Two days of minutes in a file of fixed size.
//!
//! Each minute has its place by its number, each place a checksum: there is no head to lose, a torn
//! write costs one minute, and a clock that jumps leaves holes and nothing else. The room is taken
//! when the file is made, so a disk that fills up later does not stop it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use super::minute::Minute;
use crate::host::Host;

/// How many minutes are kept: 48 hours.
pub const MINUTES: i64 = 48 * 60;
/// A place on the disk, in bytes.
const PLACE: usize = 1024;
/// Before the content of a place: its length and its checksum.
const HEAD: usize = 8;
/// The first place says what the file is.
const MAGIC: &[u8] = b"vmkit minutes 1\n";
const FILE: &str = "var/lib/vmkit/metrics.minutes";

/// The file.
#[derive(Debug)]
pub struct Ring {
    file: File,
}

impl Ring {
    /// Opens the host's file, or makes it; one of another make is begun anew.
    ///
    /// # Errors
    /// As the file system has it.
    pub fn open(host: &Host) -> io::Result<Self> {
        let path = host.path(FILE);
        host.make_dir(path.parent().unwrap_or(host.root()), 0o700)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        let mut head = [0; MAGIC.len()];
        if file.read_exact_at(&mut head, 0).is_err() || head != MAGIC {
            file.set_len(0)?;
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size())?;
            // Only once the room is there: half of a file is not taken for one.
            file.write_all_at(MAGIC, 0)?;
            file.sync_all()?;
        }
        Ok(Self { file })
    }

    /// Puts a minute in its place. Containers that do not fit are left out, the smallest first.
    ///
    /// # Errors
    /// As the file system has it.
    pub fn write(&mut self, minute: &Minute) -> io::Result<()> {
        let mut fitting = minute.clone();
        let mut text = serde_json::to_vec(&fitting)?;
        while text.len() > PLACE - HEAD && fitting.containers.pop().is_some() {
            text = serde_json::to_vec(&fitting)?;
        }
        if text.len() > PLACE - HEAD {
            fitting.disks.truncate(1);
            text = serde_json::to_vec(&fitting)?;
        }
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let mut place = Vec::with_capacity(PLACE);
        place.extend(length.to_le_bytes());
        place.extend(crc32fast::hash(&text).to_le_bytes());
        place.extend(&text);
        place.resize(PLACE, 0);
        self.file.write_all_at(&place, offset(minute.minute))?;
        self.file.sync_data()
    }

    /// The minutes of the last two days before `now_ms`, oldest first. What is torn, or of another
    /// time (a clock was wrong), is not among them.
    pub fn read(&self, now_ms: i64) -> Vec<Minute> {
        let now = now_ms.div_euclid(60_000);
        let mut place = [0; PLACE];
        (now - MINUTES + 1..=now)
            .filter_map(|minute| {
                self.file.read_exact_at(&mut place, offset(minute)).ok()?;
                parse(&place).filter(|found| found.minute == minute)
            })
            .collect()
    }
}

fn offset(minute: i64) -> u64 {
    let place = u64::try_from(minute.rem_euclid(MINUTES)).unwrap_or(0) + 1;
    place * PLACE as u64
}

fn size() -> u64 {
    (MINUTES.unsigned_abs() + 1) * PLACE as u64
}

fn parse(place: &[u8; PLACE]) -> Option<Minute> {
    let (head, rest) = place.split_at(HEAD);
    let length = usize::try_from(u32::from_le_bytes(head[..4].try_into().ok()?)).ok()?;
    let text = rest.get(..length)?;
    let sum = u32::from_le_bytes(head[4..].try_into().ok()?);
    if length == 0 || crc32fast::hash(text) != sum {
        return None;
    }
    serde_json::from_slice(text).ok()
}

#[cfg(test)]
mod tests {
    use super::super::minute::{DiskUse, Share};
    use super::*;

    const BEGIN: i64 = 29_400_000;

    fn ring() -> (tempfile::TempDir, Host, Ring) {
        let root = tempfile::tempdir().expect("a folder");
        let host = Host::new(root.path());
        let ring = Ring::open(&host).expect("a file");
        (root, host, ring)
    }

    fn minute(minute: i64) -> Minute {
        Minute { minute, memory_used: minute.unsigned_abs(), ..Minute::default() }
    }

    fn numbers(ring: &Ring, now: i64) -> Vec<i64> {
        ring.read(now * 60_000 + 30_000).iter().map(|minute| minute.minute).collect()
    }

    #[test]
    fn two_days_are_kept_in_a_file_that_does_not_grow() {
        let (_root, host, mut ring) = ring();
        let length = || std::fs::metadata(host.path(FILE)).expect("a file").len();
        let before = length();
        for at in BEGIN..BEGIN + MINUTES + 100 {
            ring.write(&minute(at)).expect("written");
        }
        let last = BEGIN + MINUTES + 99;
        assert_eq!(numbers(&ring, last), (BEGIN + 100..=last).collect::<Vec<_>>());
        assert_eq!(length(), before);
        assert!(before < 3 << 20, "{before}");
        // As after a restart; and an hour later nothing newer is there.
        let ring = Ring::open(&host).expect("the same file");
        assert_eq!(numbers(&ring, last + 60).len(), usize::try_from(MINUTES).expect("few") - 60);
    }

    #[test]
    fn a_torn_write_costs_one_minute_wherever_the_power_was_cut() {
        let (_root, host, mut ring) = ring();
        for at in BEGIN..BEGIN + 5 {
            ring.write(&minute(at)).expect("written");
        }
        let whole = std::fs::read(host.path(FILE)).expect("a file");
        let at = usize::try_from(offset(BEGIN + 2)).expect("small");
        let old = whole[at..at + PLACE].to_vec();
        ring.write(&Minute { load: 7.0, ..minute(BEGIN + 2 + MINUTES) }).expect("written");
        let new = std::fs::read(host.path(FILE)).expect("a file")[at..at + PLACE].to_vec();
        for cut in 0..=160 {
            let mut torn = whole.clone();
            torn[at..at + cut].copy_from_slice(&new[..cut]);
            torn[at + cut..at + PLACE].copy_from_slice(&old[cut..]);
            std::fs::write(host.path(FILE), torn).expect("written");
            let ring = Ring::open(&host).expect("the file is taken");
            let found = numbers(&ring, BEGIN + 4);
            let others = [BEGIN, BEGIN + 1, BEGIN + 3, BEGIN + 4];
            assert!(others.iter().all(|other| found.contains(other)), "cut at {cut}: {found:?}");
            let later = ring.read((BEGIN + 2 + MINUTES) * 60_000);
            let later: Vec<_> = later.iter().filter(|one| one.minute > BEGIN + MINUTES).collect();
            assert!(later.iter().all(|one| one.load == 7.0), "cut at {cut}: {later:?}");
        }
    }

    #[test]
    fn a_file_of_another_make_is_begun_anew_and_a_clock_that_jumps_leaves_holes() {
        let (_root, host, mut ring) = ring();
        ring.write(&minute(BEGIN)).expect("written");
        // The clock was a year ahead for a while.
        ring.write(&minute(BEGIN + 365 * 1440 + 7)).expect("written");
        ring.write(&minute(BEGIN + 1)).expect("written");
        assert_eq!(numbers(&ring, BEGIN + 1), [BEGIN, BEGIN + 1]);
        for garbage in ["", "vmkit minu", "another file altogether, and longer than the mark"] {
            std::fs::write(host.path(FILE), garbage).expect("written");
            let mut ring = Ring::open(&host).expect("begun anew");
            assert_eq!(numbers(&ring, BEGIN), [0; 0]);
            ring.write(&minute(BEGIN)).expect("written");
            assert_eq!(numbers(&ring, BEGIN), [BEGIN]);
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_the_smallest_first() {
        let (_root, _host, mut ring) = ring();
        let mut crowded = minute(BEGIN);
        crowded.disks = vec![DiskUse("/".into(), u64::MAX)];
        crowded.containers =
            (0..90).map(|n| Share(format!("service-{n}.web"), 0.1234, 1 << 40)).collect();
        ring.write(&crowded).expect("written");
        let kept = ring.read(BEGIN * 60_000).remove(0);
        assert!((15..90).contains(&kept.containers.len()), "{}", kept.containers.len());
        assert_eq!(kept.containers[..], crowded.containers[..kept.containers.len()]);
    }
}
