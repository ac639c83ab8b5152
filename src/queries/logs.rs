//! An app's own output.

use regex::Regex;

use crate::domain::clock::Millis;
use crate::domain::environment::VmState;
use crate::domain::names::EnvironmentPath;
pub use crate::fleet::LogPage;
use crate::fleet::{Fleet, LogQuery};
use crate::operations::OpError;
use crate::operations::env::Mask;
use crate::operations::environments::environment;
use crate::store::Store;
use crate::vault::Vault;

/// Which lines are wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of one role only.
    pub role: Option<String>,
    /// From this time on.
    pub since: Option<Millis>,
    /// Before this time.
    pub until: Option<Millis>,
    /// Only lines that match.
    pub grep: Option<Regex>,
    /// At most so many, the newest.
    pub limit: usize,
}

/// Reads the output of an environment's containers, its secret values hidden.
///
/// # Errors
/// The environment does not exist or has no VM, or its agent cannot be asked.
pub async fn logs(
    store: &Store,
    vault: &Vault,
    fleet: &Fleet,
    path: &EnvironmentPath,
    wanted: Wanted,
) -> Result<LogPage, OpError> {
    let environment = environment(store, path).await?;
    let no_vm = || OpError::NoVm { environment: path.to_string() };
    let vm = environment.vm.ok_or_else(no_vm)?;
    let row = store.vm(vm).await?.ok_or_else(no_vm)?;
    if row.vm.state != VmState::Ready {
        return Err(no_vm());
    }
    let query = LogQuery {
        service: path.service(),
        role: wanted.role,
        since: wanted.since,
        until: wanted.until,
        grep: wanted.grep.clone(),
        limit: wanted.limit,
    };
    let mut page = fleet.logs(vm, query).await?;
    let mask = Mask::of(store, vault, environment.id).await?;
    for line in &mut page.lines {
        line.text = mask.apply(&line.text);
    }
    // A pattern that matches only inside a secret must not tell that it does.
    page.lines.retain(|line| wanted.grep.as_ref().is_none_or(|grep| grep.is_match(&line.text)));
    Ok(page)
}
