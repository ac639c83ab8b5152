//! Why an agent is silent: the cloud of its VM is asked whether the server runs at all. Most
//! silences are an agent that links again in a moment, so the first look is not the time to ask.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Context, OpError};
use crate::clouds::{Cloud, CloudVm, CloudVmState};
use crate::domain::environment::VmState;
use crate::domain::ids::VmId;
use crate::fleet::Trouble;
use crate::store::VmRow;

/// The code of a server that is off.
pub(crate) const OFF: &str = "vm_off";
/// How often it is looked who is silent.
const LOOK: Duration = Duration::from_secs(5);
/// Asked at one look: a gateway that starts finds everybody silent, and clouds count calls.
const AT_MOST: usize = 2;
/// The pause before a VM is asked about again, doubled each time, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(600));

/// When a silent VM is to be asked about, and how often it was.
struct Silent {
    at: Instant,
    times: u32,
}

/// Looks now and then until `stop`.
pub async fn watch(context: &Context, stop: &CancellationToken) {
    let mut silent = HashMap::new();
    loop {
        if let Err(error) = look(context, &mut silent).await {
            tracing::debug!(code = error.code(), %error, "silent agents are looked for another time");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn look(context: &Context, silent: &mut HashMap<VmId, Silent>) -> Result<(), OpError> {
    let (mut due, mut still, now) = (Vec::new(), HashMap::new(), Instant::now());
    let open = context.store.open_operations().await?;
    for row in context.store.vms().await? {
        let vm = &row.vm;
        let known = vm.state == VmState::Ready && !vm.is_own_machine() && vm.provider_id.is_some();
        // What works on a VM knows its server's state, and has told it.
        let worked_on = open.iter().any(|one| one.vm == Some(vm.id));
        if !known || worked_on || context.fleet.presence(vm.id).await?.linked {
            continue;
        }
        let known = silent.remove(&vm.id).unwrap_or(Silent { at: now + LOOK, times: 0 });
        if known.at <= now {
            due.push((known.at, row.clone()));
        }
        still.insert(vm.id, known);
    }
    *silent = still;
    due.sort_by_key(|(at, _)| *at);
    for (_, row) in due.into_iter().take(AT_MOST) {
        if let Some(known) = silent.get_mut(&row.vm.id) {
            let (first, longest) = AGAIN;
            known.at = now + first.saturating_mul(1 << known.times.min(16)).min(longest);
            known.times = known.times.saturating_add(1);
        }
        match ask(context, &row).await {
            Ok(seen) => context.fleet.explain(row.vm.id, seen),
            Err(error) => {
                let (vm, code) = (row.vm.id, error.code());
                tracing::debug!(%vm, code, %error, "whether the server of {vm} runs is not known");
            }
        }
    }
    Ok(())
}

/// What the cloud has to say of a silent VM's server; nothing where it runs.
async fn ask(context: &Context, row: &VmRow) -> Result<Option<Trouble>, OpError> {
    let Some(server) = row.vm.provider_id.as_deref() else { return Ok(None) };
    let cloud = context.accounts.cloud(&row.vm.provider).await?;
    Ok(told(cloud.get_vm(server).await?.as_ref(), &row.vm.provider))
}

fn told(server: Option<&CloudVm>, provider: &str) -> Option<Trouble> {
    let (code, message) = match server.map(|server| &server.state) {
        Some(CloudVmState::Running) => return None,
        Some(CloudVmState::Off | CloudVmState::Stopping) => (
            OFF,
            format!(
                "its server is off at {provider}; `maintain_vm` with action `power_on` starts it"
            ),
        ),
        Some(CloudVmState::Starting) => {
            ("vm_starting", format!("its server is starting at {provider}"))
        }
        Some(CloudVmState::Other(word)) => {
            ("vm_other", format!("its server is in the state `{word}` at {provider}"))
        }
        None | Some(CloudVmState::Deleting) => {
            ("vm_gone", format!("{provider} has no such server any more"))
        }
    };
    Some(Trouble { code: code.to_owned(), message })
}
