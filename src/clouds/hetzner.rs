//! Hetzner Cloud: a thin client, and nothing of its JSON leaves this folder.

mod account;
mod refusal;
mod servers;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use url::Url;

use super::{
    AccountFacts, Cloud, CloudAddress, CloudError, CloudSnapshot, CloudVm, ExtraPrices, Rebuild,
    Resize, ResizeRules, StoppedVm, VmOrder,
};
use crate::domain::ids::InstallationId;
use crate::domain::names::RegionName;
use crate::domain::secret::Secret;
use crate::domain::size::{Arch, Size};
use crate::requests::{Answer, Api, Call, Dialect, Pace};

const PROVIDER: &str = "Hetzner";
/// The most that Hetzner gives in one page.
const PER_PAGE: u32 = 50;
/// 200 pages are 10,000 things; a list that goes on is a loop.
const PAGES_MAX: u32 = 200;

static DIALECT: Dialect = Dialect {
    name: PROVIDER,
    headers: &[("accept", "application/json")],
    correlation: "x-correlation-id",
    refusal: refusal::for_now,
};

/// A Hetzner Cloud project with one token.
#[derive(Clone)]
pub struct Hetzner {
    api: Api,
}

impl std::fmt::Debug for Hetzner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hetzner")
    }
}

impl Hetzner {
    /// A client for the project of `token` at `base_url` (with its `/v1`); talks to nobody yet.
    pub fn new(base_url: &Url, token: Secret, pace: Pace) -> Result<Self, CloudError> {
        Ok(Self { api: Api::new(&DIALECT, base_url, token, pace)? })
    }

    fn pace(&self) -> &Pace {
        self.api.pace()
    }

    /// Sends a call; a refusal becomes an error that speaks of `what`.
    async fn ask(&self, call: &Call, what: &str) -> Result<Answer, CloudError> {
        let answer = self.api.send(call).await?;
        if answer.is_success() { Ok(answer) } else { Err(refusal::error(&self.api, &answer, what)) }
    }

    /// As [`Self::ask`], with none for "not found".
    async fn ask_maybe(&self, call: &Call, what: &str) -> Result<Option<Answer>, CloudError> {
        match self.ask(call, what).await {
            Ok(answer) => Ok(Some(answer)),
            Err(CloudError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every page of a list; `take` picks the list from the page.
    async fn pages<P: DeserializeOwned, T>(
        &self,
        call: impl Fn() -> Call,
        what: &'static str,
        take: impl Fn(P) -> Vec<T>,
    ) -> Result<Vec<T>, CloudError> {
        let (mut all, mut page) = (Vec::new(), 1);
        for _ in 0..PAGES_MAX {
            let call = call().query("page", page).query("per_page", PER_PAGE);
            let answer = self.ask(&call, what).await?;
            let next = answer.json::<wire::Paged>(what)?.meta.pagination.next_page;
            all.extend(take(answer.json(what)?));
            match next {
                Some(next) if next > page => page = next,
                _ => break,
            }
        }
        Ok(all)
    }
}

impl Cloud for Hetzner {
    async fn check(&self, installation: InstallationId) -> Result<AccountFacts, CloudError> {
        self.account_facts(installation).await
    }

    async fn sizes(&self) -> Result<Vec<Size>, CloudError> {
        self.size_list().await
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
        self.server_by_name(name).await
    }

    async fn get_vm(&self, id: &str) -> Result<Option<CloudVm>, CloudError> {
        self.server(id).await
    }

    async fn list_vms(&self) -> Result<Vec<CloudVm>, CloudError> {
        self.servers().await
    }

    async fn create_vm(&self, order: &VmOrder) -> Result<CloudVm, CloudError> {
        self.find_or_order(order).await
    }

    async fn wait_running(&self, id: &str, limit: Duration) -> Result<CloudVm, CloudError> {
        self.until_running(id, limit).await
    }

    async fn delete_vm(&self, id: &str, installation: InstallationId) -> Result<(), CloudError> {
        self.drop_server(id, installation).await
    }

    async fn extra_prices(&self) -> Result<ExtraPrices, CloudError> {
        not_yet("extra prices")
    }

    fn resize_rules(&self) -> ResizeRules {
        ResizeRules { repricing: None, downtime_s: 120 }
    }

    async fn start_vm(
        &self,
        _id: &str,
        _installation: InstallationId,
        _limit: Duration,
    ) -> Result<CloudVm, CloudError> {
        not_yet("power on")
    }

    async fn stop_vm(
        &self,
        _id: &str,
        _installation: InstallationId,
        _grace: Duration,
    ) -> Result<StoppedVm, CloudError> {
        not_yet("power off")
    }

    async fn cycle_vm(
        &self,
        _id: &str,
        _installation: InstallationId,
        _limit: Duration,
    ) -> Result<CloudVm, CloudError> {
        not_yet("power cycle")
    }

    async fn rename_vm(
        &self,
        _id: &str,
        _installation: InstallationId,
        _name: &str,
    ) -> Result<CloudVm, CloudError> {
        not_yet("renaming")
    }

    async fn adopt_vm(
        &self,
        _id: &str,
        _labels: &BTreeMap<String, String>,
    ) -> Result<CloudVm, CloudError> {
        not_yet("adopting")
    }

    async fn rebuild_vm(
        &self,
        _id: &str,
        _installation: InstallationId,
        _rebuild: &Rebuild,
    ) -> Result<CloudVm, CloudError> {
        not_yet("rebuilding")
    }

    async fn resize_vm(
        &self,
        _id: &str,
        _installation: InstallationId,
        _resize: &Resize,
    ) -> Result<CloudVm, CloudError> {
        not_yet("resizing")
    }

    async fn snapshot_vm(
        &self,
        _id: &str,
        _installation: InstallationId,
        _name: &str,
        _labels: &BTreeMap<String, String>,
    ) -> Result<CloudSnapshot, CloudError> {
        not_yet("snapshots")
    }

    async fn list_snapshots(&self) -> Result<Vec<CloudSnapshot>, CloudError> {
        not_yet("snapshots")
    }

    async fn delete_snapshot(
        &self,
        _id: &str,
        _installation: InstallationId,
    ) -> Result<(), CloudError> {
        not_yet("snapshots")
    }

    async fn ensure_address(
        &self,
        _name: &str,
        _region: &RegionName,
        _vm: Option<&str>,
        _labels: &BTreeMap<String, String>,
    ) -> Result<Option<CloudAddress>, CloudError> {
        not_yet("addresses")
    }

    async fn list_addresses(&self) -> Result<Vec<CloudAddress>, CloudError> {
        not_yet("addresses")
    }

    async fn assign_address(
        &self,
        _id: &str,
        _vm: &str,
        _installation: InstallationId,
    ) -> Result<CloudAddress, CloudError> {
        not_yet("addresses")
    }

    async fn release_address(
        &self,
        _id: &str,
        _installation: InstallationId,
    ) -> Result<(), CloudError> {
        not_yet("addresses")
    }

    async fn delete_address(
        &self,
        _id: &str,
        _installation: InstallationId,
    ) -> Result<(), CloudError> {
        not_yet("addresses")
    }
}

/// SEAM: goes with the last of its callers.
fn not_yet<T>(what: &str) -> Result<T, CloudError> {
    Err(CloudError::NotOffered { provider: PROVIDER, what: what.to_owned() })
}
