//! The gateway's own keys that this VM has pinned, while they are being changed.

use std::io;

use ed25519_dalek::{Signature, VerifyingKey};
use vmkit_agent_protocol::care::{TrustGateway, gateway_keys_statement};

use crate::agent::Agent;
use crate::calls::{Fault, blocking};
use crate::config::Config;

/// Pins these keys and no others, on the word of one that is pinned and stays so. False where it is
/// so already.
pub(crate) async fn trust(agent: &Agent, wanted: TrustGateway) -> Result<bool, Fault> {
    let TrustGateway { keys, signature } = wanted;
    let (first, next) = match keys.as_slice() {
        [first] => (*first, None),
        [first, next] if first != next => (*first, Some(*next)),
        _ => return Err(Fault::invalid("one key is pinned, or two while it changes".to_owned())),
    };
    let pinned = agent.pinned();
    let statement = gateway_keys_statement(agent.vm(), &keys);
    let signature = Signature::from_bytes(&signature.0);
    let vouched = keys.iter().filter(|key| pinned.contains(key)).any(|key| {
        VerifyingKey::from_bytes(&key.0)
            .is_ok_and(|key| key.verify_strict(&statement, &signature).is_ok())
    });
    if !vouched {
        let text = "no key that this VM trusts and would go on trusting vouches for these; nothing \
                    was changed";
        return Err(Fault::not_signed(text.to_owned()));
    }
    if pinned == keys {
        return Ok(false);
    }
    let host = agent.host().clone();
    let written = blocking(move || Config::pin(&host, &first, next.as_ref())).await?;
    written.map_err(|error| Fault::files(&io::Error::other(error)))?;
    tracing::info!(keys = keys.len(), "the gateway's key is changing: {} are trusted", keys.len());
    agent.pin(keys);
    Ok(true)
}
