//! The simulated Cloudflare API, under `/client/v4`: zones, their DNS records, and the token.
//! Its zones are served by the sandbox's DNS server.

mod answers;
mod records;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Json, Path, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock;
use crate::dns::Entry;
use answers::{ApiError, Query, ok, page};
use records::Record;

/// The zone that an account begins with.
pub const ZONE: &str = "example.com";
/// Calls that a token may make in [`WINDOW`].
const CALLS: u32 = 1200;
const WINDOW: Duration = Duration::from_secs(300);
/// An address of Cloudflare's own, with which it answers for proxied records.
const PROXY: &str = "104.16.0.1";

/// What the account is made to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Knobs {
    /// Zones that are there and active; one that is not named goes with its records.
    pub zones: Vec<String>,
    /// Zones that their registrar does not send anybody to yet.
    pub pending_zones: Vec<String>,
    /// `active`, `disabled` or `expired`.
    pub token_status: String,
    /// The token may read zones and not edit DNS.
    pub read_only_token: bool,
    /// Calls in five minutes before all are refused.
    pub calls: u32,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            zones: vec![ZONE.to_owned()],
            pending_zones: Vec::new(),
            token_status: "active".to_owned(),
            read_only_token: false,
            calls: CALLS,
        }
    }
}

/// One simulated Cloudflare account. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Cloudflare(Arc<Inner>);

struct Inner {
    token: String,
    state: Mutex<Account>,
}

struct Account {
    knobs: Knobs,
    zones: BTreeMap<String, Zone>,
    calls: VecDeque<Instant>,
    blocked: Option<Instant>,
}

struct Zone {
    id: String,
    name: String,
    active: bool,
    created: Timestamp,
    records: Vec<Record>,
}

/// 32 hexadecimal digits, as Cloudflare's ids are.
fn id() -> String {
    let bytes: [u8; 16] = rand::rng().random();
    hex::encode(bytes)
}

impl Cloudflare {
    /// An account that `token` opens, with one zone.
    pub fn new(token: &str) -> Self {
        let mut account = Account {
            knobs: Knobs::default(),
            zones: BTreeMap::new(),
            calls: VecDeque::new(),
            blocked: None,
        };
        account.turn(Knobs::default());
        Self(Arc::new(Inner { token: token.to_owned(), state: Mutex::new(account) }))
    }

    /// The API.
    pub fn router(&self) -> Router {
        let api = Router::new()
            .route("/user/tokens/verify", get(verify))
            .route("/zones", get(zones))
            .route("/zones/{zone}", get(zone))
            .route("/zones/{zone}/dns_records", get(records::list).post(records::create))
            .route(
                "/zones/{zone}/dns_records/{record}",
                get(records::show)
                    .put(records::replace)
                    .patch(records::change)
                    .delete(records::delete),
            );
        Router::new()
            .nest("/client/v4", api)
            .fallback(async || ApiError::no_route())
            .layer(from_fn_with_state(self.clone(), guard))
            .with_state(self.clone())
    }

    /// `GET|POST /_sandbox/knobs`: a POST changes only what it names.
    pub fn knobs_router(&self) -> Router {
        Router::new().route("/_sandbox/knobs", get(show_knobs).post(turn)).with_state(self.clone())
    }

    /// What the account is made to do.
    pub fn knobs(&self) -> Knobs {
        self.account().knobs.clone()
    }

    /// Makes the account do something else. Records of zones that stay are kept.
    pub fn set_knobs(&self, knobs: Knobs) {
        self.account().turn(knobs);
    }

    /// `zones`, each with its `records`, as the API shows them.
    pub fn state(&self) -> Value {
        let account = self.account();
        let zones: Vec<Value> = account
            .zones
            .values()
            .map(|zone| {
                let records: Vec<Value> = zone.records.iter().map(Record::json).collect();
                json!({"id": zone.id, "name": zone.name, "records": records})
            })
            .collect();
        json!({"zones": zones})
    }

    /// What its name servers say: active zones only, proxied records with its own address.
    pub fn entries(&self) -> Vec<(String, Vec<Entry>)> {
        let account = self.account();
        let active = account.zones.values().filter(|zone| zone.active);
        active
            .map(|zone| {
                let entries = zone.records.iter().map(|record| {
                    let (kind, value) = match record.proxied {
                        true => ("A".to_owned(), PROXY.to_owned()),
                        false => (record.kind.clone(), record.content.clone()),
                    };
                    Entry { name: record.name.clone(), kind, value, ttl: record.answer_ttl() }
                });
                (zone.name.clone(), entries.collect())
            })
            .collect()
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        crate::lock(&self.0.state)
    }
}

impl Account {
    fn turn(&mut self, knobs: Knobs) {
        let named = |zone: &Zone| {
            knobs.zones.contains(&zone.name) || knobs.pending_zones.contains(&zone.name)
        };
        self.zones.retain(|_, zone| named(zone));
        for (names, active) in [(&knobs.zones, true), (&knobs.pending_zones, false)] {
            for name in names {
                match self.zones.values_mut().find(|zone| zone.name == *name) {
                    Some(zone) => zone.active = active,
                    None => {
                        let (id, created) = (id(), clock::now());
                        let name = name.clone();
                        let zone = Zone { id: id.clone(), name, active, created, records: vec![] };
                        self.zones.insert(id, zone);
                    }
                }
            }
        }
        (self.calls, self.blocked) = (VecDeque::new(), None);
        self.knobs = knobs;
    }

    /// Takes one call; how many are left and for how many seconds, or for how long all is refused.
    fn take(&mut self) -> Result<(u32, u64), u64> {
        let now = Instant::now();
        if let Some(until) = self.blocked.filter(|until| *until > now) {
            return Err((until - now).as_secs() + 1);
        }
        self.calls.retain(|at| now.duration_since(*at) < WINDOW);
        if self.calls.len() >= self.knobs.calls as usize {
            self.blocked = Some(now + WINDOW);
            return Err(WINDOW.as_secs());
        }
        self.calls.push_back(now);
        let left = self.knobs.calls - u32::try_from(self.calls.len()).unwrap_or(u32::MAX);
        let oldest = self.calls.front().map_or(WINDOW, |at| WINDOW - now.duration_since(*at));
        Ok((left, oldest.as_secs()))
    }

    fn zone(&mut self, id: &str) -> Result<&mut Zone, ApiError> {
        // Cloudflare does not say whether a zone is there or is somebody else's.
        self.zones.get_mut(id).ok_or_else(ApiError::no_zone)
    }
}

impl Zone {
    fn json(&self) -> Value {
        let at = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        json!({
            "id": self.id, "name": self.name, "type": "full", "paused": false,
            "status": if self.active { "active" } else { "pending" },
            "development_mode": 0, "original_registrar": null, "original_dnshost": null,
            "original_name_servers": ["ns1.registrar.invalid", "ns2.registrar.invalid"],
            "name_servers": ["ada.ns.cloudflare.invalid", "bob.ns.cloudflare.invalid"],
            "created_on": at(self.created), "modified_on": at(self.created),
            "activated_on": self.active.then(|| at(self.created)),
            "owner": {"id": null, "type": "user", "name": null},
            "account": {"id": "0".repeat(32), "name": "Sandbox"},
            "meta": {"step": 2, "custom_certificate_quota": 0, "page_rule_quota": 3,
                "phishing_detected": false},
            "permissions": ["#dns_records:edit", "#dns_records:read", "#zone:read"],
            "tenant": {"id": null, "name": null}, "tenant_unit": {"id": null},
            "plan": {"id": "0".repeat(32), "name": "Free Website", "price": 0, "currency": "USD",
                "frequency": "", "is_subscribed": false, "can_subscribe": false,
                "legacy_id": "free", "legacy_discount": false, "externally_managed": false},
        })
    }
}

/// What stands before every request: the rate limit, then the token.
async fn guard(State(cloudflare): State<Cloudflare>, request: Request, next: Next) -> Response {
    let taken = cloudflare.account().take();
    let mut response = match (&taken, cloudflare.refusal(&request)) {
        (Err(seconds), _) => {
            let mut refused = ApiError::limited().into_response();
            refused.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
            refused
        }
        (Ok(_), Some(error)) => error.into_response(),
        (Ok(_), None) => next.run(request).await,
    };
    let (left, seconds) = taken.unwrap_or_else(|seconds| (0, seconds));
    let ray: [u8; 8] = rand::rng().random();
    for (name, value) in [
        ("ratelimit", format!("\"default\";r={left};t={seconds}")),
        ("ratelimit-policy", format!("\"default\";q={CALLS};w={}", WINDOW.as_secs())),
        ("cf-ray", format!("{}-FRA", hex::encode(ray))),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

impl Cloudflare {
    fn refusal(&self, request: &Request) -> Option<ApiError> {
        let given = request.headers().get(header::AUTHORIZATION);
        let given = given.and_then(|value| value.to_str().ok());
        let Some(token) = given.and_then(|value| value.strip_prefix("Bearer ")) else {
            return Some(ApiError::bad_header());
        };
        if token.len() < 16
            || !token.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        {
            return Some(ApiError::bad_header());
        }
        if token != self.0.token {
            return Some(ApiError::bad_token());
        }
        let account = self.account();
        let verifies = request.uri().path().ends_with("/user/tokens/verify");
        if account.knobs.token_status != "active" && !verifies {
            return Some(ApiError::bad_token());
        }
        let writes = request.method() != Method::GET;
        (writes && account.knobs.read_only_token).then(ApiError::forbidden)
    }
}

async fn verify(State(cloudflare): State<Cloudflare>) -> Response {
    let status = cloudflare.knobs().token_status;
    let message = json!([{"code": 10000, "message": "This API Token is valid and active"}]);
    let mut body = ok(json!({"id": "f".repeat(32), "status": status}));
    if status == "active" {
        body["messages"] = message;
    }
    Json(body).into_response()
}

async fn zones(State(cloudflare): State<Cloudflare>, query: Query) -> Result<Response, ApiError> {
    let account = cloudflare.account();
    let takes = |zone: &&Zone| {
        let status = if zone.active { "active" } else { "pending" };
        query.get("name").is_none_or(|name| name == zone.name)
            && query.get("status").is_none_or(|wanted| wanted == status)
    };
    let mut shown: Vec<&Zone> = account.zones.values().filter(takes).collect();
    shown.sort_by(|a, b| a.name.cmp(&b.name));
    page(&query, shown.into_iter().map(Zone::json).collect(), (20, 5..=50))
}

async fn zone(
    State(cloudflare): State<Cloudflare>,
    Path(zone): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(ok(cloudflare.account().zone(&zone)?.json())))
}

async fn show_knobs(State(cloudflare): State<Cloudflare>) -> Json<Knobs> {
    Json(cloudflare.knobs())
}

async fn turn(State(cloudflare): State<Cloudflare>, Json(change): Json<Value>) -> Response {
    let mut knobs = serde_json::to_value(cloudflare.knobs()).unwrap_or_default();
    if let (Some(knobs), Value::Object(change)) = (knobs.as_object_mut(), change) {
        knobs.extend(change);
    }
    match serde_json::from_value::<Knobs>(knobs) {
        Ok(knobs) => {
            cloudflare.set_knobs(knobs.clone());
            Json(knobs).into_response()
        }
        Err(error) => {
            let body = Json(json!({"message": error.to_string()}));
            (StatusCode::UNPROCESSABLE_ENTITY, body).into_response()
        }
    }
}
