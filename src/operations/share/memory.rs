//! Whether the memory of a shared VM is enough for all that lives on it, as far as limits and
//! services tell.

use std::time::Duration;

use vmkit_agent_protocol::calls::{Call, Reply};

use crate::domain::environment::Environment;
use crate::domain::ids::VmId;
use crate::domain::names::EnvironmentPath;
use crate::domain::service::{ServiceKind, ServiceState};
use crate::domain::size::Arch;
use crate::operations::catalogue::{Age, catalogue};
use crate::operations::downtime::inhabited;
use crate::operations::repo::kept_scan;
use crate::operations::{Context, OpError, environments};
use crate::pipeline::scan::Scan;
use crate::pipeline::{EnvironmentSetup, Setup};
use crate::store::{AppRow, VmRow};

/// How long an agent may take to say how much memory its machine has.
const AGENT_WAIT: Duration = Duration::from_secs(5);
/// Of the memory, in parts: what the system, Docker and what has no limit are left at least.
const LEFT: u64 = 8;

/// What may be taken of a VM's memory.
#[derive(Debug, Default, PartialEq, Eq)]
struct Load {
    /// What, and how much, in MiB.
    counted: Vec<(String, u64)>,
    /// What has no limit.
    unlimited: Vec<String>,
}

impl Load {
    /// What to say where it does not fit into so many MiB.
    fn told(&self, memory_mib: u64) -> Option<String> {
        let sum: u64 = self.counted.iter().map(|(_, mib)| mib).sum();
        if sum <= memory_mib - memory_mib / LEFT {
            return None;
        }
        let counted: Vec<String> =
            self.counted.iter().map(|(what, mib)| format!("{what} {mib}")).collect();
        let unlimited = match self.unlimited.as_slice() {
            [] => String::new(),
            all => format!("; without a limit, and not counted: {}", all.join(", ")),
        };
        Some(format!(
            "memory is short: what lives on that VM may take {sum} MiB, and it has {memory_mib}, of \
             which the system needs some ({}{unlimited}). Lower the limits with `configure_app` and \
             `manage_service`, or call `resize_vm`",
            counted.join(", ")
        ))
    }
}

/// What to say of the memory of a VM that `path` shares or is to share; nothing where all limits
/// and services fit into it, or where nobody knows how much it has.
///
/// # Errors
/// The VM is not ready, or our own file cannot be read.
pub async fn short(
    context: &Context,
    path: &EnvironmentPath,
    vm: VmId,
) -> Result<Option<String>, OpError> {
    let here = inhabited(context, vm).await?;
    let mut load = Load::default();
    for environment in here.environments.iter().filter(|one| one.path != *path) {
        let row = environments::app(&context.store, &environment.path.app).await?;
        limits(&mut load, &row, environment)?;
        for service in context.store.services(environment.id).await? {
            if service.state != ServiceState::Removing {
                let hint = service.kind.memory_hint_mb();
                let mib = service.memory_mb.unwrap_or(hint);
                load.counted
                    .push((format!("{} of {}", service.kind, environment.path), mib.into()));
            }
        }
    }
    // It has no limits yet; what its code asks for comes beside it.
    let scan: Scan = kept_scan(&environments::app(&context.store, &path.app).await?)?;
    for kind in scan.services.iter().filter_map(|name| name.parse::<ServiceKind>().ok()) {
        load.counted.push((format!("{kind} for {path}"), kind.memory_hint_mb().into()));
    }
    load.unlimited.push(format!("{path} itself"));
    Ok(match memory(context, &here.row).await {
        Some(mib) => load.told(mib),
        None => None,
    })
}

/// The limits of an environment's processes.
fn limits(load: &mut Load, row: &AppRow, environment: &Environment) -> Result<(), OpError> {
    let scan: Scan = kept_scan(row)?;
    let Some(build) = scan.build.clone() else { return Ok(()) };
    let setup = Setup::of(&row.app, build, &scan, Vec::new());
    for role in setup.roles(&EnvironmentSetup::of(environment, None, Arch::Amd64)) {
        let what = format!("{} of {}", role.name, environment.path);
        match role.memory_mb {
            Some(mib) => load.counted.push((what, mib.into())),
            None => load.unlimited.push(what),
        }
    }
    Ok(())
}

/// How much memory a VM has, in MiB: by its cloud's list, else by its agent's word.
async fn memory(context: &Context, row: &VmRow) -> Option<u64> {
    let vm = &row.vm;
    if !vm.is_own_machine()
        && let Ok(lists) = catalogue(context, Age::Young).await
        && let Some(list) = lists.of(&vm.provider)
        && let Some(size) = list.sizes.iter().find(|size| size.name == vm.size)
    {
        return Some(size.memory_mib);
    }
    match context.fleet.call(vm.id, Call::Metrics, AGENT_WAIT).await {
        Ok(Reply::Metrics(metrics)) => Some(metrics.memory_bytes >> 20).filter(|mib| *mib > 0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_services_are_weighed_and_what_has_none_is_named() {
        let counted = |mib| vec![("web of a/b".to_owned(), mib), ("redis of a/b".to_owned(), 64)];
        let load = |mib| Load { counted: counted(mib), unlimited: vec!["c/d itself".to_owned()] };
        assert_eq!(load(3520).told(4096), None, "an eighth is left");
        let said = load(3521).told(4096).expect("too much");
        assert!(said.contains("may take 3585 MiB, and it has 4096"), "{said}");
        assert!(said.contains("web of a/b 3521, redis of a/b 64"), "{said}");
        assert!(said.contains("not counted: c/d itself"), "{said}");
    }
}
