//! `/zones` and their RRSets: DNS in the Cloud API. The sandbox's name server answers for them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::errors::{ApiError, Code};
use super::input::{Input, Labels};
use super::listing::Query;
use super::{Answer, Hetzner, created, ok};
use crate::clock;
use crate::dns::Entry;

const KINDS: [&str; 16] = [
    "A", "AAAA", "CAA", "CNAME", "DS", "HINFO", "HTTPS", "MX", "NS", "PTR", "RP", "SOA", "SRV",
    "SVCB", "TLSA", "TXT",
];
const VALUES_MAX: usize = 50;
const TTL: u64 = 3600;

/// The zones of a project.
#[derive(Default)]
pub(super) struct Zones(BTreeMap<u64, Zone>);

struct Zone {
    id: u64,
    name: String,
    ttl: u64,
    labels: Labels,
    created: Timestamp,
    protected: bool,
    rrsets: BTreeMap<(String, String), Rrset>,
}

struct Rrset {
    ttl: Option<u64>,
    labels: Labels,
    protected: bool,
    values: Vec<Value>,
}

pub(super) fn routes() -> Router<Hetzner> {
    let rrset = "/zones/{zone}/rrsets/{name}/{kind}";
    Router::new()
        .route("/zones", get(list).post(create))
        .route("/zones/{zone}", get(show).put(update).delete(delete))
        .route("/zones/{zone}/rrsets", get(list_rrsets).post(create_rrset))
        .route(rrset, get(show_rrset).put(update_rrset).delete(delete_rrset))
        .route(&format!("{rrset}/actions/{{action}}"), post(act))
}

impl Zones {
    fn find(&mut self, given: &str) -> Result<&mut Zone, ApiError> {
        let by = |zone: &&mut Zone| zone.name == given || zone.id.to_string() == given;
        let found = self.0.values_mut().find(by);
        found.ok_or_else(|| ApiError::not_found("zone", given))
    }
}

impl Zone {
    fn json(&self) -> Value {
        let servers = ["hydrogen.ns.hetzner.invalid.", "oxygen.ns.hetzner.invalid."];
        json!({
            "id": self.id, "name": self.name, "mode": "primary", "ttl": self.ttl,
            "labels": self.labels, "created": clock::rfc3339_offset(self.created),
            "primary_nameservers": [], "protection": {"delete": self.protected}, "status": "ok",
            "record_count": self.rrsets.values().map(|rrset| rrset.values.len()).sum::<usize>(),
            "authoritative_nameservers": {
                "assigned": servers, "delegated": servers, "delegation_status": "valid",
                "delegation_last_check": clock::rfc3339_offset(self.created),
            },
            "registrar": "other",
        })
    }

    fn rrset_json(&self, key: &(String, String)) -> Value {
        let (name, kind) = key;
        let Some(rrset) = self.rrsets.get(key) else { return Value::Null };
        json!({
            "id": format!("{name}/{kind}"), "name": name, "type": kind, "ttl": rrset.ttl,
            "labels": rrset.labels, "protection": {"change": rrset.protected},
            "records": rrset.values, "zone": self.id,
        })
    }

    fn rrset(&mut self, key: &(String, String)) -> Result<&mut Rrset, ApiError> {
        let id = format!("{}/{}", key.0, key.1);
        self.rrsets.get_mut(key).ok_or_else(|| ApiError::not_found("rrset", &id))
    }

    /// Refuses what stands beside a CNAME, and a CNAME beside anything.
    fn check_alias(&self, key: &(String, String)) -> Result<(), ApiError> {
        let others = self.rrsets.keys().filter(|other| other.0 == key.0 && *other != key);
        if others.clone().any(|other| other.1 == "CNAME") || key.1 == "CNAME" && others.count() > 0
        {
            return Err(ApiError::field("type", "a CNAME cannot stand beside other records"));
        }
        Ok(())
    }
}

impl Hetzner {
    /// `zones`, each with its `rrsets`, as the API shows them.
    pub(super) fn zones_json(&self) -> Value {
        let zones = crate::lock(&self.0.zones);
        let each = zones.0.values().map(|zone| {
            let mut shown = zone.json();
            shown["rrsets"] = zone.rrsets.keys().map(|key| zone.rrset_json(key)).collect();
            shown
        });
        each.collect()
    }

    /// What its name servers say.
    pub fn entries(&self) -> Vec<(String, Vec<Entry>)> {
        let zones = crate::lock(&self.0.zones);
        let whole = |name: &str, zone: &str| match name {
            "@" => zone.to_owned(),
            name => format!("{name}.{zone}"),
        };
        let each = zones.0.values().map(|zone| {
            let of = |((name, kind), rrset): (&(String, String), &Rrset)| {
                let ttl = u32::try_from(rrset.ttl.unwrap_or(zone.ttl)).unwrap_or(300);
                let (name, kind) = (whole(name, &zone.name), kind.clone());
                rrset
                    .values
                    .iter()
                    .map(|value| Entry {
                        name: name.clone(),
                        kind: kind.clone(),
                        value: value["value"].as_str().unwrap_or_default().to_owned(),
                        ttl,
                    })
                    .collect::<Vec<_>>()
            };
            (zone.name.clone(), zone.rrsets.iter().flat_map(of).collect())
        });
        each.collect()
    }

    /// Begins an action on a zone, ends it after the usual wait, and shows it.
    fn zone_action(&self, command: &str, zone: u64) -> Value {
        let mut project = self.project();
        let id = project.begin(command, vec![(zone, "zone")]);
        let shown = project.action_json(id);
        drop(project);
        self.later(id, None, std::future::ready(Ok(())));
        shown
    }
}

async fn list(State(hetzner): State<Hetzner>, query: Query) -> Response {
    let zones = crate::lock(&hetzner.0.zones);
    let shown = zones.0.values().filter(|zone| query.takes(&zone.name, &zone.labels));
    query.page("zones", shown.map(Zone::json).collect())
}

async fn create(State(hetzner): State<Hetzner>, input: Input) -> Answer {
    let name = input.required_text("name")?.to_ascii_lowercase();
    if !name.contains('.') || !is_name(&name) {
        return Err(ApiError::field("name", "is not a valid domain name"));
    }
    if input.required_text("mode")? != "primary" {
        return Err(ApiError::field("mode", "only primary zones are simulated"));
    }
    let labels = input.labels()?.unwrap_or_default();
    let id = hetzner.project().next_id();
    let shown = {
        let mut zones = crate::lock(&hetzner.0.zones);
        if zones.0.values().any(|zone| zone.name == name) {
            return Err(ApiError::not_unique("zone", "name"));
        }
        let ttl = input.get("ttl").and_then(Value::as_u64).unwrap_or(TTL);
        let created = clock::now();
        let rrsets = BTreeMap::new();
        let mut zone = Zone { id, name, ttl, labels, created, protected: false, rrsets };
        for given in input.list("rrsets")? {
            add(&mut zone, &Input(given))?;
        }
        let shown = zone.json();
        zones.0.insert(id, zone);
        shown
    };
    created(json!({"zone": shown, "action": hetzner.zone_action("create_zone", id)}))
}

async fn show(State(hetzner): State<Hetzner>, Path(zone): Path<String>) -> Answer {
    ok(json!({"zone": crate::lock(&hetzner.0.zones).find(&zone)?.json()}))
}

async fn update(State(hetzner): State<Hetzner>, Path(zone): Path<String>, input: Input) -> Answer {
    let mut zones = crate::lock(&hetzner.0.zones);
    let zone = zones.find(&zone)?;
    if let Some(labels) = input.labels()? {
        zone.labels = labels;
    }
    ok(json!({"zone": zone.json()}))
}

async fn delete(State(hetzner): State<Hetzner>, Path(zone): Path<String>) -> Answer {
    let id = {
        let mut zones = crate::lock(&hetzner.0.zones);
        let id = zones.find(&zone)?.id;
        zones.0.remove(&id);
        id
    };
    created(json!({"action": hetzner.zone_action("delete_zone", id)}))
}

async fn list_rrsets(
    State(hetzner): State<Hetzner>,
    Path(zone): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let mut zones = crate::lock(&hetzner.0.zones);
    let zone = zones.find(&zone)?;
    let takes = |((name, kind), rrset): &(&(String, String), &Rrset)| {
        query.takes(name, &rrset.labels) && query.one_of("type", kind)
    };
    let keys = zone.rrsets.iter().filter(takes).map(|(key, _)| key);
    Ok(query.page("rrsets", keys.map(|key| zone.rrset_json(key)).collect()))
}

async fn create_rrset(
    State(hetzner): State<Hetzner>,
    Path(zone): Path<String>,
    input: Input,
) -> Answer {
    let (id, shown) = {
        let mut zones = crate::lock(&hetzner.0.zones);
        let zone = zones.find(&zone)?;
        let key = add(zone, &input)?;
        (zone.id, zone.rrset_json(&key))
    };
    created(json!({"rrset": shown, "action": hetzner.zone_action("create_rrset", id)}))
}

async fn show_rrset(
    State(hetzner): State<Hetzner>,
    Path((zone, name, kind)): Path<(String, String, String)>,
) -> Answer {
    let mut zones = crate::lock(&hetzner.0.zones);
    let (zone, key) = (zones.find(&zone)?, (name, kind));
    zone.rrset(&key)?;
    ok(json!({"rrset": zone.rrset_json(&key)}))
}

async fn update_rrset(
    State(hetzner): State<Hetzner>,
    Path((zone, name, kind)): Path<(String, String, String)>,
    input: Input,
) -> Answer {
    let mut zones = crate::lock(&hetzner.0.zones);
    let (zone, key) = (zones.find(&zone)?, (name, kind));
    let rrset = zone.rrset(&key)?;
    if let Some(labels) = input.labels()? {
        rrset.labels = labels;
    }
    ok(json!({"rrset": zone.rrset_json(&key)}))
}

async fn delete_rrset(
    State(hetzner): State<Hetzner>,
    Path((zone, name, kind)): Path<(String, String, String)>,
) -> Answer {
    let id = {
        let mut zones = crate::lock(&hetzner.0.zones);
        let (zone, key) = (zones.find(&zone)?, (name, kind));
        if zone.rrset(&key)?.protected {
            return Err(ApiError::new(Code::Protected, "the rrset is protected"));
        }
        zone.rrsets.remove(&key);
        zone.id
    };
    created(json!({"action": hetzner.zone_action("delete_rrset", id)}))
}

async fn act(
    State(hetzner): State<Hetzner>,
    Path((zone, name, kind, action)): Path<(String, String, String, String)>,
    input: Input,
) -> Answer {
    let command = match action.as_str() {
        "set_records" => "set_rrset_records",
        "add_records" => "add_rrset_records",
        "remove_records" => "remove_rrset_records",
        "change_ttl" => "change_rrset_ttl",
        _ => return Err(ApiError::new(Code::NotFound, "the action was not found")),
    };
    let id = {
        let mut zones = crate::lock(&hetzner.0.zones);
        let zone = zones.find(&zone)?;
        let key = (name, kind);
        if zone.rrset(&key)?.protected {
            return Err(ApiError::new(Code::Protected, "the rrset is protected"));
        }
        match action.as_str() {
            "change_ttl" => zone.rrset(&key)?.ttl = input.get("ttl").and_then(Value::as_u64),
            "set_records" => zone.rrset(&key)?.values = values(&input, &key.1)?,
            "add_records" => {
                let more = values(&input, &key.1)?;
                let rrset = zone.rrset(&key)?;
                if more
                    .iter()
                    .any(|one| rrset.values.iter().any(|own| own["value"] == one["value"]))
                {
                    return Err(ApiError::not_unique("record", "value"));
                }
                rrset.values.extend(more);
            }
            _ => {
                let less = values(&input, &key.1)?;
                let rrset = zone.rrset(&key)?;
                rrset.values.retain(|own| less.iter().all(|one| one["value"] != own["value"]));
                if rrset.values.is_empty() {
                    zone.rrsets.remove(&key);
                }
            }
        }
        zone.id
    };
    created(json!({"action": hetzner.zone_action(command, id)}))
}

/// Adds the RRSet that a body asks for.
fn add(zone: &mut Zone, input: &Input) -> Result<(String, String), ApiError> {
    let name = input.required_text("name")?.to_owned();
    let kind = input.required_text("type")?.to_owned();
    if name != "@" && (!is_name(&name) || name != name.to_ascii_lowercase()) {
        return Err(ApiError::field("name", "is not a valid name within the zone"));
    }
    if !KINDS.contains(&&*kind) {
        return Err(ApiError::field("type", "is not a known type"));
    }
    let ttl = input.get("ttl").and_then(Value::as_u64);
    if ttl.is_some_and(|ttl| ttl < 60) {
        return Err(ApiError::field("ttl", "must be at least 60"));
    }
    let (values, labels) = (values(input, &kind)?, input.labels()?.unwrap_or_default());
    let key = (name, kind);
    if zone.rrsets.contains_key(&key) {
        return Err(ApiError::not_unique("rrset", "name"));
    }
    zone.check_alias(&key)?;
    zone.rrsets.insert(key.clone(), Rrset { ttl, labels, protected: false, values });
    Ok(key)
}

fn values(input: &Input, kind: &str) -> Result<Vec<Value>, ApiError> {
    let given = input.list("records")?;
    if given.is_empty() || given.len() > VALUES_MAX {
        return Err(ApiError::field("records", "must hold 1 to 50 records"));
    }
    for one in &given {
        let value = one["value"].as_str().unwrap_or_default();
        let good = match kind {
            "A" => value.parse::<Ipv4Addr>().is_ok(),
            "AAAA" => value.parse::<Ipv6Addr>().is_ok(),
            "TXT" => value.len() > 2 && value.starts_with('"') && value.ends_with('"'),
            _ => !value.is_empty(),
        };
        if !good {
            return Err(ApiError::field("records", &format!("`{value}` is no value for {kind}")));
        }
    }
    Ok(given)
}

fn is_name(text: &str) -> bool {
    let text = text.strip_prefix("*.").unwrap_or(text);
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        })
}
