//! What other machines are told about a name, held against where it has to lead.

use std::net::{IpAddr, Ipv6Addr};

use super::point::{self, Place};
use super::{addresses as addresses_of, titled};
use crate::dns::resolve::{Caa, ResolveError, Seen};
use crate::dns::{Dns, sslip};
use crate::domain::environment::Environment;
use crate::domain::names::{Domain, EnvironmentPath};
use crate::operations::environments::environment;
use crate::operations::{Context, OpError};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which: `A shop.example.com`.
    pub what: String,
    /// Whether it is as it has to be.
    pub right: bool,
    /// What was found.
    pub found: String,
    /// What to do, where it is wrong.
    pub fix: Option<String>,
}

impl Finding {
    fn right(what: String, found: String) -> Self {
        Self { what, right: true, found, fix: None }
    }

    fn wrong(what: String, found: String, fix: String) -> Self {
        Self { what, right: false, found, fix: Some(fix) }
    }

    /// In a line: `A shop.example.com: 203.0.113.7`, with `WRONG` and the fix where it is.
    pub fn line(&self) -> String {
        match &self.fix {
            None => format!("{}: {}", self.what, self.found),
            Some(fix) => format!("WRONG {}: {}; {fix}", self.what, self.found),
        }
    }
}

/// An environment's name, looked at.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The name that serves.
    pub domain: Domain,
    /// Where it has to lead.
    pub address: IpAddr,
    /// What was looked at, for every name.
    pub findings: Vec<Finding>,
}

impl Verified {
    /// Whether all is right.
    pub fn right(&self) -> bool {
        self.findings.iter().all(|finding| finding.right)
    }
}

/// Looks at the names of an environment. Changes nothing.
///
/// # Errors
/// It has no domain, or no VM.
pub async fn verify(context: &Context, path: &EnvironmentPath) -> Result<Verified, OpError> {
    let environment: Environment = environment(&context.store, path).await?;
    let domain = environment.settings.domain.clone();
    let domain = domain.ok_or_else(|| OpError::NoDomain { environment: path.to_string() })?;
    let (address, ipv6) = addresses_of(context, &environment).await?;
    let address = address.ok_or_else(|| OpError::NoVm { environment: path.to_string() })?;
    let also = context.store.alias_of(environment.id).await?;
    let mut findings = Vec::new();
    for name in std::iter::once(&domain).chain(&also) {
        findings.extend(check(context, name, address, ipv6).await?);
    }
    Ok(Verified { domain, address, findings })
}

/// Everything about one name.
pub(super) async fn check(
    context: &Context,
    name: &Domain,
    address: IpAddr,
    ipv6: Option<Ipv6Addr>,
) -> Result<Vec<Finding>, OpError> {
    // The name servers decide; the provider only explains.
    let place = point::place(context, name).await.ok().and_then(Result::ok);
    let mut findings = Vec::new();
    if let Some(Place { zone, dns }) = &place
        && !zone.active
    {
        let found = format!("{} has it, and nobody is sent there", titled(dns));
        let fix = format!("name {} at the domain's registrar", zone.nameservers.join(" and "));
        findings.push(Finding::wrong(format!("zone {}", zone.name), found, fix));
    }
    let seen = match context.resolver.addresses(name).await {
        Ok(seen) => seen,
        Err(error) => {
            findings.push(unanswered(name, &error));
            return Ok(findings);
        }
    };
    let proxied = proxied(place.as_ref(), name).await;
    findings.extend(addresses(name, address, ipv6, &seen, proxied));
    match context.resolver.caa(name).await {
        Ok(caa) => findings.push(allowed(name, caa)),
        Err(error) => findings.push(unanswered(name, &error)),
    }
    Ok(findings)
}

fn unanswered(name: &Domain, error: &ResolveError) -> Finding {
    let text = error.to_string();
    let (found, fix) = text.split_once("; ").unwrap_or((&text, "try again"));
    Finding::wrong(format!("DNS {name}"), found.to_owned(), fix.to_owned())
}

/// The provider that answers with its own addresses for a name, if it does.
async fn proxied(place: Option<&Place>, name: &Domain) -> Option<&'static str> {
    let Place { dns, zone } = place?;
    let records = dns.records(zone, name).await.ok()?;
    records.iter().any(|record| record.proxied).then(|| titled(dns))
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

fn addresses(
    name: &Domain,
    address: IpAddr,
    ipv6: Option<Ipv6Addr>,
    seen: &Seen,
    proxied: Option<&'static str>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let by = match seen.aliases.as_slice() {
        [] => String::new(),
        aliases => format!(" (by CNAME to {})", list(aliases)),
    };
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = (
        seen.a.iter().copied().map(IpAddr::V4).collect(),
        seen.aaaa.iter().copied().map(IpAddr::V6).collect(),
    );
    let (own, other, own_kind, other_kind) =
        if address.is_ipv4() { (v4, v6, "A", "AAAA") } else { (v6, v4, "AAAA", "A") };
    let what = format!("{own_kind} {name}");
    let stray: Vec<&IpAddr> = own.iter().filter(|found| **found != address).collect();
    findings.push(if let Some(provider) = proxied {
        let fix = format!(
            "turn the proxy (the orange cloud) off at {provider}: the certificate is made on the VM"
        );
        Finding::wrong(what, format!("{provider}'s own addresses, {}", list(&own)), fix)
    } else if own.is_empty() {
        let fix = format!("make the record `{own_kind} {name} {address}`");
        Finding::wrong(what, format!("no record{by}"), fix)
    } else if stray.is_empty() {
        Finding::right(what, format!("{address}{by}"))
    } else if own.contains(&address) {
        let fix = format!("delete {}: every second visitor is sent there", list(stray));
        Finding::wrong(what, format!("{}{by}", list(&own)), fix)
    } else {
        let fix = format!("change it to {address}, where the app's VM is");
        Finding::wrong(what, format!("{}{by}", list(&own)), fix)
    });
    let beside = ipv6.map(IpAddr::V6).filter(|_| address.is_ipv4());
    let strays: Vec<&IpAddr> = other.iter().filter(|found| Some(**found) != beside).collect();
    if let (Some(beside), true) = (beside, strays.is_empty()) {
        // No record is fine too: the app is reached at the other address then.
        if other.contains(&beside) {
            findings.push(Finding::right(format!("{other_kind} {name}"), beside.to_string()));
        }
    } else if let (Some(beside), None) = (beside, proxied) {
        let fix = format!(
            "change it to {beside}, the VM's own, or delete it: Let's Encrypt and most visitors \
             prefer IPv6"
        );
        let what = format!("{other_kind} {name}");
        findings.push(Finding::wrong(what, format!("points elsewhere, to {}", list(strays)), fix));
    } else if !other.is_empty() && proxied.is_none() {
        let fix = format!(
            "delete the {other_kind} record: the app is reached at {address} only, and Let's Encrypt \
             and most visitors prefer IPv6"
        );
        let what = format!("{other_kind} {name}");
        findings.push(Finding::wrong(what, format!("points elsewhere, to {}", list(&other)), fix));
    }
    if !seen.differing.is_empty() {
        let fix = "wait a minute: the change has not reached all servers of the zone".to_owned();
        let found = format!("{} say something else than the first", list(&seen.differing));
        findings.push(Finding::wrong(format!("name servers of {name}"), found, fix));
    }
    findings
}

fn allowed(name: &Domain, caa: Option<Caa>) -> Finding {
    let what = format!("CAA {name}");
    match caa {
        None if sslip::is_one(name) => Finding::right(what, sslip::CAVEAT.to_owned()),
        None => Finding::right(what, "no record, so Let's Encrypt may issue".to_owned()),
        Some(caa) if caa.allows => {
            Finding::right(what, format!("{} allows letsencrypt.org", caa.at))
        }
        Some(caa) => {
            let issuers: Vec<&String> = caa.issuers.iter().filter(|one| !one.is_empty()).collect();
            let who = if issuers.is_empty() { "nobody".to_owned() } else { list(issuers) };
            let fix = format!("add the record `CAA {} 0 issue \"letsencrypt.org\"`", caa.at);
            Finding::wrong(what, format!("{} lets only {who} issue certificates", caa.at), fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(a: &[&str], aaaa: &[&str]) -> Seen {
        Seen {
            a: a.iter().map(|one| one.parse().expect("IPv4")).collect(),
            aaaa: aaaa.iter().map(|one| one.parse().expect("IPv6")).collect(),
            ..Seen::default()
        }
    }

    fn lines(seen: &Seen, proxied: Option<&'static str>) -> Vec<String> {
        lines_with(None, seen, proxied)
    }

    fn lines_with(ipv6: Option<&str>, seen: &Seen, proxied: Option<&'static str>) -> Vec<String> {
        let name = Domain::given("shop.example.com").expect("a domain");
        let address = "203.0.113.7".parse().expect("an address");
        let ipv6 = ipv6.map(|text| text.parse().expect("IPv6"));
        addresses(&name, address, ipv6, seen, proxied).iter().map(Finding::line).collect()
    }

    #[test]
    fn a_vm_with_ipv6_may_be_reached_there_and_nowhere_else() {
        let own = Some("2001:db8::7");
        let right = "A shop.example.com: 203.0.113.7";
        assert_eq!(lines_with(own, &seen(&["203.0.113.7"], &[]), None), [right]);
        let both = seen(&["203.0.113.7"], &["2001:db8::7"]);
        assert_eq!(lines_with(own, &both, None), [right, "AAAA shop.example.com: 2001:db8::7"]);
        let stray = seen(&["203.0.113.7"], &["2001:db8::7", "2001:db8::1"]);
        let told = lines_with(own, &stray, None).concat();
        assert!(
            told.contains("points elsewhere, to 2001:db8::1; change it to 2001:db8::7"),
            "{told}"
        );
    }

    #[test]
    fn each_way_to_be_wrong_is_told_with_what_to_do() {
        assert_eq!(lines(&seen(&["203.0.113.7"], &[]), None), ["A shop.example.com: 203.0.113.7"]);
        let told = lines(&seen(&[], &[]), None).concat();
        assert!(
            told.ends_with("no record; make the record `A shop.example.com 203.0.113.7`"),
            "{told}"
        );
        let told = lines(&seen(&["192.0.2.1"], &[]), None).concat();
        assert!(told.contains("192.0.2.1; change it to 203.0.113.7"), "{told}");
        let told = lines(&seen(&["192.0.2.1", "203.0.113.7"], &[]), None).concat();
        assert!(told.contains("delete 192.0.2.1: every second visitor"), "{told}");
        let told = lines(&seen(&["203.0.113.7"], &["2001:db8::1"]), None);
        assert!(told[1].starts_with("WRONG AAAA shop.example.com: points elsewhere"), "{told:?}");
        let told = lines(&seen(&["104.16.0.1"], &[]), Some("Cloudflare")).concat();
        assert!(told.contains("turn the proxy (the orange cloud) off at Cloudflare"), "{told}");
    }

    #[test]
    fn a_caa_record_that_forbids_our_authority_is_told_with_the_one_to_add() {
        let name = Domain::given("shop.example.com").expect("a domain");
        let caa = |issuers: &[&str], allows| {
            let issuers = issuers.iter().map(|&one| one.to_owned()).collect();
            allowed(&name, Some(Caa { at: "example.com".to_owned(), issuers, allows })).line()
        };
        assert_eq!(
            caa(&["digicert.com"], false),
            "WRONG CAA shop.example.com: example.com lets only digicert.com issue certificates; \
             add the record `CAA example.com 0 issue \"letsencrypt.org\"`"
        );
        assert!(caa(&[""], false).contains("lets only nobody issue"));
        assert!(caa(&["letsencrypt.org"], true).ends_with("allows letsencrypt.org"));
    }
}
