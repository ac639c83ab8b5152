//! Addresses of their own: primary IPv4s, which stay when their server goes unless they are set to
//! go with it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::power::{FREE_MAX, refuse_deleting};
use super::servers::number;
use super::{Hetzner, PROVIDER, invalid, wire};
use crate::clouds::{CloudAddress, CloudError, CloudVmState, LABEL_INSTALLATION};
use crate::domain::ids::InstallationId;
use crate::domain::names::RegionName;
use crate::requests::Call;

/// How long a change of who has an address may take.
const ASSIGN_MAX: Duration = Duration::from_secs(60);

impl Hetzner {
    /// The one of that name; else the one that `vm` came with, which then stays when the server
    /// goes; else a new one. Names are unique, so two calls at once cannot make two.
    pub(super) async fn own_address(
        &self,
        name: &str,
        region: &RegionName,
        vm: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> Result<CloudAddress, CloudError> {
        let Some(installation) = labels.get(LABEL_INSTALLATION) else {
            return Err(invalid(
                LABEL_INSTALLATION,
                "it is missing, so nobody would own the address",
            ));
        };
        if let Some(found) = self.address_by_name(name).await? {
            return usable(found, installation, region);
        }
        if let Some(vm) = vm
            && let Some(own) = self.address_of(vm, installation).await?
        {
            return self.keep_address(own, name, labels).await;
        }
        let call = Call::post("primary_ips").body(json!({
            "name": name, "type": "ipv4", "location": region, "auto_delete": false,
            "labels": labels,
        }));
        let what = format!("an address named `{name}`");
        let made = match self.ask(&call, &what).await {
            Ok(answer) => {
                answer.json::<wire::PrimaryIpBody>("the new address").map_err(CloudError::from)
            }
            Err(error) => Err(error),
        };
        match made {
            Ok(body) => address(body.primary_ip),
            Err(error @ CloudError::NameTaken { .. }) => {
                let found = self.address_by_name(name).await?.ok_or(error)?;
                usable(found, installation, region)
            }
            Err(error) if error.may_have_happened() => {
                let found = self.look_for_address(name).await.ok_or(error)?;
                usable(found, installation, region)
            }
            Err(error) => Err(error),
        }
    }

    /// The address that a server of ours has, whoever made it.
    async fn address_of(
        &self,
        vm: &str,
        installation: &str,
    ) -> Result<Option<wire::PrimaryIp>, CloudError> {
        let Some(server) = self.raw_server(number("server", vm)?).await? else {
            return Err(CloudError::NotFound { provider: PROVIDER, what: format!("server {vm}") });
        };
        if server.labels.get(LABEL_INSTALLATION).map(String::as_str) != Some(installation) {
            let what = format!("server `{}`", server.name);
            return Err(CloudError::Foreign { provider: PROVIDER, what });
        }
        match server.public_net.ipv4.and_then(|v4| v4.id) {
            Some(id) => self.raw_address(id).await,
            None => Ok(None),
        }
    }

    async fn keep_address(
        &self,
        own: wire::PrimaryIp,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<CloudAddress, CloudError> {
        let what = format!("address `{}`", own.name);
        let owner = own.labels.get(LABEL_INSTALLATION);
        if owner.is_some_and(|owner| labels.get(LABEL_INSTALLATION) != Some(owner)) {
            return Err(CloudError::Foreign { provider: PROVIDER, what });
        }
        let mut all = own.labels;
        all.extend(labels.clone());
        let body = json!({ "name": name, "labels": all, "auto_delete": false });
        let call = Call::put("primary_ips").at(own.id).body(body);
        let answer = self.ask(&call, &format!("an address named `{name}`")).await?;
        address(answer.json::<wire::PrimaryIpBody>("the address")?.primary_ip)
    }

    async fn address_by_name(&self, name: &str) -> Result<Option<wire::PrimaryIp>, CloudError> {
        let call = || Call::get("primary_ips").query("name", name);
        let take = |page: wire::PrimaryIps| page.primary_ips;
        let found = self.pages(call, "the addresses", take).await?;
        Ok(found.into_iter().find(|ip| ip.name == name))
    }

    async fn look_for_address(&self, name: &str) -> Option<wire::PrimaryIp> {
        let mut polls = self.pace().polls(self.pace().doubt);
        loop {
            match self.address_by_name(name).await {
                Ok(Some(found)) => return Some(found),
                Ok(None) => {}
                Err(error) => tracing::debug!(code = error.code(), "could not look for {name}"),
            }
            if !polls.wait().await {
                return None;
            }
        }
    }

    async fn raw_address(&self, id: u64) -> Result<Option<wire::PrimaryIp>, CloudError> {
        let call = Call::get("primary_ips").at(id);
        match self.ask_maybe(&call, &format!("address {id}")).await? {
            Some(answer) => Ok(Some(answer.json::<wire::PrimaryIpBody>("an address")?.primary_ip)),
            None => Ok(None),
        }
    }

    async fn our_address(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> Result<Option<wire::PrimaryIp>, CloudError> {
        let Some(found) = self.raw_address(number("address", id)?).await? else { return Ok(None) };
        if found.labels.get(LABEL_INSTALLATION) == Some(&installation.bare()) {
            return Ok(Some(found));
        }
        let what = format!("address {}", found.ip);
        Err(CloudError::Foreign { provider: PROVIDER, what })
    }

    pub(super) async fn addresses(&self) -> Result<Vec<CloudAddress>, CloudError> {
        let take = |page: wire::PrimaryIps| page.primary_ips;
        let all = self.pages(|| Call::get("primary_ips"), "the addresses", take).await?;
        // One of tomorrow's kinds is none that we could use.
        Ok(all.into_iter().filter(is_v4).filter_map(|ip| address(ip).ok()).collect())
    }

    pub(super) async fn give_address(
        &self,
        id: &str,
        vm: &str,
        installation: InstallationId,
    ) -> Result<CloudAddress, CloudError> {
        let absent = || CloudError::NotFound { provider: PROVIDER, what: format!("address {id}") };
        let ip = self.our_address(id, installation).await?.ok_or_else(absent)?;
        let server = number("server", vm)?;
        let found = self.our_server(vm, installation).await?;
        match holder(&ip) {
            Some(holder) if holder == server => return address(ip),
            Some(_) => {
                let what = format!("address {}", ip.ip);
                return Err(CloudError::InUse { provider: PROVIDER, what });
            }
            None => {}
        }
        refuse_deleting(&found)?;
        let raw = self.until_free_raw(server, FREE_MAX).await?;
        if super::servers::state(&raw.status) != CloudVmState::Off {
            let message = "the server runs; switch it off before it gets another address";
            return Err(invalid("status", message));
        }
        if let Some(old) = raw.public_net.ipv4.and_then(|v4| v4.id) {
            self.part_with(old).await?;
        }
        let call = Call::post("primary_ips").at(ip.id).under("actions/assign").body(json!({
            "assignee_id": server, "assignee_type": "server",
        }));
        let what = format!("address {}", ip.ip);
        self.until_assigned(ip.id, Some(server), &call, &what).await
    }

    /// Takes an address from its server, and deletes it if it would have gone with the server:
    /// else it would be billed for nobody.
    async fn part_with(&self, id: u64) -> Result<(), CloudError> {
        let Some(old) = self.raw_address(id).await? else { return Ok(()) };
        let what = format!("address {}", old.ip);
        let call = Call::post("primary_ips").at(id).under("actions/unassign");
        self.until_assigned(id, None, &call, &what).await?;
        if old.auto_delete && !old.protection.delete {
            self.ask_maybe(&Call::delete("primary_ips").at(id), &what).await?;
        }
        Ok(())
    }

    /// Sends a call that changes who has an address, and waits until it is so; after a lost answer
    /// too, since the address itself tells.
    async fn until_assigned(
        &self,
        id: u64,
        wanted: Option<u64>,
        call: &Call,
        what: &str,
    ) -> Result<CloudAddress, CloudError> {
        let sent = match self.ask(call, what).await {
            Ok(answer) => answer.json::<wire::ActionBody>("an action").map_err(CloudError::from),
            Err(error) => Err(error),
        };
        let (lost, limit) = match sent {
            Ok(body) => {
                self.finish(body.action, ASSIGN_MAX).await?;
                (None, ASSIGN_MAX)
            }
            Err(error) if error.may_have_happened() => (Some(error), self.pace().doubt),
            Err(error) => return Err(error),
        };
        let mut polls = self.pace().polls(limit);
        loop {
            match self.raw_address(id).await {
                Ok(Some(ip)) if holder(&ip) == wanted => return address(ip),
                Ok(_) => {}
                Err(error) if error.retryable() => {
                    tracing::debug!(code = error.code(), "could not look at address {id}");
                }
                Err(error) => return Err(error),
            }
            if !polls.wait().await {
                let late = || super::actions::late(format!("the change of {what}"), limit);
                return Err(lost.unwrap_or_else(late));
            }
        }
    }

    pub(super) async fn take_address(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        let absent = || CloudError::NotFound { provider: PROVIDER, what: format!("address {id}") };
        let ip = self.our_address(id, installation).await?.ok_or_else(absent)?;
        let Some(server) = holder(&ip) else { return Ok(()) };
        self.until_free_raw(server, FREE_MAX).await?;
        let call = Call::post("primary_ips").at(ip.id).under("actions/unassign");
        self.until_assigned(ip.id, None, &call, &format!("address {}", ip.ip)).await?;
        Ok(())
    }

    pub(super) async fn drop_address(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        let Some(ip) = self.our_address(id, installation).await? else { return Ok(()) };
        let what = format!("address {}", ip.ip);
        if ip.protection.delete {
            return Err(CloudError::Protected { provider: PROVIDER, what });
        }
        if holder(&ip).is_some() {
            return Err(CloudError::InUse { provider: PROVIDER, what });
        }
        self.ask_maybe(&Call::delete("primary_ips").at(ip.id), &what).await?;
        Ok(())
    }
}

/// The server that has it. Since 2026-08-01 the type says `unassigned` where there is none.
fn holder(ip: &wire::PrimaryIp) -> Option<u64> {
    let unassigned = ip.assignee_type.as_deref() == Some("unassigned");
    ip.assignee_id.filter(|_| !unassigned)
}

fn is_v4(ip: &wire::PrimaryIp) -> bool {
    ip.kind.is_empty() && !ip.ip.contains(':') || ip.kind == "ipv4"
}

/// An address of a name that was asked for: ours, of the right kind, in the right place.
fn usable(
    found: wire::PrimaryIp,
    installation: &str,
    region: &RegionName,
) -> Result<CloudAddress, CloudError> {
    let ours = found.labels.get(LABEL_INSTALLATION).map(String::as_str) == Some(installation);
    if !ours || !is_v4(&found) {
        let what = format!("an address named `{}`", found.name);
        return Err(CloudError::NameTaken { provider: PROVIDER, what });
    }
    let there = found.location.as_ref().map(|location| location.name.clone());
    if there.as_deref().is_some_and(|there| there != region.as_str()) {
        let there = crate::requests::clean(&there.unwrap_or_default());
        let message = format!("the address `{}` is in `{there}`", found.name);
        return Err(invalid("location", &message));
    }
    address(found)
}

fn address(ip: wire::PrimaryIp) -> Result<CloudAddress, CloudError> {
    let vm = holder(&ip).map(|id| id.to_string());
    let parsed = ip.ip.parse().map_err(|_| {
        let message = format!("`{}` is not an address", crate::requests::clean(&ip.ip));
        invalid("ip", &message)
    })?;
    Ok(CloudAddress {
        provider_id: ip.id.to_string(),
        name: Some(ip.name).filter(|name| !name.is_empty()),
        address: parsed,
        vm,
        region: ip.location.map(|location| location.name).unwrap_or_default(),
        labels: ip.labels,
        protected: ip.protection.delete,
    })
}
