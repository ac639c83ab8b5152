//! The simulated DigitalOcean API over HTTP.

use serde_json::{Value, json};
use vmkit_sandbox::Sandbox;
use vmkit_sandbox::faults::{Action, Rule};

use crate::client::{Api, public_key};
use crate::spec::Spec;
use crate::stage::{Stage, eventually};

impl Api {
    pub(crate) fn of_digitalocean(sandbox: &Sandbox) -> Self {
        let settings = sandbox.settings();
        let setting = |name: &str| {
            settings.iter().find(|(own, _)| *own == name).map(|(_, value)| value.clone()).unwrap()
        };
        Self {
            url: format!("{}/v2", setting("VMKIT_DIGITALOCEAN_URL")),
            token: setting("VMKIT_DIGITALOCEAN_TOKEN"),
            admin: sandbox.digitalocean_admin_url(),
            ..Self::of(sandbox)
        }
    }

    async fn does(&self, method: &str, path: &str, body: Value, wanted: u16) -> Value {
        let (status, answer) = self.call(method, path, Some(body)).await;
        assert_eq!(status, wanted, "{method} {path}: {answer}");
        answer
    }

    async fn act(&self, droplet: u64, body: Value) {
        let path = format!("/droplets/{droplet}/actions");
        let id = self.does("POST", &path, body, 201).await["action"]["id"].clone();
        self.completed(&id).await;
    }

    async fn completed(&self, action: &Value) {
        let path = format!("/actions/{action}");
        let ended = eventually("the action's end", || async {
            let action = self.get(&path).await["action"].clone();
            (action["status"] != "in-progress").then_some(action)
        })
        .await;
        assert_eq!(ended["status"], "completed", "{ended}");
    }

    async fn fault(&self, method: &str, path: &str, body: Value) -> (u16, String) {
        let (status, answer) = self.call(method, path, Some(body)).await;
        assert!(answer["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
        (status, answer["id"].as_str().unwrap().to_owned())
    }
}

fn order(change: Value) -> Value {
    let mut body = json!({"name": "vmkit-a", "region": "fra1", "size": "s-1vcpu-1gb",
        "image": "debian-13-x64"});
    body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn every_answer_of_digitalocean_fits_the_official_specification() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of_digitalocean(&sandbox);
    for path in [
        "/account",
        "/customers/my/balance",
        "/account/keys",
        "/sizes",
        "/regions",
        "/droplets",
        "/images?type=distribution",
        "/snapshots?resource_type=droplet",
        "/actions",
        "/firewalls",
        "/tags",
        "/reserved_ips",
        "/domains",
        "/volumes",
        "/sizes?per_page=3&page=2",
    ] {
        api.get(path).await;
    }
    let (droplet, firewall) = live_a_life(&api).await;
    keep_a_disk_and_an_address(&api, droplet).await;
    name_a_domain(&api).await;
    meet_refusals(&api, droplet).await;
    api.does("DELETE", &format!("/droplets/{droplet}"), json!({}), 204).await;
    api.does("DELETE", &format!("/firewalls/{firewall}"), json!({}), 204).await;
    let key = api.get("/account/keys").await["ssh_keys"][0]["fingerprint"].clone();
    let key = format!("/account/keys/{}", key.as_str().unwrap());
    api.does("DELETE", &key, json!({}), 204).await;
    for tag in api.get("/tags").await["tags"].as_array().unwrap() {
        let path = format!("/tags/{}", tag["name"].as_str().unwrap());
        api.does("DELETE", &path, json!({}), 204).await;
    }
    let exchanges = sandbox.digitalocean_faults().requests();
    assert!(exchanges.len() > 60, "{}", exchanges.len());
    if let Some(spec) = Spec::of("digitalocean", "") {
        let faults: Vec<String> = exchanges.iter().flat_map(|one| spec.faults(one)).collect();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        let mut broken = exchanges.iter().find(|one| one.path == "/v2/sizes").unwrap().clone();
        broken.answer["sizes"][0].as_object_mut().unwrap().remove("vcpus");
        assert_eq!(spec.faults(&broken).len(), 1, "a missing field must be noticed");
    }
    let state = eventually("all is gone", || async {
        let state = api.admin("GET", "state", Value::Null).await;
        (state["droplets"] == json!([])).then_some(state)
    })
    .await;
    for list in ["ssh_keys", "firewalls", "tags", "snapshots", "reserved_ips", "domains"] {
        assert_eq!(state[list], json!([]), "{list}");
    }
    sandbox.stop().await;
}

async fn live_a_life(api: &Api) -> (u64, String) {
    let key = json!({"name": "k", "public_key": public_key(1)});
    let key = api.does("POST", "/account/keys", key, 201).await["ssh_key"]["id"].clone();
    api.does("POST", "/tags", json!({"name": "vmkit"}), 201).await;
    let anywhere = json!({"addresses": ["0.0.0.0/0", "::/0"]});
    let rules = json!({"name": "wall", "tags": ["vmkit"],
        "inbound_rules": [{"protocol": "tcp", "ports": "22", "sources": anywhere}],
        "outbound_rules": [{"protocol": "icmp", "ports": "all", "destinations": anywhere}]});
    let made = api.does("POST", "/firewalls", rules, 202).await;
    let firewall = made["firewall"]["id"].as_str().unwrap().to_owned();
    let body = order(json!({"ssh_keys": [key], "tags": ["vmkit"], "ipv6": true,
        "user_data": "#cloud-config\n", "with_droplet_agent": false}));
    let made = api.does("POST", "/droplets", body, 202).await;
    assert_eq!(made["droplet"]["networks"], json!({"v4": [], "v6": []}));
    let droplet = made["droplet"]["id"].as_u64().unwrap();
    let (locked, _) = api.fault("DELETE", &format!("/droplets/{droplet}"), json!({})).await;
    assert_eq!(locked, 422, "a pending event is in the way");
    api.completed(&made["links"]["actions"][0]["id"]).await;
    let path = format!("/droplets/{droplet}");
    assert_eq!(api.get(&path).await["droplet"]["status"], "active");
    let walls = api.get(&format!("{path}/firewalls")).await;
    assert_eq!(walls["firewalls"][0]["id"], *firewall, "by its tag");
    for kind in ["reboot", "power_cycle", "power_off"] {
        api.act(droplet, json!({"type": kind})).await;
    }
    api.act(droplet, json!({"type": "resize", "size": "s-1vcpu-2gb", "disk": false})).await;
    let resized = api.get(&path).await["droplet"].clone();
    assert_eq!((&resized["disk"], &resized["status"]), (&json!(25), &json!("off")));
    api.act(droplet, json!({"type": "power_on"})).await;
    api.act(droplet, json!({"type": "rename", "name": "vmkit-b"})).await;
    api.act(droplet, json!({"type": "shutdown"})).await;
    eventually("off after a shutdown", || async {
        (api.get(&path).await["droplet"]["status"] == "off").then_some(())
    })
    .await;
    api.act(droplet, json!({"type": "rebuild", "image": "debian-12-x64"})).await;
    assert_eq!(api.get("/droplets?name=vmkit-b&tag_name=vmkit").await["meta"]["total"], 1);
    api.get(&format!("{path}/actions?per_page=2")).await;
    (droplet, firewall)
}

async fn keep_a_disk_and_an_address(api: &Api, droplet: u64) {
    api.act(droplet, json!({"type": "snapshot", "name": "kept"})).await;
    let id = api.get(&format!("/droplets/{droplet}/snapshots")).await["snapshots"][0]["id"].clone();
    let tagged = json!({"resources": [{"resource_id": id.to_string(), "resource_type": "image"}]});
    api.does("POST", "/tags/vmkit/resources", tagged, 204).await;
    assert_eq!(api.get(&format!("/snapshots/{id}")).await["snapshot"]["tags"], json!(["vmkit"]));
    api.get(&format!("/images/{id}")).await;
    api.does("DELETE", &format!("/snapshots/{id}"), json!({}), 204).await;

    let made = api.does("POST", "/reserved_ips", json!({"droplet_id": droplet}), 202).await;
    let ip = made["reserved_ip"]["ip"].as_str().unwrap().to_owned();
    let path = format!("/reserved_ips/{ip}");
    eventually("the address arrives", || async {
        (api.get(&path).await["reserved_ip"]["droplet"]["id"] == droplet).then_some(())
    })
    .await;
    let twice = api.fault("POST", "/reserved_ips", json!({"droplet_id": droplet})).await;
    assert_eq!(twice.0, 422);
    let actions = format!("{path}/actions");
    let release = api.does("POST", &actions, json!({"type": "unassign"}), 201).await;
    api.completed(&release["action"]["id"]).await;
    api.does("DELETE", &path, json!({}), 204).await;
}

async fn name_a_domain(api: &Api) {
    api.does("POST", "/domains", json!({"name": "example.com"}), 201).await;
    let records = "/domains/example.com/records";
    let body = json!({"type": "A", "name": "www", "data": "192.0.2.1", "ttl": 60});
    let made = api.does("POST", records, body, 201).await["domain_record"].clone();
    assert_eq!((&made["name"], &made["ttl"]), (&json!("www"), &json!(60)));
    let found = api.get(&format!("{records}?type=A&name=www.example.com")).await;
    assert_eq!(found["meta"]["total"], 1);
    assert_eq!(api.get(&format!("{records}?name=www")).await["meta"]["total"], 0);
    let path = format!("{records}/{}", made["id"]);
    let change = json!({"type": "A", "data": "192.0.2.2"});
    assert_eq!(api.does("PATCH", &path, change, 200).await["domain_record"]["data"], "192.0.2.2");
    assert_eq!(api.fault("PUT", &path, json!({"type": "A", "data": "x"})).await.0, 422);
    api.does("DELETE", &path, json!({}), 204).await;
    assert!(api.get("/domains/example.com").await["domain"]["zone_file"].is_string());
    api.does("DELETE", "/domains/example.com", json!({}), 204).await;
}

async fn meet_refusals(api: &Api, droplet: u64) {
    let unprocessable = (422, "unprocessable_entity".to_owned());
    for change in [
        json!({"name": "a b"}),
        json!({"size": "cpx22"}),
        json!({"region": "fsn1"}),
        json!({"image": "debian-1"}),
        json!({"image": 7}),
        json!({"ssh_keys": [7]}),
        json!({"tags": ["a b"]}),
        json!({"size": "c-2", "region": "lon1"}),
        json!({"user_data": "x".repeat(70_000)}),
    ] {
        let refused = api.fault("POST", "/droplets", order(change.clone())).await;
        assert_eq!(refused, unprocessable, "{change}");
    }
    let actions = format!("/droplets/{droplet}/actions");
    let resize = json!({"type": "resize", "size": "s-2vcpu-4gb"});
    assert_eq!(api.fault("POST", &actions, resize).await, unprocessable, "it runs");
    let twice = json!({"name": "l", "public_key": public_key(1)});
    assert_eq!(api.fault("POST", "/account/keys", twice).await, unprocessable);
    let anywhere = json!({"addresses": ["0.0.0.0/0"]});
    let rule = json!([{"protocol": "tcp", "ports": "22", "sources": anywhere}]);
    let unknown = json!({"name": "other", "tags": ["nobodys"], "inbound_rules": rule});
    assert_eq!(api.fault("POST", "/firewalls", unknown).await, unprocessable);
    assert_eq!(api.fault("GET", "/droplets/1", json!({})).await, (404, "not_found".to_owned()));
    let response = api.send("GET", "/droplets", None).await.unwrap();
    for name in ["x-request-id", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"] {
        assert!(response.headers().contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn pages_of_digitalocean_link_to_one_another() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of_digitalocean(&sandbox);
    let (mut slugs, mut next) = (Vec::new(), Some("/sizes?per_page=4".to_owned()));
    while let Some(path) = next {
        let page = api.get(&path).await;
        slugs.extend(page["sizes"].as_array().unwrap().iter().map(|one| one["slug"].to_string()));
        let link = page["links"]["pages"]["next"].as_str();
        next = link.map(|url| url.strip_prefix(&api.url).unwrap().to_owned());
    }
    assert_eq!(slugs.len(), 10);
    assert_eq!(api.get("/sizes").await["links"], json!({}), "one page has no links");
    sandbox.stop().await;
}

#[tokio::test]
async fn knobs_of_digitalocean_turn() {
    let stage = Stage::new();
    let sandbox = stage.sandbox().await;
    let api = Api::of_digitalocean(&sandbox);
    let offer = json!([{"size": "s-1vcpu-1gb", "region": "fra1"}]);
    let regions = || async {
        let sizes = api.get("/sizes").await;
        let own = sizes["sizes"].as_array().unwrap().iter().find(|s| s["slug"] == "s-1vcpu-1gb");
        own.unwrap()["regions"].as_array().unwrap().contains(&json!("fra1"))
    };
    let unprocessable = (422, "unprocessable_entity".to_owned());
    api.admin("POST", "knobs", json!({"sold_out": offer})).await;
    assert!(!regions().await);
    assert_eq!(api.fault("POST", "/droplets", order(json!({}))).await, unprocessable);
    api.admin("POST", "knobs", json!({"sold_out": [], "sold_out_at_order": offer})).await;
    assert!(regions().await);
    assert_eq!(api.fault("POST", "/droplets", order(json!({}))).await, unprocessable);
    api.admin("POST", "knobs", json!({"sold_out_at_order": [], "droplet_limit": 0})).await;
    assert_eq!(api.fault("POST", "/droplets", order(json!({}))).await, unprocessable);
    api.admin("POST", "knobs", json!({"droplet_limit": 9, "scopes": ["droplet:read"]})).await;
    let forbidden = (403, "forbidden".to_owned());
    assert_eq!(api.fault("POST", "/droplets", order(json!({}))).await, forbidden);
    assert_eq!(api.fault("GET", "/account", json!({})).await, forbidden);
    let failing = json!({"scopes": null, "failing_actions": ["create"]});
    api.admin("POST", "knobs", failing).await;
    let made = api.does("POST", "/droplets", order(json!({})), 202).await;
    let path = format!("/actions/{}", made["links"]["actions"][0]["id"]);
    eventually("the creation fails", || async {
        (api.get(&path).await["action"]["status"] == "errored").then_some(())
    })
    .await;
    api.admin("POST", "knobs", json!({"per_minute": 0})).await;
    let response = api.send("GET", "/account", None).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers().contains_key("retry-after")),
        (429, true)
    );
    let (problem, told) =
        ("no_such_knob", api.admin("POST", "knobs", json!({"no_such_knob": 1})).await);
    assert!(told["message"].as_str().unwrap().contains(problem));
    let action = Action::Status { code: 503, body: None, headers: Default::default() };
    let rule = Rule { method: None, path_regex: String::new(), action, times: Some(1) };
    sandbox.digitalocean_faults().add(rule).unwrap();
    assert_eq!(api.fault("GET", "/sizes", json!({})).await.1, "service_unavailable");
    sandbox.stop().await;
}
