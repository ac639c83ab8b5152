//! `/domains` and their records.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::errors::ApiError;
use super::input::Input;
use super::listing::Query;
use super::project::{Domain, Project};
use super::{Answer, DigitalOcean, NO_CONTENT, Nothing, created, ok};
use crate::formats::is_hostname;

const TTL: u64 = 1800;
const TYPES: [&str; 9] = ["A", "AAAA", "CAA", "CNAME", "MX", "NS", "SOA", "SRV", "TXT"];

fn shown(name: &str, domain: &Domain) -> Value {
    let zone: Vec<String> = domain
        .records
        .values()
        .map(|record| {
            let text = |field: &str| record[field].as_str().unwrap_or_default().to_owned();
            let at = whole_name(name, &text("name"));
            format!("{at}. {} IN {} {}", record["ttl"], text("type"), text("data"))
        })
        .collect();
    let head = format!("$ORIGIN {name}.\n$TTL {}\n", domain.ttl);
    json!({"name": name, "ttl": domain.ttl, "zone_file": format!("{head}{}\n", zone.join("\n"))})
}

pub(super) async fn list(State(cloud): State<DigitalOcean>, query: Query) -> Response {
    let project = cloud.project();
    let all = project.domains.iter();
    query.page("domains", all.map(|(name, domain)| shown(name, domain)).collect())
}

pub(super) async fn create(State(cloud): State<DigitalOcean>, input: Input) -> Answer {
    let name = input.required_text("name")?.to_ascii_lowercase();
    if !is_hostname(&name) || !name.contains('.') {
        return Err(ApiError::refused("Name is not a valid domain name"));
    }
    let address = input.text("ip_address")?.map(str::to_owned);
    let mut project = cloud.project();
    if project.domains.contains_key(&name) {
        return Err(ApiError::refused(format!("Domain '{name}': domain already exists")));
    }
    let mut domain = Domain { ttl: TTL, records: Default::default() };
    for server in 1..=3 {
        let id = project.next_id();
        let data = format!("ns{server}.digitalocean.com");
        let record = json!({"type": "NS", "name": "@", "data": data, "ttl": TTL});
        domain.records.insert(id, whole(id, &record));
    }
    if let Some(address) = address {
        let id = project.next_id();
        let record = json!({"type": "A", "name": "@", "data": address, "ttl": TTL});
        domain.records.insert(id, whole(id, &record));
    }
    // A domain that has just been made has no zone file yet.
    let body = json!({"domain": {"name": name, "ttl": TTL, "zone_file": null}});
    project.domains.insert(name, domain);
    created(body)
}

pub(super) async fn show(State(cloud): State<DigitalOcean>, Path(name): Path<String>) -> Answer {
    ok(json!({"domain": shown(&name, find(&mut cloud.project(), &name)?)}))
}

pub(super) async fn delete(State(cloud): State<DigitalOcean>, Path(name): Path<String>) -> Nothing {
    cloud.project().domains.remove(&name).ok_or_else(ApiError::not_found)?;
    NO_CONTENT
}

/// `name` in the query is the whole name; in a record it is relative, and `@` is the apex.
pub(super) async fn records(
    State(cloud): State<DigitalOcean>,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let mut project = cloud.project();
    let domain = find(&mut project, &name)?;
    let fits = |record: &&Value| {
        let at = whole_name(&name, record["name"].as_str().unwrap_or_default());
        query.takes("name", &at) && query.takes("type", record["type"].as_str().unwrap_or_default())
    };
    Ok(query.page("domain_records", domain.records.values().filter(fits).cloned().collect()))
}

pub(super) async fn add(
    State(cloud): State<DigitalOcean>,
    Path(name): Path<String>,
    input: Input,
) -> Answer {
    let mut project = cloud.project();
    let id = project.next_id();
    let domain = find(&mut project, &name)?;
    let record = checked(&name, &input.0)?;
    let at = record["name"].clone();
    let clash = |other: &&Value| {
        let (own, its) = (&record["type"], &other["type"]);
        other["name"] == at && (*own == "CNAME") != (*its == "CNAME")
    };
    if domain.records.values().any(|other| clash(&other)) {
        return Err(ApiError::refused("CNAME records cannot share a name with other records"));
    }
    let record = whole(id, &record);
    domain.records.insert(id, record.clone());
    created(json!({"domain_record": record}))
}

pub(super) async fn record(
    State(cloud): State<DigitalOcean>,
    Path((name, id)): Path<(String, String)>,
) -> Answer {
    let mut project = cloud.project();
    let record = of_id(find(&mut project, &name)?, &id)?;
    ok(json!({"domain_record": record}))
}

pub(super) async fn change(
    State(cloud): State<DigitalOcean>,
    Path((name, id)): Path<(String, String)>,
    input: Input,
) -> Answer {
    let mut project = cloud.project();
    let record = of_id(find(&mut project, &name)?, &id)?;
    let mut wanted = record.clone();
    if let (Some(wanted), Some(change)) = (wanted.as_object_mut(), input.0.as_object()) {
        wanted.extend(change.clone());
    }
    let number = record["id"].as_u64().unwrap_or_default();
    *record = whole(number, &checked(&name, &wanted)?);
    ok(json!({"domain_record": record}))
}

pub(super) async fn remove(
    State(cloud): State<DigitalOcean>,
    Path((name, id)): Path<(String, String)>,
) -> Nothing {
    let mut project = cloud.project();
    let domain = find(&mut project, &name)?;
    let id: u64 = id.parse().map_err(|_| ApiError::not_found())?;
    domain.records.remove(&id).ok_or_else(ApiError::not_found)?;
    NO_CONTENT
}

fn find<'a>(project: &'a mut Project, name: &str) -> Result<&'a mut Domain, ApiError> {
    project.domains.get_mut(name).ok_or_else(ApiError::not_found)
}

fn of_id<'a>(domain: &'a mut Domain, id: &str) -> Result<&'a mut Value, ApiError> {
    let found = id.parse().ok().and_then(|id: u64| domain.records.get_mut(&id));
    found.ok_or_else(ApiError::not_found)
}

fn whole_name(domain: &str, name: &str) -> String {
    if name == "@" { domain.to_owned() } else { format!("{name}.{domain}") }
}

fn checked(domain: &str, record: &Value) -> Result<Value, ApiError> {
    let text = |field: &str| record[field].as_str().filter(|text| !text.is_empty());
    let kind = text("type").unwrap_or_default();
    if !TYPES.contains(&kind) {
        return Err(ApiError::refused("Type is not a valid record type"));
    }
    let data = text("data").ok_or_else(|| ApiError::refused("Data can't be blank."))?;
    let fits = match kind {
        "A" => data.parse::<std::net::Ipv4Addr>().is_ok(),
        "AAAA" => data.parse::<std::net::Ipv6Addr>().is_ok(),
        _ => true,
    };
    if !fits {
        return Err(ApiError::refused(format!("Data needs to be a valid address for {kind}")));
    }
    if record["ttl"].as_u64().is_some_and(|ttl| ttl < 30) {
        return Err(ApiError::refused("Ttl must be greater than or equal to 30"));
    }
    let mut record = record.clone();
    // A whole name is made relative, as the real one does.
    let name = text("name").unwrap_or("@").trim_end_matches('.').to_ascii_lowercase();
    let relative = name.strip_suffix(domain).map(|rest| rest.trim_end_matches('.').to_owned());
    let name = relative.map_or(name, |rest| if rest.is_empty() { "@".to_owned() } else { rest });
    record["name"] = name.into();
    Ok(record)
}

/// A record with every field that the API shows.
fn whole(id: u64, record: &Value) -> Value {
    let ttl = record["ttl"].as_u64().unwrap_or(TTL);
    json!({
        "id": id, "type": record["type"], "name": record["name"], "data": record["data"],
        "priority": record["priority"], "port": record["port"], "ttl": ttl,
        "weight": record["weight"], "flags": record["flags"], "tag": record["tag"],
    })
}
