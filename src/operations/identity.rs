//! The key that agents know this installation by, and its change.
//!
//! A change is no operation: nothing is ordered and nothing is taken back. There are two keys for a
//! while; each agent is met with the one that it has pinned, is told of the other at its next link,
//! and forgets the first at the one after (`fleet` does that). Once no VM needs the older key, it is
//! deleted. Wherever this is interrupted both are good, and asking again goes on.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::SigningKey;
use serde_json::json;
use tokio::time::Instant;

use super::{Context, OpError};
use crate::domain::clock::Clock;
use crate::domain::ids::{SecretId, VmId};
use crate::domain::secret::Secret;
use crate::fleet::Presence;
use crate::store::{AuditEntry, Store, StoreError};
use crate::vault::{Purpose, Vault};

const PURPOSE: Purpose = Purpose::GatewayIdentity;
const LOOK: Duration = Duration::from_millis(200);
/// How the audit log names what was done.
const AUDITED: &str = "rotate-identity";

/// The keys, the newest first: one, or two while it is being changed. Where two processes both made
/// the first one, that counts as a change.
///
/// # Errors
/// The state file, the vault, or what it sealed is no key.
pub async fn keys(store: &Store, vault: &Vault) -> Result<Vec<(SecretId, SigningKey)>, OpError> {
    let sealed = store.secrets_of(PURPOSE.as_str()).await?;
    let open = |(id, sealed): (SecretId, Vec<u8>)| {
        let unreadable = || StoreError::Unreadable {
            what: "gateway identity",
            detail: "it is not a key of 32 bytes".to_owned(),
        };
        let text = vault.unseal(&sealed, PURPOSE, &id.to_string())?;
        let bytes = BASE64_STANDARD.decode(text.expose()).map_err(|_| unreadable())?;
        let seed: [u8; 32] = bytes.try_into().map_err(|_| unreadable())?;
        Ok((id, SigningKey::from_bytes(&seed)))
    };
    sealed.into_iter().rev().map(open).collect()
}

/// The oldest of them, which is made where there is none yet.
///
/// # Errors
/// As [`keys`].
pub async fn first(store: &Store, vault: &Vault, clock: &Clock) -> Result<SigningKey, OpError> {
    let mut all = keys(store, vault).await?;
    if all.is_empty() {
        make(store, vault, clock).await?;
        all = keys(store, vault).await?;
    }
    let made = all.pop().map(|(_, key)| key);
    made.ok_or_else(|| {
        let detail = "it was made, and is not there".to_owned();
        StoreError::Unreadable { what: "gateway identity", detail }.into()
    })
}

/// The public half that new VMs pin.
pub(super) async fn newest(context: &Context) -> Result<[u8; 32], OpError> {
    let all = keys(&context.store, &context.vault).await?;
    let newest = all.into_iter().next().map(|(_, key)| key);
    let key = match newest {
        Some(key) => key,
        None => first(&context.store, &context.vault, &context.clock).await?,
    };
    Ok(key.verifying_key().to_bytes())
}

async fn make(store: &Store, vault: &Vault, clock: &Clock) -> Result<(), OpError> {
    let id = SecretId::generate();
    let fresh = Secret::new(BASE64_STANDARD.encode(rand::random::<[u8; 32]>()));
    let sealed = vault.seal(&fresh, PURPOSE, &id.to_string())?;
    Ok(store.put_secret(id, PURPOSE.as_str(), sealed, clock.now()).await?)
}

/// How a change stands.
#[derive(Debug)]
pub struct Changed {
    /// The newest key's public half, in base64.
    pub key: String,
    /// How many VMs know no other key of ours.
    pub vms: usize,
    /// Those that still need the older key, and why.
    pub missing: Vec<(VmId, String)>,
    /// Whether the older key is deleted, so that nobody can use it any more.
    pub over: bool,
}

/// Begins a change, or goes on with it: waits a while until all agents know the newest key and no
/// other, and then deletes the older one. With `cut_off` it is deleted whoever needs it; such an
/// agent links no more.
///
/// # Errors
/// The state file or the vault.
pub async fn change(context: &Context, wait: Duration, cut_off: bool) -> Result<Changed, OpError> {
    let (store, vault) = (&context.store, &context.vault);
    if keys(store, vault).await?.len() < 2 {
        make(store, vault, &context.clock).await?;
        audit(context, "BEGUN").await?;
    }
    let mut all = keys(store, vault).await?;
    let older = all.split_off(1.min(all.len()));
    let key = BASE64_STANDARD.encode(newest(context).await?);
    let deadline = Instant::now() + wait;
    let mut renewed = false;
    let (vms, missing) = loop {
        // Whoever is linked meets the newer key at the next link.
        renewed = renewed || context.fleet.renew().await.is_ok();
        let (vms, missing) = standing(context, &key).await?;
        if (renewed && missing.is_empty()) || Instant::now() >= deadline {
            break (vms, missing);
        }
        tokio::time::sleep(LOOK).await;
    };
    let over = missing.is_empty() || cut_off;
    if over {
        for (id, _) in older {
            store.delete_secret(id).await?;
        }
        audit(context, "DONE").await?;
    }
    Ok(Changed { key, vms, missing, over })
}

/// How many VMs trust the newest key alone, and which do not.
async fn standing(context: &Context, key: &str) -> Result<(usize, Vec<(VmId, String)>), OpError> {
    let (mut there, mut missing) = (0, Vec::new());
    for row in context.store.vms().await? {
        let vm = row.vm.id;
        let enrolled = context.store.agent_key(vm).await?.is_some();
        let presence = context.fleet.presence(vm).await.unwrap_or_default();
        match why_not(&presence, enrolled, key) {
            None => there += 1,
            Some(why) => missing.push((vm, why)),
        }
    }
    Ok((there, missing))
}

fn why_not(presence: &Presence, enrolled: bool, key: &str) -> Option<String> {
    let trusts = presence.trusts.as_slice();
    if matches!(trusts, [only] if only == key) {
        return None;
    }
    Some(match presence.complaint() {
        _ if !enrolled => "its agent has not enrolled yet".to_owned(),
        Some(complaint) if !presence.linked => complaint,
        _ if trusts.is_empty() => "its agent is too old to be told of another key; \
             `maintain_vm` with action `upgrade_agent` brings the next"
            .to_owned(),
        _ => "its agent is being told".to_owned(),
    })
}

async fn audit(context: &Context, outcome: &str) -> Result<(), OpError> {
    let entry = AuditEntry {
        at: context.clock.now(),
        caller: "local".to_owned(),
        tool: AUDITED.to_owned(),
        arguments: json!({}),
        outcome: outcome.to_owned(),
        reason: None,
    };
    Ok(context.store.append_audit(entry).await?)
}
