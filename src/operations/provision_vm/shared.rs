//! What all VMs of an installation share at a cloud, and when it can go.

use crate::domain::ids::VmId;
use crate::operations::{Context, OpError};

/// Names that are shared by all VMs of an installation, and go with the last one.
pub(in crate::operations) struct Shared {
    pub(in crate::operations) ssh_key: String,
    pub(in crate::operations) firewall: String,
}

impl Shared {
    pub(in crate::operations) fn of(context: &Context) -> Self {
        let bare = context.settings.installation.bare();
        Self { ssh_key: format!("vmkit-owner-{bare}"), firewall: format!("vmkit-{bare}") }
    }

    /// Whether a VM other than `vm` at the same cloud still needs them. One that is kept as a snapshot does.
    pub(in crate::operations) async fn needed_without(
        context: &Context,
        vm: VmId,
    ) -> Result<bool, OpError> {
        let provider = context.store.vm(vm).await?.map(|row| row.vm.provider);
        let all = context.store.vms().await?;
        Ok(all.iter().any(|row| row.vm.id != vm && Some(&row.vm.provider) == provider.as_ref()))
    }
}
