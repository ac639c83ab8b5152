//! The keys by which agents know us. As a rule there is one; while it is being changed an agent is
//! met with the newest that it has pinned, is told of the next one, and then of no other.

use std::sync::Arc;

use ed25519_dalek::{Signer, SigningKey};
use vmkit_agent_protocol::bytes::{Bytes, PublicKey};
use vmkit_agent_protocol::care::{TrustGateway, gateway_keys_statement};
use vmkit_agent_protocol::handshake::Hello;

/// How one agent is met.
pub(super) struct Met {
    /// The key that we prove ourselves with.
    pub(super) key: Arc<SigningKey>,
    /// What it has pinned; empty where it does not say.
    pub(super) pins: Vec<PublicKey>,
    /// What it is to pin from now on, where that is something else.
    pub(super) next: Option<TrustGateway>,
}

/// Chooses among our keys, the newest first. One that has pinned none of them is met with the
/// oldest, as one is that does not say what it has pinned.
pub(super) fn meet(keys: &[SigningKey], fallback: &SigningKey, hello: &Hello) -> Met {
    let pinned = |key: &&SigningKey| hello.pins.contains(&public(key));
    let newest = keys.first().unwrap_or(fallback);
    let key = keys.iter().find(pinned).or(keys.last()).unwrap_or(fallback);
    let wanted = match hello.pins.as_slice() {
        pins if !pins.contains(&public(key)) => None,
        pins if !pins.contains(&public(newest)) => Some(vec![public(key), public(newest)]),
        [_] => None,
        _ => Some(vec![public(newest)]),
    };
    let next = wanted.map(|keys| {
        let statement = gateway_keys_statement(&hello.vm, &keys);
        TrustGateway { keys, signature: Bytes(key.sign(&statement).to_bytes()) }
    });
    Met { key: Arc::new(key.clone()), pins: hello.pins.clone(), next }
}

fn public(key: &SigningKey) -> PublicKey {
    Bytes(key.verifying_key().to_bytes())
}
