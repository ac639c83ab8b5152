//! A destroy that can be undone: what is kept of an environment, how, and until when.

use serde::{Deserialize, Serialize};

use super::clock::Millis;
use super::ids::{EnvironmentId, OperationId, VmId};
use super::money::Money;

/// How long a destroy can be undone, in milliseconds (DESIGN: 7 days).
pub const UNDO_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// How an environment is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeping {
    /// The server goes; its disk is kept as a snapshot, and its address.
    Snapshot,
    /// The server stays, powered off.
    Park,
    /// The VM serves others too, or there is none: only the app goes, its volumes stay.
    Shared,
}

impl Keeping {
    /// The stored and shown form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Park => "park",
            Self::Shared => "shared",
        }
    }
}

/// Where a retirement stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetirementState {
    /// What is kept may or may not be there yet.
    Making,
    /// It is kept, and can be undone.
    Kept,
    /// It was undone: the environment is back.
    Restored,
    /// It was never finished, and the environment never went.
    Undone,
    /// What was kept is gone for good.
    Purged,
}

impl RetirementState {
    /// The stored form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Making => "making",
            Self::Kept => "kept",
            Self::Restored => "restored",
            Self::Undone => "undone",
            Self::Purged => "purged",
        }
    }
}

/// A destroy that can be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retirement {
    /// The operation that began it.
    pub id: OperationId,
    /// What was destroyed.
    pub environment: EnvironmentId,
    /// Its VM.
    pub vm: Option<VmId>,
    /// How it is kept.
    pub keeping: Keeping,
    /// Where it stands.
    pub state: RetirementState,
    /// The name of the snapshot, made of our own ids before the snapshot is.
    pub snapshot_name: Option<String>,
    /// The cloud's id of the snapshot, once it has answered.
    pub snapshot: Option<String>,
    /// The snapshot's billed size in GB, once known.
    pub size_gb: Option<u64>,
    /// What keeping it costs per month, as far as known.
    pub monthly: Option<Money>,
    /// When it began.
    pub began_at: Millis,
    /// Until when it can be undone; none where it is kept until somebody decides.
    pub expires_at: Option<Millis>,
}

impl Retirement {
    /// Whether it can be undone no longer.
    pub fn is_over(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Until when, as a person reads it.
    pub fn until(&self) -> String {
        match self.expires_at {
            Some(at) => at.rfc3339(),
            None => "somebody decides".to_owned(),
        }
    }
}

/// The name of a snapshot: made of the VM's and the retirement's ids, so that a retry finds it.
pub fn snapshot_name(vm: &VmId, retirement: &OperationId) -> String {
    format!("vmkit-{}-{}", vm.bare(), retirement.bare())
}
