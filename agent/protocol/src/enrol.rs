//! Enrolment: a single-use token is exchanged for a lasting identity over plain HTTP(S).

use serde::{Deserialize, Serialize};

use crate::bytes::{Hidden, PublicKey};

/// The body of `POST {gateway}/agent/v1/enrol`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// The token from the VM's user-data: single use, bound to one VM, good for an hour.
    pub token: Hidden,
    /// The VM's id, such as `vm_01jc4k…`.
    pub vm: String,
    /// The public half of the key pair that the agent made for itself.
    pub public_key: PublicKey,
    /// The agent's version.
    #[serde(default)]
    pub agent_version: String,
    /// The VM's architecture: `amd64` or `arm64`.
    #[serde(default)]
    pub arch: String,
}

/// Why something was refused, as both enrolment and the link say it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Stable, in snake case.
    pub code: String,
    /// For a person.
    pub message: String,
}
