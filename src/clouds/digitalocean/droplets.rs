//! Droplets: found, ordered once, waited for, deleted.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{DigitalOcean, PROVIDER, late, refusal, tags, wire};
use crate::clouds::{CloudError, CloudVm, CloudVmState, FieldFault, LABEL_INSTALLATION, VmOrder};
use crate::domain::clock::Millis;
use crate::domain::ids::InstallationId;
use crate::domain::size::Arch;
use crate::requests::Call;

/// How long a droplet may take to start; before, it takes no address, and is not deleted.
const START_MAX: Duration = Duration::from_secs(300);

impl DigitalOcean {
    pub(super) async fn droplets(&self) -> Result<Vec<wire::Droplet>, CloudError> {
        let take = |page: wire::Droplets| page.droplets;
        self.pages(|| Call::get("v2/droplets"), "the droplets", take).await
    }

    pub(super) async fn droplets_tagged(
        &self,
        tag: &str,
    ) -> Result<Vec<wire::Droplet>, CloudError> {
        let call = || Call::get("v2/droplets").query("tag_name", tag);
        self.pages(call, "the droplets", |page: wire::Droplets| page.droplets).await
    }

    /// The droplets of that name, VMKit's before others and the oldest first.
    pub(super) async fn droplets_named(
        &self,
        name: &str,
    ) -> Result<Vec<wire::Droplet>, CloudError> {
        let call = || Call::get("v2/droplets").query("name", name);
        let mut found =
            self.pages(call, "the droplets", |page: wire::Droplets| page.droplets).await?;
        // The real filter takes no notice of upper and lower case.
        found.retain(|droplet| droplet.name == name);
        found.sort_by_key(|droplet| {
            let labels = tags::labels(&droplet.tags, &droplet.name);
            (!labels.contains_key(LABEL_INSTALLATION), droplet.id)
        });
        Ok(found)
    }

    pub(super) async fn droplet(&self, id: &str) -> Result<Option<wire::Droplet>, CloudError> {
        let call = Call::get("v2/droplets").at(number("droplet", id)?);
        match self.ask_maybe(&call, &format!("droplet {id}")).await? {
            Some(answer) => Ok(Some(answer.json::<wire::DropletBody>("a droplet")?.droplet)),
            None => Ok(None),
        }
    }

    /// A droplet that this installation may change.
    pub(super) async fn our_droplet(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> Result<wire::Droplet, CloudError> {
        let what = format!("droplet {id}");
        let found = self.droplet(id).await?;
        let found = found.ok_or(CloudError::NotFound { provider: PROVIDER, what })?;
        if is_ours(&found, &installation.bare()) {
            return Ok(found);
        }
        let what = format!("droplet `{}`", found.name);
        Err(CloudError::Foreign { provider: PROVIDER, what })
    }

    /// A droplet with the reserved address that it may have.
    pub(super) async fn vm(&self, droplet: wire::Droplet) -> Result<CloudVm, CloudError> {
        // A droplet that has never started has none.
        let new = droplet.status == "new";
        let reserved = if new { Vec::new() } else { self.reserved_ips().await? };
        Ok(vm(droplet, &reserved))
    }

    /// Find by name, adopt if it is ours, else order once; after a lost answer look, never order
    /// again. Since names are not unique, the lock of the operation that orders is what keeps two
    /// orders apart; should two of ours stand there all the same, the younger one goes.
    pub(super) async fn find_or_order(&self, order: &VmOrder) -> Result<CloudVm, CloudError> {
        let Some(installation) = order.labels.get(LABEL_INSTALLATION) else {
            return Err(unlabelled());
        };
        let found = self.droplets_named(&order.name).await?;
        let found = self.the_one(found, installation).await?;
        let droplet = match self.unless_failed(found).await? {
            Some(found) => found,
            None => match self.order(order).await {
                Ok(made) => self.the_first(made, installation).await?,
                Err(error) if error.may_have_happened() => {
                    let doubt = match &error {
                        // DigitalOcean itself has answered, so the order is not under way.
                        CloudError::Transient { status: 500 | 503, .. } => self.pace().retry_first,
                        _ => self.pace().doubt,
                    };
                    self.look_for(&order.name, installation, doubt).await.ok_or(error)?
                }
                Err(error) => return Err(error),
            },
        };
        match &order.address {
            None => self.vm(droplet).await,
            Some(address) => {
                let id = droplet.id.to_string();
                self.until_running(&id, START_MAX).await?;
                self.point_ip(address, droplet.id).await?;
                self.until_running(&id, START_MAX).await
            }
        }
    }

    /// Of droplets with one name, the oldest of this installation's.
    async fn the_one(
        &self,
        found: Vec<wire::Droplet>,
        installation: &str,
    ) -> Result<Option<wire::Droplet>, CloudError> {
        let Some(first) = found.first() else { return Ok(None) };
        let what = format!("a droplet named `{}`", first.name);
        let mut ours = found.into_iter().filter(|droplet| is_ours(droplet, installation));
        let one = ours.next().ok_or(CloudError::NameTaken { provider: PROVIDER, what })?;
        for double in ours {
            tracing::warn!(id = double.id, "droplet {} is there twice: one goes", double.name);
            self.take_away(&double).await?;
        }
        Ok(Some(one))
    }

    /// The droplet that was made, unless another order of the same name was faster: whoever looks
    /// after its own order sees the oldest, so all keep the same one.
    async fn the_first(
        &self,
        made: wire::Droplet,
        installation: &str,
    ) -> Result<wire::Droplet, CloudError> {
        let mut found = match self.droplets_named(&made.name).await {
            Ok(found) => found,
            Err(error) if error.retryable() => return Ok(made),
            Err(error) => return Err(error),
        };
        found.retain(|droplet| is_ours(droplet, installation) && droplet.id < made.id);
        let Some(first) = found.into_iter().next() else { return Ok(made) };
        tracing::warn!(id = made.id, "droplet {} is there twice: one goes", made.name);
        self.take_away(&made).await?;
        Ok(first)
    }

    /// The droplet, unless its creation has failed: then it is taken away.
    async fn unless_failed(
        &self,
        found: Option<wire::Droplet>,
    ) -> Result<Option<wire::Droplet>, CloudError> {
        let Some(found) = found else { return Ok(None) };
        if found.status != "new" || found.locked {
            return Ok(Some(found));
        }
        match self.see_creation(found.id).await {
            Ok(()) => Ok(Some(found)),
            Err(CloudError::ActionFailed { .. }) => {
                self.take_away(&found).await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes a droplet and waits until it is gone. While it is being made, it is locked.
    async fn take_away(&self, droplet: &wire::Droplet) -> Result<(), CloudError> {
        let (id, what) = (droplet.id.to_string(), format!("droplet `{}`", droplet.name));
        let call = Call::delete("v2/droplets").at(droplet.id);
        let mut polls = self.pace().polls(START_MAX);
        let mut asked = false;
        loop {
            if !asked {
                match self.ask_maybe(&call, &what).await {
                    Ok(None) => return Ok(()),
                    Ok(Some(_)) => asked = true,
                    Err(CloudError::Locked { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            if asked && self.droplet(&id).await?.is_none() {
                return Ok(());
            }
            if !polls.wait().await {
                return Err(late(format!("the deletion of {what}"), START_MAX));
            }
        }
    }

    async fn order(&self, order: &VmOrder) -> Result<wire::Droplet, CloudError> {
        let firewalls = self.tags_of_firewalls(&order.firewalls).await?;
        let call = Call::post("v2/droplets").body(order_body(order, firewalls));
        let ordered = self.ask(&call, &format!("droplet `{}`", order.name)).await;
        let (size, region) = (order.size.as_str(), order.region.as_str());
        let answer = ordered.map_err(|error| refusal::sold_out(error, size, region))?;
        Ok(answer.json::<wire::DropletBody>("the new droplet")?.droplet)
    }

    /// Looks for a droplet whose order has no answer, until it is there or the time is up.
    async fn look_for(
        &self,
        name: &str,
        installation: &str,
        limit: Duration,
    ) -> Option<wire::Droplet> {
        let mut polls = self.pace().polls(limit);
        loop {
            match self.droplets_named(name).await {
                Ok(found) => {
                    if let Ok(Some(one)) = self.the_one(found, installation).await {
                        return Some(one);
                    }
                }
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
            match self.droplet(id).await {
                Ok(Some(found)) if found.status == "active" && public_v4(&found).is_some() => {
                    return self.vm(found).await;
                }
                Ok(Some(found)) => {
                    if found.status == "new" && !found.locked {
                        self.see_creation(found.id).await?;
                    }
                    last = Some(found.status);
                }
                Ok(None) => {
                    let what = format!("droplet {id}");
                    return Err(CloudError::NotFound { provider: PROVIDER, what });
                }
                Err(error) if error.retryable() => {
                    tracing::debug!(code = error.code(), "could not look at droplet {id}");
                }
                Err(error) => return Err(error),
            }
            if !polls.wait().await {
                let state = last.unwrap_or_else(|| "unseen".to_owned());
                let state = self.api.clean(&state);
                let what = format!("the start of droplet {id} (last state: {state})");
                return Err(late(what, limit));
            }
        }
    }

    /// An error where the creation of a droplet has failed: an accepted order says nothing of that.
    async fn see_creation(&self, droplet: u64) -> Result<(), CloudError> {
        let call = Call::get("v2/droplets").at(droplet).under("actions");
        let Some(answer) = self.ask_maybe(&call, "the actions").await? else { return Ok(()) };
        let actions = answer.json::<wire::Actions>("the actions")?.actions;
        let failed = |one: &wire::Action| one.kind == "create" && one.status == "errored";
        if actions.iter().any(failed) {
            return Err(failed_action("create"));
        }
        Ok(())
    }

    pub(super) async fn drop_droplet(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        let found = match self.our_droplet(id, installation).await {
            Err(CloudError::NotFound { .. }) => return Ok(()),
            found => found?,
        };
        self.take_away(&found).await
    }
}

pub(super) fn unlabelled() -> CloudError {
    let message = "it is missing, so the droplet could not be told from others".to_owned();
    let fields = vec![FieldFault { field: LABEL_INSTALLATION.to_owned(), message }];
    CloudError::Invalid { provider: PROVIDER, fields }
}

pub(super) fn failed_action(kind: &str) -> CloudError {
    // DigitalOcean never says why.
    let reason = "no reason given".to_owned();
    CloudError::ActionFailed { provider: PROVIDER, command: kind.to_owned(), reason }
}

pub(super) fn is_ours(droplet: &wire::Droplet, installation: &str) -> bool {
    let labels = tags::labels(&droplet.tags, &droplet.name);
    labels.get(LABEL_INSTALLATION).is_some_and(|own| own == installation)
}

/// Ids of droplets, keys, actions and images are numbers; anything else never reaches a path.
pub(super) fn number(kind: &str, id: &str) -> Result<u64, CloudError> {
    id.parse().map_err(|_| CloudError::Invalid {
        provider: PROVIDER,
        fields: vec![FieldFault {
            field: kind.to_owned(),
            message: format!("`{}` is not one of its ids", crate::requests::clean(id)),
        }],
    })
}

/// An image or a key as a body names it: an id is a number there, a slug or a fingerprint a text.
pub(super) fn reference(id: &str) -> Value {
    id.parse::<u64>().map_or_else(|_| json!(id), |number| json!(number))
}

fn order_body(order: &VmOrder, firewalls: Vec<String>) -> Value {
    let mut tags = tags::tags(&order.labels, &order.name);
    tags.extend(firewalls);
    json!({
        "name": order.name,
        "size": order.size,
        "region": order.region,
        "image": reference(&order.image),
        "ssh_keys": order.ssh_keys.iter().map(|key| reference(key)).collect::<Vec<_>>(),
        "tags": tags,
        "user_data": order.user_data.expose(),
        "ipv6": true,
        // Theirs would be one more way in.
        "with_droplet_agent": false,
    })
}

fn public_v4(droplet: &wire::Droplet) -> Option<&wire::Network> {
    droplet.networks.v4.iter().find(|network| network.kind == "public")
}

pub(super) fn vm(droplet: wire::Droplet, reserved: &[wire::ReservedIp]) -> CloudVm {
    let own = reserved.iter().find(|ip| ip.droplet_id() == Some(droplet.id)).map(|ip| &ip.ip);
    let address = own.or(public_v4(&droplet).map(|network| &network.ip_address));
    let v6 = droplet.networks.v6.iter().find(|network| network.kind == "public");
    CloudVm {
        provider_id: droplet.id.to_string(),
        state: match droplet.status.as_str() {
            "active" => CloudVmState::Running,
            "new" => CloudVmState::Starting,
            "off" => CloudVmState::Off,
            _ => CloudVmState::Other(crate::requests::clean(&droplet.status)),
        },
        address: address.and_then(|ip| ip.parse().ok()),
        ipv6: v6.and_then(|network| network.ip_address.parse().ok()),
        size: droplet.size_slug,
        region: droplet.region.slug,
        arch: Some(Arch::Amd64),
        disk_gb: droplet.disk,
        labels: tags::labels(&droplet.tags, &droplet.name),
        name: droplet.name,
        // DigitalOcean protects no droplet.
        protected: false,
        created: millis(droplet.created_at.as_deref()),
    }
}

pub(super) fn millis(time: Option<&str>) -> Option<Millis> {
    let time = time?.parse::<Timestamp>().ok()?;
    Some(Millis(time.as_millisecond()))
}
