//! What GitHub tells us by itself: webhooks of the repos that we deploy from, on a gateway.
//!
//! A delivery is checked, noted under its id, and answered; then it is worked off, whatever becomes
//! of this process meanwhile. It brings nothing that a look would not find: it only says when to
//! look. So a lost one costs seconds, and a false one nothing.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use serde::Deserialize;
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{Context, OpError};
use crate::domain::ids::{DeployId, SecretId};
use crate::domain::names::{AppSlug, RepoName};
use crate::domain::secret::Secret;
use crate::github::GitHubError;
use crate::store::Delivery;
use crate::vault::Purpose;

/// Where deliveries arrive, below the public URL.
pub const PATH: &str = "webhooks/github";
/// What the hook is told of.
const EVENTS: [&str; 3] = ["push", "workflow_job", "workflow_run"];
/// How often what was noted is looked at without a nudge.
const LOOK: Duration = Duration::from_secs(30);
/// How long ids are remembered, in milliseconds: GitHub sends nothing again after three days.
const KEPT_MS: i64 = 4 * 24 * 60 * 60 * 1000;
/// How many deliveries are worked off at a time.
const BATCH: u32 = 100;

/// What deliveries wake: whoever waits for a run, and whoever works deliveries off.
#[derive(Clone)]
pub struct News {
    runs: broadcast::Sender<u64>,
    noted: Arc<Notify>,
    /// Where GitHub reaches us; none where it cannot, and polling alone finds things out.
    hook: Option<Url>,
}

impl News {
    /// For a gateway that GitHub reaches at `public_url`; without one nothing ever arrives.
    pub fn new(public_url: Option<&Url>) -> Self {
        let hook = public_url.map(|url| {
            let mut url = url.clone();
            let path = format!("{}/{PATH}", url.path().trim_end_matches('/'));
            url.set_path(&path);
            url
        });
        Self { runs: broadcast::channel(256).0, noted: Arc::default(), hook }
    }

    /// An ear for the news of one run, from now on.
    pub fn of_run(&self, run: u64) -> Ear {
        Ear { news: self.runs.subscribe(), run }
    }
}

/// Hears when something became of a run.
pub struct Ear {
    news: broadcast::Receiver<u64>,
    run: u64,
}

impl Ear {
    /// Waits for news of the run, at most for `pause`.
    pub async fn wait(&mut self, pause: Duration) {
        let heard = async {
            loop {
                match self.news.recv().await {
                    Ok(run) if run != self.run => {}
                    // Of what went by too fast, one may have been ours.
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        drop(tokio::time::timeout(pause, heard).await);
    }
}

/// Why a delivery was not taken.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// It was not signed with the hook's secret.
    #[error(
        "the delivery is not signed with the webhook's secret; only GitHub sends to this address"
    )]
    Signature,
    /// It is not as GitHub sends it.
    #[error("the delivery lacks {what}; the webhook has to send JSON")]
    Form {
        /// What is missing.
        what: &'static str,
    },
    /// It could not be noted.
    #[error(transparent)]
    Op(#[from] OpError),
}

impl WebhookError {
    /// A stable word for it.
    pub fn code(&self) -> &str {
        match self {
            Self::Signature => "bad_signature",
            Self::Form { .. } => "bad_delivery",
            Self::Op(error) => error.code(),
        }
    }
}

/// The headers of a delivery that matter.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// `X-GitHub-Event`.
    pub event: Option<&'a str>,
    /// `X-GitHub-Delivery`.
    pub id: Option<&'a str>,
    /// `X-Hub-Signature-256`.
    pub signature: Option<&'a str>,
}

/// As much of a delivery's body as matters.
#[derive(Debug, Default, Deserialize)]
struct Body {
    #[serde(default)]
    action: Option<String>,
    #[serde(default, rename = "ref")]
    git_ref: Option<String>,
    #[serde(default)]
    repository: Option<Repository>,
    #[serde(default)]
    workflow_run: Option<RunBody>,
    #[serde(default)]
    workflow_job: Option<JobBody>,
}

#[derive(Debug, Deserialize)]
struct Repository {
    id: u64,
}

#[derive(Debug, Deserialize)]
struct RunBody {
    id: u64,
    #[serde(default)]
    display_title: Option<String>,
    #[serde(default)]
    html_url: Option<String>,
}

#[derive(Debug, Deserialize)]
struct JobBody {
    run_id: u64,
}

/// Checks a delivery and notes it; false where it is known already.
///
/// # Errors
/// It is not signed as ours, is not as GitHub sends it, or cannot be noted.
pub async fn receive(context: &Context, head: Head<'_>, body: &[u8]) -> Result<bool, WebhookError> {
    let secret = secret(context).await?;
    verify(&secret, head.signature, body).ok_or(WebhookError::Signature)?;
    let missing = |what| WebhookError::Form { what };
    let event = head.event.ok_or_else(|| missing("the header X-GitHub-Event"))?;
    let plain = |id: &&str| {
        (1..=80).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let id = head.id.filter(plain).ok_or_else(|| missing("the header X-GitHub-Delivery"))?;
    if !EVENTS.contains(&event) {
        return Ok(true);
    }
    let body: Body = serde_json::from_slice(body).map_err(|_| missing("a body of JSON"))?;
    let repo = body.repository.ok_or_else(|| missing("the repository"))?.id;
    let job = body.workflow_job.map(|job| job.run_id);
    let (run, title, url) = match body.workflow_run {
        Some(run) => (Some(run.id), run.display_title, run.html_url),
        None => (job, body.git_ref, None),
    };
    let delivery = Delivery {
        id: id.to_owned(),
        event: event.to_owned(),
        action: body.action,
        repo,
        run,
        title,
        url,
        received_at: context.clock.now(),
    };
    let fresh = context.store.put_delivery(delivery).await.map_err(OpError::from)?;
    if fresh {
        context.news.noted.notify_one();
    }
    Ok(fresh)
}

/// Compares in constant time: how much of a wrong signature is right must not show.
fn verify(secret: &Secret, signature: Option<&str>, body: &[u8]) -> Option<()> {
    let given = hex::decode(signature?.strip_prefix("sha256=")?).ok()?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    hmac::verify(&key, body, &given).ok()
}

/// Works deliveries off until `stop`, those first that an earlier process left.
pub async fn work(context: &Context, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        match work_off(context).await {
            Ok(0) => {}
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(code = error.code(), %error, "a delivery of GitHub's waits");
            }
        }
        tokio::select! {
            () = context.news.noted.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn work_off(context: &Context) -> Result<usize, OpError> {
    let now = context.clock.now();
    context.store.forget_deliveries(now.plus_ms(-KEPT_MS)).await?;
    let open = context.store.open_deliveries(BATCH).await?;
    for delivery in &open {
        if let Some(run) = delivery.run {
            note_run(context, delivery, run).await?;
            // Nobody may be waiting, which is fine.
            drop(context.news.runs.send(run));
        }
        context.store.delivery_worked(delivery.id.clone(), now).await?;
    }
    Ok(open.len())
}

/// A run whose start was not answered is found by the deploy's id in its title.
async fn note_run(context: &Context, delivery: &Delivery, run: u64) -> Result<(), OpError> {
    let title = delivery.title.as_deref().unwrap_or_default();
    let named = title.split_whitespace().find_map(|word| word.parse::<DeployId>().ok());
    let Some(id) = named else { return Ok(()) };
    let Some(deploy) = context.store.deploy(id).await? else { return Ok(()) };
    if deploy.run_id.is_none() {
        let url = delivery.url.clone().unwrap_or_default();
        context.store.set_deploy_run(id, run, url).await?;
    }
    Ok(())
}

/// The secret of all our hooks, made once and kept sealed.
async fn secret(context: &Context) -> Result<Secret, OpError> {
    let purpose = Purpose::WebhookSecret;
    let (store, vault) = (&context.store, &context.vault);
    if store.sole_secret(purpose.as_str()).await?.is_none() {
        let id = SecretId::generate();
        let fresh = Secret::new(BASE64_STANDARD.encode(rand::random::<[u8; 32]>()));
        let sealed = vault.seal(&fresh, purpose, &id.to_string())?;
        store.put_secret(id, purpose.as_str(), sealed, context.clock.now()).await?;
    }
    // Two processes may both have made one: both take the older.
    let gone = || OpError::Nothing { what: "the webhook's secret has gone".to_owned() };
    let (id, sealed) = store.sole_secret(purpose.as_str()).await?.ok_or_else(gone)?;
    Ok(vault.unseal(&sealed, purpose, &id.to_string())?)
}

/// Makes the webhook of a repo where GitHub can reach us. It is a help and no need: where it may not
/// be made, that is said, and polling goes on alone.
///
/// # Errors
/// GitHub does not answer.
pub(super) async fn ensure(context: &Context, repo: &RepoName) -> Result<Option<String>, OpError> {
    let Some(url) = &context.news.hook else { return Ok(None) };
    let secret = secret(context).await?;
    let github = context.accounts.github().await?;
    match github.ensure_hook(repo, url.as_str(), &EVENTS, &secret).await {
        Ok(()) => Ok(None),
        Err(error @ (GitHubError::Forbidden { .. } | GitHubError::NotFound { .. })) => {
            tracing::info!(code = error.code(), %repo, "no webhook was made");
            Ok(Some("no webhook was made, since the GitHub sign-in may not write Webhooks: runs are polled".to_owned()))
        }
        Err(GitHubError::Invalid { reason, .. }) => {
            Ok(Some(format!("no webhook was made ({reason}): runs are polled")))
        }
        Err(error) => Err(error.into()),
    }
}

/// Deletes the webhook of an app's repo with the last environment that needs it.
pub(super) async fn drop_unneeded(
    context: &Context,
    app: &AppSlug,
    repo: &RepoName,
) -> Result<(), OpError> {
    let Some(url) = &context.news.hook else { return Ok(()) };
    let others = context.store.environments().await?;
    if others.iter().filter(|one| one.path.app == *app).count() > 1 {
        return Ok(());
    }
    let github = context.accounts.github().await?;
    match github.drop_hook(repo, url.as_str()).await {
        Err(GitHubError::Forbidden { .. }) => Ok(()),
        dropped => Ok(dropped?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_of_these_very_bytes_with_this_very_secret() {
        // The example of GitHub's documents.
        let secret = Secret::new("It's a Secret to Everybody");
        let good = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(verify(&secret, Some(good), b"Hello, World!").is_some());
        assert!(verify(&secret, Some(good), b"Hello, World! ").is_none());
        assert!(verify(&Secret::new("another"), Some(good), b"Hello, World!").is_none());
        for bad in
            [None, Some(""), Some("sha256="), Some("sha256=75"), Some(&good[7..]), Some("sha1=aa")]
        {
            assert!(verify(&secret, bad, b"Hello, World!").is_none(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn an_ear_hears_its_own_run_and_waits_no_longer_than_it_was_told() {
        let (short, long) = (Duration::from_millis(50), Duration::from_secs(60));
        let news = News::new(None);
        let mut ear = news.of_run(7);
        for run in [1, 2] {
            news.runs.send(run).expect("somebody hears");
        }
        let begun = tokio::time::Instant::now();
        ear.wait(short).await;
        assert!(begun.elapsed() >= short, "news of others");
        news.runs.send(7).expect("somebody hears");
        ear.wait(long).await;
        assert!(begun.elapsed() < long, "news of its own");
    }

    #[test]
    fn the_hook_lies_below_the_public_url() {
        let at = |url: &str| News::new(Some(&url.parse().expect("a URL"))).hook.map(String::from);
        let wanted = "https://example.com/webhooks/github";
        assert_eq!(at("https://example.com").as_deref(), Some(wanted));
        assert_eq!(
            at("https://example.com/a/").as_deref(),
            Some("https://example.com/a/webhooks/github")
        );
        assert!(News::new(None).hook.is_none());
    }
}
