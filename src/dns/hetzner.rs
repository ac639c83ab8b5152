//! Hetzner's zones, in its Cloud API and with the cloud's token. Records of one name and kind are one
//! thing there (an RRSet); our mark is its labels.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{
    Dns, DnsError, ENVIRONMENT, INSTALLATION, Mark, Record, RecordKind, TTL, Wanted, Zone,
};
use crate::domain::clock::Millis;
use crate::domain::names::Domain;
use crate::domain::secret::Secret;
use crate::requests::{Answer, Api, Call, Dialect, Pace, Refusal};

const PROVIDER: &str = "Hetzner";
const PER_PAGE: u32 = 50;
const PAGES_MAX: u32 = 200;
/// How long a change may take to reach Hetzner's name servers.
const ACTION_WAIT: Duration = Duration::from_secs(30);

static DIALECT: Dialect = Dialect {
    name: PROVIDER,
    headers: &[("accept", "application/json")],
    correlation: "x-correlation-id",
    refusal: for_now,
};

fn for_now(answer: &Answer, now: Millis) -> Option<Refusal> {
    match answer.status.as_u16() {
        429 => Some(Refusal::Limited { until: answer.retry_after(now) }),
        409 if fault(answer).code == "conflict" => Some(Refusal::Busy),
        423 if fault(answer).code == "locked" => Some(Refusal::Busy),
        _ => None,
    }
}

#[derive(Deserialize, Default)]
struct ErrorBody {
    #[serde(default)]
    error: Fault,
}

#[derive(Deserialize, Default)]
struct Fault {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

fn fault(answer: &Answer) -> Fault {
    serde_json::from_slice::<ErrorBody>(&answer.body).unwrap_or_default().error
}

#[derive(Deserialize)]
struct Zones {
    zones: Vec<ZoneBody>,
    #[serde(default)]
    meta: Meta,
}

#[derive(Deserialize, Default)]
struct Meta {
    #[serde(default)]
    pagination: Pagination,
}

#[derive(Deserialize, Default)]
struct Pagination {
    #[serde(default)]
    next_page: Option<u32>,
}

#[derive(Deserialize)]
struct ZoneBody {
    id: u64,
    name: String,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    authoritative_nameservers: Nameservers,
}

#[derive(Deserialize, Default)]
struct Nameservers {
    #[serde(default)]
    assigned: Vec<String>,
    #[serde(default)]
    delegation_status: Option<String>,
}

impl ZoneBody {
    /// A secondary zone is written elsewhere.
    fn zone(self) -> Option<Zone> {
        let servers = self.authoritative_nameservers;
        let delegated = servers.delegation_status.as_deref();
        let active = !matches!(delegated, Some("invalid" | "lame" | "unregistered"));
        (self.mode.as_deref() != Some("secondary")).then_some(())?;
        Some(Zone {
            id: self.id.to_string(),
            name: Domain::given(&self.name).ok()?,
            active,
            nameservers: servers.assigned,
        })
    }
}

#[derive(Deserialize)]
struct Rrsets {
    rrsets: Vec<RrsetBody>,
    #[serde(default)]
    meta: Meta,
}

#[derive(Deserialize)]
struct RrsetBody {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    records: Vec<ValueBody>,
}

#[derive(Deserialize)]
struct ValueBody {
    value: String,
}

impl RrsetBody {
    fn record(self, zone: &Zone, name: &Domain) -> Option<Record> {
        if self.name != name.within(&zone.name) {
            return None;
        }
        let label = |key: &str| self.labels.get(key).map(String::as_str);
        let mark = label(INSTALLATION)
            .zip(label(ENVIRONMENT))
            .and_then(|(installation, environment)| Mark::of(installation, environment));
        Some(Record {
            id: format!("{}/{}", self.name, self.kind),
            name: name.clone(),
            kind: RecordKind::of(&self.kind),
            values: self.records.into_iter().map(|record| record.value).collect(),
            proxied: false,
            mark,
        })
    }
}

#[derive(Deserialize)]
struct Made {
    rrset: RrsetBody,
    action: Action,
}

#[derive(Deserialize)]
struct Accepted {
    action: Action,
}

#[derive(Deserialize)]
struct Action {
    id: u64,
    status: String,
    #[serde(default)]
    error: Option<Fault>,
}

/// The zones of a Hetzner project with one token.
#[derive(Clone)]
pub struct HetznerDns {
    api: Api,
}

impl std::fmt::Debug for HetznerDns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HetznerDns")
    }
}

impl HetznerDns {
    /// A client at `base_url` (with its `/v1`); talks to nobody yet.
    pub fn new(base_url: &Url, token: Secret, pace: Pace) -> Result<Self, DnsError> {
        Ok(Self { api: Api::new(&DIALECT, base_url, token, pace)? })
    }

    async fn ask(&self, call: &Call, what: &str) -> Result<Answer, DnsError> {
        let answer = self.api.send(call).await?;
        if answer.is_success() {
            return Ok(answer);
        }
        let fault = fault(&answer);
        let (provider, what) = (PROVIDER, what.to_owned());
        Err(match fault.code.as_str() {
            "token_readonly" => {
                DnsError::Forbidden { provider, reason: "it is read-only".to_owned() }
            }
            "uniqueness_error" => DnsError::Taken { provider, what },
            "protected" => DnsError::Protected { provider, what },
            "locked" => DnsError::Conflict { provider, what },
            _ => DnsError::of_status(&self.api, &answer, &what, &fault.code, &fault.message),
        })
    }

    async fn zone_pages(&self, name: Option<&Domain>) -> Result<Vec<Zone>, DnsError> {
        const WHAT: &str = "the zones";
        let (mut all, mut page) = (Vec::new(), 1);
        for _ in 0..PAGES_MAX {
            let mut call = Call::get("zones").query("page", page).query("per_page", PER_PAGE);
            if let Some(name) = name {
                call = call.query("name", name);
            }
            let body: Zones = self.ask(&call, WHAT).await?.json(WHAT)?;
            all.extend(body.zones.into_iter().filter_map(ZoneBody::zone));
            match body.meta.pagination.next_page {
                Some(next) if next > page => page = next,
                _ => break,
            }
        }
        Ok(all)
    }

    /// Waits until a change is with the name servers.
    async fn done(&self, mut action: Action, what: &str) -> Result<(), DnsError> {
        let mut waits = self.api.pace().polls(ACTION_WAIT);
        loop {
            let failed = |reason: String| DnsError::ActionFailed {
                provider: PROVIDER,
                what: what.to_owned(),
                reason,
            };
            match action.status.as_str() {
                "success" => return Ok(()),
                "error" => {
                    let error = action.error.unwrap_or_default();
                    return Err(failed(self.api.clean(&error.message)));
                }
                _ => {}
            }
            if !waits.wait().await {
                return Err(failed("it did not end in time".to_owned()));
            }
            let answer = self.ask(&Call::get("actions").at(action.id), what).await?;
            action = answer.json::<Accepted>("an action")?.action;
        }
    }

    async fn write(&self, call: Call, what: &str) -> Result<(), DnsError> {
        let answer = self.ask(&call, what).await?;
        self.done(answer.json::<Accepted>("an action")?.action, what).await
    }
}

fn labels(mark: &Mark) -> Value {
    json!({ INSTALLATION: mark.installation.bare(), ENVIRONMENT: mark.environment.bare() })
}

fn rrset(call: Call, zone: &Zone, name: &Domain, kind: &RecordKind) -> Call {
    call.at(&zone.id).under("rrsets").at(name.within(&zone.name)).at(kind.as_str())
}

impl Dns for HetznerDns {
    async fn zones(&self) -> Result<Vec<Zone>, DnsError> {
        self.zone_pages(None).await
    }

    async fn zone(&self, name: &Domain) -> Result<Option<Zone>, DnsError> {
        let found = self.zone_pages(Some(name)).await?;
        Ok(found.into_iter().find(|zone| zone.name == *name))
    }

    async fn records(&self, zone: &Zone, name: &Domain) -> Result<Vec<Record>, DnsError> {
        const WHAT: &str = "the records";
        let (mut all, mut page) = (Vec::new(), 1);
        for _ in 0..PAGES_MAX {
            let call = Call::get("zones").at(&zone.id).under("rrsets");
            let call = call.query("name", name.within(&zone.name));
            let call = call.query("page", page).query("per_page", PER_PAGE);
            let body: Rrsets = self.ask(&call, WHAT).await?.json(WHAT)?;
            all.extend(body.rrsets.into_iter().filter_map(|rrset| rrset.record(zone, name)));
            match body.meta.pagination.next_page {
                Some(next) if next > page => page = next,
                _ => break,
            }
        }
        Ok(all)
    }

    async fn create(&self, zone: &Zone, wanted: &Wanted) -> Result<Record, DnsError> {
        let what = format!("{} {}", wanted.kind, wanted.name);
        let body = json!({
            "name": wanted.name.within(&zone.name), "type": wanted.kind.as_str(), "ttl": TTL,
            "records": [{ "value": wanted.value }], "labels": labels(&wanted.mark),
        });
        let call = Call::post("zones").at(&zone.id).under("rrsets").body(body);
        let made: Made = self.ask(&call, &what).await?.json("the record")?;
        self.done(made.action, &what).await?;
        let absent = DnsError::NotFound { provider: PROVIDER, what };
        made.rrset.record(zone, &wanted.name).ok_or(absent)
    }

    async fn change(
        &self,
        zone: &Zone,
        record: &Record,
        wanted: &Wanted,
    ) -> Result<Record, DnsError> {
        let what = format!("{} {}", wanted.kind, wanted.name);
        let at = |call| rrset(call, zone, &wanted.name, &wanted.kind);
        // The mark first: a record that says what we want and is not ours would stay for ever.
        let labels = json!({ "labels": labels(&wanted.mark) });
        self.ask(&at(Call::put("zones")).body(labels), &what).await?;
        let body = json!({ "records": [{ "value": wanted.value }] });
        // Setting the same twice is setting it once.
        let call = at(Call::post("zones")).under("actions/set_records").body(body).repeatable();
        self.write(call, &what).await?;
        let values = vec![wanted.value.clone()];
        Ok(Record { values, mark: Some(wanted.mark), ..record.clone() })
    }

    async fn delete(&self, zone: &Zone, record: &Record) -> Result<(), DnsError> {
        let call = rrset(Call::delete("zones"), zone, &record.name, &record.kind);
        match self.write(call, &record.line()).await {
            Ok(()) | Err(DnsError::NotFound { .. }) => Ok(()),
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
