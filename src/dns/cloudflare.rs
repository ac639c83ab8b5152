//! Cloudflare: a thin client of its zones and records. Our mark is a record's comment.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use super::{Dns, DnsError, Mark, Record, RecordKind, TTL, Wanted, Zone};
use crate::domain::clock::Millis;
use crate::domain::names::Domain;
use crate::domain::secret::Secret;
use crate::requests::{Answer, Api, Call, Dialect, Pace, Refusal};

const PROVIDER: &str = "Cloudflare";
/// The most zones in one page.
const ZONES_PER_PAGE: u32 = 50;
const PAGES_MAX: u32 = 200;

static DIALECT: Dialect = Dialect {
    name: PROVIDER,
    headers: &[("accept", "application/json")],
    correlation: "cf-ray",
    refusal: for_now,
};

/// After a 429 all calls are blocked for the rest of the five minutes; `Retry-After` says how long.
fn for_now(answer: &Answer, now: Millis) -> Option<Refusal> {
    (answer.status.as_u16() == 429).then(|| Refusal::Limited { until: answer.retry_after(now) })
}

/// An account at Cloudflare with one token.
#[derive(Clone)]
pub struct Cloudflare {
    api: Api,
}

impl std::fmt::Debug for Cloudflare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cloudflare")
    }
}

#[derive(Deserialize)]
struct Envelope<T> {
    result: T,
    #[serde(default)]
    result_info: Option<PageInfo>,
}

#[derive(Deserialize, Default)]
struct PageInfo {
    #[serde(default)]
    total_pages: Option<u32>,
    #[serde(default)]
    total_count: Option<u32>,
}

#[derive(Deserialize, Default)]
struct Faults {
    #[serde(default)]
    errors: Vec<Fault>,
}

#[derive(Deserialize, Default)]
struct Fault {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    message: String,
    /// What lies behind a code that says only that something is wrong.
    #[serde(default)]
    error_chain: Vec<Fault>,
}

#[derive(Deserialize)]
struct ZoneBody {
    id: String,
    name: String,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    name_servers: Vec<String>,
}

#[derive(Deserialize)]
struct RecordBody {
    id: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    proxied: Option<bool>,
    #[serde(default)]
    comment: Option<String>,
}

#[derive(Deserialize)]
struct TokenBody {
    status: String,
}

impl From<ZoneBody> for Option<Zone> {
    fn from(body: ZoneBody) -> Self {
        let name = Domain::given(&body.name).ok()?;
        let active = body.status.as_deref().is_none_or(|status| status == "active");
        Some(Zone { id: body.id, name, active, nameservers: body.name_servers })
    }
}

impl RecordBody {
    /// Records of names that no app can have, such as `_dmarc`, are none of ours.
    fn record(self) -> Option<Record> {
        Some(Record {
            id: self.id,
            name: Domain::given(&self.name).ok()?,
            kind: RecordKind::of(&self.kind),
            values: self.content.into_iter().collect(),
            proxied: self.proxied.unwrap_or(false),
            mark: self.comment.as_deref().and_then(Mark::parse),
        })
    }
}

impl Cloudflare {
    /// A client at `base_url` (with its `/client/v4`); talks to nobody yet.
    pub fn new(base_url: &Url, token: Secret, pace: Pace) -> Result<Self, DnsError> {
        Ok(Self { api: Api::new(&DIALECT, base_url, token, pace)? })
    }

    /// Whether the token is good at all.
    ///
    /// # Errors
    /// [`DnsError::Auth`] for one that is not known, disabled or expired. A token that belongs to an
    /// account and not to a user is verified elsewhere: it is good if it lists zones.
    pub async fn verify(&self) -> Result<(), DnsError> {
        let answer = self.ask(&Call::get("user/tokens/verify"), "the token").await?;
        let body: Envelope<TokenBody> = answer.json("the token's state")?;
        match body.result.status.as_str() {
            "disabled" | "expired" => Err(DnsError::Auth { provider: PROVIDER }),
            _ => Ok(()),
        }
    }

    async fn ask(&self, call: &Call, what: &str) -> Result<Answer, DnsError> {
        let answer = self.api.send(call).await?;
        if answer.is_success() { Ok(answer) } else { Err(self.error(&answer, what)) }
    }

    fn error(&self, answer: &Answer, what: &str) -> DnsError {
        let faults = serde_json::from_slice::<Faults>(&answer.body).unwrap_or_default().errors;
        let first = faults.first();
        let (code, reason) = first.map_or((0, String::new()), |fault| {
            let chain = fault.error_chain.iter().map(|one| format!(": {}", one.message));
            (fault.code, format!("{}{}", fault.message, chain.collect::<String>()))
        });
        let provider = PROVIDER;
        match (code, answer.status.as_u16()) {
            (81057 | 81058 | 81053 | 81054, _) => {
                DnsError::Taken { provider, what: what.to_owned() }
            }
            (81044, _) => DnsError::NotFound { provider, what: what.to_owned() },
            // A header that is no token at all.
            (1000 | 6003 | 6111, 400 | 401 | 403) => DnsError::Auth { provider },
            (9109 | 10000, 401 | 403) => {
                DnsError::Forbidden { provider, reason: self.api.clean(&reason) }
            }
            _ => DnsError::of_status(&self.api, answer, what, &code.to_string(), &reason),
        }
    }

    async fn zone_pages(&self, name: Option<&Domain>) -> Result<Vec<Zone>, DnsError> {
        const WHAT: &str = "the zones";
        let mut all = Vec::new();
        for page in 1..=PAGES_MAX {
            let mut call = Call::get("zones").query("page", page).query("per_page", ZONES_PER_PAGE);
            if let Some(name) = name {
                call = call.query("name", name);
            }
            let body: Envelope<Vec<ZoneBody>> = self.ask(&call, WHAT).await?.json(WHAT)?;
            let (read, info) = (body.result.len(), body.result_info.unwrap_or_default());
            all.extend(body.result.into_iter().filter_map(Option::<Zone>::from));
            let pages = info
                .total_pages
                .unwrap_or_else(|| info.total_count.unwrap_or_default().div_ceil(ZONES_PER_PAGE));
            if page >= pages || read == 0 {
                break;
            }
        }
        Ok(all)
    }

    fn body(wanted: &Wanted) -> Value {
        json!({
            "type": wanted.kind.as_str(), "name": wanted.name, "content": wanted.value,
            "ttl": TTL, "proxied": false, "comment": wanted.mark.to_string(),
        })
    }

    async fn write(&self, call: Call, wanted: &Wanted) -> Result<Record, DnsError> {
        let what = format!("{} {}", wanted.kind, wanted.name);
        let answer = self.ask(&call.body(Self::body(wanted)), &what).await?;
        let body: Envelope<RecordBody> = answer.json("the record")?;
        // What it calls our name it must have understood.
        body.result.record().ok_or(DnsError::NotFound { provider: PROVIDER, what })
    }
}

fn records_call(zone: &Zone) -> Call {
    Call::get("zones").at(&zone.id).under("dns_records")
}

/// The rest of a record's path, with a method of its own.
fn record_path(call: Call, zone: &Zone, record: &Record) -> Call {
    call.at(&zone.id).under("dns_records").at(&record.id)
}

fn all<T: DeserializeOwned>(answer: &Answer, what: &'static str) -> Result<Vec<T>, DnsError> {
    Ok(answer.json::<Envelope<Vec<T>>>(what)?.result)
}

impl Dns for Cloudflare {
    async fn zones(&self) -> Result<Vec<Zone>, DnsError> {
        self.zone_pages(None).await
    }

    async fn zone(&self, name: &Domain) -> Result<Option<Zone>, DnsError> {
        let found = self.zone_pages(Some(name)).await?;
        Ok(found.into_iter().find(|zone| zone.name == *name))
    }

    async fn records(&self, zone: &Zone, name: &Domain) -> Result<Vec<Record>, DnsError> {
        const WHAT: &str = "the records";
        // One page holds far more records than a name can have.
        let call = records_call(zone).query("name.exact", name).query("per_page", 100);
        let bodies = all::<RecordBody>(&self.ask(&call, WHAT).await?, WHAT)?;
        let records = bodies.into_iter().filter_map(RecordBody::record);
        Ok(records.filter(|record| record.name == *name).collect())
    }

    async fn create(&self, zone: &Zone, wanted: &Wanted) -> Result<Record, DnsError> {
        self.write(Call::post("zones").at(&zone.id).under("dns_records"), wanted).await
    }

    async fn change(
        &self,
        zone: &Zone,
        record: &Record,
        wanted: &Wanted,
    ) -> Result<Record, DnsError> {
        self.write(record_path(Call::patch("zones"), zone, record), wanted).await
    }

    async fn delete(&self, zone: &Zone, record: &Record) -> Result<(), DnsError> {
        let call = record_path(Call::delete("zones"), zone, record);
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
