//! The VM's agent in its next version: vouched for with this installation's key, sent over the link
//! that there is, and in place once it has linked.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::time::Instant;
use vmkit_agent_protocol::bytes::Bytes;
use vmkit_agent_protocol::care::{
    AGENT_PIECE_BYTES, Care, Cared, MAX_AGENT_BYTES, NewAgent, Piece, UpgradeReport, UpgradeStage,
    agent_binary_statement,
};
use vmkit_agent_protocol::upkeep::Upkeep;

use super::care::ask;
use crate::domain::ids::{OperationId, VmId};
use crate::fleet::FleetError;
use crate::operations::agents::{AgentBinary, fit, linked};
use crate::operations::{Context, OpError, Run};

const AGENT_WAIT: Duration = Duration::from_secs(60);
/// The agent's own limit of 90 s, and the time that it takes to begin and to end.
const TRIAL_WAIT: Duration = Duration::from_secs(240);
const LOOK: Duration = Duration::from_millis(200);

/// The program for the VM.
pub(super) async fn binary(context: &Context, vm: VmId) -> Result<AgentBinary, OpError> {
    let row = context.store.vm(vm).await?;
    let unknown = || OpError::UnknownVm { vm: vm.to_string(), known: String::new() };
    let arch = row.ok_or_else(unknown)?.vm.arch;
    let found = fit(context, arch).await?;
    if found.bytes > MAX_AGENT_BYTES {
        return Err(OpError::AgentTooLong { bytes: found.bytes, most: MAX_AGENT_BYTES });
    }
    Ok(found)
}

async fn told(context: &Context, vm: VmId, care: Care) -> Result<UpgradeReport, OpError> {
    match ask(context, vm, care, AGENT_WAIT).await? {
        Cared::Upgrade(report) => Ok(report),
        _ => Err(FleetError::NotUnderstood { vm }.into()),
    }
}

/// Sends what the VM does not have yet. Nothing where it runs that program already.
pub(super) async fn send(context: &Context, run: &Run<'_>, vm: VmId) -> Result<Value, OpError> {
    let binary = binary(context, vm).await?;
    // Whoever is linked has said by which key it knows us.
    linked(context, vm).await?;
    let row = context.store.vm(vm).await?;
    let arch = row.map(|row| row.vm.arch.as_str().to_owned()).unwrap_or_default();
    let statement = agent_binary_statement(&arch, binary.bytes, &binary.sha256);
    let wanted = NewAgent {
        signature: Bytes(context.fleet.vouch(vm, &statement)?),
        sha256: binary.sha256.clone(),
        bytes: binary.bytes,
        arch,
    };
    let mut report = told(context, vm, Care::BeginUpgrade(wanted)).await?;
    let before = report.installed.clone();
    if report.stage == UpgradeStage::Receiving {
        let unreadable = |error: std::io::Error| OpError::Unreadable {
            what: format!("the agent `{}`", binary.path.display()),
            detail: error.to_string(),
        };
        let mut file = tokio::fs::File::open(&binary.path).await.map_err(unreadable)?;
        let mut bytes = vec![0; AGENT_PIECE_BYTES];
        while report.stage == UpgradeStage::Receiving && report.received < binary.bytes {
            run.stop_if_asked().await?;
            let offset = report.received;
            file.seek(std::io::SeekFrom::Start(offset)).await.map_err(unreadable)?;
            let count = file.read(&mut bytes).await.map_err(unreadable)?;
            if count == 0 {
                return Err(unreadable(std::io::ErrorKind::UnexpectedEof.into()));
            }
            let base64 = BASE64_STANDARD.encode(&bytes[..count]);
            report = told(context, vm, Care::UpgradePiece(Piece { offset, base64 })).await?;
            run.say(format!("{} of {} bytes are there", report.received, binary.bytes)).await?;
        }
    }
    Ok(json!({ "sha256": binary.sha256, "before": before }))
}

/// Lets it be tried, and waits for how that ended.
pub(super) async fn attempt(
    context: &Context,
    operation: OperationId,
    run: &Run<'_>,
    vm: VmId,
) -> Result<Value, OpError> {
    let deadline = Instant::now() + TRIAL_WAIT;
    let wanted = run.output("send_agent")["sha256"].as_str().unwrap_or_default();
    let mut said = String::new();
    loop {
        let report = match told(context, vm, Care::UpgradeState).await {
            // Between two links: the one of before has ended, and the next is on its way.
            Err(OpError::Fleet(_) | OpError::AgentAway { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            report => report?,
        };
        let transcript = json!(report.transcript);
        match report.stage {
            UpgradeStage::Receiving if report.wanted == wanted => {
                let upkeep = Upkeep { operation: operation.to_string() };
                let begun = told(context, vm, Care::TryUpgrade(upkeep)).await;
                match begun {
                    Ok(_) => {}
                    // Asked twice, or refused for what the report tells next.
                    Err(OpError::Fleet(error)) => tracing::info!(%error, %vm, "the trial of {vm}"),
                    Err(error) => return Err(error),
                }
            }
            UpgradeStage::Done if report.installed == wanted => {
                return Ok(json!({ "transcript": transcript }));
            }
            UpgradeStage::RolledBack | UpgradeStage::Done | UpgradeStage::None => {
                let told = report.transcript.last().cloned().unwrap_or_default();
                return Err(OpError::UpgradeRolledBack { vm, told });
            }
            UpgradeStage::Receiving | UpgradeStage::Trial | UpgradeStage::Unknown => {}
        }
        run.stop_if_asked().await?;
        if Instant::now() >= deadline {
            return Err(OpError::AgentAway { vm, waited_s: TRIAL_WAIT.as_secs() });
        }
        if let Some(last) = report.transcript.last().filter(|last| **last != said) {
            run.say(last.clone()).await?;
            said.clone_from(last);
        }
        tokio::time::sleep(LOOK).await;
    }
}
