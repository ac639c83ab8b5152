//! For the tests of parts that may not know what operations are made of: a context, and the steps.

use std::sync::Arc;
use std::time::Duration;

use super::agents::AgentBinaries;
use super::{Context, Kind, Pace, Settings};
use crate::accounts::Accounts;
use crate::agent_releases::AgentReleases;
use crate::domain::clock::{Clock, Millis};
use crate::domain::ids::InstallationId;
use crate::fleet::Fleet;
use crate::store::{OperationRow, Store};
use crate::vault::{MasterKey, Vault};

/// A context on a fresh state file, without accounts and with nobody to drive operations. Its
/// clock stands at one second. The folder goes with the second value.
pub(crate) async fn context() -> (Arc<Context>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("vmkit.db")).await.expect("a store");
    let key = MasterKey::from_file(&folder.path().join("master.key")).expect("a key");
    let vault = Arc::new(Vault::open(key));
    let context = Context {
        accounts: Accounts::none(store.clone(), Arc::clone(&vault)),
        store,
        vault,
        fleet: Fleet::remote(folder.path().join("nobody.sock")),
        clock: Clock::hand(Millis(1_000)),
        pace: Pace::default(),
        resolver: crate::dns::resolve::Resolver::default(),
        news: crate::operations::webhooks::News::new(None),
        agent_binaries: Arc::new(AgentBinaries::new(None, AgentReleases::none())),
        settings: Settings {
            installation: InstallationId::generate(),
            gateway: None,
            ssh_port: 22,
            registry_mirror: None,
            owner_key: None,
            steady: Duration::ZERO,
            agent_wait: Duration::ZERO,
        },
    };
    (Arc::new(context), folder)
}

/// Every kind of operation with the version of its steps.
pub(crate) fn kinds() -> Vec<(Kind, u32)> {
    // Matched without `_`, so that a new kind cannot be left out.
    let next = |kind| match kind {
        Kind::SetupRepo => Some(Kind::ProvisionVm),
        Kind::ProvisionVm => Some(Kind::AdoptVm),
        Kind::AdoptVm => Some(Kind::Deploy),
        Kind::Deploy => Some(Kind::Destroy),
        Kind::Destroy => Some(Kind::Retire),
        Kind::Retire => Some(Kind::Restore),
        Kind::Restore => Some(Kind::ResizeVm),
        Kind::ResizeVm => Some(Kind::MaintainVm),
        Kind::MaintainVm => Some(Kind::ManageDomain),
        Kind::ManageDomain => Some(Kind::ConfigureApp),
        Kind::ConfigureApp => Some(Kind::ManageService),
        Kind::ManageService => Some(Kind::RemoveService),
        Kind::RemoveService => Some(Kind::ControlApp),
        Kind::ControlApp => Some(Kind::TestBuild),
        Kind::TestBuild => None,
    };
    let all = std::iter::successors(Some(Kind::SetupRepo), |kind| next(*kind));
    all.map(|kind| (kind, kind.version())).collect()
}

/// Whether these are the stored name and a version of a kind.
pub(crate) fn parses_as(kind: Kind, name: &str, version: u32) -> bool {
    Kind::parse(name, version) == Ok(kind)
}

/// The names of an operation's steps as the driver would run it; why not, where it would not.
pub(crate) fn step_names(
    row: &OperationRow,
    context: &Context,
) -> Result<Vec<&'static str>, String> {
    let operation = Kind::parse(&row.kind, row.version)?.load(row, context)?;
    Ok(operation.steps().iter().map(|step| step.name).collect())
}
