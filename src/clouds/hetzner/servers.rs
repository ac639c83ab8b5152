//! Servers: found, ordered once, waited for, deleted.

use std::net::Ipv6Addr;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::actions::late;
use super::{Hetzner, PROVIDER, refusal, wire};
use crate::clouds::{CloudError, CloudVm, CloudVmState, FieldFault, LABEL_INSTALLATION, VmOrder};
use crate::domain::clock::Millis;
use crate::domain::ids::InstallationId;
use crate::domain::size::Arch;
use crate::requests::Call;

/// How long a deletion may take: it waits for nothing but Hetzner itself.
const DELETION_MAX: Duration = Duration::from_secs(120);

impl Hetzner {
    pub(super) async fn servers(&self) -> Result<Vec<CloudVm>, CloudError> {
        let servers = self
            .pages(|| Call::get("servers"), "the servers", |page: wire::Servers| page.servers)
            .await?;
        Ok(servers.into_iter().map(vm).collect())
    }

    pub(super) async fn server_by_name(&self, name: &str) -> Result<Option<CloudVm>, CloudError> {
        let call = Call::get("servers").query("name", name);
        let found: wire::Servers = self.ask(&call, "the servers").await?.json("the servers")?;
        Ok(found.servers.into_iter().find(|server| server.name == name).map(vm))
    }

    pub(super) async fn server(&self, id: &str) -> Result<Option<CloudVm>, CloudError> {
        Ok(self.raw_server(number("server", id)?).await?.map(vm))
    }

    /// A server with what only Hetzner knows of it.
    pub(super) async fn raw_server(&self, id: u64) -> Result<Option<wire::Server>, CloudError> {
        let call = Call::get("servers").at(id);
        match self.ask_maybe(&call, &format!("server {id}")).await? {
            Some(answer) => Ok(Some(answer.json::<wire::ServerBody>("a server")?.server)),
            None => Ok(None),
        }
    }

    /// Find by name, adopt if it is ours, else order once; after a lost answer look, never order
    /// again. Hetzner's unique names are the last line: two orders at once cannot both succeed.
    pub(super) async fn find_or_order(&self, order: &VmOrder) -> Result<CloudVm, CloudError> {
        if !order.labels.contains_key(LABEL_INSTALLATION) {
            let message = "it is missing, so the server could not be told from others".to_owned();
            let fields = vec![FieldFault { field: LABEL_INSTALLATION.to_owned(), message }];
            return Err(CloudError::Invalid { provider: PROVIDER, fields });
        }
        if let Some(found) = self.server_by_name(&order.name).await? {
            return adopt(found, order);
        }
        match self.order(order).await {
            Ok(made) => Ok(made),
            Err(error) if error.may_have_happened() => {
                let doubt = match &error {
                    // Hetzner itself has answered, so the order is no longer under way.
                    CloudError::Transient { status: 500 | 503, .. } => self.pace().retry_first,
                    _ => self.pace().doubt,
                };
                match self.look_for(&order.name, doubt).await {
                    Some(found) => adopt(found, order),
                    None => Err(error),
                }
            }
            Err(CloudError::NameTaken { what, .. }) => {
                match self.server_by_name(&order.name).await? {
                    Some(found) => adopt(found, order),
                    None => Err(CloudError::Conflict { provider: PROVIDER, what }),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn order(&self, order: &VmOrder) -> Result<CloudVm, CloudError> {
        let call = Call::post("servers").body(order_body(order)?);
        let answer = self.api.send(&call).await?;
        if answer.is_success() {
            return Ok(vm(answer.json::<wire::ServerBody>("the new server")?.server));
        }
        if refusal::is_sold_out(&answer) {
            return Err(CloudError::SoldOut {
                size: order.size.to_string(),
                region: order.region.to_string(),
            });
        }
        Err(refusal::error(&self.api, &answer, &format!("server `{}`", order.name)))
    }

    /// Looks for a server whose order has no answer, until it is there or the time is up.
    async fn look_for(&self, name: &str, limit: Duration) -> Option<CloudVm> {
        let mut polls = self.pace().polls(limit);
        loop {
            match self.server_by_name(name).await {
                Ok(Some(found)) => return Some(found),
                Ok(None) => {}
                Err(error) => tracing::debug!(code = error.code(), "could not look for {name}"),
            }
            if !polls.wait().await {
                return None;
            }
        }
    }

    pub(super) async fn until_running(
        &self,
        id: &str,
        limit: Duration,
    ) -> Result<CloudVm, CloudError> {
        let mut polls = self.pace().polls(limit);
        let mut last = None;
        loop {
            match self.server(id).await {
                Ok(Some(vm)) if vm.state == CloudVmState::Deleting => {
                    return Err(CloudError::Conflict {
                        provider: PROVIDER,
                        what: format!("server `{}`", vm.name),
                    });
                }
                Ok(Some(vm)) if vm.state == CloudVmState::Running && vm.address.is_some() => {
                    return Ok(vm);
                }
                Ok(Some(vm)) => last = Some(vm.state),
                Ok(None) => {
                    let what = format!("server {id}");
                    return Err(CloudError::NotFound { provider: PROVIDER, what });
                }
                Err(error) if error.retryable() => {
                    tracing::debug!(code = error.code(), "could not look at server {id}");
                }
                Err(error) => return Err(error),
            }
            if !polls.wait().await {
                let state = last.map_or("unseen".to_owned(), |state| format!("{state:?}"));
                let what = format!("the start of server {id} (last state: {state})");
                return Err(late(what, limit));
            }
        }
    }

    pub(super) async fn drop_server(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        let Some(found) = self.server(id).await? else { return Ok(()) };
        let what = format!("server `{}`", found.name);
        if !found.belongs_to(installation) {
            return Err(CloudError::Foreign { provider: PROVIDER, what });
        }
        if found.protected {
            return Err(CloudError::Protected { provider: PROVIDER, what });
        }
        let call = Call::delete("servers").at(number("server", id)?);
        let Some(answer) = self.ask_maybe(&call, &what).await? else { return Ok(()) };
        // An answer that cannot be read leaves only a look at the server itself.
        let (mut action, limit, unread) = match answer.json::<wire::ActionBody>("the deletion") {
            Ok(body) => (Some(body.action), DELETION_MAX, None),
            Err(error) => (None, self.pace().doubt, Some(error)),
        };
        let mut polls = self.pace().polls(limit);
        loop {
            if let Some(running) = action.take() {
                action = self.unfinished(running).await?;
            }
            if action.is_none() && self.server(id).await?.is_none() {
                return Ok(());
            }
            if !polls.wait().await {
                let late = || late(format!("the deletion of {what}"), limit);
                return Err(unread.map_or_else(late, CloudError::from));
            }
        }
    }
}

fn adopt(found: CloudVm, order: &VmOrder) -> Result<CloudVm, CloudError> {
    let what = format!("a server named `{}`", order.name);
    if found.labels.get(LABEL_INSTALLATION) != order.labels.get(LABEL_INSTALLATION) {
        return Err(CloudError::NameTaken { provider: PROVIDER, what });
    }
    if found.state == CloudVmState::Deleting {
        return Err(CloudError::Conflict { provider: PROVIDER, what });
    }
    Ok(found)
}

/// Hetzner's ids are numbers; anything else never reaches a path.
pub(super) fn number(kind: &str, id: &str) -> Result<u64, CloudError> {
    id.parse().map_err(|_| CloudError::Invalid {
        provider: PROVIDER,
        fields: vec![FieldFault {
            field: kind.to_owned(),
            message: format!("`{}` is not one of its ids", crate::requests::clean(id)),
        }],
    })
}

fn order_body(order: &VmOrder) -> Result<Value, CloudError> {
    let keys: Vec<u64> =
        order.ssh_keys.iter().map(|id| number("ssh_keys", id)).collect::<Result<_, _>>()?;
    let firewalls: Vec<Value> = order
        .firewalls
        .iter()
        .map(|id| Ok(json!({ "firewall": number("firewalls", id)? })))
        .collect::<Result<_, CloudError>>()?;
    let mut net = json!({ "enable_ipv4": true, "enable_ipv6": true });
    if let Some(address) = &order.address {
        net["ipv4"] = number("addresses", address)?.into();
    }
    Ok(json!({
        "name": order.name,
        "server_type": order.size,
        "location": order.region,
        "image": order.image,
        "ssh_keys": keys,
        "firewalls": firewalls,
        "labels": order.labels,
        "user_data": order.user_data.expose(),
        "start_after_create": true,
        "public_net": net,
    }))
}

pub(super) fn vm(server: wire::Server) -> CloudVm {
    CloudVm {
        provider_id: server.id.to_string(),
        name: server.name,
        state: state(&server.status),
        address: server.public_net.ipv4.and_then(|v4| v4.ip?.parse().ok()),
        ipv6: server.public_net.ipv6.and_then(|v6| host_of(&v6.ip?)),
        disk_gb: server.primary_disk_size.map(|gb| gb.ceil() as u64),
        arch: arch(&server.server_type.architecture),
        size: server.server_type.name,
        region: server.location.map(|location| location.name).unwrap_or_default(),
        labels: server.labels,
        protected: server.protection.delete,
        created: server.created.as_deref().and_then(time),
    }
}

/// Hetzner's word for where a server is in its life.
pub(super) fn state(word: &str) -> CloudVmState {
    match word {
        "running" => CloudVmState::Running,
        "initializing" | "starting" => CloudVmState::Starting,
        "stopping" => CloudVmState::Stopping,
        "off" => CloudVmState::Off,
        "deleting" => CloudVmState::Deleting,
        other => CloudVmState::Other(crate::requests::clean(other)),
    }
}

/// A time as Hetzner writes it.
pub(super) fn time(text: &str) -> Option<Millis> {
    Some(Millis(text.parse::<Timestamp>().ok()?.as_millisecond()))
}

/// The server's own address in its network (`2001:db8::/64`): its images set up `::1` in it.
fn host_of(network: &str) -> Option<Ipv6Addr> {
    let base: Ipv6Addr = network.split('/').next()?.parse().ok()?;
    Some(Ipv6Addr::from(u128::from(base) | 1))
}

/// Hetzner's word for an architecture.
pub(super) fn arch(word: &str) -> Option<Arch> {
    match word {
        "x86" => Some(Arch::Amd64),
        "arm" => Some(Arch::Arm64),
        _ => None,
    }
}
