//! The clouds that VMs are ordered from: one trait, one variant per cloud.
//!
//! Every resource that VMKit makes carries its installation as a label; what carries another label
//! or none is shown, and never changed. A lost answer is never taken for "nothing happened".

mod error;
pub mod hetzner;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use url::Url;

pub use error::{CloudError, FieldFault};
pub use hetzner::Hetzner;

pub use crate::requests::{Pace, RequestError, Waits};

use crate::domain::clock::Millis;
use crate::domain::ids::{InstallationId, OperationId, VmId};
use crate::domain::money::Currency;
use crate::domain::names::{RegionName, SizeName};
use crate::domain::secret::Secret;
use crate::domain::size::{Arch, Size};

/// The label that says whose a resource is: the installation's bare id.
pub const LABEL_INSTALLATION: &str = "vmkit.io/installation";
/// The label that says which VM a server is: the VM's bare id.
pub const LABEL_VM: &str = "vmkit.io/vm";
/// The label that says which operation ordered a server: the operation's bare id.
pub const LABEL_OPERATION: &str = "vmkit.io/op";

/// The labels of a VM's server.
pub fn vm_labels(
    installation: InstallationId,
    vm: VmId,
    operation: Option<OperationId>,
) -> BTreeMap<String, String> {
    let mut labels = installation_label(installation);
    labels.insert(LABEL_VM.to_owned(), vm.bare());
    if let Some(operation) = operation {
        labels.insert(LABEL_OPERATION.to_owned(), operation.bare());
    }
    labels
}

/// The label of everything else that an installation makes.
pub fn installation_label(installation: InstallationId) -> BTreeMap<String, String> {
    BTreeMap::from([(LABEL_INSTALLATION.to_owned(), installation.bare())])
}

/// What an account is and what its token may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountFacts {
    /// What it is billed in.
    pub currency: Currency,
    /// Whether the token may change things; none where the cloud did not say.
    pub can_write: Option<bool>,
    /// How many servers there are.
    pub servers: u32,
    /// How many of them are not this installation's.
    pub foreign_servers: u32,
}

/// Where a server is in its life, as its cloud says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloudVmState {
    /// Up.
    Running,
    /// On its way up.
    Starting,
    /// On its way down.
    Stopping,
    /// Down, and billed.
    Off,
    /// On its way out.
    Deleting,
    /// Anything else, in the cloud's own word.
    Other(String),
}

/// A server as its cloud describes it, ours or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudVm {
    /// The cloud's own id.
    pub provider_id: String,
    /// Its name, unique in the account.
    pub name: String,
    /// Where it is in its life.
    pub state: CloudVmState,
    /// Its public IPv4 address, once it has one.
    pub address: Option<IpAddr>,
    /// Its size, in the cloud's word.
    pub size: String,
    /// Its region, in the cloud's word.
    pub region: String,
    /// Its architecture, where we know it.
    pub arch: Option<Arch>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether the cloud refuses to delete it until somebody lifts that.
    pub protected: bool,
    /// When it was made.
    pub created: Option<Millis>,
}

impl CloudVm {
    /// Whether this installation made it.
    pub fn belongs_to(&self, installation: InstallationId) -> bool {
        self.labels.get(LABEL_INSTALLATION).is_some_and(|id| *id == installation.bare())
    }
}

/// A server to order.
#[derive(Debug, Clone)]
pub struct VmOrder {
    /// Its name, made of the VM's own id, so that a retry finds it.
    pub name: String,
    /// Its size.
    pub size: SizeName,
    /// Its region.
    pub region: RegionName,
    /// Its image, as [`Cloud::image`] names it.
    pub image: String,
    /// What it runs at its first boot; holds a single-use token.
    pub user_data: Secret,
    /// SSH keys, as [`Cloud::ensure_ssh_key`] names them.
    pub ssh_keys: Vec<String>,
    /// Firewalls, as [`Cloud::ensure_firewall`] names them.
    pub firewalls: Vec<String>,
    /// Its labels, from [`vm_labels`].
    pub labels: BTreeMap<String, String>,
}

/// What VMKit needs of a cloud.
pub trait Cloud: Send + Sync {
    /// What the account is, and whether the token works and may write. Changes nothing.
    fn check(
        &self,
        installation: InstallationId,
    ) -> impl Future<Output = Result<AccountFacts, CloudError>> + Send;

    /// Every size in every region, cheapest first, with its live price, IPv4 included; not
    /// available where the cloud says so or is phasing it out.
    fn sizes(&self) -> impl Future<Output = Result<Vec<Size>, CloudError>> + Send;

    /// The image to order for an architecture: Debian 13, else Debian 12.
    fn image(&self, arch: Arch) -> impl Future<Output = Result<String, CloudError>> + Send;

    /// The cloud's id of a public key (OpenSSH form): found by the key itself, whoever stored it,
    /// else made under `name`.
    fn ensure_ssh_key(
        &self,
        name: &str,
        public_key: &str,
        installation: InstallationId,
    ) -> impl Future<Output = Result<String, CloudError>> + Send;

    /// Deletes the key of that name if it is ours; one that is absent is fine.
    fn delete_ssh_key(
        &self,
        name: &str,
        installation: InstallationId,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// The cloud's id of our firewall of that name, made if absent: in come 22, 80, 443 and ICMP,
    /// over IPv4 and IPv6; everything goes out. One that exists keeps the rules it has.
    fn ensure_firewall(
        &self,
        name: &str,
        installation: InstallationId,
    ) -> impl Future<Output = Result<String, CloudError>> + Send;

    /// Deletes the firewall of that name if it is ours; absent is fine, in use is retryable.
    fn delete_firewall(
        &self,
        name: &str,
        installation: InstallationId,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// The server of that name, ours or not.
    fn find_vm(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<CloudVm>, CloudError>> + Send;

    /// The server with that id; none where it is gone.
    fn get_vm(&self, id: &str) -> impl Future<Output = Result<Option<CloudVm>, CloudError>> + Send;

    /// Every server of the account.
    fn list_vms(&self) -> impl Future<Output = Result<Vec<CloudVm>, CloudError>> + Send;

    /// Orders a server, or adopts the one of that name that this installation ordered before. Ends
    /// in one server or none, whatever happens to the answers: after a lost one it looks.
    fn create_vm(
        &self,
        order: &VmOrder,
    ) -> impl Future<Output = Result<CloudVm, CloudError>> + Send;

    /// Waits until the server runs and has an address, for at most `limit`.
    fn wait_running(
        &self,
        id: &str,
        limit: Duration,
    ) -> impl Future<Output = Result<CloudVm, CloudError>> + Send;

    /// Deletes the server if it is this installation's, and waits until it is gone; absent is fine,
    /// protected is an error.
    fn delete_vm(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;
}

/// A cloud that was picked at run time.
#[derive(Debug, Clone)]
pub enum AnyCloud {
    /// Hetzner Cloud.
    Hetzner(Hetzner),
}

impl AnyCloud {
    /// The clouds that [`Self::connect`] knows.
    pub const PROVIDERS: [&'static str; 1] = ["hetzner"];

    /// A client for `provider` (`hetzner`); talks to nobody yet.
    pub fn connect(
        provider: &str,
        base_url: &Url,
        token: Secret,
        pace: Pace,
    ) -> Result<Self, CloudError> {
        match provider {
            "hetzner" => Ok(Self::Hetzner(Hetzner::new(base_url, token, pace)?)),
            _ => Err(CloudError::UnknownProvider { provider: crate::requests::clean(provider) }),
        }
    }

    /// Its name in the store: `hetzner`.
    pub fn provider(&self) -> &'static str {
        match self {
            Self::Hetzner(_) => "hetzner",
        }
    }
}

macro_rules! each_cloud {
    ($self:ident, $cloud:ident => $call:expr) => {
        match $self {
            AnyCloud::Hetzner($cloud) => $call.await,
        }
    };
}

impl Cloud for AnyCloud {
    async fn check(&self, installation: InstallationId) -> Result<AccountFacts, CloudError> {
        each_cloud!(self, cloud => cloud.check(installation))
    }

    async fn sizes(&self) -> Result<Vec<Size>, CloudError> {
        each_cloud!(self, cloud => cloud.sizes())
    }

    async fn image(&self, arch: Arch) -> Result<String, CloudError> {
        each_cloud!(self, cloud => cloud.image(arch))
    }

    async fn ensure_ssh_key(
        &self,
        name: &str,
        public_key: &str,
        installation: InstallationId,
    ) -> Result<String, CloudError> {
        each_cloud!(self, cloud => cloud.ensure_ssh_key(name, public_key, installation))
    }

    async fn delete_ssh_key(
        &self,
        name: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        each_cloud!(self, cloud => cloud.delete_ssh_key(name, installation))
    }

    async fn ensure_firewall(
        &self,
        name: &str,
        installation: InstallationId,
    ) -> Result<String, CloudError> {
        each_cloud!(self, cloud => cloud.ensure_firewall(name, installation))
    }

    async fn delete_firewall(
        &self,
        name: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        each_cloud!(self, cloud => cloud.delete_firewall(name, installation))
    }

    async fn find_vm(&self, name: &str) -> Result<Option<CloudVm>, CloudError> {
        each_cloud!(self, cloud => cloud.find_vm(name))
    }

    async fn get_vm(&self, id: &str) -> Result<Option<CloudVm>, CloudError> {
        each_cloud!(self, cloud => cloud.get_vm(id))
    }

    async fn list_vms(&self) -> Result<Vec<CloudVm>, CloudError> {
        each_cloud!(self, cloud => cloud.list_vms())
    }

    async fn create_vm(&self, order: &VmOrder) -> Result<CloudVm, CloudError> {
        each_cloud!(self, cloud => cloud.create_vm(order))
    }

    async fn wait_running(&self, id: &str, limit: Duration) -> Result<CloudVm, CloudError> {
        each_cloud!(self, cloud => cloud.wait_running(id, limit))
    }

    async fn delete_vm(&self, id: &str, installation: InstallationId) -> Result<(), CloudError> {
        each_cloud!(self, cloud => cloud.delete_vm(id, installation))
    }
}
