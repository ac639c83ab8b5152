//! The name server of the sandbox: it answers for the zones of the simulated providers, over UDP and
//! TCP on loopback, so that what was pointed can be looked up.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CAA, CNAME, NS, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::SandboxError;

/// How often a port that is free for TCP and taken for UDP is given up.
const TRIES: u32 = 16;
/// How many aliases are followed within what is served here.
const ALIASES_MAX: usize = 8;

/// One record as a zone's file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its whole name.
    pub name: String,
    /// Such as `A`.
    pub kind: String,
    /// What it says.
    pub value: String,
    /// How long it may be kept, in seconds.
    pub ttl: u32,
}

/// The zones of one simulated provider, each with its records.
pub type ZonesOf = Arc<dyn Fn() -> Vec<(String, Vec<Entry>)> + Send + Sync>;

/// A running name server; it ends when it is dropped.
pub struct NameServer {
    address: SocketAddr,
    off: CancellationToken,
}

impl NameServer {
    /// Serves the zones of `providers` on a free port of `ip`; the first that has a zone counts.
    pub async fn start(ip: IpAddr, providers: Vec<ZonesOf>) -> Result<Self, SandboxError> {
        let (tcp, udp, address) = bind(ip).await?;
        let off = CancellationToken::new();
        let providers: Arc<[ZonesOf]> = providers.into();
        let (ending, zones) = (off.clone(), Arc::clone(&providers));
        tokio::spawn(async move {
            drop(ending.run_until_cancelled(serve_udp(udp, zones)).await);
        });
        let ending = off.clone();
        tokio::spawn(async move {
            while let Some(accepted) = ending.run_until_cancelled(tcp.accept()).await {
                let Ok((stream, _)) = accepted else { continue };
                let (ending, zones) = (ending.clone(), Arc::clone(&providers));
                tokio::spawn(async move {
                    drop(ending.run_until_cancelled(serve_tcp(stream, zones)).await);
                });
            }
        });
        Ok(Self { address, off })
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it.
    pub fn stop(&self) {
        self.off.cancel();
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.off.cancel();
    }
}

/// One port for both.
async fn bind(ip: IpAddr) -> Result<(TcpListener, UdpSocket, SocketAddr), SandboxError> {
    let any = SocketAddr::new(ip, 0);
    let fail = |address, source| SandboxError::Listen { address, source };
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..TRIES {
        let tcp = TcpListener::bind(any).await.map_err(|error| fail(any, error))?;
        let address = tcp.local_addr().map_err(|error| fail(any, error))?;
        match UdpSocket::bind(address).await {
            Ok(udp) => return Ok((tcp, udp, address)),
            Err(error) => last = error,
        }
    }
    Err(fail(any, last))
}

async fn serve_udp(socket: UdpSocket, zones: Arc<[ZonesOf]>) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await?;
        let Ok(request) = Message::from_vec(&buffer[..length]) else { continue };
        let largest = usize::from(request.max_payload());
        let answer = answer(&request, &zones);
        let Ok(mut bytes) = answer.to_vec() else { continue };
        if bytes.len() > largest {
            let Ok(short) = answer.truncate().to_vec() else { continue };
            bytes = short;
        }
        // A client that has gone is no news.
        drop(socket.send_to(&bytes, from).await);
    }
}

async fn serve_tcp(mut stream: TcpStream, zones: Arc<[ZonesOf]>) -> io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut bytes = vec![0; usize::from(length)];
        stream.read_exact(&mut bytes).await?;
        let Ok(request) = Message::from_vec(&bytes) else { return Ok(()) };
        let Ok(bytes) = answer(&request, &zones).to_vec() else { return Ok(()) };
        let Ok(length) = u16::try_from(bytes.len()) else { return Ok(()) };
        stream.write_u16(length).await?;
        stream.write_all(&bytes).await?;
    }
}

/// A name without the dot at its end, in lower case.
fn plain(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

fn is_within(name: &str, zone: &str) -> bool {
    name == zone || name.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'))
}

fn answer(request: &Message, providers: &[ZonesOf]) -> Message {
    let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
    reply.metadata.recursion_desired = request.metadata.recursion_desired;
    let Some(query) = request.queries.first() else {
        reply.metadata.response_code = ResponseCode::FormErr;
        return reply;
    };
    reply.add_query(query.clone());
    if request.metadata.op_code != OpCode::Query {
        reply.metadata.response_code = ResponseCode::NotImp;
        return reply;
    }
    let zones: Vec<(String, Vec<Entry>)> =
        providers.iter().flat_map(|provider| provider()).collect();
    let mut at = query.name().clone();
    let mut first = true;
    for _ in 0..ALIASES_MAX {
        let name = plain(&at);
        let Some((zone, entries)) = zone_of(&zones, &name) else {
            if first {
                not_here(&mut reply, query, &name);
            }
            return reply;
        };
        reply.metadata.authoritative = true;
        let own: Vec<&Entry> = entries.iter().filter(|entry| entry.name == name).collect();
        let alias = own.iter().find(|entry| entry.kind == "CNAME");
        if let Some(alias) = alias.filter(|_| query.query_type() != RecordType::CNAME) {
            let Some(record) = record(&at, alias) else { return reply };
            if let RData::CNAME(target) = &record.data {
                at = target.0.clone();
            }
            reply.add_answer(record);
            first = false;
            continue;
        }
        let wanted = query.query_type().to_string();
        let mut records: Vec<Record> = own
            .iter()
            .filter(|entry| entry.kind == wanted)
            .filter_map(|entry| record(&at, entry))
            .collect();
        if name == *zone {
            records.extend(apex(&at, query.query_type()));
        }
        if records.is_empty() {
            let below = |entry: &Entry| is_within(&entry.name, &name);
            if own.is_empty() && name != *zone && !entries.iter().any(below) {
                reply.metadata.response_code = ResponseCode::NXDomain;
            }
            reply.add_authority(Record::from_rdata(fqdn(zone), 60, soa()));
        }
        reply.add_answers(records);
        return reply;
    }
    reply.metadata.response_code = ResponseCode::ServFail;
    reply
}

/// The longest zone that a name is in; the first provider that has it counts.
fn zone_of<'a>(
    zones: &'a [(String, Vec<Entry>)],
    name: &str,
) -> Option<(&'a String, &'a Vec<Entry>)> {
    let inside = zones.iter().filter(|(zone, _)| is_within(name, zone));
    let longest = inside.clone().map(|(zone, _)| zone.len()).max()?;
    let (zone, entries) = inside.into_iter().find(|(zone, _)| zone.len() == longest)?;
    Some((zone, entries))
}

/// A name outside of the zones: what sslip.io would say, and nothing otherwise.
fn not_here(reply: &mut Message, query: &Query, name: &str) {
    let Some(rest) = name.strip_suffix(".sslip.io") else {
        reply.metadata.response_code = ResponseCode::NXDomain;
        return;
    };
    reply.metadata.authoritative = true;
    let spelled = rest.rsplit('.').next().unwrap_or_default().replace('-', ".");
    if let (Ok(address), RecordType::A) = (spelled.parse::<Ipv4Addr>(), query.query_type()) {
        reply.add_answer(Record::from_rdata(query.name().clone(), 300, RData::A(A(address))));
    }
}

/// What every zone has beside its records.
fn apex(name: &Name, kind: RecordType) -> Option<Record> {
    let data = match kind {
        RecordType::SOA => soa(),
        RecordType::NS => RData::NS(NS(fqdn("ns1.sandbox.invalid"))),
        _ => return None,
    };
    Some(Record::from_rdata(name.clone(), 60, data))
}

fn soa() -> RData {
    let names = (fqdn("ns1.sandbox.invalid"), fqdn("hostmaster.sandbox.invalid"));
    RData::SOA(SOA::new(names.0, names.1, 1, 60, 60, 60, 1))
}

fn fqdn(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap_or_default();
    name.set_fqdn(true);
    name
}

fn record(name: &Name, entry: &Entry) -> Option<Record> {
    let value = entry.value.trim();
    let data = match entry.kind.as_str() {
        "A" => RData::A(A(value.parse().ok()?)),
        "AAAA" => RData::AAAA(AAAA(value.parse().ok()?)),
        "CNAME" => RData::CNAME(CNAME(fqdn(value))),
        "TXT" => RData::TXT(TXT::new(vec![value.trim_matches('"').to_owned()])),
        "CAA" => {
            // `0 issue "letsencrypt.org"`
            let mut words = value.splitn(3, ' ');
            let flags: u8 = words.next()?.parse().ok()?;
            let tag = words.next()?;
            let issuer = words.next()?.trim_matches('"');
            let name = (!issuer.is_empty() && issuer != ";").then(|| Name::from_ascii(issuer));
            let mut caa = CAA::new_issue(flags >= 128, name.transpose().ok()?, Vec::new());
            caa.tag = tag.to_owned();
            RData::CAA(caa)
        }
        _ => return None,
    };
    Some(Record::from_rdata(name.clone(), entry.ttl, data))
}
