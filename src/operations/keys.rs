//! The deploy key and the host key at GitHub: what a workflow run needs to reach a VM.

use super::environments::{app, environment};
use super::{Context, OpError, webhooks};
use crate::domain::ids::VmId;
use crate::domain::names::EnvironmentPath;
use crate::pipeline::{known_hosts_variable, ssh_key_secret};
use crate::vault::Purpose;

/// Puts the deploy key and the VM's host key where the workflow finds them, and the webhook in order
/// where there is one; what could not be done and is no need is answered.
pub(super) async fn grant(
    context: &Context,
    path: &EnvironmentPath,
    vm: VmId,
) -> Result<Option<String>, OpError> {
    let store = &context.store;
    let row = app(store, &path.app).await?;
    let github = context.accounts.github().await?;
    let no_vm = || OpError::NoVm { environment: path.to_string() };
    let environment = environment(store, path).await?;
    let key = store.deploy_key(environment.id, vm).await?.ok_or_else(no_vm)?;
    let sealed = store.secret(key.secret).await?.unwrap_or_default();
    let private = context.vault.unseal(&sealed, Purpose::DeployKey, &key.secret.to_string())?;
    let vm = store.vm(vm).await?.ok_or_else(no_vm)?;
    let known_hosts = vm.vm.known_hosts.unwrap_or_default();
    github.put_secret(&row.app.repo, &ssh_key_secret(path), &private).await?;
    github.put_variable(&row.app.repo, &known_hosts_variable(path), &known_hosts).await?;
    webhooks::ensure(context, &row.app.repo).await
}

/// Deletes what only this environment's workflow runs use. What is gone already is fine.
pub(super) async fn revoke(context: &Context, path: &EnvironmentPath) -> Result<(), OpError> {
    let row = app(&context.store, &path.app).await?;
    let github = context.accounts.github().await?;
    github.delete_secret(&row.app.repo, &ssh_key_secret(path)).await?;
    github.delete_variable(&row.app.repo, &known_hosts_variable(path)).await?;
    webhooks::drop_unneeded(context, &path.app, &row.app.repo).await?;
    Ok(())
}
