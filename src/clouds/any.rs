//! The cloud that was picked at run time: every call goes to the one that it is.

use std::collections::BTreeMap;
use std::time::Duration;

use url::Url;

use super::{
    AccountFacts, Cloud, CloudAddress, CloudError, CloudSnapshot, CloudVm, DigitalOcean,
    ExtraPrices, Hetzner, Pace, Rebuild, Resize, ResizeRules, StoppedVm, VmOrder,
};
use crate::domain::ids::InstallationId;
use crate::domain::names::RegionName;
use crate::domain::secret::Secret;
use crate::domain::size::{Arch, Size};

/// A cloud that was picked at run time.
#[derive(Debug, Clone)]
pub enum AnyCloud {
    /// Hetzner Cloud.
    Hetzner(Hetzner),
    /// DigitalOcean.
    DigitalOcean(DigitalOcean),
}

impl AnyCloud {
    /// The clouds that [`Self::connect`] knows.
    pub const PROVIDERS: [&'static str; 2] = ["hetzner", "digitalocean"];

    /// A client for `provider` (`hetzner`, `digitalocean`); talks to nobody yet.
    pub fn connect(
        provider: &str,
        base_url: &Url,
        token: Secret,
        pace: Pace,
    ) -> Result<Self, CloudError> {
        match provider {
            "hetzner" => Ok(Self::Hetzner(Hetzner::new(base_url, token, pace)?)),
            "digitalocean" => Ok(Self::DigitalOcean(DigitalOcean::new(base_url, token, pace)?)),
            _ => Err(CloudError::UnknownProvider { provider: crate::requests::clean(provider) }),
        }
    }

    /// Its name in the store: `hetzner`, `digitalocean`.
    pub fn provider(&self) -> &'static str {
        match self {
            Self::Hetzner(_) => "hetzner",
            Self::DigitalOcean(_) => "digitalocean",
        }
    }
}

/// Writes each method of [`Cloud`] as a match over the clouds.
macro_rules! forward {
    ($(async fn $name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(async fn $name(&self, $($arg: $type),*) -> Result<$answer, CloudError> {
            match self {
                Self::Hetzner(cloud) => cloud.$name($($arg),*).await,
                Self::DigitalOcean(cloud) => cloud.$name($($arg),*).await,
            }
        })*
    };
}

impl Cloud for AnyCloud {
    fn resize_rules(&self) -> ResizeRules {
        match self {
            Self::Hetzner(cloud) => cloud.resize_rules(),
            Self::DigitalOcean(cloud) => cloud.resize_rules(),
        }
    }

    forward! {
        async fn check(installation: InstallationId) -> AccountFacts;
        async fn sizes() -> Vec<Size>;
        async fn extra_prices() -> ExtraPrices;
        async fn image(arch: Arch) -> String;
        async fn ensure_ssh_key(name: &str, public_key: &str, installation: InstallationId) -> String;
        async fn delete_ssh_key(name: &str, installation: InstallationId) -> ();
        async fn ensure_firewall(name: &str, installation: InstallationId) -> String;
        async fn delete_firewall(name: &str, installation: InstallationId) -> ();
        async fn find_vm(name: &str) -> Option<CloudVm>;
        async fn get_vm(id: &str) -> Option<CloudVm>;
        async fn list_vms() -> Vec<CloudVm>;
        async fn create_vm(order: &VmOrder) -> CloudVm;
        async fn wait_running(id: &str, limit: Duration) -> CloudVm;
        async fn start_vm(id: &str, installation: InstallationId, limit: Duration) -> CloudVm;
        async fn stop_vm(id: &str, installation: InstallationId, grace: Duration) -> StoppedVm;
        async fn cycle_vm(id: &str, installation: InstallationId, limit: Duration) -> CloudVm;
        async fn rename_vm(id: &str, installation: InstallationId, name: &str) -> CloudVm;
        async fn adopt_vm(id: &str, labels: &BTreeMap<String, String>) -> CloudVm;
        async fn disown_vm(id: &str, installation: InstallationId) -> ();
        async fn rebuild_vm(id: &str, installation: InstallationId, rebuild: &Rebuild) -> CloudVm;
        async fn resize_vm(id: &str, installation: InstallationId, resize: &Resize) -> CloudVm;
        async fn delete_vm(id: &str, installation: InstallationId) -> ();
        async fn snapshot_vm(id: &str, installation: InstallationId, name: &str, labels: &BTreeMap<String, String>) -> CloudSnapshot;
        async fn list_snapshots() -> Vec<CloudSnapshot>;
        async fn delete_snapshot(id: &str, installation: InstallationId) -> ();
        async fn ensure_address(name: &str, region: &RegionName, vm: Option<&str>, labels: &BTreeMap<String, String>) -> Option<CloudAddress>;
        async fn list_addresses() -> Vec<CloudAddress>;
        async fn assign_address(id: &str, vm: &str, installation: InstallationId) -> CloudAddress;
        async fn release_address(id: &str, installation: InstallationId) -> ();
        async fn delete_address(id: &str, installation: InstallationId) -> ();
    }
}
