//! The DNS providers: one record or none, never two and never somebody else's, whatever goes wrong.

use axum::http::Method;
use futures::{StreamExt, stream};
use serde_json::json;
use url::Url;
use vmkit::dns::{
    AnyDns, Dns, DnsError, Mark, Put, Record, RecordKind, Wanted, Zone, put, zone_of,
};
use vmkit::domain::ids::{EnvironmentId, InstallationId};
use vmkit::domain::names::Domain;
use vmkit::domain::secret::Secret;
use vmkit_sandbox::cloudflare::{Cloudflare, Knobs};

use crate::fake::{Fake, Fault, Reply};
use crate::spec::Spec;
use crate::{TOKEN, fake_dns, pace, token};

/// More often than any call tries.
const ALWAYS: u32 = 1000;
/// Of the form that Cloudflare takes for a token at all.
const LONG: &str = "token-for-tests-of-cloudflare";
const PROVIDERS: [&str; 3] = AnyDns::PROVIDERS;

/// A provider, its client, and what its records are now.
struct Rig {
    fake: Fake,
    dns: AnyDns,
    now: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Where records are made.
    path: &'static str,
}

async fn rig(provider: &str) -> Rig {
    match provider {
        "cloudflare" => {
            let account = Cloudflare::new(LONG);
            account.set_knobs(Knobs { calls: 1_000_000, ..Knobs::default() });
            let fake = Fake::start(account.router(), None).await;
            let url: Url = fake.url.join("client/v4").expect("a URL");
            let dns = AnyDns::connect(provider, &url, Secret::new(LONG), pace());
            let dns = dns.expect("a client");
            let now = move || {
                let state = account.state();
                let records = state["zones"][0]["records"].as_array().expect("a list").clone();
                records.iter().map(|one| one["content"].as_str().unwrap_or("").to_owned()).collect()
            };
            Rig { fake, dns, now: Box::new(now), path: "/client/v4/zones/" }
        }
        "hetzner" => {
            let (fake, records) = fake_dns::hetzner().await;
            let dns = AnyDns::connect(provider, &fake.url, token(), pace()).expect("a client");
            let now = move || {
                let records = crate::fake::lock(&records).clone();
                let values = records
                    .iter()
                    .flat_map(|one| one["records"].as_array().cloned().unwrap_or_default());
                values.map(|one| one["value"].as_str().unwrap_or("").to_owned()).collect()
            };
            Rig { fake, dns, now: Box::new(now), path: "/zones/" }
        }
        _ => {
            let (fake, records) = fake_dns::digitalocean().await;
            let dns = AnyDns::connect(provider, &fake.url, token(), pace()).expect("a client");
            let now = move || {
                let records = crate::fake::lock(&records).clone();
                records.iter().map(|one| one["data"].as_str().unwrap_or("").to_owned()).collect()
            };
            Rig { fake, dns, now: Box::new(now), path: "/v2/domains/" }
        }
    }
}

fn name() -> Domain {
    Domain::given("shop.example.com").expect("a domain")
}

fn wanted(value: &str) -> Wanted {
    let mark =
        Mark { installation: InstallationId::generate(), environment: EnvironmentId::generate() };
    Wanted { name: name(), kind: RecordKind::A, value: value.to_owned(), mark }
}

/// By the mark; where there is none, by what our table would say.
fn ours(dns: &AnyDns, wanted: &Wanted) -> impl Fn(&Record) -> bool + Sync + use<> {
    let (marks, mark, values) = (dns.keeps_marks(), wanted.mark, [wanted.value.clone()]);
    move |record| match marks {
        true => record.mark.is_some_and(|own| own.installation == mark.installation),
        false => record.values == values,
    }
}

async fn zone(dns: &AnyDns) -> Zone {
    zone_of(dns, &name()).await.expect("an answer").expect("a zone")
}

fn faults(success: u16) -> Vec<Reply> {
    vec![
        Reply::Json(500, Vec::new(), json!({})),
        Reply::Json(503, Vec::new(), json!({})),
        Reply::Text(502, "<html>Bad gateway</html>"),
        Reply::Json(429, vec![("retry-after", "3600".to_owned())], json!({})),
        Reply::Json(403, Vec::new(), json!({})),
        Reply::Json(400, Vec::new(), json!({})),
        Reply::Text(success, "<html>Hello</html>"),
        Reply::Json(success, Vec::new(), json!({ "result": 1, "rrset": 1, "domain_record": 1 })),
        Reply::SlowBody(success),
        Reply::BrokenBody(success),
        Reply::Silence,
    ]
}

fn cases(success: u16) -> Vec<(&'static str, Reply, bool, u32)> {
    let mut all = Vec::new();
    for provider in PROVIDERS {
        for reply in faults(success) {
            for (after, times) in [(false, 1), (false, ALWAYS), (true, 1), (true, ALWAYS)] {
                all.push((provider, reply.clone(), after, times));
            }
        }
    }
    all
}

#[tokio::test]
async fn no_fault_makes_two_records() {
    let run = |(provider, reply, after, times): (&'static str, Reply, bool, u32)| async move {
        let case = format!("{provider} {reply:?} after={after} times={times}");
        let rig = rig(provider).await;
        let (zone, wanted) = (zone(&rig.dns).await, wanted("203.0.113.7"));
        let ours = ours(&rig.dns, &wanted);
        rig.fake.fail(Fault { method: Method::POST, path: rig.path, after, reply, times });
        let first = put(&rig.dns, &zone, &wanted, &ours).await;
        match &first {
            Ok(done) => {
                assert!(matches!(done, Put::Made(_) | Put::Right(_)), "{case}: {done:?}");
                assert_eq!((rig.now)(), ["203.0.113.7"], "{case}");
            }
            Err(error) => {
                assert!((rig.now)().len() <= 1, "{case}: {error}");
                assert!(!error.to_string().contains(TOKEN), "{case}");
            }
        }
        rig.fake.heal();
        put(&rig.dns, &zone, &wanted, &ours).await.expect("a record once all is well");
        assert_eq!((rig.now)(), ["203.0.113.7"], "{case}");
        rig.fake.assert_valid();
    };
    let all = cases(200);
    let count = all.len();
    stream::iter(all).for_each_concurrent(16, run).await;
    eprintln!("{count} faults of a record's making");
}

#[tokio::test]
async fn no_fault_of_a_change_or_a_deletion_leaves_two_records() {
    let run = |(provider, reply, after, times): (&'static str, Reply, bool, u32)| async move {
        let case = format!("{provider} {reply:?} after={after} times={times}");
        let rig = rig(provider).await;
        let zone = zone(&rig.dns).await;
        let before = wanted("192.0.2.1");
        let made = put(&rig.dns, &zone, &before, &ours(&rig.dns, &before)).await.expect("made");
        let after_it = Wanted { value: "203.0.113.7".to_owned(), ..before.clone() };
        // The table knows the record by its id.
        let (is_marked, id) = (ours(&rig.dns, &after_it), made.record().id.clone());
        let ours = move |record: &Record| is_marked(record) || record.id == id;
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let reply = reply.clone();
            rig.fake.fail(Fault { method, path: rig.path, after, reply, times });
        }
        let changed = put(&rig.dns, &zone, &after_it, &ours).await;
        assert_eq!((rig.now)().len(), 1, "{case}: {changed:?}");
        rig.fake.heal();
        put(&rig.dns, &zone, &after_it, &ours).await.expect("changed once all is well");
        assert_eq!((rig.now)(), ["203.0.113.7"], "{case}");
        let record = rig.dns.records(&zone, &name()).await.expect("records").remove(0);
        rig.dns.delete(&zone, &record).await.expect("gone");
        rig.dns.delete(&zone, &record).await.expect("still gone");
        assert_eq!((rig.now)(), Vec::<String>::new(), "{case}");
        rig.fake.assert_valid();
    };
    stream::iter(cases(200)).for_each_concurrent(16, run).await;
}

#[tokio::test]
async fn a_record_of_somebody_elses_is_never_touched() {
    for provider in PROVIDERS {
        let rig = rig(provider).await;
        let (zone, theirs) = (zone(&rig.dns).await, wanted("192.0.2.1"));
        rig.dns.create(&zone, &theirs).await.expect("theirs");
        let mine = wanted("203.0.113.7");
        let error = put(&rig.dns, &zone, &mine, &ours(&rig.dns, &mine)).await.expect_err("theirs");
        assert!(matches!(error, DnsError::Foreign { .. }), "{provider}: {error}");
        assert!(error.to_string().contains("A shop.example.com 192.0.2.1"), "{error}");
        assert_eq!((rig.now)(), ["192.0.2.1"], "{provider}");
        // Right without us: it stays theirs.
        let same = wanted("192.0.2.1");
        let never = |_: &Record| false;
        let done = put(&rig.dns, &zone, &same, &never).await.expect("right");
        assert!(matches!(done, Put::Theirs(_)), "{provider}: {done:?}");
        rig.fake.assert_valid();
    }
}

/// Two that were made by an answer that came late are one again.
#[tokio::test]
async fn a_double_of_ours_is_made_one() {
    let rig = rig("digitalocean").await;
    let (zone, wanted) = (zone(&rig.dns).await, wanted("203.0.113.7"));
    for _ in 0..3 {
        rig.dns.create(&zone, &wanted).await.expect("made");
    }
    assert_eq!((rig.now)().len(), 3);
    put(&rig.dns, &zone, &wanted, &ours(&rig.dns, &wanted)).await.expect("one");
    assert_eq!((rig.now)(), ["203.0.113.7"]);
}

/// What Cloudflare sends and gets, held against its own document.
#[tokio::test]
async fn cloudflares_bodies_are_those_of_its_document() {
    let Some(spec) = Spec::load("cloudflare") else { return };
    let rig = rig("cloudflare").await;
    let (zone, wanted) = (zone(&rig.dns).await, wanted("203.0.113.7"));
    let by_mark = ours(&rig.dns, &wanted);
    put(&rig.dns, &zone, &wanted, &by_mark).await.expect("made");
    let other = Wanted { value: "203.0.113.8".to_owned(), ..wanted.clone() };
    let changed = put(&rig.dns, &zone, &other, &by_mark).await.expect("changed");
    assert!(matches!(changed, Put::Changed(..)), "{changed:?}");
    rig.dns.delete(&zone, changed.record()).await.expect("gone");
    let seen = rig.fake.seen();
    assert!(seen.len() >= 6, "{seen:?}");
    for one in &seen {
        let path = one.path.trim_start_matches("/client/v4");
        assert_eq!(spec.fault(one.method.as_str(), path, &one.body), None);
    }
    let text = changed.record().mark.expect("a mark").to_string();
    assert!(text.chars().count() <= 100, "a free plan's comment: {text}");
}

#[tokio::test]
async fn each_refusal_of_cloudflares_is_told_apart() {
    let account = Cloudflare::new(LONG);
    let fake = Fake::start(account.router(), None).await;
    let url: Url = fake.url.join("client/v4").expect("a URL");
    let client = |text: &str| {
        vmkit::dns::Cloudflare::new(&url, Secret::new(text), pace()).expect("a client")
    };
    client(LONG).verify().await.expect("a good token");
    for (text, code) in [("another-token-for-tests", "token_refused"), ("short", "token_refused")] {
        let error = client(text).verify().await.expect_err(text);
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(client(text).zones().await.expect_err(text).code(), code);
    }
    account.set_knobs(Knobs { token_status: "expired".to_owned(), ..Knobs::default() });
    assert_eq!(client(LONG).verify().await.expect_err("expired").code(), "token_refused");
    account.set_knobs(Knobs { read_only_token: true, ..Knobs::default() });
    let zone = client(LONG).zones().await.expect("zones").remove(0);
    let error = client(LONG).create(&zone, &wanted("203.0.113.7")).await.expect_err("read only");
    assert_eq!(error.code(), "forbidden", "{error}");
    account.set_knobs(Knobs { calls: 1, ..Knobs::default() });
    client(LONG).zones().await.expect("the one call");
    let error = client(LONG).zones().await.expect_err("no more");
    assert_eq!(error.code(), "rate_limited", "{error}");
    let many = (0..120).map(|n| format!("zone{n:03}.example")).collect();
    account.set_knobs(Knobs { zones: many, ..Knobs::default() });
    assert_eq!(client(LONG).zones().await.expect("three pages").len(), 120);
}
