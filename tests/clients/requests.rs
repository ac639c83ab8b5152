//! What every client has from the one executor: limits, redirects, permissions, silence in logs.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::Method;
use serde_json::json;
use tracing::subscriber::set_global_default;
use tracing_subscriber::fmt::MakeWriter;
use url::Url;
use vmkit::clouds::{Cloud, Hetzner};
use vmkit::domain::clock::{Clock, Millis};
use vmkit::domain::ids::{InstallationId, VmId};
use vmkit::domain::secret::Secret;
use vmkit::github::{FileChange, GitHub, Pace};

use crate::fake::{Fake, Reply, lock};
use crate::{TOKEN, fake_github, fake_hetzner, hetzner, pace, token};

const NOW: Millis = Millis(1_790_000_000_000);

fn github_at(fake: &Fake) -> GitHub {
    let pace = Pace { clock: Clock::hand(NOW), ..pace() };
    GitHub::new(&fake.url, token(), pace).expect("a client")
}

fn limited(status: u16, headers: &[(&'static str, &str)], message: &str) -> Reply {
    let headers = headers.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
    Reply::Json(status, headers, json!({ "message": message }))
}

#[tokio::test]
async fn a_rate_limit_says_until_when_and_is_not_hammered() {
    let soon = (NOW.0 / 1000 + 600).to_string();
    let primary = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", soon.as_str())];
    let secondary = "You have exceeded a secondary rate limit";
    let cases = [
        (limited(403, &primary, "API rate limit exceeded"), 600_000),
        (limited(429, &primary, "API rate limit exceeded"), 600_000),
        (limited(403, &[("x-ratelimit-remaining", "9")], secondary), 60_000),
        (limited(429, &[("retry-after", "120")], secondary), 120_000),
        (limited(429, &[("retry-after", "Mon, 21 Sep 2026 14:13:20 GMT")], "x"), 0),
    ];
    for (reply, wait_ms) in cases {
        let (fake, _world) = fake_github::start().await;
        fake.refuse(Method::GET, "/user", reply.clone(), 1);
        match github_at(&fake).user().await {
            Err(error) => {
                assert_eq!((error.code(), error.retryable()), ("rate_limited", true), "{reply:?}");
                assert_eq!(error.retry_at(), Some(NOW.plus_ms(wait_ms)), "{reply:?}");
                assert_eq!(fake.seen().len(), 1, "{reply:?}");
            }
            // A time that is over is waited out at once.
            Ok(_) => assert_eq!(wait_ms, 0, "{reply:?}"),
        }
    }
    // Without a hint it is tried again for a while, writes too: a refusal had no effect.
    let (fake, world) = fake_hetzner::start().await;
    fake.refuse(Method::POST, "/v1/servers", Reply::hetzner(429, "rate_limit_exceeded"), 2);
    let order = hetzner::order(InstallationId::generate(), VmId::generate());
    hetzner::cloud(&fake).create_vm(&order).await.expect("a server");
    assert_eq!((fake.count(Method::POST, "/v1"), lock(&world).servers.len()), (3, 1));
}

#[tokio::test]
async fn our_token_follows_no_redirect_to_another_host() {
    let other = Fake::start(Router::new(), None).await;
    let (fake, _world) = fake_github::start().await;
    let github = github_at(&fake);
    let to = |place: &Url| {
        Reply::Json(301, vec![("location", place.to_string())], json!({ "message": "Moved" }))
    };
    let renamed = fake.url.join("/repos/octo/shop").expect("a URL");
    fake.refuse(Method::GET, "/repos/octo/old", to(&renamed), 1);
    let repo = github.repo(&"octo/old".parse().expect("a repo")).await.expect("the repo");
    assert_eq!(repo.full_name.as_str(), "octo/shop");
    fake.refuse(Method::GET, "/user", to(&other.url), 1);
    let error = github.user().await.expect_err("another host");
    assert_eq!((error.code(), error.retryable()), ("redirected_away", false));
    assert!(other.seen().is_empty());
    fake.refuse(Method::GET, "/user", to(&fake.url.join("/user").expect("a URL")), 99);
    assert_eq!(github.user().await.expect_err("a loop").code(), "redirected_away");
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let (fake, _world) = fake_github::start().await;
    let github = github_at(&fake);
    let needs = [("x-accepted-github-permissions", "contents=write; workflows=write")];
    let reply = limited(403, &needs, "Resource not accessible by personal access token");
    fake.refuse(Method::GET, "/user", reply, 1);
    let error = github.user().await.expect_err("no permission");
    assert_eq!(error.code(), "forbidden");
    assert!(error.to_string().contains("contents=write; workflows=write"), "{error}");
    fake.refuse(Method::GET, "/user", limited(403, &[], "Repository was archived"), 1);
    let error = github.user().await.expect_err("archived");
    assert!(error.to_string().contains("Repository was archived"), "{error}");
    let scope = "refusing to allow a Personal Access Token to create or update workflow `x` \
        without `workflow` scope";
    fake.refuse(Method::GET, "/user", Reply::github(422, scope), 1);
    let error = github.user().await.expect_err("no permission");
    assert!(error.to_string().contains("workflows=write"), "{error}");
    // GitHub hides a repo that the token may read and not write.
    let blobs = "/repos/octo/shop/git/blobs";
    fake.refuse(Method::POST, blobs, Reply::github(404, "Not Found"), 1);
    let change = FileChange { path: "a".to_owned(), content: Some(vec![0xff]), executable: false };
    let (repo, base) = ("octo/shop".parse(), "0".repeat(40).parse());
    let (repo, base) = (repo.expect("a repo"), base.expect("a commit id"));
    let error = github.commit_files(&repo, "x", &base, "m", &[change]).await;
    assert_eq!(error.expect_err("read-only").code(), "forbidden");
    fake.refuse(Method::GET, "/user", Reply::github(401, "Bad credentials"), 1);
    assert_eq!(github.user().await.expect_err("refused").code(), "token_refused");
}

#[tokio::test]
async fn reads_survive_faults_that_pass_and_give_up_on_those_that_stay() {
    let passing = [
        Reply::github(500, "x"),
        Reply::Text(503, "busy"),
        Reply::BrokenBody(200),
        Reply::SlowBody(200),
    ];
    for reply in passing {
        let (fake, _world) = fake_github::start().await;
        fake.refuse(Method::GET, "/user", reply, 1);
        github_at(&fake).user().await.expect("the user");
        assert_eq!(fake.seen().len(), 2);
        fake.refuse(Method::GET, "/user", Reply::github(500, "x"), 99);
        assert_eq!(github_at(&fake).user().await.expect_err("a fault").code(), "github_fault");
        assert_eq!(fake.seen().len(), 6, "a bounded number of tries");
    }
    let gone = Fake::start(Router::new(), None).await.url.clone();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = closed.local_addr().expect("an address").port();
    drop(closed);
    let mut nobody = gone;
    nobody.set_port(Some(port)).expect("a port");
    let github = GitHub::new(&nobody, token(), pace()).expect("a client");
    let error = github.user().await.expect_err("nobody listens");
    assert_eq!((error.code(), error.may_have_happened()), ("unreachable", false));
}

#[test]
fn a_token_is_not_sent_in_the_open_nor_to_what_is_no_address() {
    let code = |url: &str, token: &str| {
        let url: Url = url.parse().expect("a URL");
        Hetzner::new(&url, Secret::new(token), pace()).map(drop).map_err(|e| e.code())
    };
    assert_eq!(code("https://api.hetzner.cloud/v1", "t"), Ok(()));
    assert_eq!(code("http://127.0.0.1:4010/v1", "t\n"), Ok(()));
    assert_eq!(code("http://localhost:4010/v1", "t"), Ok(()));
    assert_eq!(code("http://api.hetzner.cloud/v1", "t"), Err("bad_base_url"));
    assert_eq!(code("file:///etc/passwd", "t"), Err("bad_base_url"));
    assert_eq!(code("https://api.hetzner.cloud/v1", "a\nb"), Err("bad_token"));
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn logs_and_errors_name_the_call_and_show_no_secret() {
    // For the whole process: one for this thread would miss what another thread logged first, since
    // tracing remembers who listens. The lines of the other tests may show no secret either.
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("vmkit=trace")
        .with_ansi(false)
        .with_writer(lines.clone())
        .finish();
    set_global_default(subscriber).expect("no other subscriber");
    let (fake, _world) = fake_hetzner::start().await;
    let order = hetzner::order(InstallationId::generate(), VmId::generate());
    let cloud = hetzner::cloud(&fake);
    cloud.create_vm(&order).await.expect("a server");
    let echo = json!({ "error": { "code": "forbidden", "message": format!("no: {TOKEN}\u{7}") } });
    let id = vec![("x-correlation-id", "abc123".to_owned())];
    fake.refuse(Method::GET, "/v1/servers", Reply::Json(403, id, echo), 1);
    let error = cloud.list_vms().await.expect_err("refused");
    assert_eq!(error.code(), "forbidden");
    let (github, world) = fake_github::start().await;
    let logs = Fake::start(Router::new(), None).await;
    lock(&world).log_url = format!("{}log?sig=signature-for-tests", logs.url);
    let repo = "octo/shop".parse().expect("a repo");
    assert_eq!(github_at(&github).job_log(&repo, 1).await.expect("an answer"), None);

    let text = String::from_utf8_lossy(&lock(&lines.0)).into_owned();
    let has =
        |words: &[&str]| text.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(has(&["DEBUG", "POST", "/v1/servers", "201"]), "{text}");
    assert!(has(&["403", "abc123"]), "{text}");
    for secret in [TOKEN, "user-data-for-tests", "signature-for-tests"] {
        assert!(!text.contains(secret), "{secret} is in the log: {text}");
    }
    let shown = format!("{error} {error:?} {cloud:?} {order:?}");
    assert!(!shown.contains(TOKEN) && !shown.contains("user-data-for-tests"), "{shown}");
    assert!(!shown.contains('\u{7}'), "{shown}");
}

#[tokio::test]
async fn a_row_of_waits_grows_and_ends() {
    let pace = Pace {
        poll_first: Duration::from_millis(1),
        poll_longest: Duration::from_millis(4),
        ..pace()
    };
    let mut waits = pace.polls(Duration::from_millis(20));
    let mut count = 0;
    while waits.wait().await {
        count += 1;
        assert!(count < 30, "it ends");
    }
    assert!(count >= 5, "{count} waits");
    let clock = Clock::hand(NOW);
    let mut waits = pace.polls(Duration::from_millis(20));
    assert!(
        !waits.wait_until(Some(NOW.plus_ms(1000)), &clock, "a test").await,
        "a hint that is too far"
    );
}

#[tokio::test]
async fn changes_at_github_are_a_while_apart_and_questions_are_not() {
    let (fake, _world) = fake_github::start().await;
    let apart = Duration::from_millis(300);
    let pace = Pace { between_changes: apart, ..pace() };
    let github = GitHub::new(&fake.url, token(), pace).expect("a client");
    let shop = "octo/shop".parse().expect("a repo");
    let began = std::time::Instant::now();
    // Two at once are one after the other too, whichever clone of the client they go through.
    let other = github.clone();
    let (first, second) = tokio::join!(
        github.put_variable(&shop, "VMKIT_ONE", "1"),
        other.put_variable(&shop, "VMKIT_TWO", "2"),
    );
    first.expect("written");
    second.expect("written");
    // Each is a PATCH that finds nothing, then a POST: four changes, three pauses.
    assert!(began.elapsed() >= apart * 3, "{:?}", began.elapsed());
    let began = std::time::Instant::now();
    for _ in 0..5 {
        github.repo(&shop).await.expect("it");
    }
    assert!(began.elapsed() < apart * 4, "{:?}", began.elapsed());
}
