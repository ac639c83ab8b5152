//! DigitalOcean's domains, with the cloud's token. Records have no place for a mark there, so our
//! own table says which are ours.

use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{Dns, DnsError, Record, RecordKind, TTL, Wanted, Zone};
use crate::domain::clock::Millis;
use crate::domain::names::Domain;
use crate::domain::secret::Secret;
use crate::requests::{Answer, Api, Call, Dialect, Pace, Refusal};

const PROVIDER: &str = "DigitalOcean";
const PER_PAGE: u32 = 200;
const PAGES_MAX: u32 = 200;
/// Where DigitalOcean's zones are served.
const NAMESERVERS: [&str; 3] =
    ["ns1.digitalocean.com", "ns2.digitalocean.com", "ns3.digitalocean.com"];

static DIALECT: Dialect = Dialect {
    name: PROVIDER,
    headers: &[("accept", "application/json")],
    correlation: "x-request-id",
    refusal: for_now,
};

/// `ratelimit-reset` is when the oldest call of the hour expires, so it is when one more is taken.
fn for_now(answer: &Answer, now: Millis) -> Option<Refusal> {
    (answer.status.as_u16() == 429).then(|| {
        let reset = answer.header_number("ratelimit-reset").map(|at| Millis(at * 1000));
        Refusal::Limited { until: answer.retry_after(now).or(reset) }
    })
}

#[derive(Deserialize, Default)]
struct Fault {
    #[serde(default)]
    id: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Domains {
    domains: Vec<DomainBody>,
    #[serde(default)]
    links: Links,
}

#[derive(Deserialize, Default)]
struct Links {
    #[serde(default)]
    pages: Option<Pages>,
}

#[derive(Deserialize, Default)]
struct Pages {
    #[serde(default)]
    next: Option<String>,
}

impl Links {
    fn go_on(&self) -> bool {
        self.pages.as_ref().is_some_and(|pages| pages.next.is_some())
    }
}

#[derive(Deserialize)]
struct OneDomain {
    domain: DomainBody,
}

#[derive(Deserialize)]
struct DomainBody {
    name: String,
}

impl DomainBody {
    fn zone(self) -> Option<Zone> {
        let name = Domain::given(&self.name).ok()?;
        let nameservers = NAMESERVERS.map(str::to_owned).to_vec();
        // It does not say whether the registrar names its servers.
        Some(Zone { id: self.name, name, active: true, nameservers })
    }
}

#[derive(Deserialize)]
struct Records {
    domain_records: Vec<RecordBody>,
    #[serde(default)]
    links: Links,
}

#[derive(Deserialize)]
struct OneRecord {
    domain_record: RecordBody,
}

#[derive(Deserialize)]
struct RecordBody {
    id: u64,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    data: String,
}

impl RecordBody {
    fn record(self, zone: &Zone, name: &Domain) -> Option<Record> {
        (self.name == name.within(&zone.name)).then(|| Record {
            id: self.id.to_string(),
            name: name.clone(),
            kind: RecordKind::of(&self.kind),
            values: vec![self.data],
            proxied: false,
            mark: None,
        })
    }
}

/// The domains of a DigitalOcean team with one token.
#[derive(Clone)]
pub struct DigitalOcean {
    api: Api,
}

impl std::fmt::Debug for DigitalOcean {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigitalOcean")
    }
}

impl DigitalOcean {
    /// A client at `base_url` (without `/v2`); talks to nobody yet.
    pub fn new(base_url: &Url, token: Secret, pace: Pace) -> Result<Self, DnsError> {
        Ok(Self { api: Api::new(&DIALECT, base_url, token, pace)? })
    }

    async fn ask(&self, call: &Call, what: &str) -> Result<Answer, DnsError> {
        let answer = self.api.send(call).await?;
        if answer.is_success() {
            return Ok(answer);
        }
        let fault: Fault = serde_json::from_slice(&answer.body).unwrap_or_default();
        Err(DnsError::of_status(&self.api, &answer, what, &fault.id, &fault.message))
    }

    fn body(zone: &Zone, wanted: &Wanted) -> Value {
        json!({
            "type": wanted.kind.as_str(), "name": wanted.name.within(&zone.name),
            "data": wanted.value, "ttl": TTL,
        })
    }

    async fn write(&self, call: Call, zone: &Zone, wanted: &Wanted) -> Result<Record, DnsError> {
        let what = format!("{} {}", wanted.kind, wanted.name);
        let answer = self.ask(&call.body(Self::body(zone, wanted)), &what).await?;
        let body: OneRecord = answer.json("the record")?;
        let absent = DnsError::NotFound { provider: PROVIDER, what };
        body.domain_record.record(zone, &wanted.name).ok_or(absent)
    }
}

fn records_of(call: Call, zone: &Zone) -> Call {
    call.at(&zone.id).under("records")
}

impl Dns for DigitalOcean {
    async fn zones(&self) -> Result<Vec<Zone>, DnsError> {
        const WHAT: &str = "the domains";
        let mut all = Vec::new();
        for page in 1..=PAGES_MAX {
            let call = Call::get("v2/domains").query("page", page).query("per_page", PER_PAGE);
            let body: Domains = self.ask(&call, WHAT).await?.json(WHAT)?;
            all.extend(body.domains.into_iter().filter_map(DomainBody::zone));
            if !body.links.go_on() {
                break;
            }
        }
        Ok(all)
    }

    async fn zone(&self, name: &Domain) -> Result<Option<Zone>, DnsError> {
        match self.ask(&Call::get("v2/domains").at(name), name.as_str()).await {
            Ok(answer) => Ok(answer.json::<OneDomain>("a domain")?.domain.zone()),
            Err(DnsError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn records(&self, zone: &Zone, name: &Domain) -> Result<Vec<Record>, DnsError> {
        const WHAT: &str = "the records";
        let mut all = Vec::new();
        for page in 1..=PAGES_MAX {
            // The filter takes the whole name, although a record has the name within the zone.
            let call = records_of(Call::get("v2/domains"), zone).query("name", name);
            let call = call.query("page", page).query("per_page", PER_PAGE);
            let body: Records = self.ask(&call, WHAT).await?.json(WHAT)?;
            all.extend(body.domain_records.into_iter().filter_map(|one| one.record(zone, name)));
            if !body.links.go_on() {
                break;
            }
        }
        Ok(all)
    }

    async fn create(&self, zone: &Zone, wanted: &Wanted) -> Result<Record, DnsError> {
        self.write(records_of(Call::post("v2/domains"), zone), zone, wanted).await
    }

    async fn change(
        &self,
        zone: &Zone,
        record: &Record,
        wanted: &Wanted,
    ) -> Result<Record, DnsError> {
        let call = records_of(Call::put("v2/domains"), zone).at(&record.id);
        self.write(call, zone, wanted).await
    }

    async fn delete(&self, zone: &Zone, record: &Record) -> Result<(), DnsError> {
        let call = records_of(Call::delete("v2/domains"), zone).at(&record.id);
        match self.ask(&call, &record.line()).await {
            Ok(_) | Err(DnsError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn title(&self) -> &'static str {
        PROVIDER
    }

    fn pace(&self) -> &Pace {
        self.api.pace()
    }
}
