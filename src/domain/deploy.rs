//! Deploys and releases.

use serde::{Deserialize, Serialize};

use super::clock::Millis;
use super::ids::{DeployId, EnvironmentId, OperationId};
use super::names::CommitSha;

/// What a deploy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeployAction {
    /// Builds the commit and deploys the image.
    Deploy,
    /// Deploys an image that exists: new env values, or an earlier release.
    Redeploy,
}

/// Where a deploy stands. Records are append-only: a row only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeployState {
    /// Under way.
    Running,
    /// Proven live; it made a release.
    Live,
    /// Did not go live; what served before still serves.
    Failed,
    /// Stopped because somebody asked.
    Cancelled,
}

impl DeployState {
    /// The stored and shown form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Live => "live",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// One attempt to make a version live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deploy {
    /// Its id, which the workflow run carries in its name.
    pub id: DeployId,
    /// Where.
    pub environment: EnvironmentId,
    /// The operation that drives it.
    pub operation: OperationId,
    /// Build, or only deploy.
    pub action: DeployAction,
    /// The commit, which is also the image's tag.
    pub commit: CommitSha,
    /// The first line of the commit's message, as data.
    pub subject: String,
    /// The revision of the env values that it takes.
    pub env_revision: u32,
    /// For a rollback: the deploy whose version and env it brings back.
    pub rollback_of: Option<DeployId>,
    /// Where it stands.
    pub state: DeployState,
    /// GitHub's run, once dispatched.
    pub run_id: Option<u64>,
    /// The run's page.
    pub run_url: Option<String>,
    /// Why it failed: `code: sentence`.
    pub failure: Option<String>,
    /// When it was asked for.
    pub created_at: Millis,
    /// When it ended.
    pub ended_at: Option<Millis>,
}
