//! The deploy key and the host key at GitHub: what a workflow run needs to reach a VM.

use std::time::Duration;

use vmkit_agent_protocol::care::{Care, KeyUser, ReplaceKey};

use super::environments::{app, environment};
use super::maintain_vm::care;
use super::provision_vm::deploy_key_pair;
use super::{Context, OpError, webhooks};
use crate::domain::environment::Environment;
use crate::domain::ids::{SecretId, VmId};
use crate::domain::names::EnvironmentPath;
use crate::pipeline::Names;
use crate::store::DeployKey;
use crate::vault::Purpose;

/// How long a VM may take to let a key in.
const AGENT_WAIT: Duration = Duration::from_secs(20);

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
    let key = let_in(context, &environment, vm).await?;
    let sealed = store.secret(key.secret).await?.unwrap_or_default();
    let private = context.vault.unseal(&sealed, Purpose::DeployKey, &key.secret.to_string())?;
    let vm = store.vm(vm).await?.ok_or_else(no_vm)?;
    let known_hosts = vm.vm.known_hosts.unwrap_or_default();
    let names = Names::of(&row.app);
    github.put_secret(&row.app.repo, &names.ssh_key_secret(path), &private).await?;
    github.put_variable(&row.app.repo, &names.known_hosts_variable(path), &known_hosts).await?;
    webhooks::ensure(context, &row.app.repo).await
}

/// The key that deploys the environment, which its VM lets in. An environment that moved in with
/// others gets its key here. Once it was deployed, the VM knows the key.
async fn let_in(
    context: &Context,
    environment: &Environment,
    vm: VmId,
) -> Result<DeployKey, OpError> {
    let store = &context.store;
    let known = store.deploy_key(environment.id, vm).await?;
    let is_new = known.is_none();
    let key = match known {
        Some(key) => key,
        None => {
            let (public_key, private) = deploy_key_pair(&environment.path)?;
            let secret = SecretId::generate();
            let sealed = context.vault.seal(&private, Purpose::DeployKey, &secret.to_string())?;
            let key = DeployKey { environment: environment.id, vm, public_key, secret };
            let purpose = Purpose::DeployKey.as_str();
            store.put_deploy_key(key, purpose, sealed, context.clock.now()).await?
        }
    };
    if !store.releases(environment.id, 1).await?.is_empty() {
        return Ok(key);
    }
    let new = Some(key.public_key.clone());
    let care = Care::ReplaceKey(ReplaceKey { user: KeyUser::Kamal, old: None, new });
    match care::ask(context, vm, care, AGENT_WAIT).await {
        // It was made when the VM was, so an agent that cannot be told has it already.
        Err(OpError::AgentTooOld { .. }) if !is_new => Ok(key),
        answered => answered.map(|_| key),
    }
}

/// Deletes what only this environment's workflow runs use. What is gone already is fine.
pub(super) async fn revoke(context: &Context, path: &EnvironmentPath) -> Result<(), OpError> {
    let row = app(&context.store, &path.app).await?;
    let github = context.accounts.github().await?;
    let names = Names::of(&row.app);
    github.delete_secret(&row.app.repo, &names.ssh_key_secret(path)).await?;
    github.delete_variable(&row.app.repo, &names.known_hosts_variable(path)).await?;
    webhooks::drop_unneeded(context, &path.app, &row.app.repo).await?;
    Ok(())
}
