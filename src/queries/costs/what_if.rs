//! What another size would mean for a VM: price, and what stands in the way.

use super::{Asked, VmCost};
use crate::clouds::Cloud;
use crate::domain::ids::VmId;
use crate::domain::money::Money;
use crate::domain::size::{Offer, Size, misfit};
use crate::operations::catalogue::Catalogue;
use crate::operations::{Context, OpError};

/// What another size would mean for a VM.
#[derive(Debug, Clone)]
pub struct WhatIf {
    /// The VM.
    pub vm: VmId,
    /// What is paid for it per month now.
    pub before: Money,
    /// The size in its region, at today's price.
    pub size: Size,
    /// What it would cost more per month; none where the currency has changed.
    pub difference: Option<Money>,
    /// What a change of size does to the price beyond the list.
    pub repricing: Option<&'static str>,
    /// How long it would be down, in seconds.
    pub downtime_s: u32,
    /// Why it cannot be done.
    pub impossible: Option<String>,
}

pub(super) async fn what_if(
    context: &Context,
    asked: &Asked,
    vms: &[VmCost],
    catalogue: &Catalogue,
) -> Result<WhatIf, OpError> {
    let vm = which(asked, vms)?;
    let row = &vm.row;
    if row.vm.is_own_machine() {
        return Err(OpError::OwnMachine { vm: row.vm.id });
    }
    let cloud = &row.vm.provider;
    let of_cloud: Vec<Offer> =
        catalogue.offers().into_iter().filter(|offer| offer.cloud == *cloud).collect();
    let there = |o: &&Offer| o.size.name == asked.size && o.size.region == row.vm.region;
    let Some(offer) = of_cloud.iter().find(there) else {
        return Err(OpError::UnknownSize {
            size: asked.size.to_string(),
            region: row.vm.region.to_string(),
            near: misfit(&asked.size, &row.vm.region, &of_cloud),
        });
    };
    let rules = context.accounts.cloud(cloud).await?.resize_rules();
    Ok(WhatIf {
        vm: row.vm.id,
        before: row.monthly,
        difference: offer.size.monthly.minus(row.monthly),
        repricing: rules.repricing,
        downtime_s: rules.downtime_s,
        impossible: impossible(vm, &offer.size),
        size: offer.size.clone(),
    })
}

fn impossible(vm: &VmCost, size: &Size) -> Option<String> {
    let row = &vm.row.vm;
    if size.arch != row.arch {
        let (wanted, has) = (size.arch.as_str(), row.arch.as_str());
        return Some(format!("it is {wanted} and the VM is {has}: no cloud changes that"));
    }
    if size.name == row.size {
        return Some("it is the VM's size already".to_owned());
    }
    let disk = vm.today.as_ref().map_or(0, |today| today.disk_gb);
    if size.disk_gb < disk {
        return Some(format!(
            "its disk of {} GB may be too small: the VM's size has {disk} GB, and a disk never shrinks",
            size.disk_gb
        ));
    }
    (!size.available).then(|| "it is sold out there now".to_owned())
}

/// The VM that is meant.
fn which<'a>(asked: &Asked, vms: &'a [VmCost]) -> Result<&'a VmCost, OpError> {
    match (&asked.environment, vms) {
        (Some(path), vms) => vms
            .iter()
            .find(|vm| vm.environments.contains(path))
            .ok_or_else(|| OpError::NoVm { environment: path.to_string() }),
        (None, [only]) => Ok(only),
        (None, []) => {
            Err(OpError::Nothing { what: "there is no VM yet whose size could change".to_owned() })
        }
        (None, several) => {
            let names: Vec<String> = several
                .iter()
                .flat_map(|vm| &vm.environments)
                .map(|path| format!("`{path}`"))
                .collect();
            let what = format!("`what_if` needs an `environment`: {}", names.join(", "));
            Err(OpError::Nothing { what })
        }
    }
}
