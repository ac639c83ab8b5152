//! `manage_domain` as a client meets it: names in a zone of ours, in nobody's zone and in somebody
//! else's, and what the name servers really say; each message is provoked and read.

use std::sync::Arc;

use rmcp::ServiceExt;
use rmcp::model::CallToolRequestParams;
use serde_json::{Value, json};
use vmkit::access::Audit;
use vmkit::domain::operation::OperationState;
use vmkit::mcp::Server;
use vmkit::operations::deploy::{self, DeployRequest, Version};
use vmkit::operations::domains::{self, remove};
use vmkit::operations::{Ask, environments};
use vmkit::store::OperationRow;
use vmkit_sandbox::cloudflare::Knobs;

use crate::jobs::Job;
use crate::stage::{Stage, staging};

/// Calls the tool through a real client; its text.
async fn tool(stage: &Stage, arguments: Value) -> String {
    let context = Arc::new(stage.context().clone());
    let audit = Audit::new(context.store.clone(), context.clock.clone());
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let server = Server::new(audit, context);
    let serving = tokio::spawn(async move {
        drop(server.serve(theirs).await.expect("it serves").waiting().await)
    });
    let client = ().serve(ours).await.expect("a session");
    let Value::Object(mut arguments) = arguments else { panic!("an object") };
    arguments.entry("environment").or_insert(json!("shop/staging"));
    let request = CallToolRequestParams::new("manage_domain").with_arguments(arguments);
    let result = client.call_tool(request).await.expect("an answer");
    client.cancel().await.expect("ended");
    serving.await.expect("ended");
    result.content[0].as_text().expect("text").text.clone()
}

async fn add(stage: &Stage, domain: &str) -> String {
    tool(stage, json!({ "action": "add", "domain": domain })).await
}

async fn verify(stage: &Stage) -> String {
    tool(stage, json!({ "action": "verify" })).await
}

/// Edits the zone `example.com` as its owner would at Cloudflare.
async fn edit(stage: &Stage, method: &str, id: &str, body: Value) -> String {
    let state = stage.sandbox.cloudflare().state();
    let zones = state["zones"].as_array().expect("a list");
    let zone = zones.iter().find(|zone| zone["name"] == "example.com").expect("the zone");
    let zone = zone["id"].as_str().expect("an id");
    let url = format!("{}/zones/{zone}/dns_records/{id}", stage.settings.cloudflare_url);
    let token = stage.settings.cloudflare_token.as_ref().expect("a token").expose();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let request = client.request(method.parse().expect("a method"), url.trim_end_matches('/'));
    let sent = request.bearer_auth(token).json(&body).send().await.expect("an answer");
    let answer: Value = sent.json().await.expect("JSON");
    assert!(answer["success"].as_bool().unwrap_or(true), "{answer}");
    answer["result"]["id"].as_str().expect("an id").to_owned()
}

/// Kind, name and content of every record at Cloudflare, in order.
fn records(stage: &Stage) -> Vec<String> {
    let state = stage.sandbox.cloudflare().state();
    let zones = state["zones"].as_array().expect("a list").iter();
    let records = zones.flat_map(|zone| zone["records"].as_array().expect("a list").clone());
    let text = |one: &Value, name: &str| one[name].as_str().unwrap_or("").to_owned();
    let line = |one: Value| {
        format!("{} {} {}", text(&one, "type"), text(&one, "name"), text(&one, "content"))
    };
    let mut lines: Vec<String> = records.map(line).collect();
    lines.sort();
    lines
}

/// A VM with an environment whose name, `shop.example.com`, leads nowhere yet; and its address.
async fn staged() -> (Stage, String) {
    let mut stage = Stage::set_up().await;
    Job::Deploy.prepare(&mut stage).await;
    stage.drive_here().await;
    let ip = stage.cloud().await["servers"][0]["public_net"]["ipv4"]["ip"].clone();
    (stage, ip.as_str().expect("an address").to_owned())
}

fn has(told: &str, words: &[&str]) {
    for word in words {
        assert!(told.contains(word), "no `{word}` in: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_our_zone_is_pointed_looked_up_and_taken_away() {
    let (stage, ip) = staged().await;
    let told = verify(&stage).await;
    has(&told, &["WAITING", "does NOT lead", "no record; make the record `A shop.example.com"]);
    let dry = json!({ "action": "point", "dry_run": true });
    has(&tool(&stage, dry).await, &["NOT_EXECUTED", &ip, "would be made at Cloudflare"]);
    assert_eq!(records(&stage), Vec::<String>::new(), "a dry run makes nothing");

    let told = tool(&stage, json!({ "action": "point" })).await;
    has(&told, &["DONE", "made at Cloudflare", "https://shop.example.com/"]);
    let ipv6 = stage.sql("select ipv6 from vm").remove(0);
    let ours = [format!("A shop.example.com {ip}"), format!("AAAA shop.example.com {ipv6}")];
    assert_eq!(records(&stage), ours);
    let told = verify(&stage).await;
    has(&told, &["DONE", "leads to", "so Let's Encrypt may issue"]);
    has(&told, &[&format!("AAAA shop.example.com: {ipv6}")]);
    has(&tool(&stage, json!({ "action": "point" })).await, &["DONE", "at Cloudflare"]);
    assert_eq!(records(&stage), ours, "a repeat makes no second");

    let aaaa = json!({ "type": "AAAA", "name": "shop", "content": "2001:db8::1" });
    let aaaa = edit(&stage, "POST", "", aaaa).await;
    has(
        &verify(&stage).await,
        &["WAITING", "WRONG AAAA shop.example.com: points elsewhere, to 2001:db8::1"],
    );
    edit(&stage, "DELETE", &aaaa, json!({})).await;
    let caa = json!({ "type": "CAA", "name": "@", "data": { "flags": 0, "tag": "issue", "value": "ca.example" } });
    let caa = edit(&stage, "POST", "", caa).await;
    let told = tool(&stage, json!({ "action": "retry_certificate" })).await;
    has(
        &told,
        &[
            "not_pointed",
            "lets only ca.example issue",
            "`CAA example.com 0 issue \"letsencrypt.org\"`",
        ],
    );
    edit(&stage, "DELETE", &caa, json!({})).await;
    let told = tool(&stage, json!({ "action": "retry_certificate" })).await;
    has(&told, &["no_certificate", "publishes no HTTPS port; deploy first"]);

    let told = add(&stage, "example.com").await;
    has(&told, &["DONE", "A example.com", "A www.example.com"]);
    assert_eq!(records(&stage).len(), 6, "{:?}", records(&stage));
    assert_eq!(stage.sql("select name from domain_alias"), ["www.example.com"]);
    let environment = environments::environment(&stage.context().store, &staging()).await;
    let id = environment.expect("it").id;
    let removed = remove(stage.context(), id).await.expect("removed");
    assert_eq!((removed.deleted.len(), removed.left.len()), (6, 0), "{removed:?}");
    assert_eq!(records(&stage), Vec::<String>::new());
    has(&verify(&stage).await, &["no_domain", "action `add` and a domain"]);
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_somebody_elses_is_told_and_left() {
    let (stage, ip) = staged().await;
    let old = json!({ "type": "A", "name": "shop", "content": "192.0.2.9", "proxied": true });
    let old = edit(&stage, "POST", "", old).await;
    let told = tool(&stage, json!({ "action": "point" })).await;
    has(
        &told,
        &[
            "WAITING",
            "`A shop.example.com 192.0.2.9`, which VMKit did not make",
            "turn its proxy off",
        ],
    );
    has(&verify(&stage).await, &["WAITING", "turn the proxy (the orange cloud) off at Cloudflare"]);
    assert_eq!(records(&stage), ["A shop.example.com 192.0.2.9"], "and no AAAA beside it");
    // Its owner changes it by hand: it is right, and stays theirs.
    edit(&stage, "PATCH", &old, json!({ "type": "A", "content": ip, "proxied": false })).await;
    has(&tool(&stage, json!({ "action": "point" })).await, &["DONE", "and not VMKit's"]);
    has(&verify(&stage).await, &["DONE"]);
    let environment = environments::environment(&stage.context().store, &staging()).await;
    remove(stage.context(), environment.expect("it").id).await.expect("removed");
    assert_eq!(records(&stage), [format!("A shop.example.com {ip}")], "theirs stays");

    // Nobody's zone: the exact record is said, and made by nobody.
    let told = add(&stage, "shop.example.org").await;
    has(
        &told,
        &["WAITING", &format!("A shop.example.org {ip}"), "no connected provider has its zone"],
    );
    // A zone that its registrar sends nobody to.
    let pending = Knobs { pending_zones: vec!["example.dev".to_owned()], ..Knobs::default() };
    stage.sandbox.cloudflare().set_knobs(pending);
    has(
        &add(&stage, "shop.example.dev").await,
        &["WAITING", "nobody is sent there", "ada.ns.cloudflare"],
    );
    // A token that may not edit.
    let read_only = Knobs { read_only_token: true, ..Knobs::default() };
    stage.sandbox.cloudflare().set_knobs(read_only);
    has(&add(&stage, "two.example.com").await, &["FAILED", "forbidden", "may edit the zone's DNS"]);
    assert_eq!(stage.sql("select domain from environment"), ["shop.example.dev"], "undone");
    has(&add(&stage, "sslip").await, &["DONE", "shop-staging.127-77-", ".sslip.io", "best effort"]);
    has(&verify(&stage).await, &["DONE", "leads to"]);
    stage.tear_down().await;
}

/// Deploys the default branch; how it ended.
async fn deployed(stage: &Stage, ignore_checks: &[&str]) -> OperationRow {
    let request = DeployRequest {
        environment: staging(),
        version: Version::Ref(None),
        expect_sha: None,
        ignore_checks: ignore_checks.iter().map(|&check| check.to_owned()).collect(),
    };
    let id = deploy::start(stage.context(), request, Ask::by("test")).await.expect("started");
    stage.end_of(id).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_elsewhere_is_told_before_anything_is_built() {
    let (stage, ip) = staged().await;
    let told = domains::foretold(stage.context(), &"shop.example.com".parse().expect("it")).await;
    has(&told, &["the first deploy makes the records", "at Cloudflare, in the zone example.com"]);
    let old = json!({ "type": "A", "name": "shop", "content": "192.0.2.9" });
    let old = edit(&stage, "POST", "", old).await;
    let row = deployed(&stage, &[]).await;
    let failure = row.failure.expect("a failure");
    assert_eq!((row.state, failure.code.as_str()), (OperationState::Failed, "leads_elsewhere"));
    let wanted = format!("A shop.example.com {ip}");
    has(&failure.message, &["leads to 192.0.2.9", "nothing was built", &wanted]);
    edit(&stage, "DELETE", &old, json!({})).await;

    // Nobody's zone: the record to make is said, and nothing was started for it.
    add(&stage, "shop.example.org").await;
    let nobodys = "shop.example.org".parse().expect("it");
    let told = domains::foretold(stage.context(), &nobodys).await;
    has(&told, &["make them by hand", "no connected provider has its zone"]);
    let failure = deployed(&stage, &[]).await.failure.expect("a failure");
    let wanted = format!("A shop.example.org {ip}");
    has(&failure.message, &["`shop.example.org` leads nowhere", &wanted]);
    has(&failure.fix, &["deploy again", "ignore_checks `leads_elsewhere`"]);
    assert_eq!(stage.repo().await["runs"], json!([]), "no runner was asked");
    assert_eq!(records(&stage), Vec::<String>::new());
    let row = deployed(&stage, &["leads_elsewhere"]).await;
    assert_eq!(row.state, OperationState::Succeeded, "{row:#?}");
    has(&row.result.expect("a result")["records"].to_string(), &["make this record", &wanted]);
    stage.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_cannot_be_says_what_would_work() {
    let (stage, _) = staged().await;
    for (given, words) in [
        ("*.example.com", ["bad_domain", "a wildcard", "`www.example.com`"]),
        ("https://shop.example.com/x", ["bad_domain", "it is a URL", "give `shop.example.com`"]),
        ("203.0.113.7", ["bad_domain", "an address, not a name", "`sslip`"]),
        ("shop", ["bad_domain", "one label only", "`shop.example.com`"]),
        ("shop.local", ["bad_domain", "nobody outside", "a domain that you own"]),
    ] {
        has(&add(&stage, given).await, &words);
    }
    has(
        &tool(&stage, json!({ "action": "add" })).await,
        &["bad_arguments", "`domain` is missing", "or `sslip`"],
    );
    let other = json!({ "action": "verify", "domain": "other.example.com" });
    has(
        &tool(&stage, other).await,
        &["other_domain", "which has `shop.example.com`", "leave `domain` out"],
    );
    let nowhere = json!({ "action": "verify", "environment": "shop/nowhere" });
    has(&tool(&stage, nowhere).await, &["unknown_environment", "`shop/staging`"]);
    has(
        &add(&stage, "bücher.example.com").await,
        &["DONE", "bücher.example.com (xn--bcher-kva.example.com)"],
    );
    assert_eq!(records(&stage).len(), 2);

    // One domain serves one environment.
    let store = &stage.context().store;
    let first = environments::environment(store, &staging()).await.expect("it");
    let path = "shop/second".parse().expect("a path");
    let new = environments::NewEnvironment { path, settings: first.settings, vm: None };
    let error = environments::create(stage.context(), new.clone()).await.expect_err("taken");
    assert_eq!(error.code(), "domain_taken");
    has(&error.to_string(), &["xn--bcher-kva.example.com", "`shop/staging`"]);
    let mut settings = new.settings;
    settings.domain = None;
    environments::create(stage.context(), environments::NewEnvironment { settings, ..new })
        .await
        .expect("made");
    let taken =
        json!({ "action": "add", "domain": "bücher.example.com", "environment": "shop/second" });
    has(&tool(&stage, taken).await, &["domain_taken", "`shop/staging`", "give another name"]);
    let early =
        json!({ "action": "add", "domain": "second.example.com", "environment": "shop/second" });
    has(&tool(&stage, early).await, &["DONE", "call `provision_vm`", "action `point`"]);
    let early = json!({ "action": "add", "domain": "sslip", "environment": "shop/second" });
    has(&tool(&stage, early).await, &["no_vm", "`provision_vm`"]);
    stage.tear_down().await;
}
