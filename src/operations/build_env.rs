//! Variables of the image's build. Their values lie at GitHub, one for each environment, as Actions
//! variables (plain) or secrets; here are only their names and marks.

use super::env::{Change, Changed};
use super::environments::{app, environment};
use super::{Context, OpError};
use crate::domain::env_values::EnvClass;
use crate::domain::environment::Environment;
use crate::domain::names::EnvironmentPath;
use crate::domain::run_settings::BuildVariable;
use crate::pipeline::Names;

/// How often a change is tried while others change the environment's settings.
const TRIES: u32 = 5;

/// Sets and unsets variables of the build: merges, never replaces all. The names are kept first, so
/// that what was written to GitHub is never forgotten; the same call again writes what is missing.
///
/// # Errors
/// GitHub does not take a value, or nothing is to change.
pub async fn set(
    context: &Context,
    path: &EnvironmentPath,
    changes: Vec<Change>,
) -> Result<Changed, OpError> {
    let (before, after) = keep(context, path, &changes).await?;
    let row = app(&context.store, &path.app).await?;
    let github = context.accounts.github().await?;
    let repo = &row.app.repo;
    let mut changed =
        Changed { environment: after.clone(), keys: vec![], unchanged: vec![], warnings: vec![] };
    for change in changes {
        let name = Names::of(&row.app).build_variable(path, &change.key);
        let was = before.run.build_variables.get(&change.key);
        // A name is in one of the two stores: in the other one a former value would stay.
        let moved = was.is_none_or(|was| was.secret != (change.class == EnvClass::Secret));
        match (&change.value, change.class) {
            (Some(value), EnvClass::Secret) => github.put_secret(repo, &name, value).await?,
            (Some(value), EnvClass::Plain) => {
                github.put_variable(repo, &name, value.expose()).await?;
            }
            (None, _) => {}
        }
        if change.value.is_none() || (moved && change.class == EnvClass::Plain) {
            github.delete_secret(repo, &name).await?;
        }
        if change.value.is_none() || (moved && change.class == EnvClass::Secret) {
            github.delete_variable(repo, &name).await?;
        }
        let same = was == after.run.build_variables.get(&change.key);
        if same { &mut changed.unchanged } else { &mut changed.keys }.push(change.key);
    }
    Ok(changed)
}

/// Notes the names; the environment before and after.
async fn keep(
    context: &Context,
    path: &EnvironmentPath,
    changes: &[Change],
) -> Result<(Environment, Environment), OpError> {
    for _ in 0..TRIES {
        let before = environment(&context.store, path).await?;
        let mut after = before.clone();
        for change in changes {
            let variables = &mut after.run.build_variables;
            match &change.value {
                None => drop(variables.remove(&change.key)),
                Some(value) => {
                    let secret = change.class == EnvClass::Secret;
                    let mark = context.vault.mark(value);
                    variables.insert(change.key.clone(), BuildVariable { secret, mark });
                }
            }
        }
        if context.store.set_environment_run(before.clone(), after.clone()).await? {
            return Ok((before, after));
        }
    }
    Err(OpError::EnvRace)
}

/// Deletes them at GitHub, where an environment goes for good. What is gone already is fine.
pub(super) async fn forget(context: &Context, path: &EnvironmentPath) -> Result<(), OpError> {
    let environment = environment(&context.store, path).await?;
    if environment.run.build_variables.is_empty() {
        return Ok(());
    }
    let row = app(&context.store, &path.app).await?;
    let github = context.accounts.github().await?;
    for (key, variable) in &environment.run.build_variables {
        let name = Names::of(&row.app).build_variable(path, key);
        match variable.secret {
            true => github.delete_secret(&row.app.repo, &name).await?,
            false => github.delete_variable(&row.app.repo, &name).await?,
        }
    }
    Ok(())
}
