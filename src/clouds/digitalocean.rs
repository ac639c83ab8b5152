//! DigitalOcean: a thin client, and nothing of its JSON leaves this folder.
//!
//! Three things are other than elsewhere. Names of droplets are not unique, so one is looked for
//! before and after each order, and a second one of ours is taken away. There are no labels, only
//! tags (see the file `tags`). Firewalls deny in both directions.

mod account;
mod addresses;
mod droplets;
mod firewalls;
mod life;
mod refusal;
mod snapshots;
mod tags;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use rust_decimal::Decimal;
use serde::de::DeserializeOwned;
use url::Url;

use super::{
    AccountFacts, Cloud, CloudAddress, CloudError, CloudSnapshot, CloudVm, ExtraPrices, Rebuild,
    Resize, ResizeRules, StoppedVm, VmOrder,
};
use crate::domain::ids::InstallationId;
use crate::domain::money::{Currency, Money};
use crate::domain::names::RegionName;
use crate::domain::secret::Secret;
use crate::domain::size::{Arch, Size};
use crate::requests::{Answer, Api, Call, Dialect, Pace};

const PROVIDER: &str = "DigitalOcean";
/// The most that DigitalOcean gives in one page.
const PER_PAGE: u32 = 200;
/// 50 pages are 10,000 things; a list that goes on is a loop.
const PAGES_MAX: u32 = 50;

static DIALECT: Dialect = Dialect {
    name: PROVIDER,
    headers: &[("accept", "application/json")],
    correlation: "x-request-id",
    refusal: refusal::for_now,
};

/// A DigitalOcean team with one token.
#[derive(Clone)]
pub struct DigitalOcean {
    api: Api,
}

impl std::fmt::Debug for DigitalOcean {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigitalOcean")
    }
}

impl DigitalOcean {
    /// A client for the team of `token` at `base_url` (without its `/v2`); talks to nobody yet.
    pub fn new(base_url: &Url, token: Secret, pace: Pace) -> Result<Self, CloudError> {
        Ok(Self { api: Api::new(&DIALECT, base_url, token, pace)? })
    }

    fn pace(&self) -> &Pace {
        self.api.pace()
    }

    /// Sends a call; a refusal becomes an error that speaks of `what`.
    async fn ask(&self, call: &Call, what: &str) -> Result<Answer, CloudError> {
        let answer = self.api.send(call).await?;
        if answer.is_success() {
            return Ok(answer);
        }
        Err(refusal::error(&self.api, call, &answer, what))
    }

    /// As [`Self::ask`], with none for "not found".
    async fn ask_maybe(&self, call: &Call, what: &str) -> Result<Option<Answer>, CloudError> {
        match self.ask(call, what).await {
            Ok(answer) => Ok(Some(answer)),
            Err(CloudError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every page of a list; `take` picks the list from the page. The links name whole URLs, of
    /// which only whether there is a next one is believed: our token goes to our base URL alone.
    async fn pages<P: DeserializeOwned, T>(
        &self,
        call: impl Fn() -> Call,
        what: &'static str,
        take: impl Fn(P) -> Vec<T>,
    ) -> Result<Vec<T>, CloudError> {
        let mut all = Vec::new();
        for page in 1..=PAGES_MAX {
            let call = call().query("page", page).query("per_page", PER_PAGE);
            let answer = self.ask(&call, what).await?;
            let more = answer.json::<wire::Paged>(what)?.links.pages.next.is_some();
            all.extend(take(answer.json(what)?));
            if !more {
                break;
            }
        }
        Ok(all)
    }
}

fn late(what: String, limit: Duration) -> CloudError {
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    CloudError::Timeout { provider: PROVIDER, what, limit_ms }
}

impl Cloud for DigitalOcean {
    async fn check(&self, installation: InstallationId) -> Result<AccountFacts, CloudError> {
        self.account_facts(installation).await
    }

    async fn sizes(&self) -> Result<Vec<Size>, CloudError> {
        self.size_list().await
    }

    /// Its API names prices of sizes only, so these are the published ones of 2026-11
    /// (docs.digitalocean.com: reserved IPs, snapshots and volumes, each under "Pricing").
    async fn extra_prices(&self) -> Result<ExtraPrices, CloudError> {
        let dollars = |cents: i64| Some(Money::new(Decimal::new(cents, 2), Currency::Usd));
        Ok(ExtraPrices {
            address_unused: dollars(500),
            snapshot_gb: dollars(6),
            volume_gb: dollars(10),
        })
    }

    fn resize_rules(&self) -> ResizeRules {
        ResizeRules { repricing: None, downtime_s: 180 }
    }

    async fn image(&self, arch: Arch) -> Result<String, CloudError> {
        self.debian(arch).await
    }

    async fn ensure_ssh_key(
        &self,
        name: &str,
        public_key: &str,
        installation: InstallationId,
    ) -> Result<String, CloudError> {
        self.find_or_make_ssh_key(name, public_key, installation).await
    }

    async fn delete_ssh_key(
        &self,
        name: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        self.drop_ssh_key(name, installation).await
    }

    async fn ensure_firewall(
        &self,
        name: &str,
        installation: InstallationId,
    ) -> Result<String, CloudError> {
        self.find_or_make_firewall(name, installation).await
    }

    async fn delete_firewall(
        &self,
        name: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        self.drop_firewall(name, installation).await
    }

    async fn find_vm(&self, name: &str) -> Result<Option<CloudVm>, CloudError> {
        match self.droplets_named(name).await?.into_iter().next() {
            Some(found) => Ok(Some(self.vm(found).await?)),
            None => Ok(None),
        }
    }

    async fn get_vm(&self, id: &str) -> Result<Option<CloudVm>, CloudError> {
        match self.droplet(id).await? {
            Some(found) => Ok(Some(self.vm(found).await?)),
            None => Ok(None),
        }
    }

    async fn list_vms(&self) -> Result<Vec<CloudVm>, CloudError> {
        let (droplets, reserved) = (self.droplets().await?, self.reserved_ips().await?);
        Ok(droplets.into_iter().map(|droplet| droplets::vm(droplet, &reserved)).collect())
    }

    async fn create_vm(&self, order: &VmOrder) -> Result<CloudVm, CloudError> {
        self.find_or_order(order).await
    }

    async fn wait_running(&self, id: &str, limit: Duration) -> Result<CloudVm, CloudError> {
        self.until_running(id, limit).await
    }

    async fn delete_vm(&self, id: &str, installation: InstallationId) -> Result<(), CloudError> {
        self.drop_droplet(id, installation).await
    }

    async fn start_vm(
        &self,
        id: &str,
        installation: InstallationId,
        limit: Duration,
    ) -> Result<CloudVm, CloudError> {
        self.power_on(id, installation, limit).await
    }

    async fn stop_vm(
        &self,
        id: &str,
        installation: InstallationId,
        grace: Duration,
    ) -> Result<StoppedVm, CloudError> {
        self.shut_down(id, installation, grace).await
    }

    async fn cycle_vm(
        &self,
        id: &str,
        installation: InstallationId,
        limit: Duration,
    ) -> Result<CloudVm, CloudError> {
        self.power_cycle(id, installation, limit).await
    }

    async fn rename_vm(
        &self,
        id: &str,
        installation: InstallationId,
        name: &str,
    ) -> Result<CloudVm, CloudError> {
        self.rename(id, installation, name).await
    }

    async fn adopt_vm(
        &self,
        id: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<CloudVm, CloudError> {
        self.adopt(id, labels).await
    }

    async fn disown_vm(&self, id: &str, installation: InstallationId) -> Result<(), CloudError> {
        self.disown(id, installation).await
    }

    async fn rebuild_vm(
        &self,
        id: &str,
        installation: InstallationId,
        rebuild: &Rebuild,
    ) -> Result<CloudVm, CloudError> {
        self.rebuild(id, installation, rebuild).await
    }

    async fn resize_vm(
        &self,
        id: &str,
        installation: InstallationId,
        resize: &Resize,
    ) -> Result<CloudVm, CloudError> {
        self.resize(id, installation, resize).await
    }

    async fn snapshot_vm(
        &self,
        id: &str,
        installation: InstallationId,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<CloudSnapshot, CloudError> {
        self.find_or_take_snapshot(id, installation, name, labels).await
    }

    async fn list_snapshots(&self) -> Result<Vec<CloudSnapshot>, CloudError> {
        let all = self.snapshots().await?;
        Ok(all.into_iter().map(snapshots::snapshot).collect())
    }

    async fn delete_snapshot(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        self.drop_snapshot(id, installation).await
    }

    async fn ensure_address(
        &self,
        _name: &str,
        _region: &RegionName,
        vm: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> Result<Option<CloudAddress>, CloudError> {
        match vm {
            Some(vm) => Ok(Some(self.find_or_reserve_ip(vm, labels).await?)),
            None => Ok(None),
        }
    }

    async fn list_addresses(&self) -> Result<Vec<CloudAddress>, CloudError> {
        let all = self.reserved_ips().await?;
        Ok(all.into_iter().filter_map(addresses::address).collect())
    }

    async fn assign_address(
        &self,
        id: &str,
        vm: &str,
        installation: InstallationId,
    ) -> Result<CloudAddress, CloudError> {
        self.assign_ip(id, vm, installation).await
    }

    async fn release_address(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        self.release_ip(id, installation).await
    }

    async fn delete_address(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        self.drop_ip(id, installation).await
    }
}
