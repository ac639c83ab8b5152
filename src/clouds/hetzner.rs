//! Hetzner Cloud: a thin client, and nothing of its JSON leaves this folder.

mod account;
mod actions;
mod addresses;
mod changes;
mod power;
mod refusal;
mod servers;
mod snapshots;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use url::Url;

use super::{
    AccountFacts, Cloud, CloudAddress, CloudError, CloudSnapshot, CloudVm, ExtraPrices, FieldFault,
    Rebuild, Resize, ResizeRules, StoppedVm, VmOrder,
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
        self.extras().await
    }

    fn resize_rules(&self) -> ResizeRules {
        changes::RESIZE_RULES
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
        self.power_off(id, installation, grace).await
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
        self.take_over(id, labels).await
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
        self.change_size(id, installation, resize).await
    }

    async fn snapshot_vm(
        &self,
        id: &str,
        installation: InstallationId,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<CloudSnapshot, CloudError> {
        self.keep_disk(id, installation, name, labels).await
    }

    async fn list_snapshots(&self) -> Result<Vec<CloudSnapshot>, CloudError> {
        self.snapshots().await
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
        name: &str,
        region: &RegionName,
        vm: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> Result<Option<CloudAddress>, CloudError> {
        self.own_address(name, region, vm, labels).await.map(Some)
    }

    async fn list_addresses(&self) -> Result<Vec<CloudAddress>, CloudError> {
        self.addresses().await
    }

    async fn assign_address(
        &self,
        id: &str,
        vm: &str,
        installation: InstallationId,
    ) -> Result<CloudAddress, CloudError> {
        self.give_address(id, vm, installation).await
    }

    async fn release_address(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        self.take_address(id, installation).await
    }

    async fn delete_address(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        self.drop_address(id, installation).await
    }
}

/// A request that is wrong in one field.
fn invalid(field: &str, message: &str) -> CloudError {
    let fields = vec![FieldFault { field: field.to_owned(), message: message.to_owned() }];
    CloudError::Invalid { provider: PROVIDER, fields }
}
