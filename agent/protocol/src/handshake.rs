//! The hello, and the exact bytes that each side signs.
//!
//! Both statements hold both nonces and the VM's id, under a label of the side that signs: a
//! signature can be neither replayed nor turned round.

use serde::{Deserialize, Serialize};

use crate::bytes::{Bytes, Nonce, PublicKey, Signature};
use crate::{OLDEST, PROTOCOL};

/// The agent's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version that the agent speaks.
    pub protocol: u32,
    /// The oldest version that it understands.
    pub oldest: u32,
    /// The VM's id.
    pub vm: String,
    /// The agent's nonce.
    pub nonce: Nonce,
    /// The agent's version.
    #[serde(default)]
    pub agent_version: String,
    /// `amd64` or `arm64`.
    #[serde(default)]
    pub arch: String,
    /// Changes with every boot of the VM.
    #[serde(default)]
    pub boot_id: String,
    /// The VM's clock, in milliseconds since 1970.
    #[serde(default)]
    pub time_ms: i64,
    /// The agent has not enrolled: [`crate::messages::ToGateway::Enrol`] follows the welcome. Only
    /// over a link that VMKit opened; an agent that dials out enrols over HTTP beforehand.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enrolling: bool,
    /// The gateway's keys that the agent has pinned, so that a gateway whose key is being changed
    /// proves itself with one of them. Empty from an agent that cannot be told of another key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<PublicKey>,
}

/// The gateway's answer to the hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that the gateway speaks.
    pub protocol: u32,
    /// The oldest version that it understands.
    pub oldest: u32,
    /// The gateway's nonce.
    pub nonce: Nonce,
    /// Over [`gateway_statement`], or where `bound` says so over [`bound_statement`], by a key that
    /// the agent has pinned.
    pub signature: Signature,
    /// The gateway ends TLS itself, and has signed for this very session: who relays it, with
    /// whatever certificate, has another one with each side. False behind a proxy that ends TLS,
    /// over SSH and over plain HTTP, where there is no session that both sides know.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bound: bool,
}

/// Keying material of one TLS session (RFC 5705 and 9266), which only its two ends know.
pub type TlsBinding = Bytes<32>;

/// The label under which both ends export it, without a context.
pub const TLS_LABEL: &[u8] = b"EXPORTER-vmkit-link-v1";

/// What a gateway signs that ends TLS itself: `vmkit-gateway-tls-v1\0`, the agent's nonce, its own
/// nonce, the session's keying material, the VM's id. No other signature can be taken for it.
pub fn bound_statement(agent: &Nonce, gateway: &Nonce, tls: &TlsBinding, vm: &str) -> Vec<u8> {
    [b"vmkit-gateway-tls-v1\0".as_slice(), &agent.0, &gateway.0, &tls.0, vm.as_bytes()].concat()
}

/// What the gateway signs: `vmkit-gateway-v1\0`, the agent's nonce, its own nonce, the VM's id.
pub fn gateway_statement(agent: &Nonce, gateway: &Nonce, vm: &str) -> Vec<u8> {
    statement(b"vmkit-gateway-v1\0", agent, gateway, vm)
}

/// What the agent signs: `vmkit-agent-v1\0`, the gateway's nonce, its own nonce, the VM's id.
pub fn agent_statement(agent: &Nonce, gateway: &Nonce, vm: &str) -> Vec<u8> {
    statement(b"vmkit-agent-v1\0", gateway, agent, vm)
}

fn statement(label: &[u8], first: &Nonce, second: &Nonce, vm: &str) -> Vec<u8> {
    [label, &first.0, &second.0, vm.as_bytes()].concat()
}

/// Two versions that do not understand each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The peer is older than we accept.
    #[error("the peer speaks protocol {theirs}, and the oldest accepted here is {OLDEST}")]
    PeerTooOld {
        /// The version that the peer speaks.
        theirs: u32,
    },
    /// The peer does not accept us any more.
    #[error("the peer wants protocol {wants} or newer, and this side speaks {PROTOCOL}")]
    WeAreTooOld {
        /// The oldest version that the peer understands.
        wants: u32,
    },
}

impl Mismatch {
    /// Stable, in snake case.
    pub fn code(&self) -> &'static str {
        match self {
            Self::PeerTooOld { .. } => "peer_too_old",
            Self::WeAreTooOld { .. } => "peer_too_new",
        }
    }
}

/// The version that both sides speak, given what the peer said.
///
/// # Errors
/// Where there is none.
pub fn agree(protocol: u32, oldest: u32) -> Result<u32, Mismatch> {
    if protocol < OLDEST {
        return Err(Mismatch::PeerTooOld { theirs: protocol });
    }
    if oldest > PROTOCOL {
        return Err(Mismatch::WeAreTooOld { wants: oldest });
    }
    Ok(protocol.min(PROTOCOL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Bytes;

    #[test]
    fn the_signed_bytes_are_laid_out_as_written() {
        let (agent, gateway) = (Bytes([1; 32]), Bytes([2; 32]));
        let mut wanted = b"vmkit-gateway-v1\0".to_vec();
        wanted.extend([1; 32]);
        wanted.extend([2; 32]);
        wanted.extend(b"vm_x");
        assert_eq!(gateway_statement(&agent, &gateway, "vm_x"), wanted);
        let mut wanted = b"vmkit-agent-v1\0".to_vec();
        wanted.extend([2; 32]);
        wanted.extend([1; 32]);
        wanted.extend(b"vm_x");
        assert_eq!(agent_statement(&agent, &gateway, "vm_x"), wanted);
    }

    #[test]
    fn each_side_states_the_oldest_version_that_it_accepts() {
        assert_eq!(agree(PROTOCOL, OLDEST), Ok(PROTOCOL));
        assert_eq!(agree(PROTOCOL + 5, OLDEST), Ok(PROTOCOL));
        assert_eq!(agree(0, 0), Err(Mismatch::PeerTooOld { theirs: 0 }));
        let newer = PROTOCOL + 1;
        assert_eq!(agree(newer, newer), Err(Mismatch::WeAreTooOld { wants: newer }));
    }
}
