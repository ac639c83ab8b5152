//! Small fakes of the DNS providers: Hetzner's zones and DigitalOcean's domains, each with the rules
//! that matter for doubles. Cloudflare's is the sandbox's own.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Json, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use serde_json::{Map, Value, json};

use crate::fake::{Fake, lock};
use crate::spec::Spec;

/// The records of the one zone, `example.com`, as the provider shows them.
pub(crate) type Records = Arc<Mutex<Vec<Value>>>;

fn error(status: u16, body: Value) -> Response {
    (StatusCode::from_u16(status).expect("a status"), Json(body)).into_response()
}

fn made(status: u16, body: Value) -> Response {
    error(status, body)
}

/// Hetzner: one RRSet for a name and a kind.
pub(crate) async fn hetzner() -> (Fake, Records) {
    let records = Records::default();
    let zone = json!({ "id": 7, "name": "example.com", "mode": "primary",
        "authoritative_nameservers": { "assigned": ["ns1.invalid"], "delegation_status": "valid" } });
    let zones = move |Query(query): Query<Map<String, Value>>| async move {
        let found = query.get("name").is_none_or(|name| *name == zone["name"]);
        Json(json!({ "zones": if found { vec![zone] } else { vec![] }, "meta": {} }))
    };
    let action = || json!({ "id": 1, "command": "x", "status": "running" });
    let router = Router::new()
        .route("/zones", get(zones))
        .route(
            "/zones/{zone}/rrsets",
            get(async |State(records): State<Records>, Query(query): Query<Map<String, Value>>| {
                let all = lock(&records).clone();
                let all = all.into_iter().filter(|one| Some(&one["name"]) == query.get("name"));
                Json(json!({ "rrsets": all.collect::<Vec<_>>(), "meta": {} }))
            })
            .post(
                async move |State(records): State<Records>, Json(body): Json<Value>| {
                    let same =
                        |one: &Value| one["name"] == body["name"] && one["type"] == body["type"];
                    if lock(&records).iter().any(same) {
                        let fault = json!({ "code": "uniqueness_error", "message": "it is there" });
                        return error(409, json!({ "error": fault }));
                    }
                    lock(&records).push(body.clone());
                    made(201, json!({ "rrset": body, "action": action() }))
                },
            ),
        )
        .route(
            "/zones/{zone}/rrsets/{name}/{kind}",
            put(
                async |State(records): State<Records>,
                       Path(at): Path<(u64, String, String)>,
                       Json(body): Json<Value>| {
                    let mut all = lock(&records);
                    let found =
                        all.iter_mut().find(|one| one["name"] == at.1 && one["type"] == at.2);
                    let Some(found) = found else { return error(404, json!({})) };
                    found["labels"] = body["labels"].clone();
                    made(200, json!({ "rrset": found }))
                },
            )
            .delete(
                async move |State(records): State<Records>,
                            Path(at): Path<(u64, String, String)>| {
                    let mut all = lock(&records);
                    let before = all.len();
                    all.retain(|one| one["name"] != at.1 || one["type"] != at.2);
                    if all.len() == before {
                        let fault = json!({ "code": "not_found", "message": "none" });
                        return error(404, json!({ "error": fault }));
                    }
                    made(201, json!({ "action": action() }))
                },
            ),
        )
        .route(
            "/zones/{zone}/rrsets/{name}/{kind}/actions/set_records",
            axum::routing::post(
                async move |State(records): State<Records>,
                            Path(at): Path<(u64, String, String)>,
                            Json(body): Json<Value>| {
                    let mut all = lock(&records);
                    let found =
                        all.iter_mut().find(|one| one["name"] == at.1 && one["type"] == at.2);
                    let Some(found) = found else { return error(404, json!({})) };
                    found["records"] = body["records"].clone();
                    made(201, json!({ "action": action() }))
                },
            ),
        )
        .route(
            "/actions/{id}",
            get(async || {
                Json(json!({ "action": { "id": 1, "command": "x", "status": "success" } }))
            }),
        )
        .with_state(records.clone());
    (Fake::start(router, Spec::load("hetzner")).await, records)
}

/// DigitalOcean: as many records of one name and kind as are made, and no place for a mark.
pub(crate) async fn digitalocean() -> (Fake, Records) {
    let records = Records::default();
    let router = Router::new()
        .route("/v2/domains", get(async || Json(json!({ "domains": [{ "name": "example.com" }] }))))
        .route(
            "/v2/domains/{name}",
            get(async |Path(name): Path<String>| match name.as_str() {
                "example.com" => made(200, json!({ "domain": { "name": name } })),
                _ => error(404, json!({ "id": "not_found", "message": "none" })),
            }),
        )
        .route(
            "/v2/domains/{name}/records",
            get(async |State(records): State<Records>| {
                Json(json!({ "domain_records": lock(&records).clone(), "links": {} }))
            })
            .post(
                async |State(records): State<Records>, Json(mut body): Json<Value>| {
                    let mut all = lock(&records);
                    body["id"] = json!(all.len() + 100);
                    all.push(body.clone());
                    made(201, json!({ "domain_record": body }))
                },
            ),
        )
        .route(
            "/v2/domains/{name}/records/{id}",
            put(
                async |State(records): State<Records>,
                       Path(at): Path<(String, u64)>,
                       Json(body): Json<Value>| {
                    let mut all = lock(&records);
                    let Some(found) = all.iter_mut().find(|one| one["id"] == at.1) else {
                        return error(404, json!({ "id": "not_found" }));
                    };
                    found["data"] = body["data"].clone();
                    made(200, json!({ "domain_record": found }))
                },
            )
            .delete(
                async |State(records): State<Records>, Path(at): Path<(String, u64)>| {
                    lock(&records).retain(|one| one["id"] != at.1);
                    StatusCode::NO_CONTENT
                },
            ),
        )
        .with_state(records.clone());
    (Fake::start(router, Spec::load("digitalocean")).await, records)
}
