//! A VM's address of its own: made before the server or, where a cloud has none without one, after
//! it; found again by our name, our label or our note; released before it is deleted.

use crate::clouds::{AnyCloud, Cloud, CloudAddress, LABEL_VM, vm_labels};
use crate::domain::environment::Vm;
use crate::domain::ids::VmId;
use crate::domain::names::RegionName;
use crate::operations::{Context, OpError};
use crate::store::VmRow;

/// Makes the VM's address, or finds it, and notes its id; none where the cloud makes one only for
/// a server and `server` is none.
pub(in crate::operations) async fn ensure(
    context: &Context,
    cloud: &AnyCloud,
    vm: VmId,
    region: &RegionName,
    server: Option<&str>,
) -> Result<Option<CloudAddress>, OpError> {
    let labels = vm_labels(context.settings.installation, vm, None);
    let made = cloud.ensure_address(&Vm::cloud_name(&vm), region, server, &labels).await?;
    if let Some(address) = &made {
        context.store.set_vm_address_id(vm, Some(address.provider_id.clone())).await?;
    }
    Ok(made)
}

/// The VM's address as its cloud lists it, whether or not the answer to its order came.
pub(in crate::operations) async fn find(
    context: &Context,
    cloud: &AnyCloud,
    row: &VmRow,
) -> Result<Option<CloudAddress>, OpError> {
    let installation = vm_labels(context.settings.installation, row.vm.id, None);
    let noted = row.vm.address_id.as_deref();
    let server = row.vm.provider_id.as_deref();
    let all = cloud.list_addresses().await?;
    let ours = |one: &&CloudAddress| {
        let labelled = one.labels.contains_key(LABEL_VM)
            && installation.iter().all(|(key, value)| one.labels.get(key) == Some(value));
        // A cloud without labels: by our note, or by the server that is ours.
        let unlabelled = one.labels.is_empty()
            && (noted == Some(one.provider_id.as_str())
                || (server.is_some() && one.vm.as_deref() == server));
        labelled || unlabelled
    };
    Ok(all.iter().find(ours).cloned())
}

/// Deletes the VM's address. One that is gone is fine.
pub(in crate::operations) async fn delete(
    context: &Context,
    cloud: &AnyCloud,
    row: &VmRow,
) -> Result<(), OpError> {
    let installation = context.settings.installation;
    if let Some(address) = find(context, cloud, row).await? {
        if address.vm.is_some() {
            cloud.release_address(&address.provider_id, installation).await?;
        }
        cloud.delete_address(&address.provider_id, installation).await?;
    }
    Ok(context.store.set_vm_address_id(row.vm.id, None).await?)
}
