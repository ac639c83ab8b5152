//! Care of a VM that leaves its apps running: hardening it, and freeing its disk.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use vmkit_agent_protocol::calls::{Call, Reply};
use vmkit_agent_protocol::care::{Care, Cared, Harden, Hardened, Hardening, Prune, Pruned};
use vmkit_agent_protocol::upkeep::Upkeep;

use crate::domain::ids::{OperationId, VmId};
use crate::fleet::FleetError;
use crate::operations::agents::linked;
use crate::operations::{Context, OpError, Run};

/// How long the VM may take over all measures.
const HARDEN_WAIT: Duration = Duration::from_secs(300);
/// After this the VM takes back what it was not told to keep: the measures, and a new login.
const UNDO_AFTER_S: u32 = 420;
/// How long the agent may take for what needs no waiting.
const AGENT_WAIT: Duration = Duration::from_secs(30);
/// How long Docker may take to remove what is to go.
const PRUNE_WAIT: Duration = Duration::from_secs(300);
/// How long a fresh link may take.
const RELINK_WAIT: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);
/// Stopped versions of each app that stay, so that Kamal can go back to them.
const KEPT_VERSIONS: u32 = 3;

/// Asks the VM's agent.
pub(in crate::operations) async fn ask(
    context: &Context,
    vm: VmId,
    care: Care,
    limit: Duration,
) -> Result<Cared, OpError> {
    linked(context, vm).await?;
    match context.fleet.call(vm, Call::Care(care), limit).await {
        Ok(Reply::Cared(cared)) => Ok(cared),
        Ok(_) => Err(FleetError::NotUnderstood { vm }.into()),
        Err(FleetError::Fault { code, .. }) if code == "unsupported" => {
            let presence = context.fleet.presence(vm).await?;
            let version = presence.agent_version.unwrap_or_else(|| "unknown".to_owned());
            Err(OpError::AgentTooOld { vm, version })
        }
        Err(error) => Err(error.into()),
    }
}

fn upkeep(operation: OperationId) -> Upkeep {
    Upkeep { operation: operation.to_string() }
}

/// Takes the measures; what changed is taken back by the VM itself unless [`keep`] comes in time.
pub(in crate::operations) async fn harden(
    context: &Context,
    operation: OperationId,
    vm: VmId,
) -> Result<Value, OpError> {
    let wanted = Harden { operation: operation.to_string(), undo_after_s: UNDO_AFTER_S };
    match ask(context, vm, Care::Harden(wanted), HARDEN_WAIT).await? {
        Cared::Hardened(report) => Ok(told(&report)),
        _ => Err(FleetError::NotUnderstood { vm }.into()),
    }
}

/// One line a measure, by how it stands.
fn told(report: &Hardened) -> Value {
    let of = |outcome| -> Vec<String> {
        let these = report.measures.iter().filter(|measure| measure.outcome == outcome);
        these.map(|measure| format!("{}: {}", measure.name, measure.says)).collect()
    };
    json!({
        "armed": report.armed,
        "changed": of(Hardening::Changed),
        "already_right": of(Hardening::AlreadyRight),
        "not_here": of(Hardening::NotHere),
        "failed": of(Hardening::Failed),
    })
}

/// Whether hardening changed something that the VM will take back unless it is kept.
fn armed(run: &Run<'_>) -> bool {
    run.output("harden")["armed"] == true
}

/// A fresh link under the new rules: over SSH that is a new login, and an agent that dials out
/// shows that it still can.
pub(in crate::operations) async fn new_login(
    context: &Context,
    run: &Run<'_>,
    vm: VmId,
) -> Result<Value, OpError> {
    if !armed(run) {
        return Ok(Value::Null);
    }
    let before = context.fleet.presence(vm).await?.since;
    context.fleet.relink(vm);
    let deadline = Instant::now() + RELINK_WAIT;
    loop {
        let presence = context.fleet.presence(vm).await?;
        if presence.linked && presence.since != before {
            return Ok(json!({ "linked_since": presence.since }));
        }
        run.stop_if_asked().await?;
        if Instant::now() >= deadline {
            return Err(OpError::AgentAway { vm, waited_s: RELINK_WAIT.as_secs() });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Tells the VM that all is well.
pub(in crate::operations) async fn keep(
    context: &Context,
    operation: OperationId,
    run: &Run<'_>,
    vm: VmId,
) -> Result<Value, OpError> {
    if !armed(run) {
        return Ok(Value::Null);
    }
    let keep = || ask(context, vm, Care::KeepHardened(upkeep(operation)), AGENT_WAIT);
    if keep().await? == (Cared::Done { changed: true }) {
        return Ok(Value::Null);
    }
    // Kept before, or taken back in time: then it is done again, since the way in was shown to stay
    // open.
    if harden(context, operation, vm).await?["armed"] == true {
        keep().await?;
    }
    Ok(Value::Null)
}

/// Takes it back now. Where the VM cannot be reached it does so by itself.
pub(in crate::operations) async fn undo(
    context: &Context,
    operation: OperationId,
    vm: VmId,
) -> Result<(), OpError> {
    match ask(context, vm, Care::UndoHarden(upkeep(operation)), HARDEN_WAIT).await {
        Err(OpError::AgentAway { .. } | OpError::AgentTooOld { .. } | OpError::Fleet(_)) => Ok(()),
        done => done.map(drop),
    }
}

/// Frees the disk, or says what would go.
pub(super) async fn prune(context: &Context, vm: VmId, dry_run: bool) -> Result<Pruned, OpError> {
    let wanted = Prune { dry_run, keep: KEPT_VERSIONS };
    match ask(context, vm, Care::Prune(wanted), PRUNE_WAIT).await? {
        Cared::Pruned(pruned) => Ok(pruned),
        _ => Err(FleetError::NotUnderstood { vm }.into()),
    }
}

/// What goes, a line each, for a plan.
pub(super) fn listed(pruned: &Pruned) -> Vec<String> {
    let containers = pruned.containers.iter().map(|name| format!("stopped container {name}"));
    let images = pruned.images.iter().map(|name| format!("unused image {name}"));
    containers.chain(images).collect()
}
