//! Brings a record to what it has to be, at any provider: looked at first, a foreign one never
//! touched, a lost answer looked up, two of ours made one again.

use super::{Dns, DnsError, Record, RecordKind, Wanted, Zone};
use crate::domain::names::Domain;

/// How often two writers may come into each other's way.
const TRIES: u32 = 3;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// It was made.
    Made(Record),
    /// It was ours and said something else before.
    Changed(Record, String),
    /// It was ours and right.
    Right(Record),
    /// It is right, and somebody else's: it was not touched and will not be deleted.
    Theirs(Record),
}

impl Put {
    /// The record as it is now.
    pub fn record(&self) -> &Record {
        match self {
            Self::Made(record)
            | Self::Changed(record, _)
            | Self::Right(record)
            | Self::Theirs(record) => record,
        }
    }
}

/// The zone that a name is in: the longest one that the token can see.
///
/// # Errors
/// The provider's.
pub async fn zone_of(dns: &impl Dns, name: &Domain) -> Result<Option<Zone>, DnsError> {
    let mut at = Some(name.clone());
    while let Some(candidate) = at {
        if let Some(zone) = dns.zone(&candidate).await? {
            return Ok(Some(zone));
        }
        at = candidate.parent();
    }
    Ok(None)
}

/// Makes, changes or leaves the record. `ours` says which records are this installation's: by their
/// mark, or by our own table where the provider keeps no marks.
///
/// # Errors
/// [`DnsError::Foreign`] where a record of somebody else's stands in the way.
pub async fn put(
    dns: &impl Dns,
    zone: &Zone,
    wanted: &Wanted,
    ours: &(impl Fn(&Record) -> bool + Sync),
) -> Result<Put, DnsError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match try_put(dns, zone, wanted, ours).await {
            // Somebody wrote between our look and our call: what is there decides.
            Err(DnsError::Taken { .. }) if tries < TRIES => {}
            done => return done,
        }
    }
}

/// What the records of a name mean for the one that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is right, and somebody else's.
    Theirs(Record),
    /// Somebody else's stands in the way.
    InTheWay(Record),
    /// It is ours and right.
    Right(Record),
    /// It is ours and has to say something else.
    Change(Record),
    /// There is none.
    Make,
}

/// Decides what is to be done, and names those of ours that are too many: left from an answer that
/// came late.
pub fn decide(
    there: Vec<Record>,
    wanted: &Wanted,
    ours: &(impl Fn(&Record) -> bool + Sync),
) -> (Decision, Vec<Record>) {
    let rivals = there.into_iter().filter(|r| r.kind == wanted.kind || r.kind == RecordKind::Cname);
    let (mut mine, theirs): (Vec<Record>, Vec<Record>) = rivals.partition(|r| ours(r));
    if let Some(first) = theirs.first() {
        let right = mine.is_empty() && theirs.iter().all(|record| wanted.is_met_by(record));
        let first = first.clone();
        let decision = if right { Decision::Theirs(first) } else { Decision::InTheWay(first) };
        return (decision, Vec::new());
    }
    let met = mine.iter().position(|record| wanted.is_met_by(record));
    let kept = met.or_else(|| mine.iter().position(|record| record.kind == wanted.kind));
    let decision = match kept.map(|at| mine.remove(at)) {
        Some(record) if wanted.is_met_by(&record) => Decision::Right(record),
        Some(record) => Decision::Change(record),
        None => Decision::Make,
    };
    (decision, mine)
}

async fn try_put(
    dns: &impl Dns,
    zone: &Zone,
    wanted: &Wanted,
    ours: &(impl Fn(&Record) -> bool + Sync),
) -> Result<Put, DnsError> {
    let there = dns.records(zone, &wanted.name).await?;
    let (decision, extra) = decide(there, wanted, ours);
    for record in extra {
        dns.delete(zone, &record).await?;
    }
    match decision {
        Decision::Theirs(record) => Ok(Put::Theirs(record)),
        Decision::InTheWay(record) => Err(DnsError::Foreign {
            provider: dns.title(),
            line: record.line(),
            proxied: record.proxied,
        }),
        Decision::Right(record) => Ok(Put::Right(record)),
        Decision::Change(record) => {
            let before = record.line();
            Ok(Put::Changed(dns.change(zone, &record, wanted).await?, before))
        }
        Decision::Make => Ok(Put::Made(create(dns, zone, wanted, ours).await?)),
    }
}

/// Makes the record; where the answer is lost, looks for it until it must have landed.
async fn create(
    dns: &impl Dns,
    zone: &Zone,
    wanted: &Wanted,
    ours: &(impl Fn(&Record) -> bool + Sync),
) -> Result<Record, DnsError> {
    let error = match dns.create(zone, wanted).await {
        Ok(record) => return Ok(record),
        Err(error) if error.may_have_happened() => error,
        Err(error) => return Err(error),
    };
    let mut waits = dns.pace().polls(dns.pace().doubt);
    loop {
        if let Ok(there) = dns.records(zone, &wanted.name).await
            && let Some(found) = there.into_iter().find(|r| wanted.is_met_by(r) && ours(r))
        {
            return Ok(found);
        }
        if !waits.wait().await {
            return Err(error);
        }
    }
}
