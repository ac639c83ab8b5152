//! What a destroy kept and nobody asked for again: removed when its time is over, by whoever starts
//! next and then daily. Only what is ours, a few at a time, each in the audit log.

use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Wanted, look, plan, purge};
use crate::clouds::{Cloud, CloudSnapshot, LABEL_EXPIRES};
use crate::domain::clock::Millis;
use crate::domain::environment::VmState;
use crate::domain::ids::OperationId;
use crate::domain::retirement::{Keeping, Retirement, RetirementState};
use crate::operations::{Ask, Context, OpError, queue};
use crate::store::AuditEntry;

/// How often it is looked for while a process stays up.
const DAILY: Duration = Duration::from_secs(24 * 60 * 60);
/// How many things one sweep removes at most.
const AT_MOST: usize = 20;
/// How the audit log names who did it.
const CALLER: &str = "sweep";

/// What a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// The operations that remove what was kept of an environment for good.
    pub operations: Vec<OperationId>,
    /// Snapshots that nothing needed, by the cloud's ids.
    pub snapshots: Vec<String>,
}

/// Sweeps at once, and then daily until `stop`.
pub async fn daily(context: &Context, stop: &CancellationToken) {
    loop {
        match sweep(context).await {
            Ok(swept) if swept == Swept::default() => {}
            Ok(swept) => tracing::info!(
                operations = swept.operations.len(),
                snapshots = swept.snapshots.len(),
                "swept what was kept for an undo that nobody asked for"
            ),
            Err(error) => {
                tracing::warn!(code = error.code(), %error, "the sweep goes on another time");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(DAILY) => {}
        }
    }
}

/// Removes what is over. Asks no cloud where nothing is.
///
/// # Errors
/// The state file, or a cloud.
pub async fn sweep(context: &Context) -> Result<Swept, OpError> {
    let now = context.clock.now();
    let all = context.store.retirements().await?;
    let over: Vec<&Retirement> = all.iter().filter(|kept| kept.is_over(now)).collect();
    let mut swept = Swept::default();
    for kept in over.iter().filter(|kept| kept.state == RetirementState::Kept).take(AT_MOST) {
        swept.operations.extend(remove(context, kept).await?);
    }
    let done = |kept: &&&Retirement| match kept.state {
        RetirementState::Restored | RetirementState::Undone | RetirementState::Purged => true,
        RetirementState::Making | RetirementState::Kept => false,
    };
    // What an undo could not delete is billed and of no use, however long it might be kept.
    let left = leftovers(context, &all).await?;
    let over_and_there = over.iter().any(|kept| done(&kept) && kept.snapshot.is_some());
    if over_and_there || !left.is_empty() {
        swept.snapshots = orphans(context, &all, &left, now).await?;
    }
    Ok(swept)
}

/// Queues the removal of an environment whose time is over, as an operation like any other.
async fn remove(context: &Context, kept: &Retirement) -> Result<Option<OperationId>, OpError> {
    let Some(environment) = context.store.environment_by_id(kept.environment).await? else {
        context.store.set_retirement_state(kept.id, RetirementState::Purged).await?;
        return Ok(None);
    };
    let path = environment.path.clone();
    let subject = look(context, &path).await?;
    // What is kept with a server that runs again was not kept for long: a person looks.
    let rests = subject.own.as_ref().is_none_or(|row| row.vm.state == VmState::Kept);
    if !rests && kept.keeping == Keeping::Snapshot {
        return Ok(None);
    }
    match plan::check(context, &subject, Wanted::Purge).await {
        // Its owner protects it: nothing of it is touched, and `destroy` says how to lift that.
        Err(error @ OpError::Guarded { .. }) => {
            tracing::warn!(code = error.code(), %error, "what was kept of `{path}` stays");
            return Ok(None);
        }
        checked => checked?,
    }
    let reason = format!("kept for an undo until {}", kept.until());
    let ask = Ask { caller: CALLER.to_owned(), reason: Some(reason), idempotency_key: None };
    let new = purge::queued(context, &subject, None, None, ask);
    let queued = queue(context, new, &format!("environment `{path}`")).await;
    let operation = match queued {
        Ok(operation) => operation,
        // Somebody is at it.
        Err(OpError::Busy { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let arguments = json!({ "environment": path, "operation": operation });
    audit(context, arguments, "RUNNING", Some(kept.until())).await?;
    Ok(Some(operation))
}

/// The names of the snapshots that were restored from and are still there, unless somebody is at
/// their environment just now.
async fn leftovers(context: &Context, all: &[Retirement]) -> Result<Vec<String>, OpError> {
    let restored =
        |kept: &&Retirement| kept.state == RetirementState::Restored && kept.snapshot.is_some();
    if !all.iter().any(|kept| restored(&kept)) {
        return Ok(Vec::new());
    }
    let open = context.store.open_operations().await?;
    let free =
        |kept: &&Retirement| !open.iter().any(|row| row.environment == Some(kept.environment));
    let left = all.iter().filter(restored).filter(free);
    Ok(left.filter_map(|kept| kept.snapshot_name.clone()).collect())
}

/// Deletes our own snapshots that no retirement keeps, expired ones and those in `left`: ones whose
/// deletion was refused.
async fn orphans(
    context: &Context,
    all: &[Retirement],
    left: &[String],
    now: Millis,
) -> Result<Vec<String>, OpError> {
    let installation = context.settings.installation;
    let kept = |one: &CloudSnapshot| {
        let open = |row: &&Retirement| {
            matches!(row.state, RetirementState::Making | RetirementState::Kept)
        };
        all.iter().filter(open).any(|row| row.snapshot_name.as_ref() == Some(&one.name))
    };
    let mut deleted = Vec::new();
    let mut providers: Vec<String> = Vec::new();
    for vm in all.iter().filter_map(|row| row.vm) {
        let provider = context.store.vm(vm).await?.map(|row| row.vm.provider);
        providers.extend(provider.filter(|one| !providers.contains(one)));
    }
    for provider in providers {
        let cloud = context.accounts.cloud(&provider).await?;
        let listed = cloud.list_snapshots().await?;
        let ours = listed.iter().filter(|one| one.belongs_to(installation));
        let of_no_use = |one: &CloudSnapshot| expired(one, now) || left.contains(&one.name);
        let gone = ours.filter(|one| of_no_use(one) && !one.protected && !kept(one));
        for snapshot in gone.take(AT_MOST) {
            cloud.delete_snapshot(&snapshot.provider_id, installation).await?;
            let named = |row: &&Retirement| row.snapshot_name.as_ref() == Some(&snapshot.name);
            if let Some(row) = all.iter().find(named) {
                context.store.set_retirement_snapshot(row.id, None, None).await?;
            }
            let arguments = json!({ "snapshot": snapshot.name, "provider": provider });
            audit(context, arguments, "DONE", None).await?;
            deleted.push(snapshot.provider_id.clone());
        }
    }
    Ok(deleted)
}

/// Whether its label says that its time is over. One without a label is kept.
fn expired(snapshot: &CloudSnapshot, now: Millis) -> bool {
    let label = snapshot.labels.get(LABEL_EXPIRES).and_then(|text| text.parse::<i64>().ok());
    label.is_some_and(|at| at <= now.0 / 1000)
}

async fn audit(
    context: &Context,
    arguments: serde_json::Value,
    outcome: &str,
    until: Option<String>,
) -> Result<(), OpError> {
    let entry = AuditEntry {
        at: context.clock.now(),
        caller: CALLER.to_owned(),
        tool: super::ACTION.to_owned(),
        arguments,
        outcome: outcome.to_owned(),
        reason: Some(match until {
            Some(until) => format!("kept for an undo until {until}"),
            None => "nothing is to be restored from it any more".to_owned(),
        }),
    };
    Ok(context.store.append_audit(entry).await?)
}
