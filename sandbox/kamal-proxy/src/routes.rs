//! Which service answers for which host, and the targets behind; kept on disk for the next start.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::flags::Deploy;
use crate::log;

/// Where the real proxy keeps its state; Kamal mounts a volume there.
const STATE: &str = "/home/kamal-proxy/.config/kamal-proxy";

/// All routes. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub(crate) struct Routes(Arc<Mutex<BTreeMap<String, Arc<Service>>>>);

/// A service and its target now.
pub(crate) struct Service {
    pub(crate) deploy: Deploy,
    open: watch::Sender<usize>,
}

/// Counts a request as open until it is dropped.
pub(crate) struct Open(Arc<Service>);

impl Service {
    fn new(deploy: Deploy) -> Arc<Self> {
        Arc::new(Self { deploy, open: watch::channel(0).0 })
    }

    /// Waits until no request is open; those that take longer are cut with their container.
    async fn drain(&self, limit: Duration) {
        let mut open = self.open.subscribe();
        drop(tokio::time::timeout(limit, open.wait_for(|open| *open == 0)).await);
    }
}

impl Open {
    pub(crate) fn service(&self) -> &Service {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

/// The folder for the state and the certificates.
pub(crate) fn state_folder() -> PathBuf {
    PathBuf::from(STATE)
}

impl Routes {
    /// The routes of the last run.
    pub(crate) fn load() -> Self {
        let saved = std::fs::read(state_folder().join("lab-state.json")).unwrap_or_default();
        let saved: Vec<Deploy> = serde_json::from_slice(&saved).unwrap_or_default();
        let services =
            saved.into_iter().map(|deploy| (deploy.service.clone(), Service::new(deploy)));
        Self(Arc::new(Mutex::new(services.collect())))
    }

    fn services(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Service>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self) {
        let all: Vec<Deploy> =
            self.services().values().map(|service| service.deploy.clone()).collect();
        let saved = serde_json::to_vec(&all).map_err(std::io::Error::other).and_then(|bytes| {
            std::fs::create_dir_all(state_folder())?;
            std::fs::write(state_folder().join("lab-state.json"), bytes)
        });
        if let Err(error) = saved {
            let details = serde_json::json!({"error": error.to_string()});
            log::note("ERROR", "Failed to save state", details);
        }
    }

    /// Whether another service answers for one of the hosts.
    pub(crate) fn conflict(&self, deploy: &Deploy) -> bool {
        self.services().values().any(|other| {
            let other = &other.deploy;
            other.service != deploy.service
                && (other.hosts.is_empty() && deploy.hosts.is_empty()
                    || other.hosts.iter().any(|host| deploy.hosts.contains(host)))
        })
    }

    /// Sends new requests to the new target, and waits for the end of those at the old one.
    pub(crate) async fn switch(&self, deploy: Deploy) {
        let limit = deploy.drain_timeout;
        let name = deploy.service.clone();
        let old = self.services().insert(name, Service::new(deploy));
        self.save();
        if let Some(old) = old {
            old.drain(limit).await;
        }
    }

    /// Takes a service out; absent is an error, as in the real one.
    pub(crate) fn remove(&self, service: &str) -> Result<(), String> {
        let found = self.services().remove(service);
        self.save();
        found.map(drop).ok_or_else(|| "service not found".to_owned())
    }

    pub(crate) fn list(&self) -> Vec<Deploy> {
        self.services().values().map(|service| service.deploy.clone()).collect()
    }

    /// The service of a host, with the request counted as open.
    pub(crate) fn open(&self, host: &str) -> Option<Open> {
        let services = self.services();
        let by_name = services.values().find(|one| one.deploy.hosts.iter().any(|own| own == host));
        let found =
            by_name.or_else(|| services.values().find(|one| one.deploy.hosts.is_empty()))?;
        found.open.send_modify(|open| *open += 1);
        Some(Open(Arc::clone(found)))
    }

    /// Whether a host has a certificate to be got.
    pub(crate) fn has_tls(&self, host: &str) -> bool {
        self.services()
            .values()
            .any(|one| one.deploy.tls && one.deploy.hosts.iter().any(|own| own == host))
    }
}
