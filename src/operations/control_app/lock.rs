//! Who holds Kamal's lock of an environment: a run or an operation that is over, one that is not, or a
//! person.

use std::time::Duration;

use vmkit_agent_protocol::calls::{Call, Reply};
use vmkit_agent_protocol::upkeep::HeldLock;

use crate::domain::ids::{OperationId, VmId};
use crate::domain::names::EnvironmentPath;
use crate::github::RunStatus;
use crate::operations::agents::linked;
use crate::operations::environments::app;
use crate::operations::services::of_agent;
use crate::operations::{Context, OpError};

const AGENT_WAIT: Duration = Duration::from_secs(20);

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holder {
    /// Nobody that lives: its run or operation is over.
    Dead,
    /// Somebody who is at it.
    Alive {
        /// Such as `workflow run 77`.
        by: String,
    },
    /// A person, or a machine that we do not know.
    Person,
}

/// The lock of an environment; none where nobody holds it.
pub(super) async fn held(
    context: &Context,
    path: &EnvironmentPath,
    vm: VmId,
) -> Result<Option<HeldLock>, OpError> {
    linked(context, vm).await?;
    let call = Call::KamalLock { service: path.service() };
    match context.fleet.call(vm, call, AGENT_WAIT).await {
        Ok(Reply::KamalLocks { held, .. }) => Ok(held),
        Ok(_) => Ok(None),
        Err(error) => Err(of_agent(context, vm, error).await),
    }
}

/// What is behind a lock.
pub(super) async fn holder(
    context: &Context,
    path: &EnvironmentPath,
    held: &HeldLock,
) -> Result<Holder, OpError> {
    if let Some(id) = run_of(&held.by) {
        let row = app(&context.store, &path.app).await?;
        let github = context.accounts.github().await?;
        return match github.run(&row.app.repo, id).await {
            Ok(run) if run.status == RunStatus::Completed => Ok(Holder::Dead),
            Ok(_) => Ok(Holder::Alive { by: format!("workflow run {id}") }),
            Err(error) if error.code() == "github_not_found" => Ok(Holder::Dead),
            Err(error) => Err(error.into()),
        };
    }
    let operation = held.by.strip_prefix("vmkit ").and_then(|id| id.parse::<OperationId>().ok());
    let Some(id) = operation else { return Ok(Holder::Person) };
    let row = context.store.operation(id).await?;
    Ok(match row {
        Some(row) if !row.state.is_ended() => Holder::Alive { by: format!("operation {id}") },
        // Another installation's, for all that we know.
        None => Holder::Person,
        Some(_) => Holder::Dead,
    })
}

/// The run in `vmkit-run-ID-ATTEMPT`, as our workflow names itself.
fn run_of(by: &str) -> Option<u64> {
    let (id, attempt) = by.strip_prefix("vmkit-run-")?.split_once('-')?;
    attempt.parse::<u32>().ok()?;
    id.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_that_our_workflow_gives_itself_is_a_run() {
        assert_eq!(run_of("vmkit-run-77-1"), Some(77));
        for by in ["Ann", "vmkit-run-77", "vmkit-run-x-1", "vmkit-run-77-1 and Ann", "", "77-1"] {
            assert_eq!(run_of(by), None, "{by}");
        }
    }
}
