//! What surrounds a droplet: the account, sizes with prices, images, keys.

use serde_json::json;

use super::{DigitalOcean, PROVIDER, tags, wire};
use crate::clouds::keys::same_key;
use crate::clouds::{AccountFacts, CloudError, LABEL_INSTALLATION};
use crate::domain::ids::InstallationId;
use crate::domain::money::{Currency, Money};
use crate::domain::size::{Arch, Size};
use crate::requests::Call;

impl DigitalOcean {
    pub(super) async fn account_facts(
        &self,
        installation: InstallationId,
    ) -> Result<AccountFacts, CloudError> {
        let answer = self.ask(&Call::get("v2/account"), "the account").await?;
        let account = answer.json::<wire::AccountBody>("the account")?.account;
        let droplets = self.droplets().await?;
        let ours = |droplet: &&wire::Droplet| {
            let labels = tags::labels(&droplet.tags, &droplet.name);
            labels.get(LABEL_INSTALLATION) == Some(&installation.bare())
        };
        let foreign = droplets.len() - droplets.iter().filter(ours).count();
        Ok(AccountFacts {
            currency: Currency::Usd,
            can_write: self.can_write().await,
            servers: u32::try_from(droplets.len()).unwrap_or(u32::MAX),
            foreign_servers: u32::try_from(foreign).unwrap_or(u32::MAX),
            server_limit: account.droplet_limit,
            blocked: self.blocked(&account),
        })
    }

    fn blocked(&self, account: &wire::Account) -> Option<String> {
        if account.email_verified == Some(false) {
            return Some("the owner's e-mail address is not verified".to_owned());
        }
        let status = self.api.clean(&account.status);
        let message = self.api.clean(&account.status_message);
        match account.status.as_str() {
            "active" | "warning" | "" => None,
            _ if message.is_empty() => Some(format!("the account is {status}")),
            _ => Some(format!("the account is {status} ({message})")),
        }
    }

    /// Orders a droplet of a size, a region and an image that do not exist: a token that may order
    /// is told so, one that may not is told that instead.
    async fn can_write(&self) -> Option<bool> {
        let none = "vmkit-probe";
        let body = json!({ "name": none, "region": none, "size": none, "image": none });
        match self.ask(&Call::post("v2/droplets").body(body), "the probe").await {
            Err(CloudError::Invalid { .. } | CloudError::Limit { .. }) => Some(true),
            Err(CloudError::Forbidden { .. }) => Some(false),
            _ => None,
        }
    }

    /// Each size in each region that has it, with the public IPv4 address that comes with it.
    pub(super) async fn size_list(&self) -> Result<Vec<Size>, CloudError> {
        let take = |page: wire::Regions| page.regions;
        let regions = self.pages(|| Call::get("v2/regions"), "the regions", take).await?;
        let closed = |slug: &str| {
            regions.iter().any(|region| region.slug == slug && region.available == Some(false))
        };
        let take = |page: wire::Sizes| page.sizes;
        let sizes = self.pages(|| Call::get("v2/sizes"), "the sizes", take).await?;
        let mut all: Vec<Size> = sizes
            .iter()
            // A graphics card wants an image of its own.
            .filter(|size| !size.slug.starts_with("gpu-"))
            .flat_map(|size| size.regions.iter().map(move |region| (size, region)))
            .filter_map(|(size, region)| one_size(size, region, closed(region)))
            .collect();
        all.sort_by(|a, b| {
            (a.monthly.amount, &a.name, &a.region).cmp(&(b.monthly.amount, &b.name, &b.region))
        });
        Ok(all)
    }

    pub(super) async fn debian(&self, wanted: Arch) -> Result<String, CloudError> {
        let missing = || CloudError::NotFound {
            provider: PROVIDER,
            what: format!("a Debian 13 or 12 image for {}", wanted.as_str()),
        };
        if wanted != Arch::Amd64 {
            return Err(missing());
        }
        let call = || Call::get("v2/images").query("type", "distribution");
        let images = self.pages(call, "the images", |page: wire::Images| page.images).await?;
        let usable = |slug: &&str| {
            images.iter().any(|image| {
                image.slug.as_deref() == Some(slug)
                    && image.status.as_deref().is_none_or(|status| status == "available")
            })
        };
        let found = ["debian-13-x64", "debian-12-x64"].into_iter().find(usable);
        found.map(str::to_owned).ok_or_else(missing)
    }

    pub(super) async fn find_or_make_ssh_key(
        &self,
        name: &str,
        public_key: &str,
        installation: InstallationId,
    ) -> Result<String, CloudError> {
        if let Some(id) = self.ssh_key_id(public_key).await? {
            return Ok(id);
        }
        let name = owned_name(name, installation);
        let body = json!({ "name": name, "public_key": public_key.trim() });
        let call = Call::post("v2/account/keys").body(body);
        let made = match self.ask(&call, &format!("an SSH key named `{name}`")).await {
            Ok(answer) => answer.json::<wire::SshKeyBody>("the new SSH key").map_err(Into::into),
            Err(error) => Err(error),
        };
        match made {
            Ok(made) => Ok(made.ssh_key.id.to_string()),
            Err(error)
                if error.may_have_happened() || matches!(error, CloudError::NameTaken { .. }) =>
            {
                self.ssh_key_id(public_key).await?.ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    async fn ssh_key_id(&self, public_key: &str) -> Result<Option<String>, CloudError> {
        let keys = self.ssh_keys().await?;
        let found = keys.into_iter().find(|key| same_key(&key.public_key, public_key));
        Ok(found.map(|key| key.id.to_string()))
    }

    async fn ssh_keys(&self) -> Result<Vec<wire::SshKey>, CloudError> {
        let take = |page: wire::SshKeys| page.ssh_keys;
        self.pages(|| Call::get("v2/account/keys"), "the SSH keys", take).await
    }

    pub(super) async fn drop_ssh_key(
        &self,
        name: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        let name = owned_name(name, installation);
        if let Some(key) = self.ssh_keys().await?.into_iter().find(|key| key.name == name) {
            let call = Call::delete("v2/account/keys").at(key.id);
            self.ask_maybe(&call, &format!("SSH key `{name}`")).await?;
        }
        Ok(())
    }
}

/// A key can be tagged with nothing, so its name says whose it is.
fn owned_name(name: &str, installation: InstallationId) -> String {
    let bare = installation.bare();
    if name.contains(&bare) { name.to_owned() } else { format!("{name}-{bare}") }
}

/// A size in one region; none where its words do not fit our names. Everything is x86-64.
fn one_size(size: &wire::Size, region: &str, closed: bool) -> Option<Size> {
    Some(Size {
        provider: "digitalocean".to_owned(),
        name: size.slug.parse().ok()?,
        region: region.parse().ok()?,
        cores: size.vcpus,
        dedicated: !size.slug.starts_with("s-"),
        memory_mib: size.memory,
        disk_gb: size.disk,
        arch: Arch::Amd64,
        traffic_gb: size.transfer.map(|tb| (tb * 1000.0).round() as u64),
        monthly: Money::new(size.price_monthly.amount()?, Currency::Usd),
        available: size.available.unwrap_or(true) && !closed,
    })
}
