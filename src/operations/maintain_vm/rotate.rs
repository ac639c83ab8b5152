//! New keys for a VM: those that deploy to it, and the one that VMKit itself logs in with. The new
//! ones are let in before the old ones go, and count once they have been used.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;
use vmkit_agent_protocol::care::{Care, KeyUser, ReplaceKey};

use super::care::ask;
use crate::domain::ids::{EnvironmentId, SecretId, VmId};
use crate::domain::names::EnvironmentPath;
use crate::domain::secret::Secret;
use crate::operations::agents::public_line;
use crate::operations::downtime::Inhabited;
use crate::operations::{Context, OpError, Run, keys, links, provision_vm};
use crate::vault::Purpose;

const AGENT_WAIT: Duration = Duration::from_secs(30);
const RELINK_WAIT: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);

/// Where the new keys will be sealed; named before they are made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Rotation {
    deploy: Vec<(EnvironmentId, EnvironmentPath, SecretId)>,
    link: SecretId,
}

impl Rotation {
    pub(super) fn of(here: &Inhabited) -> Self {
        let of = |one: &crate::domain::environment::Environment| {
            (one.id, one.path.clone(), SecretId::generate())
        };
        Self { deploy: here.environments.iter().map(of).collect(), link: SecretId::generate() }
    }
}

/// One key and its successor: public lines, and where the private halves are.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pair {
    user: KeyUser,
    /// None for the link's.
    environment: Option<(EnvironmentId, EnvironmentPath)>,
    old: String,
    old_secret: SecretId,
    new: String,
    new_secret: SecretId,
}

fn pairs(run: &Run<'_>) -> Vec<Pair> {
    serde_json::from_value(run.output("make_keys")["pairs"].clone()).unwrap_or_default()
}

/// Makes the new pairs, for those that there are.
pub(super) async fn make(
    context: &Context,
    rotation: &Rotation,
    vm: VmId,
) -> Result<Value, OpError> {
    let store = &context.store;
    let mut pairs = Vec::new();
    for (id, path, secret) in &rotation.deploy {
        let Some(now) = store.deploy_key(*id, vm).await? else { continue };
        let made = || provision_vm::deploy_key_pair(path);
        let new = made_once(context, *secret, Purpose::DeployKey, made).await?;
        pairs.push(Pair {
            user: KeyUser::Kamal,
            environment: Some((*id, path.clone())),
            old: now.public_key,
            old_secret: now.secret,
            new,
            new_secret: *secret,
        });
    }
    if let Some(link) = store.vm_link(vm).await? {
        let made = || links::key_pair("vmkit-link");
        let new = made_once(context, rotation.link, Purpose::LinkKey, made).await?;
        pairs.push(Pair {
            user: KeyUser::Vmkit,
            environment: None,
            old: link.public_key,
            old_secret: link.secret,
            new,
            new_secret: rotation.link,
        });
    }
    Ok(json!({ "pairs": pairs }))
}

/// The public line of the pair whose private half is sealed under `secret`; made at the first call.
async fn made_once(
    context: &Context,
    secret: SecretId,
    purpose: Purpose,
    make: impl FnOnce() -> Result<(String, Secret), OpError>,
) -> Result<String, OpError> {
    let (store, id) = (&context.store, secret.to_string());
    if store.secret(secret).await?.is_none() {
        let (_, private) = make()?;
        let sealed = context.vault.seal(&private, purpose, &id)?;
        store.put_secret(secret, purpose.as_str(), sealed, context.clock.now()).await?;
    }
    let sealed = store.secret(secret).await?.unwrap_or_default();
    let private = context.vault.unseal(&sealed, purpose, &id)?;
    public_line(&private)
}

async fn replace(
    context: &Context,
    vm: VmId,
    user: KeyUser,
    old: Option<String>,
    new: Option<String>,
) -> Result<(), OpError> {
    ask(context, vm, Care::ReplaceKey(ReplaceKey { user, old, new }), AGENT_WAIT).await.map(drop)
}

/// Lets the new keys in beside the old ones.
pub(super) async fn add(context: &Context, run: &Run<'_>, vm: VmId) -> Result<Value, OpError> {
    for pair in pairs(run) {
        replace(context, vm, pair.user, None, Some(pair.new)).await?;
    }
    Ok(Value::Null)
}

/// Uses the new keys: here, and at GitHub.
pub(super) async fn switch(context: &Context, run: &Run<'_>, vm: VmId) -> Result<Value, OpError> {
    for pair in pairs(run) {
        point(context, vm, &pair, (pair.new.clone(), pair.new_secret)).await?;
    }
    Ok(Value::Null)
}

async fn point(
    context: &Context,
    vm: VmId,
    pair: &Pair,
    (public_key, secret): (String, SecretId),
) -> Result<(), OpError> {
    match &pair.environment {
        Some((environment, path)) => {
            context.store.point_deploy_key(*environment, vm, public_key, secret).await?;
            keys::grant(context, path, vm).await.map(drop)
        }
        None => Ok(context.store.point_link_key(vm, public_key, secret).await?),
    }
}

/// Logs in with the new key. A VM that dials out has none.
pub(super) async fn prove(context: &Context, run: &Run<'_>, vm: VmId) -> Result<Value, OpError> {
    if !pairs(run).iter().any(|pair| pair.user == KeyUser::Vmkit) {
        return Ok(Value::Null);
    }
    let before = context.fleet.presence(vm).await?.since;
    context.fleet.relink(vm);
    let deadline = Instant::now() + RELINK_WAIT;
    loop {
        let presence = context.fleet.presence(vm).await?;
        if presence.linked && presence.since != before {
            return Ok(json!({ "linked_since": presence.since }));
        }
        run.stop_if_asked().await?;
        if Instant::now() >= deadline {
            return Err(OpError::AgentAway { vm, waited_s: RELINK_WAIT.as_secs() });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The old keys let nobody in any more.
pub(super) async fn drop_old(context: &Context, run: &Run<'_>, vm: VmId) -> Result<Value, OpError> {
    let pairs = pairs(run);
    for pair in &pairs {
        let (old, new) = (pair.old.clone(), pair.new.clone());
        replace(context, vm, pair.user, Some(old), Some(new)).await?;
    }
    Ok(json!({ "keys": pairs.len() }))
}

/// What we kept of them goes, once nothing can be undone any more.
pub(super) async fn forget_old(context: &Context, run: &Run<'_>) -> Result<Value, OpError> {
    for pair in pairs(run) {
        context.store.delete_secret(pair.old_secret).await?;
    }
    Ok(Value::Null)
}

/// Takes one step back.
pub(super) async fn undo(
    context: &Context,
    run: &Run<'_>,
    rotation: &Rotation,
    step: &str,
    vm: VmId,
) -> Result<(), OpError> {
    if step == "make_keys" {
        // Also of a step that made some and did not end.
        let made = rotation.deploy.iter().map(|(.., secret)| *secret).chain([rotation.link]);
        for secret in made {
            context.store.delete_secret(secret).await?;
        }
    }
    for pair in pairs(run) {
        match step {
            "drop_keys" => replace(context, vm, pair.user, None, Some(pair.old)).await?,
            "switch_keys" => {
                point(context, vm, &pair, (pair.old.clone(), pair.old_secret)).await?;
                if pair.user == KeyUser::Vmkit {
                    context.fleet.relink(vm);
                }
            }
            "add_keys" => replace(context, vm, pair.user, Some(pair.new), None).await?,
            _ => {}
        }
    }
    Ok(())
}
