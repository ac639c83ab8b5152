//! Firewalls: 22, 80, 443 and ICMP come in, and everything goes out, which has to be said here.

use serde_json::{Value, json};

use super::tags::{firewall_tag, is_firewall_tag};
use super::{DigitalOcean, PROVIDER, wire};
use crate::clouds::CloudError;
use crate::domain::ids::InstallationId;
use crate::requests::Call;

impl DigitalOcean {
    pub(super) async fn find_or_make_firewall(
        &self,
        name: &str,
        installation: InstallationId,
    ) -> Result<String, CloudError> {
        if let Some(found) = self.firewall_named(name).await? {
            return ours(found, installation);
        }
        let tag = firewall_tag(installation);
        // A firewall may only name tags that exist.
        self.make_tag(&tag).await?;
        let call = Call::post("v2/firewalls").body(json!({
            "name": name,
            "tags": [tag],
            "inbound_rules": rules("sources", &["22", "80", "443"], &[]),
            "outbound_rules": rules("destinations", &["all"], &["all"]),
        }));
        let made = match self.ask(&call, &format!("a firewall named `{name}`")).await {
            Ok(answer) => answer.json::<wire::FirewallBody>("the new firewall").map_err(Into::into),
            Err(error) => Err(error),
        };
        match made {
            Ok(made) => Ok(made.firewall.id),
            Err(error)
                if error.may_have_happened() || matches!(error, CloudError::NameTaken { .. }) =>
            {
                ours(self.firewall_named(name).await?.ok_or(error)?, installation)
            }
            Err(error) => Err(error),
        }
    }

    async fn firewall_named(&self, name: &str) -> Result<Option<wire::Firewall>, CloudError> {
        Ok(self.firewalls().await?.into_iter().find(|firewall| firewall.name == name))
    }

    /// The tags that put a droplet behind the firewalls with those ids, from its first moment on.
    pub(super) async fn tags_of_firewalls(
        &self,
        ids: &[String],
    ) -> Result<Vec<String>, CloudError> {
        let mut tags = Vec::new();
        for id in ids {
            let answer =
                self.ask(&Call::get("v2/firewalls").at(id), &format!("firewall {id}")).await?;
            let firewall = answer.json::<wire::FirewallBody>("a firewall")?.firewall;
            let own = firewall.tags.unwrap_or_default();
            tags.extend(own.into_iter().filter(|tag| is_firewall_tag(tag)));
        }
        Ok(tags)
    }

    /// DigitalOcean deletes a firewall that is in use, too, and what it protected is then open.
    /// The tag goes with the last firewall that names it.
    pub(super) async fn drop_firewall(
        &self,
        name: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        let (tag, what) = (firewall_tag(installation), format!("firewall `{name}`"));
        let names_tag = |one: &wire::Firewall| one.tags.iter().flatten().any(|own| *own == tag);
        let ours: Vec<wire::Firewall> =
            self.firewalls().await?.into_iter().filter(names_tag).collect();
        if let Some(found) = ours.iter().find(|one| one.name == name) {
            if !self.droplets_tagged(&tag).await?.is_empty() {
                return Err(CloudError::InUse { provider: PROVIDER, what });
            }
            self.ask_maybe(&Call::delete("v2/firewalls").at(&found.id), &what).await?;
        }
        if ours.iter().all(|one| one.name == name) {
            self.ask_maybe(&Call::delete("v2/tags").at(&tag), &format!("tag `{tag}`")).await?;
        }
        Ok(())
    }

    async fn firewalls(&self) -> Result<Vec<wire::Firewall>, CloudError> {
        let take = |page: wire::Firewalls| page.firewalls;
        self.pages(|| Call::get("v2/firewalls"), "the firewalls", take).await
    }

    /// Makes a tag; one that exists is answered like a new one.
    pub(super) async fn make_tag(&self, tag: &str) -> Result<(), CloudError> {
        let call = Call::post("v2/tags").body(json!({ "name": tag })).repeatable();
        match self.ask(&call, &format!("tag `{tag}`")).await {
            Ok(_) | Err(CloudError::NameTaken { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Tags a thing (`droplet` or `image`) with each of `tags`.
    pub(super) async fn tag(
        &self,
        kind: &str,
        id: &str,
        tags: impl IntoIterator<Item = String>,
    ) -> Result<(), CloudError> {
        for tag in tags {
            self.make_tag(&tag).await?;
            let resources = json!([{ "resource_id": id, "resource_type": kind }]);
            let call = Call::post("v2/tags").at(&tag).under("resources").repeatable();
            self.ask(&call.body(json!({ "resources": resources })), &format!("{kind} {id}"))
                .await?;
        }
        Ok(())
    }
}

fn ours(found: wire::Firewall, installation: InstallationId) -> Result<String, CloudError> {
    let tag = firewall_tag(installation);
    if found.tags.iter().flatten().any(|own| *own == tag) {
        return Ok(found.id);
    }
    let what = format!("a firewall named `{}`", found.name);
    Err(CloudError::NameTaken { provider: PROVIDER, what })
}

/// Rules for those ports over TCP and UDP, and for ICMP, from and to everywhere.
fn rules(ends: &str, tcp: &[&str], udp: &[&str]) -> Vec<Value> {
    let rule = |protocol: &str, ports: &str| {
        let mut rule = json!({ "protocol": protocol, "ports": ports });
        rule[ends] = json!({ "addresses": ["0.0.0.0/0", "::/0"] });
        rule
    };
    let tcp = tcp.iter().map(|ports| rule("tcp", ports));
    let udp = udp.iter().map(|ports| rule("udp", ports));
    tcp.chain(udp).chain([rule("icmp", "all")]).collect()
}
