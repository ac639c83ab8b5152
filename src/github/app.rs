//! A GitHub App: our own signed word that we are it, and the tokens of its installations.
//!
//! GitHub gives a token for one repo for an hour; it is kept in memory only, renewed before it ends,
//! and taken as it comes: tokens have no fixed length and no fixed form.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt;
use futures::future::BoxFuture;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::GitHubError;
use super::{DIALECT, GitHub, kept, refusal, wire};
use crate::domain::clock::{Clock, Millis};
use crate::domain::secret::Secret;
use crate::requests::{Api, Call, Pace, RequestError, Tokens};

/// GitHub takes a signed word for ten minutes at most; its clock and ours may differ by one.
const WORD_SECONDS: i64 = 540;
const SKEW_SECONDS: i64 = 60;
/// A token is renewed so long before it ends, in milliseconds: no call lasts longer.
const MARGIN_MS: i64 = 5 * 60 * 1000;

/// An App's id and private key.
#[derive(Clone)]
pub struct AppKey {
    issuer: String,
    key: Arc<RsaKeyPair>,
}

impl std::fmt::Debug for AppKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AppKey({})", self.issuer)
    }
}

/// How an App is kept where a token would be.
#[derive(Serialize, Deserialize)]
struct Packed {
    app: String,
    key: String,
}

impl AppKey {
    /// The App with this id (or client id) and private key, as the PEM file that GitHub gave.
    ///
    /// # Errors
    /// The id or the key is of another form.
    pub fn new(id: &str, pem: &Secret) -> Result<Self, GitHubError> {
        let id = id.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if id.is_empty() || id.len() > 64 || !id.chars().all(plain) {
            return Err(GitHubError::BadAppKey {
                why: "the App's id is a number, or its client id",
            });
        }
        const WANTED: &str = "the private key is the .pem file that the App's settings page makes";
        let bad = |_| GitHubError::BadAppKey { why: WANTED };
        // A variable often holds the line breaks as two characters.
        let pem = pem.expose().replace("\\n", "\n");
        let key = match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
            Ok(PrivateKeyDer::Pkcs1(der)) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            Ok(PrivateKeyDer::Pkcs8(der)) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            _ => return Err(GitHubError::BadAppKey { why: WANTED }),
        };
        Ok(Self { issuer: id.to_owned(), key: Arc::new(key.map_err(bad)?) })
    }

    /// An App's id and key in one, to be kept where a token would be. They are not looked at.
    pub fn packed(id: &str, pem: &Secret) -> Secret {
        let packed = Packed { app: id.trim().to_owned(), key: pem.expose().to_owned() };
        Secret::new(json!(packed).to_string())
    }

    /// What [`Self::packed`] put together; none where it is a token.
    ///
    /// # Errors
    /// The id or the key is of another form.
    pub fn unpacked(secret: &Secret) -> Result<Option<Self>, GitHubError> {
        match serde_json::from_str::<Packed>(secret.expose()) {
            Ok(packed) => Self::new(&packed.app, &Secret::new(packed.key)).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// The word that we are the App: a JWT, good from a minute ago for nine minutes.
    fn word(&self, now: Millis) -> Result<Secret, RequestError> {
        let seconds = now.0.div_euclid(1000);
        let claims = json!({
            "iat": seconds - SKEW_SECONDS, "exp": seconds + WORD_SECONDS, "iss": self.issuer
        });
        let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = json!({ "alg": "RS256", "typ": "JWT" });
        let text = format!("{}.{}", encode(&head), encode(&claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| no_token("the App's private key cannot sign", false))?;
        Ok(Secret::new(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

fn no_token(reason: impl Into<String>, passing: bool) -> RequestError {
    RequestError::NoToken { api: DIALECT.name, reason: reason.into(), passing }
}

/// The word itself as the token, for what only the App may ask.
struct Words {
    key: AppKey,
    clock: Clock,
}

impl Tokens for Words {
    fn token<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, Result<Secret, RequestError>> {
        async { self.key.word(self.clock.now()) }.boxed()
    }

    fn refused<'a>(&'a self, _: &'a Secret) -> BoxFuture<'a, bool> {
        async { false }.boxed()
    }

    fn hide(&self, text: &str) -> String {
        text.to_owned()
    }
}

/// A token of an installation, until it ends.
#[derive(Clone)]
struct Minted {
    token: Secret,
    until: Millis,
}

/// The tokens of an App's installations, by the repo that each is for.
struct Installed {
    app: Api,
    clock: Clock,
    /// Held while a token is made, so that many calls make one.
    minted: tokio::sync::Mutex<HashMap<String, Minted>>,
    /// Every token of this process that may still work.
    known: Mutex<Vec<Minted>>,
}

impl Installed {
    async fn mint(&self, owner: &str, name: &str) -> Result<Minted, RequestError> {
        let place = format!("{owner}/{name}");
        let find = Call::get("repos").at(owner).at(name).under("installation");
        let found = self.app.send(&find).await.map_err(unsent)?;
        if !found.is_success() {
            return Err(self.why_not(&found, &place).await);
        }
        let found: wire::Installation = found.json("the App's installation")?;
        let make = Call::post("app/installations")
            .at(found.id)
            .under("access_tokens")
            .body(json!({ "repositories": [name] }))
            .repeatable();
        let made = self.app.send(&make).await.map_err(unsent)?;
        if !made.is_success() {
            return Err(self.why_not(&made, &place).await);
        }
        let made: wire::AccessToken = made.json("a token of the App's")?;
        let until =
            made.expires_at.parse::<jiff::Timestamp>().map(|at| Millis(at.as_millisecond()));
        let until = until.unwrap_or_else(|_| self.clock.now().plus_ms(MARGIN_MS));
        let minted = Minted { token: Secret::new(made.token), until };
        let now = self.clock.now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|one| one.until > now);
        known.push(minted.clone());
        Ok(minted)
    }

    /// What a refusal of the App itself means.
    async fn why_not(&self, answer: &crate::requests::Answer, place: &str) -> RequestError {
        match answer.status.as_u16() {
            401 => no_token(
                "it does not accept the App's key; check the App's id, its private key and this machine's clock",
                false,
            ),
            404 | 422 => {
                let app = self.app.send(&Call::get("app")).await.ok();
                let app = app.and_then(|app| app.json::<wire::App>("the App").ok());
                let (slug, url) = app.map_or_else(
                    || ("the App".to_owned(), "the App's page".to_owned()),
                    |app| (format!("App `{}`", app.slug), app.html_url + "/installations/new"),
                );
                no_token(
                    format!("{slug} is not installed on `{place}`; install it at {url}"),
                    false,
                )
            }
            403 => {
                let why = refusal::reason(&self.app, answer);
                no_token(format!("the App's installation on `{place}` may not: {why}"), false)
            }
            status => no_token(format!("it answered {status}; try again"), status >= 500),
        }
    }
}

/// The call that a token was wanted for has not been sent, whatever became of ours.
fn unsent(error: RequestError) -> RequestError {
    match error {
        error if error.may_have_happened() => no_token(error.to_string(), error.retryable()),
        error => error,
    }
}

impl Tokens for Installed {
    fn token<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Secret, RequestError>> {
        async move {
            let parts: Vec<&str> = call.path().take(3).collect();
            let ["repos", owner, name] = parts.as_slice() else {
                return Err(no_token("an App has tokens for repos only", false));
            };
            let place = format!("{owner}/{name}").to_lowercase();
            let mut minted = self.minted.lock().await;
            let soon = self.clock.now().plus_ms(MARGIN_MS);
            if let Some(fresh) = minted.get(&place).filter(|one| one.until > soon) {
                return Ok(fresh.token.clone());
            }
            let fresh = self.mint(owner, name).await?;
            minted.insert(place, fresh.clone());
            Ok(fresh.token)
        }
        .boxed()
    }

    fn refused<'a>(&'a self, token: &'a Secret) -> BoxFuture<'a, bool> {
        async move {
            let mut minted = self.minted.lock().await;
            minted.retain(|_, one| one.token.expose() != token.expose());
            true
        }
        .boxed()
    }

    fn hide(&self, text: &str) -> String {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().fold(text.to_owned(), |text, one| text.replace(one.token.expose(), "***"))
    }
}

impl GitHub {
    /// A client that is an App, with a token of its own for every repo that it is installed on;
    /// talks to nobody yet.
    ///
    /// # Errors
    /// The base URL cannot be used.
    pub fn of_app(base_url: &url::Url, key: AppKey, pace: Pace) -> Result<Self, GitHubError> {
        let clock = pace.clock.clone();
        let words = Arc::new(Words { key, clock: clock.clone() });
        let app = Api::with_tokens(&DIALECT, base_url, words, pace.clone())?;
        let installed = Installed {
            app: app.clone(),
            clock,
            minted: tokio::sync::Mutex::default(),
            known: Mutex::default(),
        };
        let api = Api::with_tokens(&DIALECT, base_url, Arc::new(installed), pace)?;
        Ok(Self { api, app: Some(app), kept: kept::Kept::default(), writes: Arc::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_is_refused_with_what_is_wanted() {
        let refused = |id: &str, pem: &str| {
            AppKey::new(id, &Secret::new(pem)).expect_err("refused").to_string()
        };
        assert!(refused("1/2", "x").contains("client id"));
        assert!(refused("1", "no key").contains(".pem file"));
        assert!(
            refused("1", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----")
                .contains(".pem")
        );
        let packed = AppKey::packed("1", &Secret::new("no key"));
        assert!(AppKey::unpacked(&packed).is_err());
        assert!(
            AppKey::unpacked(&Secret::new("token-for-tests")).is_ok_and(|found| found.is_none())
        );
    }
}
