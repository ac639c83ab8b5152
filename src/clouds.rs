//! The clouds that VMs are ordered from: one trait, one variant per cloud.
//!
//! Every resource that VMKit makes carries its installation as a label; what carries another label
//! or none is shown, and never changed. A lost answer is never taken for "nothing happened".

mod any;
pub mod digitalocean;
mod error;
pub mod hetzner;
mod keys;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

pub use any::AnyCloud;
pub use digitalocean::DigitalOcean;
pub use error::{CloudError, FieldFault};
pub use hetzner::Hetzner;

pub use crate::requests::{Pace, RequestError, Waits};

use crate::domain::clock::Millis;
use crate::domain::ids::{InstallationId, OperationId, VmId};
use crate::domain::money::{Currency, Money};
use crate::domain::names::{RegionName, SizeName};
use crate::domain::secret::Secret;
use crate::domain::size::{Arch, Size};

/// What every label of VMKit's begins with.
pub(crate) const LABELS: &str = "vmkit.io/";

/// The label that says whose a resource is: the installation's bare id.
pub const LABEL_INSTALLATION: &str = "vmkit.io/installation";
/// The label that says which VM a server is: the VM's bare id.
pub const LABEL_VM: &str = "vmkit.io/vm";
/// The label that says which operation ordered a server: the operation's bare id.
pub const LABEL_OPERATION: &str = "vmkit.io/op";

/// The label that says until when a snapshot is kept: seconds since 1970.
pub const LABEL_EXPIRES: &str = "vmkit.io/expires";

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
    /// How many servers the account may have, where the cloud tells.
    pub server_limit: Option<u32>,
    /// What stands in the way of any order, in the cloud's words (an e-mail address that is not
    /// verified, a locked account); none where nothing is known.
    pub blocked: Option<String>,
}

/// What is billed beside servers, per month, net; none where the cloud does not offer it or does
/// not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExtraPrices {
    /// An address of its own that no server uses.
    pub address_unused: Option<Money>,
    /// One GB of a snapshot.
    pub snapshot_gb: Option<Money>,
    /// One GB of a volume: more disk without another size.
    pub volume_gb: Option<Money>,
}

/// What a change of size means at this cloud, for a plan to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResizeRules {
    /// What happens to the price beyond the list, with its source; none where nothing does.
    pub repricing: Option<&'static str>,
    /// How long the server is down, as a rule, in seconds.
    pub downtime_s: u32,
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
    /// Its public IPv4 address, once it has one: the one of its own that survives it, where it has
    /// such a one.
    pub address: Option<IpAddr>,
    /// The host's own address in its IPv6 network, where it has one.
    pub ipv6: Option<Ipv6Addr>,
    /// Its size, in the cloud's word.
    pub size: String,
    /// Its region, in the cloud's word.
    pub region: String,
    /// Its architecture, where we know it.
    pub arch: Option<Arch>,
    /// Its disk in GB, which no size with a smaller one can hold; none where the cloud does not
    /// tell.
    pub disk_gb: Option<u64>,
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
    /// Its image, as [`Cloud::image`] names it, or a snapshot's id.
    pub image: String,
    /// What it runs at its first boot; holds a single-use token.
    pub user_data: Secret,
    /// SSH keys, as [`Cloud::ensure_ssh_key`] names them.
    pub ssh_keys: Vec<String>,
    /// Firewalls, as [`Cloud::ensure_firewall`] names them.
    pub firewalls: Vec<String>,
    /// The address of its own, as [`Cloud::ensure_address`] names it; without one the cloud gives
    /// one that goes with the server.
    pub address: Option<String>,
    /// Its labels, from [`vm_labels`].
    pub labels: BTreeMap<String, String>,
}

/// How a server came to stand still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoppedVm {
    /// The server, off.
    pub vm: CloudVm,
    /// Whether its power was cut because it did not shut down in time.
    pub forced: bool,
}

/// What a server becomes when its disk is written anew.
#[derive(Debug, Clone)]
pub struct Rebuild {
    /// Its image, as [`Cloud::image`] names it, or a snapshot's id.
    pub image: String,
    /// What it runs at its next boot, where the cloud takes it for a rebuild.
    pub user_data: Option<Secret>,
}

/// A change of size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resize {
    /// The new size: same architecture, a disk at least as large.
    pub size: SizeName,
    /// Whether the disk grows too, which forbids smaller sizes for good.
    pub grow_disk: bool,
    /// How long it may take.
    pub limit: Duration,
}

/// A server's disk as it was, ours or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudSnapshot {
    /// The cloud's own id, which an order takes as its image.
    pub provider_id: String,
    /// Its name.
    pub name: String,
    /// Its size in GB as billed, once the cloud knows it; rounded up.
    pub size_gb: Option<u64>,
    /// The smallest disk that it fits on, in GB.
    pub min_disk_gb: u64,
    /// The regions that it can be used in; none where every region can.
    pub regions: Option<Vec<String>>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether the cloud refuses to delete it until somebody lifts that.
    pub protected: bool,
    /// When it was made.
    pub created: Option<Millis>,
}

impl CloudSnapshot {
    /// Whether this installation made it.
    pub fn belongs_to(&self, installation: InstallationId) -> bool {
        self.labels.get(LABEL_INSTALLATION).is_some_and(|id| *id == installation.bare())
    }
}

/// A public IPv4 address that is billed by itself, ours or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudAddress {
    /// The cloud's own id.
    pub provider_id: String,
    /// Its name, where the cloud names addresses.
    pub name: Option<String>,
    /// The address.
    pub address: IpAddr,
    /// The server that uses it, by the cloud's id.
    pub vm: Option<String>,
    /// Its region, in the cloud's word.
    pub region: String,
    /// Its labels; empty where the cloud labels no addresses.
    pub labels: BTreeMap<String, String>,
    /// Whether the cloud refuses to delete it until somebody lifts that.
    pub protected: bool,
}

/// What VMKit needs of a cloud.
///
/// Whatever changes a thing takes the installation and refuses one that is not its own
/// ([`CloudError::Foreign`]); the one exception is [`Cloud::adopt_vm`]. Each call may be repeated
/// and then means the same: it looks first, and after a lost answer it looks again. Each waits
/// until the cloud has finished, within a bound.
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

    /// What is billed beside servers, at today's prices.
    fn extra_prices(&self) -> impl Future<Output = Result<ExtraPrices, CloudError>> + Send;

    /// What a change of size means here.
    fn resize_rules(&self) -> ResizeRules;

    /// Powers the server on unless it runs, and waits until it runs and has an address.
    fn start_vm(
        &self,
        id: &str,
        installation: InstallationId,
        limit: Duration,
    ) -> impl Future<Output = Result<CloudVm, CloudError>> + Send;

    /// Asks the server to shut down, waits for at most `grace`, then cuts its power; answers when
    /// it is off. Off already is fine. It is billed all the same.
    fn stop_vm(
        &self,
        id: &str,
        installation: InstallationId,
        grace: Duration,
    ) -> impl Future<Output = Result<StoppedVm, CloudError>> + Send;

    /// Cuts the power and gives it back, for a server that answers nobody.
    fn cycle_vm(
        &self,
        id: &str,
        installation: InstallationId,
        limit: Duration,
    ) -> impl Future<Output = Result<CloudVm, CloudError>> + Send;

    /// Gives the server another name.
    fn rename_vm(
        &self,
        id: &str,
        installation: InstallationId,
        name: &str,
    ) -> impl Future<Output = Result<CloudVm, CloudError>> + Send;

    /// Makes a server ours by adding `labels` (from [`vm_labels`]) to the ones that it has. Refuses
    /// one that another installation labelled.
    fn adopt_vm(
        &self,
        id: &str,
        labels: &BTreeMap<String, String>,
    ) -> impl Future<Output = Result<CloudVm, CloudError>> + Send;

    /// Takes back what [`Cloud::adopt_vm`] did: every label of ours goes, the server and its other
    /// labels stay. One that is not ours, or gone, is fine.
    fn disown_vm(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Writes the server's disk anew: all on it is lost. Its id, name and address stay.
    fn rebuild_vm(
        &self,
        id: &str,
        installation: InstallationId,
        rebuild: &Rebuild,
    ) -> impl Future<Output = Result<CloudVm, CloudError>> + Send;

    /// Changes the size of a server that is off; a size that it has already is fine. It may run or
    /// be off afterwards, and also after an error: call [`Cloud::start_vm`] in either case.
    fn resize_vm(
        &self,
        id: &str,
        installation: InstallationId,
        resize: &Resize,
    ) -> impl Future<Output = Result<CloudVm, CloudError>> + Send;

    /// Keeps the server's disk as it is now, or finds the snapshot of that name that this
    /// installation made before. Consistent only of a server that is off.
    fn snapshot_vm(
        &self,
        id: &str,
        installation: InstallationId,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> impl Future<Output = Result<CloudSnapshot, CloudError>> + Send;

    /// Every snapshot of the account.
    fn list_snapshots(&self)
    -> impl Future<Output = Result<Vec<CloudSnapshot>, CloudError>> + Send;

    /// Deletes the snapshot if it is ours; absent is fine, protected is an error.
    fn delete_snapshot(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// An IPv4 address of our own in `region` that survives any server: the one of that name, made
    /// if absent. A cloud that has no names for them makes one only for a server: none there
    /// while `vm` is none, else the one that `vm` has or gets.
    fn ensure_address(
        &self,
        name: &str,
        region: &RegionName,
        vm: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> impl Future<Output = Result<Option<CloudAddress>, CloudError>> + Send;

    /// Every such address of the account.
    fn list_addresses(&self) -> impl Future<Output = Result<Vec<CloudAddress>, CloudError>> + Send;

    /// Gives the address to the server `vm`, which some clouds want to be off for it.
    fn assign_address(
        &self,
        id: &str,
        vm: &str,
        installation: InstallationId,
    ) -> impl Future<Output = Result<CloudAddress, CloudError>> + Send;

    /// Takes the address from its server; it stays ours and is billed.
    fn release_address(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Deletes the address if it is ours and no server uses it; absent is fine.
    fn delete_address(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;
}
