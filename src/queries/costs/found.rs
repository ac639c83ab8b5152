//! What is there at the clouds and billed, ours or not.

use super::Labels;
use crate::accounts::CLOUDS;
use crate::clouds::{Cloud, CloudAddress, CloudError, CloudSnapshot, CloudVm};
use crate::operations::{Context, OpError};

/// What one cloud has of what is billed; none for what it did not tell.
#[derive(Debug, Default)]
pub struct Found {
    /// The cloud.
    pub cloud: &'static str,
    /// Its servers.
    pub vms: Option<Vec<CloudVm>>,
    /// Its addresses.
    pub addresses: Option<Vec<CloudAddress>>,
    /// Its snapshots.
    pub snapshots: Option<Vec<CloudSnapshot>>,
    /// What it was asked for and did not tell, and why.
    pub trouble: Vec<String>,
}

impl Found {
    fn keep<T>(&mut self, what: &str, asked: Result<T, CloudError>) -> Option<T> {
        match asked {
            Ok(told) => Some(told),
            // A cloud without such things has none that could be billed.
            Err(CloudError::NotOffered { .. }) => None,
            Err(error) => {
                self.trouble.push(format!("{} of {}: {error}", what, self.cloud));
                None
            }
        }
    }

    /// What others made there, in words.
    pub(super) fn foreign(&self, ours: &dyn Fn(&Labels) -> bool) -> Option<String> {
        let count = |all: usize, one: &str, several: &str| match all {
            0 => None,
            1 => Some(format!("1 {one}")),
            all => Some(format!("{all} {several}")),
        };
        let vms = self.vms.iter().flatten().filter(|vm| !ours(&vm.labels)).count();
        let addresses = || self.addresses.iter().flatten().filter(|a| !ours(&a.labels));
        let idle = addresses().filter(|address| address.vm.is_none()).count();
        let snapshots = self.snapshots.iter().flatten().filter(|s| !ours(&s.labels)).count();
        let unattached = if idle > 0 { format!(" ({idle} unattached)") } else { String::new() };
        let parts: Vec<String> = [
            count(vms, "server", "servers"),
            count(addresses().count(), "address", "addresses").map(|all| all + &unattached),
            count(snapshots, "snapshot", "snapshots"),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!parts.is_empty()).then(|| format!("{}: {}", self.cloud, parts.join(", ")))
    }
}

/// Asks every connected cloud.
pub(super) async fn found(context: &Context) -> Vec<Found> {
    let mut all = Vec::new();
    for cloud in CLOUDS {
        let mut found = Found { cloud, ..Found::default() };
        let client = match context.accounts.cloud(cloud).await.map_err(OpError::from) {
            Ok(client) => client,
            Err(error) if error.code() == "not_connected" => continue,
            Err(error) => {
                found.trouble.push(format!("{cloud}: {error}"));
                all.push(found);
                continue;
            }
        };
        found.vms = found.keep("the servers", client.list_vms().await);
        found.addresses = found.keep("the addresses", client.list_addresses().await);
        found.snapshots = found.keep("the snapshots", client.list_snapshots().await);
        all.push(found);
    }
    all
}
