//! The progress or result of an operation; can wait for it.

use std::time::Duration;

use crate::domain::ids::OperationId;
use crate::domain::operation::Progress;
use crate::operations::OpError;
use crate::store::{OperationRow, StepRow, Store};

/// The longest wait of one call (clients give up at 60 s: MCP.md §7).
pub const WAIT_MAX: Duration = Duration::from_secs(50);
const LOOK: Duration = Duration::from_millis(60);

/// An operation with its steps.
#[derive(Debug, Clone)]
pub struct OperationView {
    /// The operation.
    pub row: OperationRow,
    /// Its steps so far.
    pub steps: Vec<StepRow>,
}

/// Reads an operation.
///
/// # Errors
/// [`OpError::UnknownOperation`].
pub async fn operation(store: &Store, id: OperationId) -> Result<OperationView, OpError> {
    let row = store.operation(id).await?;
    let row = row.ok_or_else(|| OpError::UnknownOperation { operation: id.to_string() })?;
    let steps = store.steps(id).await?;
    Ok(OperationView { row, steps })
}

/// Waits until an operation is over, for at most `limit`, and tells `progress` each time that it
/// has moved. Dropping the future stops the waiting, never the operation.
///
/// # Errors
/// [`OpError::UnknownOperation`].
pub async fn wait(
    store: &Store,
    id: OperationId,
    limit: Duration,
    mut progress: impl FnMut(&Progress) + Send,
) -> Result<OperationView, OpError> {
    let deadline = tokio::time::Instant::now() + limit.min(WAIT_MAX);
    let mut told: Option<Progress> = None;
    loop {
        let row = store.operation(id).await?;
        let row = row.ok_or_else(|| OpError::UnknownOperation { operation: id.to_string() })?;
        if told.as_ref() != Some(&row.progress) {
            progress(&row.progress);
            told = Some(row.progress.clone());
        }
        if row.state.is_ended() || tokio::time::Instant::now() >= deadline {
            let steps = store.steps(id).await?;
            return Ok(OperationView { row, steps });
        }
        tokio::time::sleep(LOOK).await;
    }
}
