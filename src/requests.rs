//! The executor that every outside call goes through: time-outs, retry, limits, redaction.
//!
//! A client describes a call, says whether it may be repeated, and gets the provider's answer with
//! any status, or an error that says whether the call may have had an effect. Tokens and bodies are
//! never logged; our token never follows a redirect to another host.

mod answer;
mod call;
mod error;
mod pace;

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::StreamExt;
use futures::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, IF_NONE_MATCH, LOCATION, USER_AGENT};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode};
use tokio::time::Instant;
use url::{Host, Url};

pub(crate) use answer::{Answer, clean};
pub(crate) use call::Call;
pub use error::RequestError;
pub use pace::{Pace, Waits};

use crate::domain::clock::Millis;
use crate::domain::secret::Secret;

/// How many redirects one call follows.
const HOPS_MAX: usize = 5;

/// What a provider said when it refused a call for the moment. Whatever was asked did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Something else is under way there; it can be sent again.
    Busy,
    /// Too many calls; nothing is accepted before `until` (none: it did not say).
    Limited {
        /// When the provider accepts calls again.
        until: Option<Millis>,
    },
}

/// How one provider differs from the others.
pub(crate) struct Dialect {
    /// What people call it: `Hetzner`.
    pub(crate) name: &'static str,
    /// Headers of every call.
    pub(crate) headers: &'static [(&'static str, &'static str)],
    /// The answer's header that its support asks for.
    pub(crate) correlation: &'static str,
    /// Whether an answer is a refusal for the moment.
    pub(crate) refusal: fn(&Answer, Millis) -> Option<Refusal>,
}

/// One provider's API with one token.
#[derive(Clone)]
pub(crate) struct Api(Arc<Inner>);

/// Tokens that are made and renewed while we run, where one does not do for all calls.
pub(crate) trait Tokens: Send + Sync {
    /// The token for a call.
    fn token<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Secret, RequestError>>;

    /// The provider did not accept `token`: forgets it. Whether another may be had.
    fn refused<'a>(&'a self, token: &'a Secret) -> BoxFuture<'a, bool>;

    /// `text` without any token that is known.
    fn hide(&self, text: &str) -> String;
}

enum Bearer {
    One(Secret, HeaderValue),
    Each(Arc<dyn Tokens>),
    None,
}

struct Inner {
    dialect: &'static Dialect,
    base: Url,
    client: reqwest::Client,
    bearer: Bearer,
    headers: HeaderMap,
    pace: Pace,
}

impl Api {
    /// An API at `base` (with or without a path). Plain `http` is accepted for this machine only,
    /// since the token would cross the network in the open. Talks to nobody yet.
    pub(crate) fn new(
        dialect: &'static Dialect,
        base: &Url,
        token: Secret,
        pace: Pace,
    ) -> Result<Self, RequestError> {
        let header = authorization(dialect.name, &token)?;
        Self::build(dialect, base, Bearer::One(token, header), pace)
    }

    /// As [`Self::new`], with a token for each call.
    pub(crate) fn with_tokens(
        dialect: &'static Dialect,
        base: &Url,
        tokens: Arc<dyn Tokens>,
        pace: Pace,
    ) -> Result<Self, RequestError> {
        Self::build(dialect, base, Bearer::Each(tokens), pace)
    }

    /// As [`Self::new`], where the token is the password of `user`.
    pub(crate) fn with_password(
        dialect: &'static Dialect,
        base: &Url,
        user: &str,
        token: Secret,
        pace: Pace,
    ) -> Result<Self, RequestError> {
        let text = BASE64_STANDARD.encode(format!("{user}:{}", token.expose().trim()));
        let header = header(dialect.name, &format!("Basic {text}"))?;
        Self::build(dialect, base, Bearer::One(token, header), pace)
    }

    /// A server that anybody may ask: nothing of ours goes there.
    pub(crate) fn open(
        dialect: &'static Dialect,
        base: &Url,
        pace: Pace,
    ) -> Result<Self, RequestError> {
        Self::build(dialect, base, Bearer::None, pace)
    }

    fn build(
        dialect: &'static Dialect,
        base: &Url,
        bearer: Bearer,
        pace: Pace,
    ) -> Result<Self, RequestError> {
        let api = dialect.name;
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err(RequestError::BadBaseUrl { api, why: "it is neither http nor https" });
        }
        if base.scheme() == "http" && !is_this_machine(base) {
            return Err(RequestError::BadBaseUrl {
                api,
                why: "plain http is accepted for loopback addresses only; use https",
            });
        }
        let mut headers = HeaderMap::new();
        for (name, value) in dialect.headers {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("vmkit/", env!("CARGO_PKG_VERSION"))),
        );
        let mut client = reqwest::Client::builder()
            .redirect(Policy::none())
            .connect_timeout(pace.connect_timeout)
            .timeout(pace.timeout);
        if is_this_machine(base) {
            // A proxy of the network's would look for the sandbox on its own machine.
            client = client.no_proxy();
        }
        let client = client.build().map_err(|source| RequestError::NoClient { api, source })?;
        Ok(Self(Arc::new(Inner { dialect, base: base.clone(), client, bearer, headers, pace })))
    }

    /// What people call the provider.
    pub(crate) fn name(&self) -> &'static str {
        self.0.dialect.name
    }

    /// The token that a call would go with, for another server of the same provider's.
    pub(crate) async fn token(&self, call: &Call) -> Result<Option<Secret>, RequestError> {
        match &self.0.bearer {
            Bearer::One(token, _) => Ok(Some(token.clone())),
            Bearer::Each(tokens) => tokens.token(call).await.map(Some),
            Bearer::None => Ok(None),
        }
    }

    /// How this API waits.
    pub(crate) fn pace(&self) -> &Pace {
        &self.0.pace
    }

    /// Text from outside made fit to be shown: one line, no control characters, at most 300
    /// characters, and without our token should the provider have echoed it.
    pub(crate) fn clean(&self, text: &str) -> String {
        match &self.0.bearer {
            Bearer::One(token, _) => clean(&text.replace(token.expose().trim(), "***")),
            Bearer::Each(tokens) => clean(&tokens.hide(text)),
            Bearer::None => clean(text),
        }
    }

    /// Sends a call, again where that is safe and has a point, and returns the last answer.
    ///
    /// A refusal for the moment ("locked", "too many requests") means that nothing happened, so it
    /// is waited out whatever the call. A server's fault or a lost connection is retried only for
    /// calls that may be repeated; for others it comes back to the caller, who must look first.
    pub(crate) async fn send(&self, call: &Call) -> Result<Answer, RequestError> {
        let pace = &self.0.pace;
        let mut waits = pace.retries();
        let mut faults = 0;
        loop {
            let outcome = self.attempt(call).await;
            let mut why = "has a fault";
            let hint = match &outcome {
                Ok(answer) => match (self.0.dialect.refusal)(answer, pace.clock.now()) {
                    Some(Refusal::Limited { until }) => {
                        self.wait_out_limit(&mut waits, until).await?;
                        continue;
                    }
                    Some(Refusal::Busy) => {
                        why = "is busy with another change";
                        None
                    }
                    None if answer.is_fault() && call.repeatable => {
                        faults += 1;
                        answer.retry_after(pace.clock.now())
                    }
                    None => return outcome,
                },
                Err(error)
                    if error.is_passing() && (call.repeatable || !error.may_have_happened()) =>
                {
                    // A time-out has cost its whole length already, so it counts twice.
                    faults += if matches!(error, RequestError::TimedOut { .. }) { 2 } else { 1 };
                    None
                }
                Err(_) => return outcome,
            };
            let what = format!("{} {why}", self.name());
            if faults >= pace.faults_max || !waits.wait_until(hint, &pace.clock, &what).await {
                return outcome;
            }
        }
    }

    async fn wait_out_limit(
        &self,
        waits: &mut Waits,
        until: Option<Millis>,
    ) -> Result<(), RequestError> {
        let (api, clock) = (self.name(), &self.0.pace.clock);
        tracing::info!(api, until = until.map(Millis::rfc3339), "{api} limits our rate of calls");
        let what = format!("{api} limits our rate of calls");
        if waits.wait_until(until, clock, &what).await {
            return Ok(());
        }
        let until = until.unwrap_or_else(|| clock.now().plus_ms(60_000));
        Err(RequestError::RateLimited { api, until })
    }

    /// One try; a second one where a token of several is not accepted any more.
    async fn attempt(&self, call: &Call) -> Result<Answer, RequestError> {
        let tokens = match &self.0.bearer {
            Bearer::One(_, header) => return self.hops(call, Some(header)).await,
            Bearer::None => return self.hops(call, None).await,
            Bearer::Each(tokens) => tokens,
        };
        let token = tokens.token(call).await?;
        let answer = self.hops(call, Some(&authorization(self.name(), &token)?)).await?;
        let refused = answer.status == StatusCode::UNAUTHORIZED && !answer.foreign;
        if !refused || !tokens.refused(&token).await {
            return Ok(answer);
        }
        let token = tokens.token(call).await?;
        self.hops(call, Some(&authorization(self.name(), &token)?)).await
    }

    /// One try with its redirects.
    async fn hops(
        &self,
        call: &Call,
        mut with_token: Option<&HeaderValue>,
    ) -> Result<Answer, RequestError> {
        let api = self.name();
        let mut url = call.url(&self.0.base);
        for _ in 0..=HOPS_MAX {
            let answer = self.once(call, &url, with_token).await?;
            let Some(next) = redirect(&answer, &url) else { return Ok(answer) };
            if next.origin() != self.0.base.origin() {
                let host = next.host_str().unwrap_or("nowhere").to_owned();
                let in_the_open = self.0.base.scheme() == "https" && next.scheme() != "https";
                if !call.leaves_host || in_the_open {
                    return Err(RequestError::RedirectedAway { api, host });
                }
                with_token = None;
            }
            url = next;
        }
        Err(RequestError::RedirectedAway { api, host: "itself, again and again".to_owned() })
    }

    /// `token` is none at another host and where there is none: our headers do not go there.
    async fn once(
        &self,
        call: &Call,
        url: &Url,
        token: Option<&HeaderValue>,
    ) -> Result<Answer, RequestError> {
        let (api, begun, ours) = (self.name(), Instant::now(), token.is_some());
        let mut request = self.0.client.request(call.method.clone(), url.clone());
        if let Some(token) = token {
            request = request.headers(self.0.headers.clone()).header(AUTHORIZATION, token.clone());
            if let Some(etag) = &call.known {
                request = request.header(IF_NONE_MATCH, etag);
            }
            if let Some(body) = &call.body {
                request = request.json(body);
            }
        }
        // Another host's path and query may carry a signature: only the host is named there.
        let path = if ours { url.path() } else { url.host_str().unwrap_or("?") };
        let outcome = match request.send().await {
            Ok(response) => self.receive(call, response, !ours).await,
            Err(error) => Err(RequestError::of_transport(api, begun.elapsed(), error)),
        };
        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &outcome {
            Ok(answer) => tracing::debug!(
                api, method = %call.method, path, status = answer.status.as_u16(),
                correlation = answer.correlation.as_deref(), ms, "{api} answered {path}"
            ),
            Err(error) => tracing::debug!(
                api, method = %call.method, path, code = error.code(), ms,
                "{api} did not answer {path}"
            ),
        }
        outcome
    }

    async fn receive(
        &self,
        call: &Call,
        response: Response,
        foreign: bool,
    ) -> Result<Answer, RequestError> {
        let (api, begun) = (self.name(), Instant::now());
        let (status, headers) = (response.status(), response.headers().clone());
        let correlation = headers
            .get(self.0.dialect.correlation)
            .and_then(|id| id.to_str().ok())
            .map(|id| self.clean(id));
        let mut chunks = response.bytes_stream();
        let mut body = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let chunk =
                chunk.map_err(|error| RequestError::of_transport(api, begun.elapsed(), error))?;
            body.extend_from_slice(&chunk);
            if body.len() > call.body_max {
                if !call.keeps_tail {
                    return Err(RequestError::TooLarge { api, limit: call.body_max });
                }
                if body.len() > call.body_max * 2 {
                    body.drain(..body.len() - call.body_max);
                }
            }
        }
        if body.len() > call.body_max {
            body.drain(..body.len() - call.body_max);
        }
        Ok(Answer { api, status, headers, body, correlation, foreign })
    }
}

fn authorization(api: &'static str, token: &Secret) -> Result<HeaderValue, RequestError> {
    header(api, &format!("Bearer {}", token.expose().trim()))
}

fn header(api: &'static str, text: &str) -> Result<HeaderValue, RequestError> {
    let mut header = HeaderValue::from_str(text).map_err(|_| RequestError::BadToken { api })?;
    header.set_sensitive(true);
    Ok(header)
}

fn redirect(answer: &Answer, from: &Url) -> Option<Url> {
    let moved = matches!(answer.status.as_u16(), 301 | 302 | 307 | 308);
    let location = answer.headers.get(LOCATION).filter(|_| moved)?;
    from.join(location.to_str().ok()?).ok()
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
