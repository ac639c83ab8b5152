//! Why a service beside an app was not touched, or an app's containers were not.

use crate::domain::service::{ServiceKind, VersionError};

/// Why a service beside an app was not touched, or an app's containers were not.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what its fields are")]
pub enum ServiceError {
    #[error(transparent)]
    Version(#[from] VersionError),
    #[error("environment `{environment}` has no {}", kind.title())]
    None { environment: String, kind: ServiceKind },
    #[error("environment `{environment}` has {} {version} already", kind.title())]
    Exists { environment: String, kind: ServiceKind, version: String },
    #[error("{} of `{environment}` runs {version} already", kind.title())]
    SameVersion { environment: String, kind: ServiceKind, version: String },
    #[error("{} of `{environment}` is {state}", kind.title())]
    Unfinished { environment: String, kind: ServiceKind, state: &'static str },
    #[error("`{key}` is set in `{environment}` already, to an address that is yours")]
    OwnValue { environment: String, key: String },
    #[error("`{key}` is the address of {} beside `{environment}`, which VMKit sets", kind.title())]
    ServiceValue { environment: String, key: String, kind: ServiceKind },
    #[error(
        "the VM has a volume `{volume}` already, with data whose password VMKit does not know; nothing was touched"
    )]
    ForeignVolume { volume: String },
    #[error("{} of `{environment}`: {cause}", kind.title())]
    Failed { environment: String, kind: ServiceKind, code: String, cause: String, fix: String },
    #[error(
        "the workflow run of operation {operation} was not found in {repo} after it was started"
    )]
    RunLost { repo: String, operation: String },
    #[error(
        "{} {version} runs in `{environment}`, and the way back to {before} needs a merge",
        kind.title()
    )]
    NoWayBack { environment: String, kind: ServiceKind, version: String, before: String },
    #[error("nothing of `{environment}` runs, and it has no release that could be started")]
    NothingToStart { environment: String },
    #[error("nobody holds Kamal's lock of `{environment}`")]
    NoLock { environment: String },
    #[error("Kamal's lock of `{environment}` is held by {by}, which is under way")]
    LiveLock { environment: String, by: String },
    #[error("Kamal's lock of `{environment}` is by now held by {by} since {since}")]
    OtherLock { environment: String, by: String, since: String },
    #[error("after `{action}` of `{environment}`: {reason}")]
    NotAsAsked { environment: String, action: &'static str, reason: String },
}

impl ServiceError {
    /// A stable word for it.
    pub fn code(&self) -> &str {
        match self {
            Self::Version(error) => error.code(),
            Self::None { .. } => "no_service",
            Self::Exists { .. } => "service_exists",
            Self::SameVersion { .. } => "same_version",
            Self::Unfinished { .. } => "service_unfinished",
            Self::OwnValue { .. } => "env_key_taken",
            Self::ServiceValue { .. } => "env_service_name",
            Self::ForeignVolume { .. } => "volume_exists",
            Self::Failed { code, .. } => code,
            Self::RunLost { .. } => "run_lost",
            Self::NoWayBack { .. } => "needs_merge_to_go_back",
            Self::NothingToStart { .. } => "nothing_to_start",
            Self::NoLock { .. } => "no_lock",
            Self::LiveLock { .. } => "lock_in_use",
            Self::OtherLock { .. } => "other_lock",
            Self::NotAsAsked { .. } => "not_as_asked",
        }
    }

    /// What to do next.
    pub fn fix(&self) -> String {
        match self {
            Self::Version(error) => error.fix(),
            Self::None { environment, kind } => format!(
                "call `manage_service` with environment `{environment}`, service `{kind}` and action `add`"
            ),
            Self::Exists { environment, .. } => format!(
                "call `manage_service` with environment `{environment}` and action `status`, or `upgrade`"
            ),
            Self::SameVersion { .. } => "give the version that it is to have".to_owned(),
            Self::Unfinished { environment, kind, state: "removing" } => format!(
                "call `destroy` with environment `{environment}` and service `{kind}` to end it"
            ),
            Self::Unfinished { environment, kind, .. } => format!(
                "call `manage_service` with environment `{environment}`, service `{kind}` and action `add` again: it goes on"
            ),
            Self::OwnValue { environment, key } => format!(
                "to use a service of VMKit's instead, unset `{key}` with `set_env` of `{environment}` first"
            ),
            Self::ServiceValue { environment, kind, .. } => format!(
                "choose another name; to use a server of your own, `destroy` service `{kind}` of `{environment}` first"
            ),
            Self::ForeignVolume { volume } => format!(
                "look at it on the VM (`docker volume inspect {volume}`); rename or remove it by hand, then call this again"
            ),
            Self::Failed { fix, .. } => fix.clone(),
            Self::RunLost { .. } => {
                "look at the Actions tab of the repo, then call this again".to_owned()
            }
            Self::NoWayBack { environment, .. } => format!(
                "call `deploy` with environment `{environment}` and ref `current`, merge its pull request, then call it again"
            ),
            Self::NothingToStart { environment } => {
                format!("call `deploy` with environment `{environment}`")
            }
            Self::NoLock { environment } | Self::OtherLock { environment, .. } => {
                format!("call `get_status` with environment `{environment}`")
            }
            Self::LiveLock { .. } => "wait until it is over, or stop it with `cancel`".to_owned(),
            Self::NotAsAsked { environment, .. } => {
                format!("call `get_logs` with environment `{environment}`, or `diagnose`")
            }
        }
    }
}
