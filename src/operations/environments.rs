//! Naming environments, and finding them by name.

use super::catalogue::{Age, catalogue};
use super::{Context, OpError, share};
use crate::domain::environment::{Environment, Settings, Vm};
use crate::domain::ids::{EnvironmentId, VmId};
use crate::domain::names::{AppSlug, EnvironmentPath};
use crate::domain::retirement::RetirementState;
use crate::domain::run_settings::RunSettings;
use crate::store::{AppRow, Store};

/// An app by its slug.
///
/// # Errors
/// [`OpError::UnknownApp`], which names the apps that there are.
pub async fn app(store: &Store, slug: &AppSlug) -> Result<AppRow, OpError> {
    if let Some(row) = store.app(slug.clone()).await? {
        return Ok(row);
    }
    let apps = store.apps().await?;
    let names: Vec<String> = apps.iter().map(|row| format!("`{}`", row.app.slug)).collect();
    Err(OpError::UnknownApp { app: slug.to_string(), known: known("app", "apps", &names) })
}

/// An environment by `app/name`.
///
/// # Errors
/// [`OpError::UnknownEnvironment`], which names the environments that there are.
pub async fn environment(store: &Store, path: &EnvironmentPath) -> Result<Environment, OpError> {
    if let Some(found) = store.environment(path.clone()).await? {
        return Ok(found);
    }
    let all = store.environments().await?;
    let names: Vec<String> = all.iter().map(|e| format!("`{}`", e.path)).collect();
    Err(OpError::UnknownEnvironment {
        environment: path.to_string(),
        known: known("environment", "environments", &names),
    })
}

/// Fails where the environment was destroyed and can still be restored: only `destroy` may touch it.
///
/// # Errors
/// [`OpError::Retired`].
pub(super) async fn not_retired(store: &Store, environment: &Environment) -> Result<(), OpError> {
    match store.retirement_of(environment.id).await? {
        Some(kept) if kept.state == RetirementState::Kept => {
            Err(OpError::Retired { environment: environment.path.to_string(), until: kept.until() })
        }
        _ => Ok(()),
    }
}

fn known(one: &str, many: &str, names: &[String]) -> String {
    match names {
        [] => format!("there is no {one} yet"),
        [name] => format!("there is one {one}: {name}"),
        names => format!("there are {} {many}: {}", names.len(), names.join(", ")),
    }
}

/// What an environment is to be.
#[derive(Debug, Clone)]
pub struct NewEnvironment {
    /// `app/name`.
    pub path: EnvironmentPath,
    /// Its settings; port and health path come from the scan where nobody chose them.
    pub settings: Settings,
    /// A VM that it shares with the environments on it; none where one is to be ordered.
    pub vm: Option<VmId>,
}

/// The port and the health path that the scan of an app found, for settings that nobody chose.
///
/// # Errors
/// [`OpError::UnknownApp`].
pub async fn found(context: &Context, slug: &AppSlug) -> Result<(u16, String), OpError> {
    let scan = super::repo::kept_scan(&app(&context.store, slug).await?)?;
    Ok((scan.port, scan.health_path))
}

/// What a new environment will be run as, and of which cloud its size is.
#[derive(Debug, Clone)]
pub struct Checked {
    app: AppRow,
    provider: String,
    run: RunSettings,
}

/// Whether an environment could be named so, and with these settings. Changes nothing.
///
/// # Errors
/// [`OpError::UnknownApp`], [`OpError::EnvironmentExists`], a size that the region does not have, or
/// a VM that it cannot share.
pub async fn check(context: &Context, new: &NewEnvironment) -> Result<Checked, OpError> {
    let app = app(&context.store, &new.path.app).await?;
    if context.store.environment(new.path.clone()).await?.is_some() {
        return Err(OpError::EnvironmentExists { environment: new.path.to_string() });
    }
    if let Some(domain) = &new.settings.domain
        && let Some(owner) = context.store.owner_of(domain.clone(), None).await?
    {
        let (domain, environment) = (domain.to_string(), owner.to_string());
        return Err(OpError::DomainTaken { domain, environment });
    }
    if let Some(vm) = new.vm {
        let run = share::may_move_in(context, &app, &new.path, &new.settings, vm).await?;
        let provider = share::place(context, vm).await?.vm.provider;
        return Ok(Checked { app, provider, run });
    }
    let run = RunSettings::default();
    if new.settings.provider.as_deref() == Some(Vm::OWN_MACHINE) {
        return Ok(Checked { app, provider: Vm::OWN_MACHINE.to_owned(), run });
    }
    let size = catalogue(context, Age::Now).await?.pick(&new.settings)?;
    Ok(Checked { app, provider: size.provider, run })
}

/// Names an environment of an app; touches nothing outside.
///
/// # Errors
/// As [`check`].
pub async fn create(context: &Context, new: NewEnvironment) -> Result<Environment, OpError> {
    let Checked { app, provider, run } = check(context, &new).await?;
    let environment = Environment {
        id: EnvironmentId::generate(),
        app: app.app.id,
        path: new.path,
        vm: new.vm,
        settings: Settings { provider: Some(provider), ..new.settings },
        run,
        env_revision: 0,
        created_at: context.clock.now(),
    };
    if context.store.insert_environment(environment.clone()).await? {
        return Ok(environment);
    }
    Err(OpError::EnvironmentExists { environment: environment.path.to_string() })
}
