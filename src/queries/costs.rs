//! What is paid, and what for: per environment, unused things, this month's end, a size's what-if.
//!
//! Amounts are decimals with their currency. A VM is counted once, however many environments run
//! on it. What others made in the same accounts is shown apart and is in no sum.

mod found;
mod month;
mod what_if;

use std::collections::BTreeMap;

use crate::clouds::{
    CloudAddress, CloudSnapshot, CloudVm, CloudVmState, LABEL_EXPIRES, LABEL_INSTALLATION,
};
use crate::domain::clock::Millis;
use crate::domain::environment::{Environment, Vm, VmState};
use crate::domain::ids::InstallationId;
use crate::domain::money::Money;
use crate::domain::names::{EnvironmentPath, SizeName};
use crate::domain::size::Size;
use crate::operations::catalogue::{Age, Catalogue, catalogue};
use crate::operations::{Context, OpError};
use crate::store::VmRow;

pub use found::Found;
pub use month::Month;
pub use what_if::WhatIf;

/// Whether a VM of ours is up, as its cloud says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// Up, or on its way.
    On,
    /// Off: billed in full all the same.
    Off,
    /// Its cloud does not have it, so it is not billed.
    Gone,
    /// Its cloud was not asked or did not answer.
    Unknown,
}

impl Power {
    /// One word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Gone => "gone",
            Self::Unknown => "unknown",
        }
    }
}

/// A VM of ours with what it costs.
#[derive(Debug, Clone)]
pub struct VmCost {
    /// The VM and what is paid for it per month.
    pub row: VmRow,
    /// The environments that run on it.
    pub environments: Vec<EnvironmentPath>,
    /// Whether it is up.
    pub power: Power,
    /// Its size as its cloud sells it today, at today's price.
    pub today: Option<Size>,
}

impl VmCost {
    /// What is billed for it per month now.
    pub fn billed(&self) -> Money {
        match self.power {
            Power::Gone => Money::zero(self.row.monthly.currency),
            Power::On | Power::Off | Power::Unknown => self.row.monthly,
        }
    }
}

/// Something that is paid for and that nothing uses.
#[derive(Debug, Clone)]
pub struct Unused {
    /// What it is, and why it is here.
    pub what: String,
    /// What it costs per month; none where its cloud does not tell.
    pub monthly: Option<Money>,
    /// Whether the sum has it already, as it has a VM that is off.
    pub counted: bool,
}

/// What is paid, and what for.
#[derive(Debug)]
pub struct Costs {
    /// Each VM of ours once.
    pub vms: Vec<VmCost>,
    /// What nothing uses.
    pub unused: Vec<Unused>,
    /// Per month now, by currency: VMs, addresses and snapshots of ours.
    pub monthly: Vec<Money>,
    /// What this month will have come to at its end, by currency.
    pub forecast: Vec<Money>,
    /// This month.
    pub month: Month,
    /// What others made in the same accounts, in words.
    pub foreign: Vec<String>,
    /// What another size would mean.
    pub what_if: Option<WhatIf>,
    /// What could not be looked at.
    pub trouble: Vec<String>,
}

/// Whether a VM in that state is billed: a row exists before its server and until after it.
pub(super) fn is_billed(state: VmState) -> bool {
    match state {
        VmState::Ordered | VmState::Ready | VmState::Parked | VmState::Deleting => true,
        // Its server is gone; what is kept of it is found at the cloud, apart.
        VmState::Kept | VmState::Deleted => false,
    }
}

/// A question about another size.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The size.
    pub size: SizeName,
    /// Whose VM would have it; the only VM where none is named.
    pub environment: Option<EnvironmentPath>,
}

/// Reads what is paid. A cloud that does not answer is told; what is known without it is shown.
///
/// # Errors
/// The state file; and for a what-if, a size that the VM's region does not have.
pub async fn costs(context: &Context, asked: Option<&Asked>) -> Result<Costs, OpError> {
    let now = context.clock.now();
    let environments = context.store.environments().await?;
    let rows = context.store.vms().await?;
    let catalogue = match catalogue(context, Age::Young).await {
        Ok(catalogue) => catalogue,
        Err(error) if asked.is_some() => return Err(error),
        Err(error) => {
            Catalogue { lists: Vec::new(), away: vec![("price lists", error)], absent: Vec::new() }
        }
    };
    let mut found = found::found(context).await;
    let installation = context.settings.installation;
    mark_noted(&mut found, &rows, installation);
    let vms: Vec<VmCost> = rows
        .into_iter()
        .filter(|row| is_billed(row.vm.state))
        .map(|row| vm_cost(row, &environments, &found, &catalogue))
        .collect();
    let what_if = match asked {
        Some(asked) => Some(what_if::what_if(context, asked, &vms, &catalogue).await?),
        None => None,
    };
    let mut trouble: Vec<String> =
        catalogue.away.iter().map(|(cloud, error)| format!("{cloud}: {error}")).collect();
    trouble.extend(found.iter().flat_map(|found| found.trouble.clone()));
    trouble.dedup();
    let ours = |labels: &Labels| labels.get(LABEL_INSTALLATION) == Some(&installation.bare());
    let month = Month::of(now);
    let unused: Vec<Unused> = unused(&vms, &found, &catalogue, &ours, now);
    let (monthly, forecast) = sums(&vms, &found, &catalogue, &ours, &month);
    Ok(Costs {
        foreign: found.iter().filter_map(|found| found.foreign(&ours)).collect(),
        vms,
        unused,
        monthly,
        forecast,
        month,
        what_if,
        trouble,
    })
}

/// Labels as ours the addresses that only a note of ours names: DigitalOcean labels none.
fn mark_noted(found: &mut [Found], rows: &[VmRow], installation: InstallationId) {
    for found in found {
        let noted = |address: &&mut CloudAddress| {
            let id = address.provider_id.as_str();
            let own = |row: &VmRow| {
                row.vm.provider == found.cloud && row.vm.address_id.as_deref() == Some(id)
            };
            address.labels.is_empty() && rows.iter().any(own)
        };
        for address in found.addresses.iter_mut().flatten().filter(noted) {
            address.labels.insert(LABEL_INSTALLATION.to_owned(), installation.bare());
        }
    }
}

fn vm_cost(
    row: VmRow,
    environments: &[Environment],
    found: &[Found],
    catalogue: &Catalogue,
) -> VmCost {
    let on_it = environments.iter().filter(|e| e.vm == Some(row.vm.id)).map(|e| e.path.clone());
    let listed = found.iter().find(|found| found.cloud == row.vm.provider);
    let servers = listed.and_then(|found| found.vms.as_deref());
    let name = Vm::cloud_name(&row.vm.id);
    let of = |vm: &&CloudVm| {
        vm.name == name || row.vm.provider_id.as_deref() == Some(vm.provider_id.as_str())
    };
    let power = match servers.map(|servers| servers.iter().find(of)) {
        None => Power::Unknown,
        // The order may be under way.
        Some(None) if row.vm.state == VmState::Ordered => Power::Unknown,
        Some(None) => Power::Gone,
        Some(Some(server)) if server.state == CloudVmState::Off => Power::Off,
        Some(Some(_)) => Power::On,
    };
    let sold = catalogue.of(&row.vm.provider).map(|list| list.sizes.iter());
    let today = sold.and_then(|mut sizes| {
        sizes.find(|size| size.name == row.vm.size && size.region == row.vm.region).cloned()
    });
    VmCost { environments: on_it.collect(), row, power, today }
}

/// When a snapshot of ours may go; none where it says nothing.
fn expires(snapshot: &CloudSnapshot) -> Option<Millis> {
    let seconds = snapshot.labels.get(LABEL_EXPIRES)?.parse::<i64>().ok()?;
    Some(Millis(seconds.saturating_mul(1000)))
}

fn snapshot_price(snapshot: &CloudSnapshot, cloud: &str, catalogue: &Catalogue) -> Option<Money> {
    let per_gb = catalogue.of(cloud)?.extras.snapshot_gb?;
    Some(per_gb.times(snapshot.size_gb?.into()))
}

fn address_price(cloud: &str, catalogue: &Catalogue) -> Option<Money> {
    catalogue.of(cloud)?.extras.address_unused
}

type Labels = BTreeMap<String, String>;

/// Whether an address is ours: by its label, or by its name where the cloud labels none.
fn is_ours(address: &CloudAddress, vms: &[VmCost], ours: &dyn Fn(&Labels) -> bool) -> bool {
    let name = address.name.as_deref();
    ours(&address.labels)
        || vms.iter().any(|vm| name == Some(Vm::cloud_name(&vm.row.vm.id).as_str()))
}

fn unused(
    vms: &[VmCost],
    found: &[Found],
    catalogue: &Catalogue,
    ours: &dyn Fn(&Labels) -> bool,
    now: Millis,
) -> Vec<Unused> {
    let mut all = Vec::new();
    for vm in vms {
        let why = match (vm.power, vm.environments.is_empty()) {
            (Power::Off, _) => "is off and billed in full",
            (Power::On | Power::Unknown, true) => "has no environment",
            (Power::On | Power::Unknown, false) | (Power::Gone, _) => continue,
        };
        let what =
            format!("VM {} ({} in {}) {why}", vm.row.vm.id, vm.row.vm.size, vm.row.vm.region);
        all.push(Unused { what, monthly: Some(vm.billed()), counted: true });
    }
    for found in found {
        let cloud = found.cloud;
        let lost = |server: &&CloudVm| {
            let known = |vm: &VmCost| {
                vm.row.vm.provider_id.as_deref() == Some(server.provider_id.as_str())
                    || Vm::cloud_name(&vm.row.vm.id) == server.name
            };
            ours(&server.labels) && !vms.iter().any(known)
        };
        for server in found.vms.iter().flatten().filter(lost) {
            let what = format!(
                "server `{}` ({} in {}) at {cloud} is labelled as ours and in no record: delete it there",
                server.name, server.size, server.region
            );
            let sold = catalogue.of(cloud).map(|list| list.sizes.iter());
            let size = sold.and_then(|mut sizes| {
                sizes.find(|s| s.name.as_str() == server.size && s.region.as_str() == server.region)
            });
            all.push(Unused { what, monthly: size.map(|size| size.monthly), counted: false });
        }
        let idle = |address: &&CloudAddress| address.vm.is_none() && is_ours(address, vms, ours);
        for address in found.addresses.iter().flatten().filter(idle) {
            let what = format!("address {} at {cloud} is attached to nothing", address.address);
            all.push(Unused { what, monthly: address_price(cloud, catalogue), counted: true });
        }
        for snapshot in found.snapshots.iter().flatten().filter(|s| ours(&s.labels)) {
            let Some(until) = expires(snapshot).filter(|until| *until <= now) else { continue };
            let what =
                format!("snapshot `{}` at {cloud} was to go on {}", snapshot.name, until.rfc3339());
            let monthly = snapshot_price(snapshot, cloud, catalogue);
            all.push(Unused { what, monthly, counted: true });
        }
    }
    all
}

/// Per month now, and at this month's end.
fn sums(
    vms: &[VmCost],
    found: &[Found],
    catalogue: &Catalogue,
    ours: &dyn Fn(&Labels) -> bool,
    month: &Month,
) -> (Vec<Money>, Vec<Money>) {
    let mut now: Vec<Money> = vms.iter().map(VmCost::billed).collect();
    let mut end: Vec<Money> =
        vms.iter().map(|vm| vm.billed().times(month.share_since(vm.row.vm.created_at))).collect();
    for found in found {
        let idle = |address: &&CloudAddress| address.vm.is_none() && is_ours(address, vms, ours);
        let addresses = found.addresses.iter().flatten().filter(idle);
        let whole = addresses.filter_map(|_| address_price(found.cloud, catalogue));
        let whole: Vec<Money> = whole.collect();
        now.extend(whole.iter().copied());
        end.extend(whole);
        for snapshot in found.snapshots.iter().flatten().filter(|s| ours(&s.labels)) {
            let Some(price) = snapshot_price(snapshot, found.cloud, catalogue) else { continue };
            now.push(price);
            let share = month.share(snapshot.created.unwrap_or(month.start), expires(snapshot));
            end.push(price.times(share));
        }
    }
    (Money::sums(now), Money::sums(end))
}

#[cfg(test)]
mod tests;
