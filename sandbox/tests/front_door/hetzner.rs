//! The simulated Hetzner Cloud API over HTTP.

use serde_json::{Value, json};

use crate::client::{Api, public_key};
use crate::spec::Spec;
use crate::stage::{Stage, eventually};

#[tokio::test]
async fn every_answer_fits_the_official_specification() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of(&sandbox);
    read_everything(&api).await;
    let server = live_a_life(&api).await;
    meet_refusals(&api, server).await;
    remove_everything(&api, server).await;
    let exchanges = sandbox.hetzner_faults().requests();
    assert!(exchanges.len() > 60, "{}", exchanges.len());
    if let Some(spec) = Spec::of("hetzner", "/v1") {
        let faults: Vec<String> = exchanges
            .iter()
            .filter(|exchange| !exchange.path.ends_with("/datacenters"))
            .flat_map(|exchange| spec.faults(exchange))
            .collect();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        let mut broken = exchanges.iter().find(|one| one.path == "/v1/locations").unwrap().clone();
        broken.answer["locations"][0].as_object_mut().unwrap().remove("city");
        assert_eq!(spec.faults(&broken).len(), 1, "a missing field must be noticed");
    }
    let state = api.admin("GET", "state", Value::Null).await;
    for list in ["servers", "ssh_keys", "firewalls", "primary_ips", "machines"] {
        assert_eq!(state[list], json!([]), "{list}");
    }
    sandbox.stop().await;
}

async fn read_everything(api: &Api) {
    for path in [
        "/servers",
        "/server_types?name=cax11",
        "/server_types?per_page=50",
        "/locations",
        "/images?architecture=arm",
        "/pricing",
        "/ssh_keys",
        "/firewalls",
        "/primary_ips",
        "/volumes",
        "/zones",
        "/locations/1",
        "/server_types/100",
    ] {
        api.get(path).await;
    }
    let debian = api.get("/images?name=debian-13&architecture=arm").await["images"].clone();
    assert_eq!(debian.as_array().unwrap().len(), 1);
    api.get(&format!("/images/{}", debian[0]["id"])).await;
}

async fn live_a_life(api: &Api) -> u64 {
    let key = json!({"name": "k", "public_key": public_key(1), "labels": {"a": "b"}});
    let key = api.post("/ssh_keys", key).await["ssh_key"].clone();
    let rules = json!([
        {"direction": "in", "protocol": "tcp", "port": "22", "source_ips": ["0.0.0.0/0", "::/0"]},
        {"direction": "in", "protocol": "icmp", "source_ips": ["0.0.0.0/0"], "description": "ping"},
    ]);
    let order = json!({"name": "web", "rules": rules});
    let firewall = api.post("/firewalls", order).await["firewall"]["id"].as_u64().unwrap();
    let server = api
        .order(
            "vmkit-a",
            json!({"ssh_keys": ["k"], "firewalls": [{"firewall": firewall}],
            "labels": {"vmkit.io/vm": "01"}, "public_net": {"enable_ipv4": true}}),
        )
        .await;
    let path = format!("/servers/{server}");
    let shown = api.get(&path).await["server"].clone();
    assert_eq!(shown["status"], "running");
    assert_eq!(shown["public_net"]["firewalls"], json!([{"id": firewall, "status": "applied"}]));
    let found = api.get("/servers?label_selector=vmkit.io/vm%3D01&name=vmkit-a").await;
    assert_eq!(found["servers"][0]["id"], server);
    for action in ["reboot", "reset", "poweroff", "poweron", "shutdown"] {
        let answer = api.post(&format!("{path}/actions/{action}"), json!({})).await;
        api.finished(&answer["action"]).await;
    }
    eventually("off after a shutdown", || async {
        (api.get(&path).await["server"]["status"] == "off").then_some(())
    })
    .await;
    let change = json!({"server_type": "cax21", "upgrade_disk": false});
    let answer = api.post(&format!("{path}/actions/change_type"), change).await;
    api.finished(&answer["action"]).await;
    let shown = api.get(&path).await["server"].clone();
    assert_eq!(
        (&shown["server_type"]["name"], &shown["primary_disk_size"]),
        (&json!("cax21"), &json!(40))
    );
    assert_eq!(shown["status"], "running");
    let answer = api.post(&format!("{path}/actions/rebuild"), json!({"image": "debian-12"})).await;
    api.finished(&answer["action"]).await;
    let id = answer["action"]["id"].as_u64().unwrap();
    api.get(&format!("/actions?id={id}&id={id}")).await;
    api.get(&format!("{path}/actions")).await;
    api.call("PUT", &path, Some(json!({"labels": {"x": "y"}, "name": "b"}))).await;
    assert_eq!(api.get(&path).await["server"]["labels"], json!({"x": "y"}));
    let by_label = json!({"type": "label_selector", "label_selector": {"selector": "x=y"}});
    let apply = format!("/firewalls/{firewall}/actions/apply_to_resources");
    api.post(&apply, json!({"apply_to": [by_label]})).await;
    api.post(&format!("/firewalls/{firewall}/actions/set_rules"), json!({"rules": []})).await;
    api.get(&format!("/firewalls/{firewall}")).await;
    api.call("PUT", &format!("/firewalls/{firewall}"), Some(json!({"name": "web2"}))).await;
    api.get(&format!("/ssh_keys/{}", key["id"])).await;
    api.get(&format!("/ssh_keys?fingerprint={}", key["fingerprint"].as_str().unwrap())).await;
    api.get(&format!("/primary_ips/{}", shown["public_net"]["ipv4"]["id"])).await;
    server
}

async fn meet_refusals(api: &Api, server: u64) {
    let order = |change: Value| {
        let mut body = json!({"name": "c", "server_type": "cax11", "image": "debian-13"});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        body
    };
    let power = format!("/servers/{server}/actions/change_type");
    let ip = api.get("/primary_ips").await["primary_ips"][0]["id"].to_string();
    let firewall = api.get("/firewalls").await["firewalls"][0]["id"].to_string();
    let cases = [
        ("POST", "/servers", order(json!({"name": "b"})), 409, "uniqueness_error"),
        ("POST", "/servers", order(json!({"name": "a b"})), 422, "invalid_input"),
        ("POST", "/servers", order(json!({"server_type": "cax99"})), 422, "invalid_input"),
        ("POST", "/servers", order(json!({"location": "ash"})), 422, "invalid_input"),
        ("POST", "/servers", order(json!({"image": "debian-1"})), 422, "invalid_input"),
        ("POST", "/servers", order(json!({"ssh_keys": [7]})), 422, "invalid_input"),
        ("POST", "/servers", order(json!({"labels": {"a": "-"}})), 422, "invalid_input"),
        ("POST", "/servers", order(json!({"user_data": "x".repeat(40_000)})), 422, "invalid_input"),
        (
            "POST",
            &power,
            json!({"server_type": "cax31", "upgrade_disk": false}),
            422,
            "server_not_stopped",
        ),
        ("GET", "/servers/1", json!({}), 404, "not_found"),
        ("GET", "/actions", json!({}), 422, "invalid_input"),
        (
            "POST",
            "/ssh_keys",
            json!({"name": "k", "public_key": public_key(2)}),
            409,
            "uniqueness_error",
        ),
        (
            "POST",
            "/ssh_keys",
            json!({"name": "l", "public_key": public_key(1)}),
            409,
            "uniqueness_error",
        ),
        (
            "POST",
            "/ssh_keys",
            json!({"name": "m", "public_key": "ssh-rsa x"}),
            422,
            "invalid_input",
        ),
        ("DELETE", &format!("/firewalls/{firewall}"), json!({}), 422, "resource_in_use"),
        ("DELETE", &format!("/primary_ips/{ip}"), json!({}), 422, "must_be_unassigned"),
        ("GET", "/datacenters", json!({}), 410, "deprecated_api_endpoint"),
    ];
    for (method, path, body, status, code) in cases {
        let shown = format!("{method} {path}");
        assert_eq!(api.refusal(method, path, body).await, (status, code.to_owned()), "{shown}");
    }
    let response = api.send("GET", "/servers", None).await.unwrap();
    for name in ["x-correlation-id", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"] {
        assert!(response.headers().contains_key(name), "{name}");
    }
    let url = format!("{}/servers", api.url);
    let refused = api.http.get(url).bearer_auth("another").send().await.unwrap();
    assert_eq!(refused.status(), 401);
}

async fn remove_everything(api: &Api, server: u64) {
    let path = format!("/servers/{server}");
    let protect = |on: bool| json!({"delete": on, "rebuild": on});
    let protection = format!("{path}/actions/change_protection");
    let answer = api.post(&protection, protect(true)).await;
    assert_eq!(api.refusal("DELETE", &path, json!({})).await, (423, "locked".to_owned()));
    api.finished(&answer["action"]).await;
    assert_eq!(api.refusal("DELETE", &path, json!({})).await, (423, "protected".to_owned()));
    api.finished(&api.post(&protection, protect(false)).await["action"]).await;
    let (status, body) = api.call("DELETE", &path, None).await;
    assert_eq!(status, 200);
    api.finished(&body["action"]).await;
    assert_eq!(api.refusal("GET", &path, json!({})).await.0, 404);
    let firewall = api.get("/firewalls").await["firewalls"][0]["id"].to_string();
    let by_label = json!({"type": "label_selector", "label_selector": {"selector": "x=y"}});
    let remove = format!("/firewalls/{firewall}/actions/remove_from_resources");
    api.post(&remove, json!({"remove_from": [by_label]})).await;
    assert_eq!(api.call("DELETE", &format!("/firewalls/{firewall}"), None).await.0, 204);
    let key = api.get("/ssh_keys").await["ssh_keys"][0]["id"].to_string();
    assert_eq!(api.call("DELETE", &format!("/ssh_keys/{key}"), None).await.0, 204);
}

#[tokio::test]
async fn pages_follow_one_another() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of(&sandbox);
    let (mut names, mut next) = (Vec::new(), json!(1));
    while !next.is_null() {
        let page = api.get(&format!("/server_types?per_page=7&sort=name:desc&page={next}")).await;
        names
            .extend(page["server_types"].as_array().unwrap().iter().map(|t| t["name"].to_string()));
        next = page["meta"]["pagination"]["next_page"].clone();
    }
    let mut sorted = names.clone();
    sorted.sort_by(|a, b| b.cmp(a));
    sorted.dedup();
    assert_eq!((names.len(), &names), (25, &sorted));
    let first = api.send("GET", "/server_types?per_page=7", None).await.unwrap();
    let link = first.headers()["link"].to_str().unwrap();
    assert!(link.contains("/v1/server_types?per_page=7&page=2>; rel=\"next\""), "{link}");
    sandbox.stop().await;
}

#[tokio::test]
async fn knobs_turn() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of(&sandbox);
    let order =
        json!({"name": "a", "server_type": "cax11", "image": "debian-13", "location": "fsn1"});
    let offer = json!([{"size": "cax11", "region": "fsn1"}]);
    let available = || async {
        let types = api.get("/server_types?name=cax11").await;
        types["server_types"][0]["locations"][0]["available"].clone()
    };
    api.admin("POST", "knobs", json!({"sold_out": offer})).await;
    assert_eq!(available().await, json!(false));
    let sold_out = (412, "resource_unavailable".to_owned());
    assert_eq!(api.refusal("POST", "/servers", order.clone()).await, sold_out);
    api.admin("POST", "knobs", json!({"sold_out": [], "sold_out_at_order": offer})).await;
    assert_eq!(available().await, json!(true));
    assert_eq!(api.refusal("POST", "/servers", order.clone()).await, sold_out);
    api.admin("POST", "knobs", json!({"sold_out_at_order": [], "server_limit": 0})).await;
    let limit = (403, "resource_limit_exceeded".to_owned());
    assert_eq!(api.refusal("POST", "/servers", order.clone()).await, limit);
    api.admin("POST", "knobs", json!({"server_limit": null, "read_only_token": true})).await;
    let read_only = (401, "token_readonly".to_owned());
    assert_eq!(api.refusal("POST", "/servers", order.clone()).await, read_only);
    let failing = json!({"read_only_token": false, "failing_actions": {"create_server": "oops"}});
    api.admin("POST", "knobs", failing).await;
    let answer = api.post("/servers", order).await;
    let ended = api.ended(&answer["action"]).await;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("error"), &json!("oops")));
    let problem = api.admin("POST", "knobs", json!({"no_such_knob": 1})).await;
    assert!(problem["message"].as_str().unwrap().contains("no_such_knob"));
    sandbox.stop().await;
}
