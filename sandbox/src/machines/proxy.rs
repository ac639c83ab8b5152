//! kamal-proxy as Kamal sees it: health check, switch, drain; one port on the machine's address.

mod forward;
mod health;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::container::ContainerInfo;
use super::disk::SavedProxy;
use super::docker::Docker;
use super::machine::Address;
use crate::serve::Server;
use crate::{SandboxError, clock};

/// The container that stands for the proxy.
const NAME: &str = "kamal-proxy";
const IMAGE: &str = "basecamp/kamal-proxy:v0.9.2";
/// How long open requests of an old target may take; Kamal's default.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The kamal-proxy of one machine. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Proxy(Arc<Inner>);

struct Inner {
    address: Address,
    docker: Docker,
    services: Mutex<BTreeMap<String, Service>>,
    /// Once chosen, the port stays, as a published port would.
    port: Mutex<Option<u16>>,
    server: tokio::sync::Mutex<Option<Server>>,
    /// Other addresses that it answers at.
    also: Mutex<BTreeMap<IpAddr, Option<Server>>>,
}

struct Service {
    /// Lower-case; every host where none.
    host: Option<String>,
    target: Arc<Target>,
}

/// A container that requests go to.
struct Target {
    /// As kamal-proxy writes it: the start of the container's id, and the port inside.
    name: String,
    address: SocketAddr,
    open_requests: watch::Sender<usize>,
}

impl Proxy {
    pub(super) fn new(address: Address, docker: Docker) -> Self {
        Self(Arc::new(Inner {
            address,
            docker,
            services: Mutex::default(),
            port: Mutex::default(),
            server: tokio::sync::Mutex::default(),
            also: Mutex::default(),
        }))
    }

    /// Makes `container` the target of `service` once `health_path` answers 2xx: starts the proxy
    /// at first use, checks until `timeout`, switches, and waits for open requests of the old
    /// target. The error is kamal-proxy's text, such as
    /// `Error: target failed to become healthy within configured timeout (15s)`; its cause goes to
    /// the log of the container `kamal-proxy`. A container that has ended fails without waiting.
    pub async fn deploy(
        &self,
        service: &str,
        host: Option<String>,
        container: &str,
        health_path: &str,
        timeout: Duration,
    ) -> Result<(), String> {
        self.listen().await.map_err(|error| {
            format!("driver failed programming external connectivity on endpoint {NAME}: {error}")
        })?;
        let host = host.map(|host| host.to_ascii_lowercase());
        self.check_host(service, host.as_deref())?;
        let info = self.0.docker.get(container).ok_or(format!("No such container: {container}"))?;
        let target = Arc::new(self.target_of(&info));
        self.note("Deploying", json!({"service": service, "target": target.name, "hosts": host}));
        self.wait_healthy(&target, &info, health_path, timeout).await?;
        // Another deploy may have taken the host meanwhile.
        self.check_host(service, host.as_deref())?;
        let new = Service { host, target: target.clone() };
        let old = self.services().insert(service.to_owned(), new);
        self.note("Deployed", json!({"service": service, "target": target.name}));
        if let Some(old) = old {
            old.target.drain().await;
        }
        Ok(())
    }

    /// Removes a service's route. The error is kamal-proxy's text where there is none.
    pub async fn remove(&self, service: &str) -> Result<(), String> {
        let old = self.services().remove(service);
        let Some(old) = old else { return Err("Error: service not found".to_owned()) };
        self.note("Removed", json!({"service": service}));
        old.target.drain().await;
        Ok(())
    }

    /// Puts `container` in front of it: that one has the port from now on, as Traefik has. The error is
    /// Docker's text where the proxy publishes the port itself.
    pub async fn stand_behind(&self, container: &str) -> Result<(), String> {
        let own = self.0.docker.get(NAME);
        if own.is_some_and(|own| !own.published.is_empty()) {
            return Err(format!(
                "Error response from daemon: failed to set up container networking: driver failed programming external connectivity on endpoint {container}: Bind for 0.0.0.0:80 failed: port is already allocated"
            ));
        }
        self.listen().await.map_err(|error| error.to_string())?;
        self.0.docker.hand_ports(NAME, container)
    }

    /// The services and their targets' containers (the first 12 digits of their ids).
    pub fn routes(&self) -> BTreeMap<String, String> {
        let name = |service: &Service| service.target.name.trim_end_matches(":80").to_owned();
        self.services().iter().map(|(key, service)| (key.clone(), name(service))).collect()
    }

    /// The port on the machine's address; none before the first deploy.
    pub fn port(&self) -> Option<u16> {
        *crate::lock(&self.0.port)
    }

    /// Listens again where it listened before.
    pub(super) async fn power_on(&self) -> Result<(), SandboxError> {
        if self.port().is_some() { self.listen().await } else { Ok(()) }
    }

    pub(super) async fn power_off(&self) {
        if let Some(server) = self.0.server.lock().await.take() {
            server.stop().await;
        }
        crate::lock(&self.0.also).values_mut().for_each(|server| *server = None);
    }

    /// Answers at another address as well, on the same port.
    pub(super) async fn also_at(&self, address: IpAddr) -> Result<(), SandboxError> {
        crate::lock(&self.0.also).insert(address, None);
        let listens = self.0.server.lock().await.is_some();
        if listens { self.listen_also().await } else { Ok(()) }
    }

    /// Answers at that address no longer.
    pub(super) fn no_longer_at(&self, address: IpAddr) {
        crate::lock(&self.0.also).remove(&address);
    }

    async fn listen_also(&self) -> Result<(), SandboxError> {
        let Some(port) = self.port() else { return Ok(()) };
        let addresses: Vec<IpAddr> = crate::lock(&self.0.also).keys().copied().collect();
        for address in addresses {
            let (listener, _) = Server::bind(SocketAddr::new(address, port)).await?;
            let router = Router::new().fallback(forward::forward).with_state(self.clone());
            let server = Server::start(listener, router);
            if let Some(place) = crate::lock(&self.0.also).get_mut(&address) {
                *place = Some(server);
            }
        }
        Ok(())
    }

    /// Forgets everything: a new disk.
    pub(super) fn clear(&self) {
        self.services().clear();
        *crate::lock(&self.0.port) = None;
    }

    /// What a copy of the disk holds of it.
    pub(super) fn saved(&self) -> SavedProxy {
        let services = self.services();
        let saved = services.iter().map(|(name, service)| {
            let container = service.target.name.trim_end_matches(":80").to_owned();
            (name.clone(), service.host.clone(), container)
        });
        SavedProxy { port: self.port(), services: saved.collect() }
    }

    /// Knows what the proxy of a copied disk was told; its containers are there already.
    pub(super) fn restore(&self, saved: &SavedProxy) {
        *crate::lock(&self.0.port) = saved.port;
        for (name, host, container) in &saved.services {
            let Some(info) = self.0.docker.get(container) else { continue };
            let target = Arc::new(self.target_of(&info));
            self.services().insert(name.clone(), Service { host: host.clone(), target });
        }
    }

    /// Its containers have another address.
    pub(super) fn readdress(&self) {
        self.restore(&self.saved());
    }

    fn target_of(&self, info: &ContainerInfo) -> Target {
        Target {
            name: format!("{}:80", &info.id[..12]),
            address: SocketAddr::new(self.0.address.get(), info.port),
            open_requests: watch::channel(0).0,
        }
    }

    async fn listen(&self) -> Result<(), SandboxError> {
        let mut server = self.0.server.lock().await;
        if server.is_some() {
            return Ok(());
        }
        let known = self.port();
        let wanted = SocketAddr::new(self.0.address.get(), known.unwrap_or(0));
        let (listener, bound) = Server::bind(wanted).await?;
        let router = Router::new().fallback(forward::forward).with_state(self.clone());
        *server = Some(Server::start(listener, router));
        if known.is_none() {
            *crate::lock(&self.0.port) = Some(bound.port());
            self.0.docker.add_builtin(NAME, IMAGE, (80, bound.port()));
        }
        self.listen_also().await
    }

    fn check_host(&self, service: &str, host: Option<&str>) -> Result<(), String> {
        let taken =
            |(other, its): (&String, &Service)| other != service && its.host.as_deref() == host;
        if self.services().iter().any(taken) {
            return Err("Error: host settings conflict with another service".to_owned());
        }
        Ok(())
    }

    async fn wait_healthy(
        &self,
        target: &Target,
        info: &ContainerInfo,
        path: &str,
        timeout: Duration,
    ) -> Result<(), String> {
        let check = health::Check { target, path, container: &info.id };
        let checking = check.until_healthy(&self.0.docker, |error| {
            self.note("Healthcheck failed", json!({"target": target.name, "error": error}));
        });
        if let Ok(Ok(())) = tokio::time::timeout(timeout, checking).await {
            self.note("Target health updated", json!({"target": target.name, "success": true}));
            return Ok(());
        }
        Err(format!(
            "Error: target failed to become healthy within configured timeout ({})",
            go_duration(timeout)
        ))
    }

    /// The target for a request's host.
    fn target(&self, host: &str) -> Option<(String, Arc<Target>)> {
        let host = host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase();
        let services = self.services();
        let exact = services.iter().find(|(_, service)| service.host.as_deref() == Some(&*host));
        let found = exact.or_else(|| services.iter().find(|(_, service)| service.host.is_none()));
        found.map(|(name, service)| (name.clone(), service.target.clone()))
    }

    /// One line of the proxy's log.
    fn note(&self, message: &str, details: Value) {
        let time = clock::rfc3339_nanos(clock::now());
        let mut line = json!({"time": time, "level": "INFO", "msg": message});
        if let (Some(line), Value::Object(details)) = (line.as_object_mut(), details) {
            line.extend(details);
        }
        self.0.docker.note(NAME, &line.to_string());
    }

    fn services(&self) -> MutexGuard<'_, BTreeMap<String, Service>> {
        crate::lock(&self.0.services)
    }
}

impl Target {
    /// Waits until no request is open, at most 30 s.
    async fn drain(&self) {
        let mut open = self.open_requests.subscribe();
        // Requests that take longer are cut with their container, as kamal-proxy cuts them.
        drop(tokio::time::timeout(DRAIN_TIMEOUT, open.wait_for(|open| *open == 0)).await);
    }
}

/// A duration as Go prints it: `15s`, `1.5s`, `500ms`, `1m30s`.
fn go_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let seconds = duration.as_secs_f64() % 60.0;
    match duration.as_secs() / 60 {
        0 => format!("{seconds}s"),
        minutes => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_go_does() {
        let cases = [(500, "500ms"), (15_000, "15s"), (1500, "1.5s"), (90_000, "1m30s")];
        for (ms, text) in cases {
            assert_eq!(go_duration(Duration::from_millis(ms)), text);
        }
    }
}
