//! Asks an operation to stop: its driver honours that between two steps and in every long wait, and
//! takes back what was done.

use super::{Context, OpError};
use crate::domain::ids::OperationId;
use crate::store::OperationRow;

/// Asks an operation to stop. Asking twice, or while it is being undone already, is fine.
///
/// # Errors
/// The operation is unknown or has ended.
pub async fn cancel(context: &Context, id: OperationId) -> Result<OperationRow, OpError> {
    let unknown = || OpError::UnknownOperation { operation: id.to_string() };
    let asked = context.store.request_cancel(id).await?;
    let row = context.store.operation(id).await?.ok_or_else(unknown)?;
    if !asked {
        return Err(OpError::Ended { operation: id, state: row.state.as_str() });
    }
    if let Err(error) = context.fleet.nudge().await {
        // The driver looks by itself, only later.
        tracing::debug!(code = error.code(), operation = %id, "no driver was woken for {id}");
    }
    Ok(row)
}
