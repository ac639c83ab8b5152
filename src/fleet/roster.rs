//! Whom the fleet lets in: asked of whoever keeps the VMs.

use ed25519_dalek::SigningKey;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::domain::ids::VmId;
use crate::domain::secret::Secret;

/// The VMs that may link, and the keys of their agents.
pub trait Roster: Send + Sync + 'static {
    /// Uses up an enrolment token: the VM's agent has this key from now on. The same token with
    /// the same key is accepted again, since the first answer may have been lost.
    fn redeem(
        &self,
        vm: VmId,
        token: Secret,
        public_key: [u8; 32],
    ) -> BoxFuture<'_, Result<(), EnrolRefusal>>;

    /// The ed25519 key of the VM's agent, if it has enrolled and the VM is not gone.
    fn public_key(&self, vm: VmId) -> BoxFuture<'_, Option<[u8; 32]>>;

    /// Our own keys, the newest first: more than one while it is being changed. Where none is
    /// given, the one counts that the fleet was made with.
    fn identities(&self) -> BoxFuture<'_, Vec<SigningKey>> {
        Box::pin(async { Vec::new() })
    }
}

/// Why an enrolment is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnrolRefusal {
    /// There is no such token, or it is another VM's.
    #[error("the enrolment token is not one of this VM")]
    UnknownToken,
    /// It is older than an hour.
    #[error("the enrolment token has expired; make the VM again")]
    Expired,
    /// It was used with another key.
    #[error("the enrolment token was used already, by an agent with another key")]
    Used,
    /// The store does not answer now.
    #[error("enrolments cannot be recorded now; ask again")]
    Unavailable,
}

impl EnrolRefusal {
    /// Stable, in snake case.
    pub fn code(self) -> &'static str {
        match self {
            Self::UnknownToken => "enrol_token_unknown",
            Self::Expired => "enrol_token_expired",
            Self::Used => "enrol_token_used",
            Self::Unavailable => "enrol_unavailable",
        }
    }

    /// True where the agent should ask again soon.
    pub fn retryable(self) -> bool {
        match self {
            Self::UnknownToken | Self::Expired | Self::Used => false,
            Self::Unavailable => true,
        }
    }
}
