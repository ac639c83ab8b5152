//! What can go wrong between us and an agent.

use serde::{Deserialize, Serialize};

use crate::domain::ids::VmId;

/// Why an agent was not asked, or did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "snake_case")]
pub enum FleetError {
    /// The VM's agent has no link.
    #[error("the agent of `{vm}` is not linked; look at `get_status` of the VM")]
    NotLinked {
        /// The VM.
        vm: VmId,
    },
    /// The link ended while the agent was at it: it may or may not have done it.
    #[error("the link to the agent of `{vm}` ended before it replied; ask again")]
    LinkLost {
        /// The VM.
        vm: VmId,
    },
    /// No reply in time: the agent may or may not have done it.
    #[error("the agent of `{vm}` did not reply within {timeout_ms} ms; ask again")]
    TimedOut {
        /// The VM.
        vm: VmId,
        /// How long was waited.
        timeout_ms: u64,
    },
    /// The agent says that it could not.
    #[error("the agent answered {code}: {message}")]
    Fault {
        /// The agent's code, in snake case.
        code: String,
        /// The agent's words.
        message: String,
    },
    /// The reply is of another kind than the call; the agent is newer or broken.
    #[error("the agent of `{vm}` gave a reply that is not understood; upgrade VMKit")]
    NotUnderstood {
        /// The VM.
        vm: VmId,
    },
    /// A link over a byte stream did not come about.
    #[error("no link: {reason}")]
    Link {
        /// Why.
        reason: String,
    },
    /// The process that holds the links does not answer.
    #[error("the worker does not answer: {reason}; it is started with the next operation")]
    WorkerAway {
        /// Why.
        reason: String,
    },
}

impl FleetError {
    /// Stable, in snake case.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotLinked { .. } => "agent_not_linked",
            Self::LinkLost { .. } => "agent_link_lost",
            Self::TimedOut { .. } => "agent_timed_out",
            Self::Fault { .. } => "agent_fault",
            Self::NotUnderstood { .. } => "agent_not_understood",
            Self::Link { .. } => "agent_link_failed",
            Self::WorkerAway { .. } => "worker_away",
        }
    }

    /// True where the same call may succeed a little later. Every call is safe to repeat.
    pub fn retryable(&self) -> bool {
        match self {
            Self::NotLinked { .. }
            | Self::LinkLost { .. }
            | Self::TimedOut { .. }
            | Self::Link { .. }
            | Self::WorkerAway { .. } => true,
            Self::NotUnderstood { .. } => false,
            Self::Fault { code, .. } => matches!(
                code.as_str(),
                "busy" | "timed_out" | "ended" | "crashed" | "kamal_locked" | "docker_unavailable"
            ),
        }
    }
}
