//! As much of Hetzner as the client uses.

use std::sync::{Arc, Mutex};

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::fake::{Fake, lock};
use crate::spec::Spec;

/// What exists.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) servers: Vec<Value>,
    pub(crate) ssh_keys: Vec<Value>,
    pub(crate) firewalls: Vec<Value>,
    pub(crate) read_only: bool,
    pub(crate) page_size: Option<usize>,
    next_id: u64,
}

impl World {
    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

pub(crate) type Shared = Arc<Mutex<World>>;
type Answer = (StatusCode, Json<Value>);

#[derive(Deserialize)]
struct Filter {
    name: Option<String>,
    page: Option<usize>,
}

fn ok(status: u16, body: Value) -> Answer {
    (StatusCode::from_u16(status).expect("a status"), Json(body))
}

fn refuse(status: u16, code: &str) -> Answer {
    ok(status, json!({ "error": { "code": code, "message": "a sentence", "details": null } }))
}

pub(crate) async fn start() -> (Fake, Shared) {
    let world = Shared::default();
    let router = Router::new()
        .route("/v1/servers", get(list_servers).post(make_server))
        .route("/v1/servers/{id}", get(one_server).delete(drop_server))
        .route("/v1/actions/{id}", get(one_action))
        .route("/v1/pricing", get(pricing))
        .route("/v1/server_types", get(server_types))
        .route("/v1/images", get(images))
        .route("/v1/ssh_keys", get(list_keys).post(make_key))
        .route("/v1/ssh_keys/{id}", put(change_key).delete(drop_key))
        .route("/v1/firewalls", get(list_firewalls).post(make_firewall))
        .route("/v1/firewalls/{id}", axum::routing::delete(drop_firewall))
        .with_state(world.clone());
    // The specification's paths have no `/v1`, which is part of the base URL.
    let mut fake = Fake::start(router, None).await;
    fake.url = fake.url.join("/v1").expect("a URL");
    (fake, world)
}

/// Every body that the fake has seen, held against the specification.
pub(crate) fn assert_valid(fake: &Fake) {
    let Some(spec) = Spec::load("hetzner") else { return };
    for seen in fake.seen() {
        let path = seen.path.strip_prefix("/v1").expect("the base path");
        let fault = spec.fault(seen.method.as_str(), path, &seen.body);
        assert_eq!(fault, None);
    }
}

/// One page of a list, filtered by name.
fn page(world: &World, key: &str, all: &[Value], filter: &Filter) -> Answer {
    let fits = |item: &&Value| filter.name.as_ref().is_none_or(|name| item["name"] == **name);
    let found: Vec<Value> = all.iter().filter(fits).cloned().collect();
    let (size, page) = (world.page_size.unwrap_or(50), filter.page.unwrap_or(1));
    let items: Vec<&Value> = found.iter().skip((page - 1) * size).take(size).collect();
    let next = (page * size < found.len()).then_some(page + 1);
    ok(200, json!({ key: items, "meta": { "pagination": { "page": page, "next_page": next } } }))
}

fn taken(all: &[Value], body: &Value) -> bool {
    all.iter().any(|item| item["name"] == body["name"])
}

async fn list_servers(State(world): State<Shared>, Query(filter): Query<Filter>) -> Answer {
    let world = lock(&world);
    page(&world, "servers", &world.servers, &filter)
}

/// A server as Hetzner shows it, with words that no client of today knows.
pub(crate) fn server(id: u64, name: &str, labels: &Value) -> Value {
    json!({
        "id": id, "name": name, "status": "initializing", "created": "2026-11-01T09:30:00Z",
        "public_net": { "ipv4": { "id": 9, "ip": "192.0.2.7" }, "ipv6": null, "new_thing": 1 },
        "server_type": { "name": "cax11", "architecture": "arm" },
        "location": { "name": "fsn1" }, "labels": labels,
        "protection": { "delete": false, "rebuild": false }, "image": null,
    })
}

async fn make_server(State(world): State<Shared>, Json(body): Json<Value>) -> Answer {
    let mut world = lock(&world);
    if taken(&world.servers, &body) {
        return refuse(409, "uniqueness_error");
    }
    let id = world.id();
    let made = server(id, body["name"].as_str().unwrap_or_default(), &body["labels"]);
    world.servers.push(made.clone());
    let action = json!({ "id": 1000 + id, "command": "create_server", "status": "running" });
    ok(201, json!({ "server": made, "action": action, "next_actions": [], "root_password": null }))
}

/// Each look at a server takes it one step further.
async fn one_server(State(world): State<Shared>, Path(id): Path<u64>) -> Answer {
    let mut world = lock(&world);
    let Some(server) = world.servers.iter_mut().find(|s| s["id"] == id) else {
        return refuse(404, "not_found");
    };
    let answer = ok(200, json!({ "server": server.clone() }));
    server["status"] = match server["status"].as_str() {
        Some("initializing") => json!("a-word-of-tomorrow"),
        Some("a-word-of-tomorrow") => json!("running"),
        _ => server["status"].clone(),
    };
    answer
}

async fn drop_server(State(world): State<Shared>, Path(id): Path<u64>) -> Answer {
    let mut world = lock(&world);
    let before = world.servers.len();
    world.servers.retain(|s| s["id"] != id);
    if world.servers.len() == before {
        return refuse(404, "not_found");
    }
    let action = json!({ "id": 2000 + id, "command": "delete_server", "status": "running" });
    ok(200, json!({ "action": action }))
}

async fn one_action(Path(id): Path<u64>) -> Answer {
    let action =
        json!({ "id": id, "command": "delete_server", "status": "success", "error": null });
    ok(200, json!({ "action": action }))
}

async fn pricing() -> Answer {
    let prices = |net: &str| json!([{ "location": "fsn1", "price_monthly": { "net": net, "gross": "9.99" } }]);
    ok(
        200,
        json!({ "pricing": { "currency": "EUR", "vat_rate": "19.00", "primary_ips": [
        { "type": "ipv6", "prices": prices("0.0000") },
        { "type": "ipv4", "prices": prices("0.5000000000") },
    ] } }),
    )
}

fn server_type(name: &str, net: &str, architecture: &str, locations: Value) -> Value {
    let price = |place: &str| {
        json!({ "location": place, "price_hourly": { "net": "0.01", "gross": "0.01" },
            "price_monthly": { "net": net, "gross": "9.99" } })
    };
    json!({ "id": 1, "name": name, "cores": 2, "memory": 4.0, "disk": 40, "cpu_type": "shared",
        "architecture": architecture, "prices": [price("fsn1"), price("ash")], "locations": locations })
}

async fn server_types() -> Answer {
    let here = |available: bool, deprecation: Value| json!([{ "name": "fsn1", "available": available, "recommended": true, "deprecation": deprecation }]);
    let old =
        json!({ "announced": "2026-01-01T00:00:00Z", "unavailable_after": "2026-06-01T00:00:00Z" });
    let types = json!([
        server_type("cpx22", "19.4900000000", "x86", here(true, Value::Null)),
        server_type("cax11", "5.9900000000", "arm", here(false, Value::Null)),
        server_type("cx22", "3.9900000000", "x86", here(true, old)),
        server_type("riscy1", "1.0000000000", "riscv", here(true, Value::Null)),
    ]);
    ok(200, json!({ "server_types": types, "meta": { "pagination": { "next_page": null } } }))
}

async fn images() -> Answer {
    let image = |name: &str, deprecated: Value| {
        json!({ "id": 1, "name": name, "status": "available", "architecture": "arm",
            "type": "system", "deprecation": deprecated })
    };
    let gone = json!({ "announced": "2026-01-01T00:00:00Z" });
    let images = json!([
        image("debian-12", Value::Null),
        image("debian-13", gone),
        json!({ "id": 2, "name": null, "type": "system" }),
    ]);
    ok(200, json!({ "images": images, "meta": {} }))
}

async fn list_keys(State(world): State<Shared>, Query(filter): Query<Filter>) -> Answer {
    let world = lock(&world);
    page(&world, "ssh_keys", &world.ssh_keys, &filter)
}

async fn make_key(State(world): State<Shared>, Json(mut body): Json<Value>) -> Answer {
    let mut world = lock(&world);
    if taken(&world.ssh_keys, &body)
        || world.ssh_keys.iter().any(|key| key["public_key"] == body["public_key"])
    {
        return refuse(409, "uniqueness_error");
    }
    body["id"] = json!(world.id());
    world.ssh_keys.push(body.clone());
    ok(201, json!({ "ssh_key": body }))
}

async fn change_key(State(world): State<Shared>, Path(_): Path<u64>) -> Answer {
    if lock(&world).read_only {
        return refuse(403, "token_readonly");
    }
    refuse(404, "not_found")
}

async fn drop_key(State(world): State<Shared>, Path(id): Path<u64>) -> StatusCode {
    lock(&world).ssh_keys.retain(|key| key["id"] != id);
    StatusCode::NO_CONTENT
}

async fn list_firewalls(State(world): State<Shared>, Query(filter): Query<Filter>) -> Answer {
    let world = lock(&world);
    page(&world, "firewalls", &world.firewalls, &filter)
}

async fn make_firewall(State(world): State<Shared>, Json(mut body): Json<Value>) -> Answer {
    let mut world = lock(&world);
    if taken(&world.firewalls, &body) {
        return refuse(409, "uniqueness_error");
    }
    body["id"] = json!(world.id());
    world.firewalls.push(body.clone());
    ok(201, json!({ "firewall": body, "actions": [] }))
}

async fn drop_firewall(State(world): State<Shared>, Path(id): Path<u64>) -> StatusCode {
    lock(&world).firewalls.retain(|firewall| firewall["id"] != id);
    StatusCode::NO_CONTENT
}
