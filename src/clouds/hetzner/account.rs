//! What surrounds a server: the account, sizes with prices, images, keys, firewalls.

use std::str::FromStr;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::servers::arch;
use super::{Hetzner, PROVIDER, wire};
use crate::clouds::keys::same_key;
use crate::clouds::{
    AccountFacts, CloudError, ExtraPrices, LABEL_INSTALLATION, installation_label,
};
use crate::domain::ids::InstallationId;
use crate::domain::money::{Currency, Money};
use crate::domain::size::{Arch, Size};
use crate::requests::Call;

impl Hetzner {
    pub(super) async fn account_facts(
        &self,
        installation: InstallationId,
    ) -> Result<AccountFacts, CloudError> {
        let currency = self.currency(&self.pricing().await?)?;
        let servers = self.servers().await?;
        let foreign = servers.iter().filter(|vm| !vm.belongs_to(installation)).count();
        Ok(AccountFacts {
            currency,
            can_write: self.can_write().await,
            servers: u32::try_from(servers.len()).unwrap_or(u32::MAX),
            foreign_servers: u32::try_from(foreign).unwrap_or(u32::MAX),
            server_limit: None,
            blocked: None,
        })
    }

    /// Changes a key that cannot exist: a token that may write is told "not found", one that may
    /// only read is told so.
    async fn can_write(&self) -> Option<bool> {
        let call = Call::put("ssh_keys/0").body(json!({ "labels": {} }));
        match self.ask(&call, "the probe").await {
            Err(CloudError::NotFound { .. }) => Some(true),
            Err(CloudError::Forbidden { .. }) => Some(false),
            _ => None,
        }
    }

    async fn pricing(&self) -> Result<wire::Pricing, CloudError> {
        let answer = self.ask(&Call::get("pricing"), "the prices").await?;
        Ok(answer.json::<wire::PricingBody>("the prices")?.pricing)
    }

    fn currency(&self, pricing: &wire::Pricing) -> Result<Currency, CloudError> {
        match pricing.currency.as_str() {
            "EUR" => Ok(Currency::Eur),
            "USD" => Ok(Currency::Usd),
            other => {
                Err(CloudError::Currency { provider: PROVIDER, currency: self.api.clean(other) })
            }
        }
    }

    /// Net, as the sizes are. Hetzner asks the same for an address everywhere; the dearest place
    /// counts should that change.
    pub(super) async fn extras(&self) -> Result<ExtraPrices, CloudError> {
        let pricing = self.pricing().await?;
        let currency = self.currency(&pricing)?;
        let money = |price: &wire::Price| {
            Decimal::from_str(&price.net).ok().map(|amount| Money::new(amount, currency))
        };
        let gb = |price: &Option<wire::GbPrice>| {
            price.as_ref().and_then(|price| money(&price.price_per_gb_month))
        };
        let address_unused = pricing
            .primary_ips
            .iter()
            .filter(|price| price.kind == "ipv4")
            .flat_map(|price| &price.prices)
            .filter_map(|price| money(&price.price_monthly))
            .max_by_key(|price| price.amount);
        Ok(ExtraPrices {
            address_unused,
            snapshot_gb: gb(&pricing.image),
            volume_gb: gb(&pricing.volume),
        })
    }

    pub(super) async fn size_list(&self) -> Result<Vec<Size>, CloudError> {
        let pricing = self.pricing().await?;
        let currency = self.currency(&pricing)?;
        let addresses: Vec<&wire::LocationPrice> = pricing
            .primary_ips
            .iter()
            .filter(|price| price.kind == "ipv4")
            .flat_map(|price| &price.prices)
            .collect();
        let take = |page: wire::ServerTypes| page.server_types;
        let types = self.pages(|| Call::get("server_types"), "the sizes", take).await?;
        let mut sizes: Vec<Size> = types
            .iter()
            .flat_map(|kind| kind.prices.iter().map(move |price| (kind, price)))
            .filter_map(|(kind, price)| size(kind, price, &addresses, currency))
            .collect();
        sizes.sort_by(|a, b| {
            (a.monthly.amount, &a.name, &a.region).cmp(&(b.monthly.amount, &b.name, &b.region))
        });
        Ok(sizes)
    }

    pub(super) async fn debian(&self, wanted: Arch) -> Result<String, CloudError> {
        let word = match wanted {
            Arch::Amd64 => "x86",
            Arch::Arm64 => "arm",
        };
        let call = || Call::get("images").query("type", "system").query("architecture", word);
        let take = |page: wire::Images| page.images;
        let images = self.pages(call, "the images", take).await?;
        let usable = |name: &str| {
            images.iter().any(|image| {
                image.name.as_deref() == Some(name)
                    && image.deprecation.is_none()
                    && image.deprecated.is_none()
                    && image.status.as_deref().is_none_or(|status| status == "available")
                    && (image.architecture.is_empty() || image.architecture == word)
            })
        };
        let found = ["debian-13", "debian-12"].into_iter().find(|name| usable(name));
        found.map(str::to_owned).ok_or_else(|| CloudError::NotFound {
            provider: PROVIDER,
            what: format!("a Debian 13 or 12 image for {}", wanted.as_str()),
        })
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
        let call = Call::post("ssh_keys").body(json!({
            "name": name,
            "public_key": public_key.trim(),
            "labels": installation_label(installation),
        }));
        let made = match self.ask(&call, &format!("an SSH key named `{name}`")).await {
            Ok(answer) => answer.json::<wire::SshKeyBody>("the new SSH key").map_err(Into::into),
            Err(error) => Err(error),
        };
        match made {
            Ok(made) => Ok(made.ssh_key.id.to_string()),
            Err(error) if error.may_have_happened() || is_taken(&error) => {
                self.ssh_key_id(public_key).await?.ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Hetzner keeps one entry per key, under whatever name.
    async fn ssh_key_id(&self, public_key: &str) -> Result<Option<String>, CloudError> {
        let keys = self.ssh_keys(None).await?;
        let found = keys.into_iter().find(|key| same_key(&key.public_key, public_key));
        Ok(found.map(|key| key.id.to_string()))
    }

    async fn ssh_keys(&self, name: Option<&str>) -> Result<Vec<wire::SshKey>, CloudError> {
        let call = || {
            let call = Call::get("ssh_keys");
            if let Some(name) = name { call.query("name", name) } else { call }
        };
        self.pages(call, "the SSH keys", |page: wire::SshKeys| page.ssh_keys).await
    }

    pub(super) async fn drop_ssh_key(
        &self,
        name: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        let ours = |key: &wire::SshKey| {
            key.name == name && key.labels.get(LABEL_INSTALLATION) == Some(&installation.bare())
        };
        if let Some(key) = self.ssh_keys(Some(name)).await?.into_iter().find(ours) {
            let call = Call::delete("ssh_keys").at(key.id);
            self.ask_maybe(&call, &format!("SSH key `{name}`")).await?;
        }
        Ok(())
    }

    pub(super) async fn find_or_make_firewall(
        &self,
        name: &str,
        installation: InstallationId,
    ) -> Result<String, CloudError> {
        if let Some(found) = self.firewall(name).await? {
            return our_firewall(found, installation);
        }
        let call = Call::post("firewalls").body(json!({
            "name": name,
            "labels": installation_label(installation),
            "rules": rules(),
        }));
        let made = match self.ask(&call, &format!("a firewall named `{name}`")).await {
            Ok(answer) => answer.json::<wire::FirewallBody>("the new firewall").map_err(Into::into),
            Err(error) => Err(error),
        };
        match made {
            Ok(made) => Ok(made.firewall.id.to_string()),
            Err(error) if error.may_have_happened() || is_taken(&error) => {
                our_firewall(self.firewall(name).await?.ok_or(error)?, installation)
            }
            Err(error) => Err(error),
        }
    }

    async fn firewall(&self, name: &str) -> Result<Option<wire::Firewall>, CloudError> {
        let call = Call::get("firewalls").query("name", name);
        let answer = self.ask(&call, "the firewalls").await?;
        let found = answer.json::<wire::Firewalls>("the firewalls")?.firewalls;
        Ok(found.into_iter().find(|firewall| firewall.name == name))
    }

    pub(super) async fn drop_firewall(
        &self,
        name: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        let Some(found) = self.firewall(name).await? else { return Ok(()) };
        let (id, what) = (found.id, format!("firewall `{name}`"));
        if our_firewall(found, installation).is_err() {
            return Ok(());
        }
        self.ask_maybe(&Call::delete("firewalls").at(id), &what).await?;
        Ok(())
    }
}

fn is_taken(error: &CloudError) -> bool {
    matches!(error, CloudError::NameTaken { .. })
}

fn our_firewall(found: wire::Firewall, installation: InstallationId) -> Result<String, CloudError> {
    if found.labels.get(LABEL_INSTALLATION) == Some(&installation.bare()) {
        return Ok(found.id.to_string());
    }
    let what = format!("a firewall named `{}`", found.name);
    Err(CloudError::NameTaken { provider: PROVIDER, what })
}

/// What comes in; what goes out is not ruled, so everything does.
fn rules() -> Vec<Value> {
    let from = ["0.0.0.0/0", "::/0"];
    let tcp = |port: &str, why: &str| json!({ "description": why, "direction": "in", "protocol": "tcp", "port": port, "source_ips": from });
    vec![
        tcp("22", "SSH"),
        tcp("80", "HTTP"),
        tcp("443", "HTTPS"),
        json!({ "description": "Ping", "direction": "in", "protocol": "icmp", "source_ips": from }),
    ]
}

/// A size in one region; none where its words do not fit our names.
fn size(
    kind: &wire::ServerType,
    price: &wire::LocationPrice,
    addresses: &[&wire::LocationPrice],
    currency: Currency,
) -> Option<Size> {
    let address = addresses
        .iter()
        .find(|address| address.location == price.location)
        .or(addresses.first())
        .and_then(|address| Decimal::from_str(&address.price_monthly.net).ok())
        .unwrap_or_default();
    let amount = Decimal::from_str(&price.price_monthly.net).ok()? + address;
    let here = kind.locations.iter().find(|location| location.name == price.location);
    let available = match here {
        Some(here) => here.available.unwrap_or(true) && here.deprecation.is_none(),
        // An API that lists no locations at all does not know; one that leaves this out says no.
        None => kind.locations.is_empty(),
    };
    Some(Size {
        provider: "hetzner".to_owned(),
        name: kind.name.parse().ok()?,
        region: price.location.parse().ok()?,
        cores: kind.cores.round() as u32,
        dedicated: kind.cpu_type == "dedicated",
        memory_mib: (kind.memory * 1024.0).round() as u64,
        disk_gb: kind.disk.round() as u64,
        arch: arch(&kind.architecture)?,
        // What it sells as 20 TB are 20 * 1024^4 bytes.
        traffic_gb: price.included_traffic.map(|bytes| (bytes >> 30) * 1000 / 1024),
        monthly: Money::new(amount, currency),
        available,
    })
}
