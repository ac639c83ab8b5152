//! Reserved IPv4 addresses: they have neither name nor tags, and are known by themselves.
//!
//! One is free while a droplet uses it. Whose it is can be told only by its droplet; one without a
//! droplet is taken for ours where a caller names it, since only our records can have named it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};

use super::droplets::number;
use super::{DigitalOcean, PROVIDER, late, wire};
use crate::clouds::{CloudAddress, CloudError, FieldFault, LABEL_INSTALLATION};
use crate::domain::ids::InstallationId;
use crate::requests::Call;

/// How long an address takes to move.
const MOVE_MAX: Duration = Duration::from_secs(120);

impl DigitalOcean {
    pub(super) async fn reserved_ips(&self) -> Result<Vec<wire::ReservedIp>, CloudError> {
        let take = |page: wire::ReservedIps| page.reserved_ips;
        self.pages(|| Call::get("v2/reserved_ips"), "the reserved addresses", take).await
    }

    async fn reserved_ip(&self, ip: &str) -> Result<Option<wire::ReservedIp>, CloudError> {
        let call = Call::get("v2/reserved_ips").at(parsed(ip)?);
        match self.ask_maybe(&call, &format!("reserved address {ip}")).await? {
            Some(answer) => {
                Ok(Some(answer.json::<wire::ReservedIpBody>("a reserved address")?.reserved_ip))
            }
            None => Ok(None),
        }
    }

    async fn of_droplet(&self, droplet: u64) -> Result<Option<CloudAddress>, CloudError> {
        let all = self.reserved_ips().await?;
        Ok(all.into_iter().find(|ip| ip.droplet_id() == Some(droplet)).and_then(address))
    }

    /// A droplet has one at most, which is what keeps a repeated call from making a second one.
    pub(super) async fn find_or_reserve_ip(
        &self,
        vm: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<CloudAddress, CloudError> {
        let id = number("droplet", vm)?;
        let what = format!("droplet {vm}");
        let droplet = self.droplet(vm).await?;
        let droplet = droplet
            .ok_or_else(|| CloudError::NotFound { provider: PROVIDER, what: what.clone() })?;
        let ours = labels.get(LABEL_INSTALLATION);
        if !ours.is_some_and(|own| super::droplets::is_ours(&droplet, own)) {
            return Err(CloudError::Foreign { provider: PROVIDER, what });
        }
        if let Some(found) = self.of_droplet(id).await? {
            return Ok(found);
        }
        let call = Call::post("v2/reserved_ips").body(json!({ "droplet_id": id }));
        let what = format!("a reserved address for droplet {vm}");
        let (limit, doubt) = match self.ask(&call, &what).await {
            Ok(_) => (MOVE_MAX, None),
            Err(error) if error.may_have_happened() => (self.pace().doubt, Some(error)),
            Err(error) => return Err(error),
        };
        let mut polls = self.pace().polls(limit);
        loop {
            if let Some(found) = self.of_droplet(id).await? {
                return Ok(found);
            }
            if !polls.wait().await {
                return Err(doubt.unwrap_or_else(|| late(what, limit)));
            }
        }
    }

    pub(super) async fn assign_ip(
        &self,
        ip: &str,
        vm: &str,
        installation: InstallationId,
    ) -> Result<CloudAddress, CloudError> {
        let droplet = self.our_id(vm, installation).await?;
        let found = self.our_ip(ip, installation).await?;
        match found.droplet_id() {
            Some(other) if other != droplet => {
                let what = format!("reserved address {ip}");
                return Err(CloudError::InUse { provider: PROVIDER, what });
            }
            Some(_) => {}
            None => self.point_ip(ip, droplet).await?,
        }
        let what = format!("reserved address {ip}");
        let now = self.reserved_ip(ip).await?.and_then(address);
        now.ok_or(CloudError::NotFound { provider: PROVIDER, what })
    }

    async fn our_ip(
        &self,
        ip: &str,
        installation: InstallationId,
    ) -> Result<wire::ReservedIp, CloudError> {
        let what = format!("reserved address {ip}");
        let found = self.reserved_ip(ip).await?;
        let found =
            found.ok_or_else(|| CloudError::NotFound { provider: PROVIDER, what: what.clone() })?;
        if let Some(droplet) = found.droplet_id()
            && !self.is_our_id(droplet, installation).await?
        {
            return Err(CloudError::Foreign { provider: PROVIDER, what });
        }
        Ok(found)
    }

    /// Does an action on an address and waits until it is as wanted.
    pub(super) async fn act_on_ip(
        &self,
        ip: &str,
        body: Value,
        wanted: impl Fn(&wire::ReservedIp) -> bool,
    ) -> Result<(), CloudError> {
        let what = format!("reserved address {ip}");
        let call = Call::post("v2/reserved_ips").at(parsed(ip)?).under("actions");
        let outcome = self.ask(&call.body(body).repeatable(), &what).await;
        let (limit, refused) = match outcome {
            Ok(_) => (MOVE_MAX, None),
            Err(error) if error.may_have_happened() => (self.pace().doubt, Some(error)),
            // It may be so already.
            Err(error) => (Duration::ZERO, Some(error)),
        };
        let mut polls = self.pace().polls(limit);
        loop {
            if self.reserved_ip(ip).await?.is_some_and(|found| wanted(&found)) {
                return Ok(());
            }
            if !polls.wait().await {
                return Err(refused.unwrap_or_else(|| late(format!("the move of {what}"), limit)));
            }
        }
    }

    pub(super) async fn release_ip(
        &self,
        ip: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        if self.our_ip(ip, installation).await?.droplet_id().is_none() {
            return Ok(());
        }
        let free = |ip: &wire::ReservedIp| ip.droplet_id().is_none();
        self.act_on_ip(ip, json!({ "type": "unassign" }), free).await
    }

    pub(super) async fn drop_ip(
        &self,
        ip: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        let what = format!("reserved address {ip}");
        let found = match self.our_ip(ip, installation).await {
            Err(CloudError::NotFound { .. }) => return Ok(()),
            found => found?,
        };
        if found.droplet_id().is_some() {
            return Err(CloudError::InUse { provider: PROVIDER, what });
        }
        self.ask_maybe(&Call::delete("v2/reserved_ips").at(parsed(ip)?), &what).await?;
        Ok(())
    }
}

fn parsed(ip: &str) -> Result<Ipv4Addr, CloudError> {
    ip.parse().map_err(|_| CloudError::Invalid {
        provider: PROVIDER,
        fields: vec![FieldFault {
            field: "reserved address".to_owned(),
            message: format!("`{}` is not an IPv4 address", crate::requests::clean(ip)),
        }],
    })
}

/// None where it is no address.
pub(super) fn address(found: wire::ReservedIp) -> Option<CloudAddress> {
    Some(CloudAddress {
        vm: found.droplet_id().map(|id| id.to_string()),
        address: found.ip.parse().ok()?,
        provider_id: found.ip,
        name: None,
        region: found.region.slug,
        labels: BTreeMap::new(),
        protected: false,
    })
}
