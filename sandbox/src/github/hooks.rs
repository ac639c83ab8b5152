//! Webhooks of repos: made, listed, deleted, and sent, also as badly as a network sends them.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::routing::{get, post};
use ring::hmac;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Page, Query, Refusal, created, no_content, object, ok};
use super::store::{LOGIN, Repo};
use super::{GitHub, render};

/// How long a delivery that is to be overtaken waits for the one that overtakes it.
const OVERTAKEN: std::time::Duration = std::time::Duration::from_millis(200);
/// How long a receiver may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

type Home = Path<(String, String)>;
type Numbered = Path<(String, String, u64)>;

/// One webhook.
pub(super) struct Hook {
    id: u64,
    events: Vec<String>,
    active: bool,
    url: String,
    content_type: String,
    secret: Option<String>,
    insecure_ssl: String,
    created_at: String,
    updated_at: String,
    /// (status, message) of the last delivery.
    last: (Option<u16>, String),
}

/// How the network treats deliveries.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Weather {
    /// Each arrives once, in order.
    #[default]
    Fine,
    /// None arrives.
    Lost,
    /// Each arrives twice, with the same id.
    Doubled,
    /// Of two, the second arrives first.
    Swapped,
    /// Somebody sends them who does not know the secret.
    Forged,
}

/// One delivery under way.
pub(super) struct Delivery {
    repo: u64,
    hook: u64,
    id: String,
    event: &'static str,
    url: String,
    secret: Option<String>,
    body: String,
}

pub(super) fn routes() -> Router<GitHub> {
    const ONE: &str = "/repos/{owner}/{repo}/hooks/{id}";
    Router::new()
        .route("/repos/{owner}/{repo}/hooks", get(list).post(make))
        .route(ONE, get(one).patch(change).delete(drop_hook))
        .route(&format!("{ONE}/pings"), post(ping))
}

fn shown(hook: &Hook, urls: &render::Urls) -> Value {
    let url = format!("{}/hooks/{}", urls.api, hook.id);
    let mut config = json!({
        "url": hook.url, "content_type": hook.content_type, "insecure_ssl": hook.insecure_ssl,
    });
    if hook.secret.is_some() {
        config["secret"] = "********".into();
    }
    json!({
        "type": "Repository", "id": hook.id, "name": "web", "active": hook.active, "events": hook.events,
        "config": config, "updated_at": hook.updated_at, "created_at": hook.created_at, "url": url,
        "test_url": format!("{url}/test"), "ping_url": format!("{url}/pings"),
        "deliveries_url": format!("{url}/deliveries"),
        "last_response": { "code": hook.last.0, "status": if hook.last.0.is_some() { "active" } else { "unused" }, "message": hook.last.1 },
    })
}

async fn list(
    State(hub): State<GitHub>,
    Path((owner, name)): Home,
    RawQuery(query): RawQuery,
) -> Answer {
    let page = hub.with_repo(&owner, &name, |repo, urls| {
        let all = repo.hooks.iter().map(|hook| shown(hook, urls)).collect();
        Ok(Page::cut(all, &Query::parse(query.as_deref()), &format!("{}/hooks", urls.api)))
    });
    page?.answer()
}

fn events(body: &Value) -> Vec<String> {
    let given = body["events"].as_array().into_iter().flatten().filter_map(Value::as_str);
    given.map(str::to_owned).collect()
}

async fn make(State(hub): State<GitHub>, Path((owner, name)): Home, body: Bytes) -> Answer {
    let body = object(&body)?;
    let config = body["config"].clone();
    let url = config["url"].as_str().unwrap_or_default().to_owned();
    if body["name"].as_str().is_some_and(|name| name != "web") {
        return Err(Refusal::custom("Hook", "Name must be \"web\""));
    }
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(Refusal::custom("Hook", "url is missing a scheme"));
    }
    let id = hub.state().next_id();
    let answer = hub.with_repo(&owner, &name, |repo, urls| {
        let mut wanted = events(&body);
        if wanted.is_empty() {
            wanted.push("push".to_owned());
        }
        if repo.hooks.iter().any(|hook| hook.url == url && hook.events == wanted) {
            return Err(Refusal::custom("Hook", "Hook already exists on this repository"));
        }
        let now = super::now();
        let text =
            |name: &str, otherwise: &str| config[name].as_str().unwrap_or(otherwise).to_owned();
        let hook = Hook {
            id,
            events: wanted,
            active: body["active"].as_bool().unwrap_or(true),
            url,
            content_type: text("content_type", "form"),
            secret: config["secret"].as_str().map(str::to_owned),
            insecure_ssl: text("insecure_ssl", "0"),
            created_at: now.clone(),
            updated_at: now,
            last: (None, String::new()),
        };
        let answer = shown(&hook, urls);
        repo.hooks.push(hook);
        Ok((answer, repo.id))
    });
    let (answer, repo) = answer?;
    hub.send_ping(repo, id);
    created(&answer)
}

fn place(repo: &Repo, id: u64) -> Result<usize, Refusal> {
    repo.hooks.iter().position(|hook| hook.id == id).ok_or_else(Refusal::not_found)
}

async fn one(State(hub): State<GitHub>, Path((owner, name, id)): Numbered) -> Answer {
    let found =
        hub.with_repo(&owner, &name, |repo, urls| Ok(shown(&repo.hooks[place(repo, id)?], urls)));
    ok(&found?)
}

async fn change(
    State(hub): State<GitHub>,
    Path((owner, name, id)): Numbered,
    body: Bytes,
) -> Answer {
    let body = object(&body)?;
    let changed = hub.with_repo(&owner, &name, |repo, urls| {
        let at = place(repo, id)?;
        let hook = &mut repo.hooks[at];
        if body.get("events").is_some() {
            hook.events = events(&body);
        }
        hook.active = body["active"].as_bool().unwrap_or(hook.active);
        // A config takes the place of the whole former one.
        if let Some(config) = body["config"].as_object() {
            let text = |name: &str| config.get(name).and_then(Value::as_str).map(str::to_owned);
            hook.url = text("url").unwrap_or_else(|| hook.url.clone());
            hook.content_type = text("content_type").unwrap_or_else(|| "form".to_owned());
            hook.secret = text("secret");
        }
        hook.updated_at = super::now();
        Ok(shown(hook, urls))
    });
    ok(&changed?)
}

async fn drop_hook(State(hub): State<GitHub>, Path((owner, name, id)): Numbered) -> Answer {
    hub.with_repo(&owner, &name, |repo, _| {
        let at = place(repo, id)?;
        repo.hooks.remove(at);
        Ok(())
    })?;
    no_content()
}

async fn ping(State(hub): State<GitHub>, Path((owner, name, id)): Numbered) -> Answer {
    let repo = hub.with_repo(&owner, &name, |repo, _| place(repo, id).map(|_| repo.id))?;
    hub.send_ping(repo, id);
    no_content()
}

impl GitHub {
    fn send_ping(&self, repo_id: u64, hook: u64) {
        self.send(
            repo_id,
            "ping",
            |_, _| json!({ "zen": "Keep it logically awesome.", "hook_id": hook }),
        );
    }

    /// Tells the hooks of a repo that want it of an event.
    pub(super) fn send(
        &self,
        repo_id: u64,
        event: &'static str,
        body: impl FnOnce(&Repo, &render::Urls) -> Value,
    ) {
        let mut state = self.state();
        let Some(repo) = state.repo_by_id(repo_id) else { return };
        let wants = |hook: &&Hook| {
            hook.active
                && (event == "ping" || hook.events.iter().any(|one| one == event || one == "*"))
        };
        if !repo.hooks.iter().any(|hook| wants(&hook)) {
            return;
        }
        let urls = render::Urls::new(&self.0.origin, &repo.owner, &repo.name);
        let mut body = body(repo, &urls);
        body["repository"] = render::repo(repo, &urls);
        body["sender"] = render::user(&self.0.origin, LOGIN);
        let body = body.to_string();
        for hook in repo.hooks.iter().filter(wants) {
            if event == "ping"
                && body.contains("\"hook_id\"")
                && !body.contains(&format!("\"hook_id\":{}", hook.id))
            {
                continue;
            }
            let [a, b, c, d] = rand::random::<[u32; 4]>();
            let delivery = Delivery {
                repo: repo_id,
                hook: hook.id,
                id: format!(
                    "{a:08x}-{:04x}-{:04x}-{:04x}-{c:08x}{:04x}",
                    b >> 16,
                    b & 0xffff,
                    d >> 16,
                    d & 0xffff
                ),
                event,
                url: hook.url.clone(),
                secret: hook.secret.clone(),
                body: body.clone(),
            };
            // Where nobody receives any more, the simulator is ending.
            drop(self.0.deliveries.send(delivery));
        }
    }

    fn note_delivery(&self, delivery: &Delivery, status: Option<u16>) {
        let mut state = self.state();
        state.deliveries_sent += 1;
        let hook = state
            .repo_by_id(delivery.repo)
            .and_then(|repo| repo.hooks.iter_mut().find(|hook| hook.id == delivery.hook));
        if let Some(hook) = hook {
            let said = if status.is_some_and(|code| code < 300) { "OK" } else { "failed" };
            hook.last = (status, said.to_owned());
        }
        drop(state);
        self.changed();
    }
}

/// Sends deliveries one after the other until `off`.
pub(super) fn deliver(
    hub: &GitHub,
    mut deliveries: mpsc::UnboundedReceiver<Delivery>,
    off: CancellationToken,
) {
    // Weak: the sender must not keep alive what it belongs to.
    let hub = std::sync::Arc::downgrade(&hub.0);
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                next = deliveries.recv() => next,
                () = off.cancelled() => None,
            };
            let Some(first) = next else { return };
            let weather = hub.upgrade().map(|hub| GitHub(hub).state().knobs.webhooks);
            let Some(weather) = weather else { return };
            let mut batch = vec![first];
            if weather == Weather::Swapped {
                let second = tokio::time::timeout(OVERTAKEN, deliveries.recv()).await;
                batch.splice(0..0, second.ok().flatten());
            }
            for delivery in batch {
                let times = match weather {
                    Weather::Lost => 0,
                    Weather::Doubled => 2,
                    Weather::Fine | Weather::Swapped | Weather::Forged => 1,
                };
                for _ in 0..times {
                    let sent = tokio::time::timeout(PATIENCE, post_one(&delivery, weather));
                    let status = sent.await.ok().flatten();
                    let Some(hub) = hub.upgrade().map(GitHub) else { return };
                    hub.note_delivery(&delivery, status);
                }
            }
        }
    });
}

/// The status of the answer. Only plain HTTP is spoken: receivers are on this machine.
async fn post_one(delivery: &Delivery, weather: Weather) -> Option<u16> {
    let url = url::Url::parse(&delivery.url).ok().filter(|url| url.scheme() == "http")?;
    let (host, port) = (url.host_str()?, url.port_or_known_default()?);
    let mut request = http::Request::post(&url[url::Position::BeforePath..])
        .header("host", format!("{host}:{port}"))
        .header("content-type", "application/json")
        .header("user-agent", "GitHub-Hookshot/0000000")
        .header("x-github-event", delivery.event)
        .header("x-github-delivery", &delivery.id)
        .header("x-github-hook-id", delivery.hook);
    let secret = match weather {
        Weather::Forged => Some("not the secret"),
        _ => delivery.secret.as_deref(),
    };
    if let Some(secret) = secret {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let signature = hex::encode(hmac::sign(&key, delivery.body.as_bytes()));
        request = request.header("x-hub-signature-256", format!("sha256={signature}"));
    }
    let request = request.body(axum::body::Body::from(delivery.body.clone())).ok()?;
    let stream = tokio::net::TcpStream::connect((host, port)).await.ok()?;
    let stream = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.ok()?;
    let driving = tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    driving.abort();
    Some(answer.ok()?.status().as_u16())
}
