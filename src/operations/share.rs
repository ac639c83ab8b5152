//! A VM that environments share: what has to hold before another one moves in. Nothing is ordered and
//! nothing outside is touched; its first deploy lets its key in and writes its files.

mod memory;

pub use memory::short as memory_short;

use super::downtime::inhabited;
use super::repo::kept_scan;
use super::{Context, OpError};
use crate::domain::environment::{Environment, Settings};
use crate::domain::ids::VmId;
use crate::domain::names::EnvironmentPath;
use crate::domain::run_settings::RunSettings;
use crate::domain::size::Arch;
use crate::pipeline::scan::Scan;
use crate::pipeline::{EnvironmentSetup, Setup};
use crate::store::{AppRow, VmRow};

/// Why an environment cannot move in with others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what its fields are")]
pub enum ShareError {
    #[error(
        "`{neighbour}` answers every name on that VM, because it has no domain, and so would `{environment}`"
    )]
    NoName { environment: String, neighbour: String },
    #[error("`{environment}` and `{neighbour}` would both be the service `{service}` on that VM")]
    SameService { environment: String, neighbour: String, service: String },
}

impl ShareError {
    /// A stable word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoName { .. } => "share_needs_domain",
            Self::SameService { .. } => "share_same_service",
        }
    }

    /// What to do next.
    pub fn fix(&self) -> String {
        match self {
            Self::NoName { .. } => {
                "give a `domain`, by which the proxy tells the two apart, or a domain to the other one (`manage_domain`, action add)".into()
            }
            Self::SameService { .. } => "choose another name for the environment".into(),
        }
    }
}

/// The VM that is to be shared: what is on it has its size and region.
///
/// # Errors
/// The VM is not ready.
pub async fn place(context: &Context, vm: VmId) -> Result<VmRow, OpError> {
    Ok(inhabited(context, vm).await?.row)
}

/// Whether an environment of `app` may move in; how it will be run, which is before the same proxy
/// as its neighbours.
pub(super) async fn may_move_in(
    context: &Context,
    app: &AppRow,
    path: &EnvironmentPath,
    settings: &Settings,
    vm: VmId,
) -> Result<RunSettings, OpError> {
    let here = inhabited(context, vm).await?;
    let service = path.service();
    let same = here.environments.iter().find(|other| other.path.service() == service);
    if let Some(other) = same {
        let (environment, neighbour) = (path.to_string(), other.path.to_string());
        return Err(ShareError::SameService { environment, neighbour, service }.into());
    }
    let run = match here.environments.first() {
        Some(first) => RunSettings { proxy: first.run.proxy, ..RunSettings::default() },
        None => RunSettings::default(),
    };
    if settings.domain.is_none() && serves(app, path, settings, &run)? {
        for other in here.environments.iter().filter(|one| one.settings.domain.is_none()) {
            let theirs = super::environments::app(&context.store, &other.path.app).await?;
            if serves(&theirs, &other.path, &other.settings, &other.run)? {
                let (environment, neighbour) = (path.to_string(), other.path.to_string());
                return Err(ShareError::NoName { environment, neighbour }.into());
            }
        }
    }
    Ok(run)
}

/// Whether anything of the environment answers requests; an app that cannot be built does not.
fn serves(
    row: &AppRow,
    path: &EnvironmentPath,
    settings: &Settings,
    run: &RunSettings,
) -> Result<bool, OpError> {
    let scan: Scan = kept_scan(row)?;
    let Some(build) = scan.build.clone() else { return Ok(false) };
    let environment = Environment {
        id: crate::domain::ids::EnvironmentId::generate(),
        app: row.app.id,
        path: path.clone(),
        vm: None,
        settings: settings.clone(),
        run: run.clone(),
        env_revision: 0,
        created_at: row.app.created_at,
    };
    let setup = Setup::of(&row.app, build, &scan, Vec::new());
    Ok(setup.serves(&EnvironmentSetup::of(&environment, None, Arch::Amd64)))
}
