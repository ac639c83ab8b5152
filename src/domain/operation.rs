//! What the outside sees of an operation: its state and how far it is.

use serde::{Deserialize, Serialize};

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Written down, not yet driven.
    Queued,
    /// A driver holds its lease, or held it when it died.
    Running,
    /// A person has to approve it first.
    WaitingApproval,
    /// Ended with a pull request that somebody has to merge; holds no lock.
    NeedsMerge,
    /// Ended well.
    Succeeded,
    /// Ended badly; what it had made is undone.
    Failed,
    /// Ended because somebody asked; what it had made is undone.
    Cancelled,
    /// Neither done nor undone: a person has to act, and the message says how.
    Stuck,
}

impl OperationState {
    /// Every state, for exhaustive tests and SQL checks.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Running,
        Self::WaitingApproval,
        Self::NeedsMerge,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Stuck,
    ];

    /// The stored and shown form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::WaitingApproval => "waiting_approval",
            Self::NeedsMerge => "needs_merge",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Stuck => "stuck",
        }
    }

    /// Whether nothing more will happen by itself.
    pub fn is_ended(self) -> bool {
        match self {
            Self::Queued | Self::Running | Self::WaitingApproval => false,
            Self::NeedsMerge | Self::Succeeded | Self::Failed | Self::Cancelled | Self::Stuck => {
                true
            }
        }
    }
}

/// How far an operation is: step `step` of `steps`, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The step under way, from 1.
    pub step: u32,
    /// How many steps there are.
    pub steps: u32,
    /// What is happening, for a person to read.
    pub message: String,
}
