//! `/zones/{id}/dns_records`.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::body::Bytes;
use axum::extract::{FromRequest, Json, Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::answers::{ApiError, Query, ok, page};
use super::{Cloudflare, Zone, id};
use crate::clock;

const KINDS: [&str; 10] = ["A", "AAAA", "CAA", "CNAME", "HTTPS", "MX", "NS", "SRV", "SVCB", "TXT"];
/// As many as a free plan's comment takes.
const COMMENT_MAX: usize = 100;

pub(super) struct Record {
    id: String,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) content: String,
    data: Option<Value>,
    ttl: u64,
    pub(super) proxied: bool,
    comment: Option<String>,
    tags: Value,
    created: Timestamp,
    modified: Timestamp,
}

impl Record {
    pub(super) fn json(&self) -> Value {
        let at = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let proxiable = ["A", "AAAA", "CNAME"].contains(&&*self.kind);
        let mut body = json!({
            "id": self.id, "name": self.name, "type": self.kind, "content": self.content,
            "proxiable": proxiable, "proxied": self.proxied,
            "ttl": self.ttl, "settings": {}, "meta": {}, "comment": self.comment,
            "tags": self.tags, "created_on": at(self.created), "modified_on": at(self.modified),
        });
        if let Some(data) = &self.data {
            body["data"] = data.clone();
        }
        if self.comment.is_some() {
            body["comment_modified_on"] = at(self.modified).into();
        }
        body
    }

    /// 1 stands for what Cloudflare chooses.
    pub(super) fn answer_ttl(&self) -> u32 {
        if self.ttl == 1 { 300 } else { u32::try_from(self.ttl).unwrap_or(300) }
    }

    fn same_place(&self, other: &Self) -> bool {
        self.id != other.id && self.name == other.name
    }
}

/// A body that is a JSON object.
pub(super) struct Body(Value);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await.unwrap_or_default();
        match serde_json::from_slice(&bytes) {
            Ok(body @ Value::Object(_)) => Ok(Self(body)),
            _ => Err(ApiError::record(9207, "Request body is invalid.")),
        }
    }
}

pub(super) async fn list(
    State(cloudflare): State<Cloudflare>,
    Path(zone): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let mut account = cloudflare.account();
    let zone = account.zone(&zone)?;
    let name = query.get("name.exact").or(query.get("name"));
    let comment = query.get("comment.exact").or(query.get("comment"));
    let content = query.get("content.exact").or(query.get("content"));
    let takes = |record: &&Record| {
        name.is_none_or(|name| record.name == name.to_ascii_lowercase())
            && query.get("type").is_none_or(|kind| record.kind == kind)
            && content.is_none_or(|content| record.content == content)
            && comment.is_none_or(|comment| record.comment.as_deref() == Some(comment))
    };
    let shown = zone.records.iter().filter(takes).map(Record::json).collect();
    page(&query, shown, (100, 1..=5_000_000))
}

pub(super) async fn show(
    State(cloudflare): State<Cloudflare>,
    Path((zone, record)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let mut account = cloudflare.account();
    let found = account.zone(&zone)?.records.iter().find(|one| one.id == record);
    Ok(Json(ok(found.ok_or_else(ApiError::no_record)?.json())))
}

pub(super) async fn create(
    State(cloudflare): State<Cloudflare>,
    Path(zone): Path<String>,
    Body(body): Body,
) -> Result<Json<Value>, ApiError> {
    let mut account = cloudflare.account();
    let zone = account.zone(&zone)?;
    let record = read(zone, &body, None)?;
    check(zone, &record)?;
    let shown = record.json();
    zone.records.push(record);
    Ok(Json(ok(shown)))
}

pub(super) async fn replace(
    state: State<Cloudflare>,
    path: Path<(String, String)>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    write(state, path, body, false)
}

pub(super) async fn change(
    state: State<Cloudflare>,
    path: Path<(String, String)>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    write(state, path, body, true)
}

fn write(
    State(cloudflare): State<Cloudflare>,
    Path((zone, id)): Path<(String, String)>,
    Body(mut body): Body,
    keeps: bool,
) -> Result<Json<Value>, ApiError> {
    let mut account = cloudflare.account();
    let zone = account.zone(&zone)?;
    let at = zone.records.iter().position(|one| one.id == id).ok_or_else(ApiError::no_record)?;
    if keeps {
        let mut merged = zone.records[at].json();
        if let (Some(merged), Some(given)) = (merged.as_object_mut(), body.as_object()) {
            merged.extend(given.clone());
        }
        body = merged;
    }
    let record = read(zone, &body, Some(&zone.records[at]))?;
    check(zone, &record)?;
    let shown = record.json();
    zone.records[at] = record;
    Ok(Json(ok(shown)))
}

pub(super) async fn delete(
    State(cloudflare): State<Cloudflare>,
    Path((zone, id)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let mut account = cloudflare.account();
    let zone = account.zone(&zone)?;
    let at = zone.records.iter().position(|one| one.id == id).ok_or_else(ApiError::no_record)?;
    zone.records.remove(at);
    Ok(Json(ok(json!({"id": id}))))
}

/// The record that a body asks for; `before` is the one that it replaces.
fn read(zone: &Zone, body: &Value, before: Option<&Record>) -> Result<Record, ApiError> {
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let kind = text("type");
    if !KINDS.contains(&&*kind) {
        return Err(ApiError::record(9000, "DNS record type is invalid."));
    }
    let data = body.get("data").filter(|data| data.is_object()).cloned();
    let mut content = text("content");
    if let (Some(data), "CAA") = (&data, &*kind) {
        let value = data["value"].as_str().unwrap_or_default();
        let tag = data["tag"].as_str().unwrap_or_default();
        content = format!("{} {tag} \"{value}\"", data["flags"].as_u64().unwrap_or(0));
    }
    let bad = match &*kind {
        "A" if content.parse::<Ipv4Addr>().is_err() => {
            Some((9005, "Content for A record must be a valid IPv4 address."))
        }
        "AAAA" if content.parse::<Ipv6Addr>().is_err() => {
            Some((9006, "Content for AAAA record must be a valid IPv6 address."))
        }
        "CNAME" if !is_name(&content) => Some((9007, "Content for CNAME record is invalid.")),
        _ if content.is_empty() => Some((9008, "DNS record content is required.")),
        _ => None,
    };
    if let Some((code, message)) = bad {
        return Err(ApiError::record(code, message));
    }
    let given = text("name").trim_end_matches('.').to_ascii_lowercase();
    let inside = given == zone.name || given.ends_with(&format!(".{}", zone.name));
    let name = match given.as_str() {
        "" => return Err(ApiError::record(9000, "DNS name is invalid.")),
        "@" => zone.name.clone(),
        _ if inside => given,
        // A name outside of the zone is taken for one within it.
        _ => format!("{given}.{}", zone.name),
    };
    if !is_name(&name) {
        return Err(ApiError::record(9000, "DNS name is invalid."));
    }
    let proxied = body["proxied"].as_bool().unwrap_or(false);
    if proxied && !["A", "AAAA", "CNAME"].contains(&&*kind) {
        return Err(ApiError::record(9004, "This record type cannot be proxied."));
    }
    let ttl = body["ttl"].as_u64().unwrap_or(1);
    if ttl != 1 && !(60..=86_400).contains(&ttl) {
        return Err(ApiError::record(
            9021,
            "Invalid TTL. Must be between 60 and 86400 seconds, or 1 for Automatic.",
        ));
    }
    let comment = body["comment"].as_str().map(str::to_owned);
    if comment.as_ref().is_some_and(|comment| comment.chars().count() > COMMENT_MAX) {
        return Err(ApiError::record(9300, "DNS record has an invalid comment: it is too long."));
    }
    let now = clock::now();
    Ok(Record {
        id: before.map_or_else(id, |before| before.id.clone()),
        name,
        kind,
        content,
        data,
        ttl: if proxied { 1 } else { ttl },
        proxied,
        comment,
        tags: body.get("tags").filter(|tags| tags.is_array()).cloned().unwrap_or(json!([])),
        created: before.map_or(now, |before| before.created),
        modified: now,
    })
}

/// Underscores are good in names of records that are no hosts.
fn is_name(text: &str) -> bool {
    let text = text.strip_prefix("*.").unwrap_or(text);
    !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        })
}

fn check(zone: &Zone, record: &Record) -> Result<(), ApiError> {
    let hosts = ["A", "AAAA", "CNAME"];
    for other in zone.records.iter().filter(|other| other.same_place(record)) {
        if other.kind == record.kind && other.content == record.content {
            return Err(ApiError::record(81058, "An identical record already exists."));
        }
        if record.kind == "CNAME" && hosts.contains(&&*other.kind) {
            return Err(ApiError::record(
                81053,
                "An A, AAAA, or CNAME record with that host already exists.",
            ));
        }
        if other.kind == "CNAME" && hosts.contains(&&*record.kind) {
            return Err(ApiError::record(81054, "A CNAME record with that host already exists."));
        }
        if (other.kind == "NS") != (record.kind == "NS") && record.name != zone.name {
            return Err(ApiError::record(81056, "NS records with that host already exist."));
        }
    }
    let named = zone.records.len() >= 3500;
    if named {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, 81045, "Record quota exceeded."));
    }
    Ok(())
}
