//! What resolvers are told about a name, asked of the servers that have authority over it, so that
//! no cache between us and them answers with what was true an hour ago.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use crate::domain::names::Domain;

/// How long one server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How many servers of a zone are asked.
const SERVERS_MAX: usize = 4;
/// How many aliases are followed.
const ALIASES_MAX: usize = 8;
/// The authority that Kamal's proxy gets certificates from, as CAA records name it.
const ISSUER: &str = "letsencrypt.org";

/// Why nothing is known about a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No server has authority over it.
    #[error(
        "no name server has authority over `{name}`; register the domain, or name your provider's servers at its registrar"
    )]
    Undelegated {
        /// The name.
        name: String,
    },
    /// They do not answer.
    #[error("the name servers of `{name}` ({servers}) do not answer; try again")]
    Silent {
        /// The name.
        name: String,
        /// Who was asked.
        servers: String,
    },
    /// This machine cannot ask anybody.
    #[error(
        "this machine cannot look names up; check its network, or set VMKIT_RESOLVER to a server that can"
    )]
    NoResolver,
}

impl ResolveError {
    /// A stable word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Undelegated { .. } => "undelegated",
            Self::Silent { .. } => "dns_silent",
            Self::NoResolver => "no_resolver",
        }
    }

    /// Whether the same question may be answered later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Silent { .. } => true,
            Self::Undelegated { .. } | Self::NoResolver => false,
        }
    }
}

/// What the servers say of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its IPv4 addresses.
    pub a: BTreeSet<Ipv4Addr>,
    /// Its IPv6 addresses.
    pub aaaa: BTreeSet<Ipv6Addr>,
    /// The names that it is an alias of, the nearest first.
    pub aliases: Vec<String>,
    /// Servers of the zone that say something else than the first one.
    pub differing: Vec<String>,
    /// Who was asked.
    pub servers: Vec<String>,
}

/// What CAA records say about the authority that we use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caa {
    /// The name that has them.
    pub at: String,
    /// Who may issue, as they say it.
    pub issuers: Vec<String>,
    /// Whether Let's Encrypt may.
    pub allows: bool,
}

/// Asks authoritative servers, or one given server in place of all of them.
#[derive(Debug, Clone, Default)]
pub struct Resolver {
    via: Option<SocketAddr>,
}

/// A server to ask.
struct Asked {
    name: String,
    resolver: TokioResolver,
}

impl Resolver {
    /// Asks `via` for everything where it is given; else the servers with authority.
    pub fn new(via: Option<SocketAddr>) -> Self {
        Self { via }
    }

    /// The addresses of a name, and the aliases that lead to them.
    ///
    /// # Errors
    /// Nobody has authority over it, or they do not answer. A name that does not exist is no error.
    pub async fn addresses(&self, name: &Domain) -> Result<Seen, ResolveError> {
        let mut seen = Seen::default();
        let mut at = fqdn(name.as_str());
        for _ in 0..ALIASES_MAX {
            let servers = self.servers(&at).await?;
            if seen.servers.is_empty() {
                seen.servers = servers.iter().map(|server| server.name.clone()).collect();
            }
            let aliases = each(&servers, &at, RecordType::CNAME).await?;
            let next = aliases.first().and_then(|(_, data)| {
                data.iter().find_map(|data| match data {
                    RData::CNAME(alias) => Some(alias.0.clone()),
                    _ => None,
                })
            });
            if let Some(next) = next {
                seen.aliases.push(plain(&next));
                at = next;
                continue;
            }
            let a = each(&servers, &at, RecordType::A).await?;
            let aaaa = each(&servers, &at, RecordType::AAAA).await?;
            seen.differing.extend(differing(&a));
            seen.differing.extend(differing(&aaaa));
            seen.differing.sort();
            seen.differing.dedup();
            for data in a.into_iter().chain(aaaa).flat_map(|(_, data)| data) {
                match data {
                    RData::A(address) => drop(seen.a.insert(address.0)),
                    RData::AAAA(address) => drop(seen.aaaa.insert(address.0)),
                    _ => {}
                }
            }
            return Ok(seen);
        }
        Ok(seen)
    }

    /// The CAA records that hold for a name: its own, or those of the nearest name above it that
    /// has any (RFC 8659). None allows everybody.
    ///
    /// # Errors
    /// As [`Self::addresses`].
    pub async fn caa(&self, name: &Domain) -> Result<Option<Caa>, ResolveError> {
        let mut at = fqdn(name.as_str());
        while at.num_labels() > 0 {
            let servers = match self.servers(&at).await {
                Err(ResolveError::Undelegated { .. }) if at.num_labels() == 1 => return Ok(None),
                servers => servers?,
            };
            let answers = each(&servers, &at, RecordType::CAA).await?;
            let records: Vec<RData> = answers.into_iter().flat_map(|(_, data)| data).collect();
            if records.iter().any(|data| matches!(data, RData::CAA(_))) {
                return Ok(Some(judged(plain(&at), &records)));
            }
            at = at.base_name();
        }
        Ok(None)
    }

    /// The zone that a name is in, as the servers have it.
    ///
    /// # Errors
    /// As [`Self::addresses`].
    pub async fn zone(&self, name: &Domain) -> Result<Option<Domain>, ResolveError> {
        let mut at = Some(name.clone());
        while let Some(candidate) = at {
            let asked = match self.via {
                Some(via) => direct(via.ip(), via.port(), false),
                None => system()?,
            };
            let found = asked.lookup(fqdn(candidate.as_str()), RecordType::SOA).await;
            let is_zone = found.is_ok_and(|found| {
                let own = |r: &hickory_resolver::proto::rr::Record| {
                    r.record_type() == RecordType::SOA && plain(&r.name) == candidate.as_str()
                };
                found.answers().iter().any(own)
            });
            if is_zone {
                return Ok(Some(candidate));
            }
            at = candidate.parent();
        }
        Ok(None)
    }

    /// The servers that have authority over a name, found by walking up to its zone.
    async fn servers(&self, name: &Name) -> Result<Vec<Asked>, ResolveError> {
        if let Some(via) = self.via {
            let resolver = direct(via.ip(), via.port(), false);
            return Ok(vec![Asked { name: via.to_string(), resolver }]);
        }
        let system = system()?;
        let mut zone = name.clone();
        while zone.num_labels() > 0 {
            let found = match system.lookup(zone.clone(), RecordType::NS).await {
                Ok(found) => found,
                Err(error) if error.is_no_records_found() => {
                    zone = zone.base_name();
                    continue;
                }
                Err(_) => return Err(ResolveError::NoResolver),
            };
            let names = found.answers().iter().filter_map(|record| match &record.data {
                RData::NS(server) => Some(server.0.clone()),
                _ => None,
            });
            let mut asked = Vec::new();
            for server in names.take(SERVERS_MAX) {
                let Ok(addresses) = system.lookup_ip(server.clone()).await else { continue };
                // One address is enough of each; most machines can reach the first family.
                let mut all: Vec<IpAddr> = addresses.iter().collect();
                all.sort_by_key(IpAddr::is_ipv6);
                if let Some(ip) = all.first() {
                    let resolver = direct(*ip, 53, true);
                    asked.push(Asked { name: plain(&server), resolver });
                }
            }
            if !asked.is_empty() {
                return Ok(asked);
            }
            zone = zone.base_name();
        }
        Err(ResolveError::Undelegated { name: plain(name) })
    }
}

/// A resolver that asks this server only, keeps nothing, and does not ask for recursion where the
/// server has authority.
fn direct(ip: IpAddr, port: u16, authority: bool) -> TokioResolver {
    let mut server = NameServerConfig::udp_and_tcp(ip);
    for connection in &mut server.connections {
        connection.port = port;
    }
    let config = ResolverConfig::from_name_servers(vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.recursion_desired = !authority;
    tuned(options);
    // It fails only where TLS is asked for.
    builder.build().expect("a resolver without TLS")
}

fn system() -> Result<TokioResolver, ResolveError> {
    let mut builder = TokioResolver::builder_tokio().map_err(|_| ResolveError::NoResolver)?;
    tuned(builder.options_mut());
    builder.build().map_err(|_| ResolveError::NoResolver)
}

fn tuned(options: &mut hickory_resolver::config::ResolverOpts) {
    options.cache_size = 0;
    options.timeout = TIMEOUT;
    options.attempts = 2;
    options.use_hosts_file = ResolveHosts::Never;
}

/// What each server says; those that do not answer are left out unless none does.
async fn each(
    servers: &[Asked],
    name: &Name,
    kind: RecordType,
) -> Result<Vec<(String, Vec<RData>)>, ResolveError> {
    let asked = servers.iter().map(|server| async {
        match server.resolver.lookup(name.clone(), kind).await {
            Ok(found) => {
                let records = found.answers().iter();
                let data = records.filter(|r| r.record_type() == kind).map(|r| r.data.clone());
                Some((server.name.clone(), data.collect()))
            }
            Err(error) if is_nothing(&error) => Some((server.name.clone(), Vec::new())),
            Err(_) => None,
        }
    });
    let answers: Vec<(String, Vec<RData>)> =
        futures::future::join_all(asked).await.into_iter().flatten().collect();
    if answers.is_empty() {
        let servers: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
        return Err(ResolveError::Silent { name: plain(name), servers: servers.join(", ") });
    }
    Ok(answers)
}

fn is_nothing(error: &NetError) -> bool {
    error.is_no_records_found() || error.is_nx_domain()
}

/// The servers that say something else than the first.
fn differing(answers: &[(String, Vec<RData>)]) -> Vec<String> {
    let set = |data: &[RData]| data.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    let Some((_, first)) = answers.first() else { return Vec::new() };
    let first = set(first);
    answers.iter().filter(|(_, data)| set(data) != first).map(|(name, _)| name.clone()).collect()
}

/// Whether these records allow our authority: without an `issue` they allow everybody.
fn judged(at: String, records: &[RData]) -> Caa {
    let mut issuers = Vec::new();
    let mut unknown_critical = false;
    for data in records {
        let RData::CAA(caa) = data else { continue };
        match caa.tag.to_ascii_lowercase().as_str() {
            "issue" => {
                let text = String::from_utf8_lossy(&caa.value).into_owned();
                let issuer = text.split(';').next().unwrap_or_default().trim().to_owned();
                issuers.push(issuer.to_ascii_lowercase());
            }
            "issuewild" | "iodef" | "issuemail" | "contactemail" | "contactphone" => {}
            _ => unknown_critical |= caa.issuer_critical,
        }
    }
    let listed = issuers.is_empty() || issuers.iter().any(|issuer| issuer == ISSUER);
    Caa { at, allows: listed && !unknown_critical, issuers }
}

/// A name that no search list is put behind.
fn fqdn(name: &str) -> Name {
    let mut name = Name::from_ascii(name).unwrap_or_default();
    name.set_fqdn(true);
    name
}

fn plain(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}
