//! What a driver writes while it drives.
//!
//! Every write carries its lease's epoch; one that changes no row ends in
//! [`StoreError::LostLease`], so that a process that slept cannot act on a lease it lost.

use rusqlite::{Connection, params};
use serde_json::Value;

use super::{Failure, Fault, Outcome, StepState, Store, StoreError, first};
use crate::domain::clock::Millis;
use crate::domain::ids::OperationId;
use crate::domain::operation::OperationState;

/// Who drives an operation, and for which time in a row.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The operation.
    pub operation: OperationId,
    /// Raised each time that somebody takes it.
    pub epoch: i64,
}

/// Fails where the lease is somebody else's by now.
fn held(tx: &Connection, lease: &Lease) -> Outcome<()> {
    let mut select = tx.prepare_cached(
        "select 1 from operation where id = ?1 and lease_epoch = ?2 and ended_at is null",
    )?;
    let held = select.exists(params![lease.operation.to_string(), lease.epoch])?;
    if held {
        return Ok(());
    }
    Err(Fault::Store(StoreError::LostLease { operation: lease.operation.to_string() }))
}

impl Store {
    /// Takes the lease of an operation that nobody drives, or whose holder has died: its lease has
    /// run out, or `sole` says that `holder` is the only driver of this file. The epoch rises.
    pub async fn take_lease(
        &self,
        operation: OperationId,
        holder: String,
        sole: bool,
        now: Millis,
        lease_ms: i64,
    ) -> Result<Option<Lease>, StoreError> {
        self.write(move |tx| {
            let taken = tx.execute(
                "update operation set state = 'running', lease_holder = ?2, lease_epoch = lease_epoch + 1,
                     lease_expires_at = ?4 + ?5
                 where id = ?1 and ended_at is null and state in ('queued', 'running')
                   and (lease_holder is null or lease_expires_at <= ?4 or (?3 and lease_holder != ?2))",
                params![operation.to_string(), holder, sole, now.0, lease_ms],
            )?;
            if taken == 0 {
                return Ok(None);
            }
            let mut select = tx.prepare("select lease_epoch from operation where id = ?1")?;
            let epoch = first(select.query([operation.to_string()])?, |row| Ok(row.get(0)?))?;
            Ok(epoch.map(|epoch| Lease { operation, epoch }))
        })
        .await
    }

    /// Keeps a lease for another while.
    pub async fn renew_lease(
        &self,
        lease: Lease,
        now: Millis,
        lease_ms: i64,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            held(tx, &lease)?;
            tx.execute(
                "update operation set lease_expires_at = ?2 where id = ?1",
                params![lease.operation.to_string(), now.0 + lease_ms],
            )?;
            Ok(())
        })
        .await
    }

    /// Writes how far an operation is.
    pub async fn set_progress(
        &self,
        lease: Lease,
        step: u32,
        message: String,
        now: Millis,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            held(tx, &lease)?;
            tx.execute(
                "update operation set step = ?2, message = ?3, updated_at = ?4 where id = ?1",
                params![lease.operation.to_string(), step, message, now.0],
            )?;
            Ok(())
        })
        .await
    }

    /// Writes that a step begins (again).
    pub async fn start_step(
        &self,
        lease: Lease,
        position: u32,
        name: &'static str,
        message: String,
        now: Millis,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            held(tx, &lease)?;
            let operation = lease.operation.to_string();
            tx.execute(
                "insert into step (operation, position, name, state, attempts, started_at)
                 values (?1, ?2, ?3, 'started', 1, ?4)
                 on conflict do update set state = 'started', attempts = attempts + 1, ended_at = null",
                params![operation, position, name, now.0],
            )?;
            tx.execute(
                "update operation set step = ?2, message = ?3, updated_at = ?4 where id = ?1",
                params![operation, position + 1, message, now.0],
            )?;
            Ok(())
        })
        .await
    }

    /// Writes where a step stands, with what it made or what went wrong.
    pub async fn move_step(
        &self,
        lease: Lease,
        position: u32,
        state: StepState,
        output: Option<Value>,
        error: Option<String>,
        now: Millis,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            held(tx, &lease)?;
            let operation = lease.operation.to_string();
            tx.execute(
                "update step set state = ?3, output = coalesce(?4, output), error = ?5, ended_at = ?6
                 where operation = ?1 and position = ?2",
                params![
                    operation,
                    position,
                    state.as_str(),
                    output.map(|value| value.to_string()),
                    error,
                    now.0
                ],
            )?;
            tx.execute(
                "update operation set updated_at = ?2 where id = ?1",
                params![operation, now.0],
            )?;
            Ok(())
        })
        .await
    }

    /// Writes that an operation is being undone, and why.
    pub async fn start_undo(
        &self,
        lease: Lease,
        failure: Failure,
        now: Millis,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            held(tx, &lease)?;
            tx.execute(
                "update operation set undoing = 1, error_code = ?2, error_message = ?3, error_fix = ?4,
                     updated_at = ?5 where id = ?1",
                params![
                    lease.operation.to_string(),
                    failure.code,
                    failure.message,
                    failure.fix,
                    now.0
                ],
            )?;
            Ok(())
        })
        .await
    }

    /// Ends an operation and lets go of what it holds.
    pub async fn end_operation(
        &self,
        lease: Lease,
        state: OperationState,
        result: Option<Value>,
        failure: Option<Failure>,
        message: String,
        now: Millis,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            held(tx, &lease)?;
            let operation = lease.operation.to_string();
            let (code, text, fix) = match failure {
                Some(failure) => (Some(failure.code), Some(failure.message), Some(failure.fix)),
                None => (None, None, None),
            };
            tx.execute(
                "update operation set state = ?2, result = ?3, error_code = coalesce(?4, error_code),
                     error_message = coalesce(?5, error_message), error_fix = coalesce(?6, error_fix),
                     message = ?7, updated_at = ?8, ended_at = ?8, lease_holder = null where id = ?1",
                params![
                    operation,
                    state.as_str(),
                    result.map(|value| value.to_string()),
                    code,
                    text,
                    fix,
                    message,
                    now.0
                ],
            )?;
            tx.execute("delete from operation_lock where operation = ?1", [operation])?;
            Ok(())
        })
        .await
    }

    /// Asks an operation to stop. `false` where it has ended or is unknown.
    pub async fn request_cancel(&self, id: OperationId) -> Result<bool, StoreError> {
        self.write(move |tx| {
            let changed = tx.execute(
                "update operation set cancel_requested = 1 where id = ?1 and ended_at is null",
                [id.to_string()],
            )?;
            Ok(changed == 1)
        })
        .await
    }
}
