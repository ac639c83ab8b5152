//! Certificates by ACME, got at the first handshake for a name, as autocert in the real proxy does.
//! After a failure a name is left alone for a minute.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder,
    OrderStatus, RetryPolicy,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::routes::state_folder;

/// Let's Encrypt's host; the path is Pebble's.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/dir";
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// All certificates. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Certificates(Arc<Inner>);

#[derive(Default)]
struct Inner {
    ready: Mutex<BTreeMap<String, Arc<ServerConfig>>>,
    failed: Mutex<BTreeMap<String, Instant>>,
    /// What `/.well-known/acme-challenge/TOKEN` answers.
    challenges: Mutex<BTreeMap<String, String>>,
    /// One order at a time.
    ordering: tokio::sync::Mutex<()>,
}

impl Certificates {
    /// What a challenge is answered with.
    pub(crate) fn challenge(&self, token: &str) -> Option<String> {
        lock(&self.0.challenges).get(token).cloned()
    }

    /// The settings of a handshake for a name, with a certificate that is got where there is none.
    pub(crate) async fn for_name(&self, name: &str) -> Result<Arc<ServerConfig>, String> {
        let _alone = self.0.ordering.lock().await;
        if let Some(ready) = lock(&self.0.ready).get(name) {
            return Ok(Arc::clone(ready));
        }
        if lock(&self.0.failed).get(name).is_some_and(|at| at.elapsed() < AFTER_FAILURE) {
            return Err("acme/autocert: missing certificate".to_owned());
        }
        let file = state_folder().join("certs").join(name);
        let pem = match std::fs::read_to_string(&file) {
            Ok(pem) => pem,
            Err(_) => match self.order(name).await {
                Ok(pem) => {
                    let kept = std::fs::create_dir_all(state_folder().join("certs"))
                        .and_then(|()| std::fs::write(&file, &pem));
                    kept.map_err(|error| error.to_string())?;
                    pem
                }
                Err(error) => {
                    lock(&self.0.failed).insert(name.to_owned(), Instant::now());
                    return Err(said(&error));
                }
            },
        };
        let ready = Arc::new(settings(&pem)?);
        lock(&self.0.ready).insert(name.to_owned(), Arc::clone(&ready));
        Ok(ready)
    }

    /// Orders a certificate; key and chain as PEM.
    async fn order(&self, name: &str) -> Result<String, Error> {
        let new =
            NewAccount { contact: &[], terms_of_service_agreed: true, only_return_existing: false };
        let (account, _) = Account::builder()?.create(&new, DIRECTORY.to_owned(), None).await?;
        let names = [Identifier::Dns(name.to_owned())];
        let mut order = account.new_order(&NewOrder::new(&names)).await?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let mut challenge = authorization
                .challenge(ChallengeType::Http01)
                .ok_or(Error::Str("an http-01 challenge"))?;
            let answer = challenge.key_authorization().as_str().to_owned();
            lock(&self.0.challenges).insert(challenge.token.clone(), answer);
            challenge.set_ready().await?;
        }
        if order.poll_ready(&RetryPolicy::default()).await? != OrderStatus::Ready {
            return Err(Error::Str("an order that is ready: the challenge was not met"));
        }
        let key = order.finalize().await?;
        let chain = order.poll_certificate(&RetryPolicy::default()).await?;
        Ok(format!("{key}\n{chain}"))
    }
}

fn settings(pem: &str) -> Result<ServerConfig, String> {
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let chain = chain.map_err(|error| error.to_string())?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    config.map_err(|error| error.to_string())
}

/// As Go's ACME client words it.
fn said(error: &Error) -> String {
    match error {
        Error::Api(problem) => format!(
            "{} {}: {}",
            problem.status.unwrap_or_default(),
            problem.r#type.as_deref().unwrap_or_default(),
            problem.detail.as_deref().unwrap_or_default()
        ),
        error => format!("acme/autocert: unable to satisfy the order: {error}"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
