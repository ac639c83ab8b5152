//! Records of ours: made, mended and taken away; those of others are never touched.

use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{Params, titled};
use crate::dns::{
    AnyDns, Decision, Dns, DnsError, Mark, Put, Record, RecordKind, Wanted, Zone, decide, put,
    sslip, zone_of,
};
use crate::domain::ids::{EnvironmentId, OperationId};
use crate::domain::names::Domain;
use crate::operations::{Context, OpError};
use crate::store::DnsRecordRow;

/// Where the records of a name can be written.
pub(super) struct Place {
    pub(super) dns: AnyDns,
    pub(super) zone: Zone,
}

/// How a record came to be as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum How {
    /// It was made.
    Made,
    /// It was ours and was changed.
    Changed,
    /// It was ours and right.
    Right,
    /// It is right, and not ours.
    Theirs,
    /// A person has to make it, or to change it.
    ByHand,
}

/// What came of pointing one name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// The record as it has to be: `A shop.example.com 203.0.113.7`.
    pub(super) record: String,
    pub(super) how: How,
    /// Where, and what a person has to know.
    pub(super) note: String,
}

impl Outcome {
    /// In a line: the record, then where it is or what a person has to do.
    pub(super) fn told(&self) -> String {
        format!("{}: {}", self.record, self.note)
    }
}

/// The zone of a name, at the first provider whose token can see it. One that resolvers are sent to
/// comes before one that they are not.
pub(super) async fn place(
    context: &Context,
    name: &Domain,
) -> Result<Result<Place, String>, OpError> {
    if sslip::is_one(name) {
        return Ok(Err(sslip::CAVEAT.to_owned()));
    }
    let (mut asleep, mut trouble) = (None, None);
    for dns in context.accounts.all_dns().await? {
        match zone_of(&dns, name).await {
            Ok(Some(zone)) if zone.active => return Ok(Ok(Place { dns, zone })),
            Ok(Some(zone)) => asleep = asleep.or(Some(Place { dns, zone })),
            Ok(None) => {}
            Err(error) => trouble = trouble.or(Some(error)),
        }
    }
    match (asleep, trouble) {
        (Some(place), _) => Ok(Ok(place)),
        // A cloud's token that may not read zones, or one that has run out, leaves the records to a
        // person; whatever else is wrong has to be known.
        (None, Some(error @ (DnsError::Auth { .. } | DnsError::Forbidden { .. }))) => {
            Ok(Err(error.to_string()))
        }
        (None, Some(error)) => Err(error.into()),
        (None, None) => Ok(Err("no connected provider has its zone".to_owned())),
    }
}

fn kind_of(address: IpAddr) -> RecordKind {
    match address {
        IpAddr::V4(_) => RecordKind::A,
        IpAddr::V6(_) => RecordKind::Aaaa,
    }
}

fn wanted(context: &Context, environment: EnvironmentId, name: &Domain, address: IpAddr) -> Wanted {
    let mark = Mark { installation: context.settings.installation, environment };
    Wanted { name: name.clone(), kind: kind_of(address), value: address.to_string(), mark }
}

/// Whether a record is this installation's: by its mark, or by our table where it cannot have one.
fn is_ours<'a>(
    context: &Context,
    dns: &'a AnyDns,
    row: Option<&'a DnsRecordRow>,
) -> impl Fn(&Record) -> bool + Sync + use<'a> {
    let installation = context.settings.installation;
    move |record| {
        if dns.keeps_marks() {
            return record.mark.is_some_and(|mark| mark.installation == installation);
        }
        row.filter(|row| row.provider == dns.provider() && row.kind == record.kind.as_str())
            .is_some_and(|row| {
                row.provider_id.as_ref() == Some(&record.id) || record.values == [row.value.clone()]
            })
    }
}

/// The line that a person copies into their provider's form.
fn line(wanted: &Wanted) -> String {
    format!("{} {} {}", wanted.kind, wanted.name, wanted.value)
}

fn by_sslip(wanted: &Wanted) -> Outcome {
    let note = format!("sslip.io answers so by itself ({})", sslip::CAVEAT);
    Outcome { record: line(wanted), how: How::Right, note }
}

fn by_hand(wanted: &Wanted, why: &str) -> Outcome {
    let note = format!(
        "make this record where the domain's DNS is, with TTL 300 and without a proxy: {why}"
    );
    Outcome { record: line(wanted), how: How::ByHand, note }
}

fn in_the_way(wanted: &Wanted, there: &str, proxied: bool, provider: &str) -> Outcome {
    let proxy = if proxied { " and turn its proxy off" } else { "" };
    let note = format!(
        "{provider} has `{there}`, which VMKit did not make and does not touch: change it to this{proxy}, or delete it and point again"
    );
    Outcome { record: line(wanted), how: How::ByHand, note }
}

/// What [`point`] would do with a name, and whether it would leave that to a person.
pub(super) async fn would(
    context: &Context,
    params: &Params,
    name: &Domain,
    address: IpAddr,
    place: Result<&Place, &String>,
) -> Result<(String, bool), OpError> {
    let wanted = wanted(context, params.environment, name, address);
    let line = line(&wanted);
    let Place { dns, zone } = match place {
        Ok(place) => place,
        Err(why) => {
            let of_sslip = sslip::is_one(name);
            let outcome = if of_sslip { by_sslip(&wanted) } else { by_hand(&wanted, why) };
            return Ok((format!("{line}: {}", outcome.note), !of_sslip));
        }
    };
    let row = context.store.dns_record(name.clone(), wanted.kind.to_string()).await?;
    let there = dns.records(zone, name).await?;
    let title = titled(dns);
    let decision = decide(there, &wanted, &is_ours(context, dns, row.as_ref())).0;
    let by_hand = matches!(decision, Decision::InTheWay(_));
    let told = match decision {
        Decision::Make => format!("{line}: would be made at {title}"),
        Decision::Change(record) => format!("{line}: would replace `{}`", record.line()),
        Decision::Right(_) => format!("{line}: is there already at {title}"),
        Decision::Theirs(_) => format!("{line}: is there at {title}, and not VMKit's"),
        Decision::InTheWay(record) => {
            let outcome = in_the_way(&wanted, &record.line(), record.proxied, title);
            format!("{line}: {}", outcome.note)
        }
    };
    Ok((told, by_hand))
}

/// Points one name at an address. Running it twice is running it once.
pub(super) async fn point(
    context: &Context,
    operation: OperationId,
    environment: EnvironmentId,
    name: &Domain,
    address: IpAddr,
) -> Result<Outcome, OpError> {
    let wanted = wanted(context, environment, name, address);
    if sslip::is_one(name) {
        return Ok(by_sslip(&wanted));
    }
    let Place { dns, zone } = match place(context, name).await? {
        Ok(place) => place,
        Err(why) => return Ok(by_hand(&wanted, &why)),
    };
    let store = &context.store;
    let known = store.dns_record(name.clone(), wanted.kind.to_string()).await?;
    let known = known.filter(|row| row.provider == dns.provider() && row.zone == zone.name);
    let title = titled(&dns);
    let inactive = match zone.active {
        true => String::new(),
        false => format!(
            "; NOBODY ASKS THERE YET: name {} at the domain's registrar",
            zone.nameservers.join(" and ")
        ),
    };
    let said = |how, note: String| Outcome {
        record: line(&wanted),
        how,
        note: format!("{note}{inactive}"),
    };
    if known.is_none() {
        // What is right without us stays without us, also in our table.
        let there = dns.records(&zone, name).await?;
        match decide(there, &wanted, &is_ours(context, &dns, None)).0 {
            Decision::Theirs(_) => {
                return Ok(said(How::Theirs, format!("at {title}, and not VMKit's")));
            }
            Decision::InTheWay(record) => {
                return Ok(in_the_way(&wanted, &record.line(), record.proxied, title));
            }
            Decision::Right(_) | Decision::Change(_) | Decision::Make => {}
        }
    }
    let row = known.unwrap_or_else(|| DnsRecordRow {
        name: name.clone(),
        kind: wanted.kind.to_string(),
        environment,
        provider: dns.provider().to_owned(),
        zone: zone.name.clone(),
        provider_id: None,
        value: wanted.value.clone(),
        made_by: operation,
        created_at: context.clock.now(),
    });
    store.put_dns_record(row.clone()).await?;
    let done = put(&dns, &zone, &wanted, &is_ours(context, &dns, Some(&row))).await;
    let done = match done {
        Err(DnsError::Foreign { line, proxied, .. }) => {
            store.forget_dns_record(row.name, row.kind).await?;
            return Ok(in_the_way(&wanted, &line, proxied, title));
        }
        done => done?,
    };
    let provider_id = Some(done.record().id.clone());
    let value = wanted.value.clone();
    store.put_dns_record(DnsRecordRow { provider_id, environment, value, ..row }).await?;
    Ok(match done {
        Put::Made(_) => said(How::Made, format!("made at {title}")),
        Put::Changed(_, before) => {
            said(How::Changed, format!("changed at {title}, was `{before}`"))
        }
        Put::Right(_) => said(How::Right, format!("at {title}")),
        Put::Theirs(_) => said(How::Theirs, format!("at {title}, and not VMKit's")),
    })
}

/// As [`point`]; where nothing but a person can help, that person is told the record to make.
pub(super) async fn point_or_tell(
    context: &Context,
    operation: OperationId,
    environment: EnvironmentId,
    name: &Domain,
    address: IpAddr,
) -> Result<Outcome, OpError> {
    match point(context, operation, environment, name, address).await {
        Err(error @ OpError::Dns(_)) if !error.retryable() => {
            let kind = kind_of(address).to_string();
            let row = context.store.dns_record(name.clone(), kind).await?;
            if let Some(row) = row.filter(|row| row.made_by == operation) {
                take_away(context, row, &mut Removed::default()).await?;
            }
            Ok(by_hand(&wanted(context, environment, name, address), &error.to_string()))
        }
        outcome => outcome,
    }
}

/// Makes the records of ours say where the VM is after it got another server: its IPv6 address goes
/// with the server, and so does the IPv4 one of a server that was adopted. AAAA records go where
/// there is no IPv6 address any more.
pub(in crate::operations) async fn follow(
    context: &Context,
    environment: EnvironmentId,
    (address, ipv6): (Option<IpAddr>, Option<Ipv6Addr>),
) -> Result<(), OpError> {
    let ipv6 = ipv6.map(IpAddr::V6);
    for row in context.store.dns_records(environment).await? {
        let of_kind = |one: &IpAddr| row.kind == kind_of(*one).as_str();
        match address.filter(of_kind).or(ipv6.filter(of_kind)) {
            Some(now) if row.value == now.to_string() => {}
            Some(now) => {
                let (name, made_by) = (row.name.clone(), row.made_by);
                point(context, made_by, environment, &name, now).await?;
            }
            None if row.kind == RecordKind::Aaaa.as_str() => {
                take_away(context, row, &mut Removed::default()).await?;
            }
            None => {}
        }
    }
    Ok(())
}

/// What came of taking an environment's records away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Records that are gone, as a zone's file has them.
    pub deleted: Vec<String>,
    /// Records that a person has to delete, with the reason.
    pub left: Vec<String>,
}

/// Takes away the records of ours for an environment, and its names. Records of others stay. The
/// hook of `destroy`; running it twice is running it once.
///
/// # Errors
/// A provider that does not answer now. One whose token is gone is told in [`Removed::left`].
pub async fn remove(context: &Context, environment: EnvironmentId) -> Result<Removed, OpError> {
    let removed = remove_records(context, environment).await?;
    context.store.set_domains(environment, None, None).await?;
    Ok(removed)
}

/// As [`remove`], but for the names: what may still be undone keeps them.
///
/// # Errors
/// Those of [`remove`].
pub async fn remove_records(
    context: &Context,
    environment: EnvironmentId,
) -> Result<Removed, OpError> {
    let mut removed = Removed::default();
    for row in context.store.dns_records(environment).await? {
        take_away(context, row, &mut removed).await?;
    }
    Ok(removed)
}

/// Takes away the records that an operation made.
pub(super) async fn undo(
    context: &Context,
    params: &Params,
    by: OperationId,
) -> Result<(), OpError> {
    for row in context.store.dns_records(params.environment).await? {
        if row.made_by == by {
            take_away(context, row, &mut Removed::default()).await?;
        }
    }
    Ok(())
}

async fn take_away(
    context: &Context,
    row: DnsRecordRow,
    removed: &mut Removed,
) -> Result<(), OpError> {
    let line = format!("{} {} {}", row.kind, row.name, row.value);
    let dns = match context.accounts.dns(&row.provider).await {
        Ok(dns) => dns,
        Err(error) => {
            removed.left.push(format!("{line} at {}: {error}", row.provider));
            return Ok(());
        }
    };
    match delete_ours(context, &dns, &row).await {
        Ok(true) => removed.deleted.push(format!("{line} at {}", titled(&dns))),
        Ok(false) => {}
        Err(error) if error.retryable() => return Err(error.into()),
        Err(error) => {
            removed.left.push(format!("{line} at {}: {error}", titled(&dns)));
            return Ok(());
        }
    }
    context.store.forget_dns_record(row.name, row.kind).await?;
    Ok(())
}

/// Whether there was one to delete.
async fn delete_ours(
    context: &Context,
    dns: &AnyDns,
    row: &DnsRecordRow,
) -> Result<bool, DnsError> {
    let Some(zone) = dns.zone(&row.zone).await? else { return Ok(false) };
    let ours = is_ours(context, dns, Some(row));
    let mut any = false;
    for record in dns.records(&zone, &row.name).await? {
        // What somebody has put in place of ours has lost the mark.
        if record.kind.as_str() == row.kind && ours(&record) {
            dns.delete(&zone, &record).await?;
            any = true;
        }
    }
    Ok(any)
}
