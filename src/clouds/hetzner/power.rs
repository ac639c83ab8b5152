//! Power: on, off gracefully and then by force, and both.

use std::time::Duration;

use super::actions::late;
use super::{Hetzner, PROVIDER};
use crate::clouds::{CloudError, CloudVm, CloudVmState, StoppedVm};
use crate::domain::ids::InstallationId;

/// How long a server's power may take to go once it is cut.
const CUT_MAX: Duration = Duration::from_secs(60);
/// How long another action on the server is waited for.
pub(super) const FREE_MAX: Duration = Duration::from_secs(300);

impl Hetzner {
    pub(super) async fn power_on(
        &self,
        id: &str,
        installation: InstallationId,
        limit: Duration,
    ) -> Result<CloudVm, CloudError> {
        let found = self.our_server(id, installation).await?;
        refuse_deleting(&found)?;
        if found.state == CloudVmState::Running && found.address.is_some() {
            return Ok(found);
        }
        let found = self.until_free(id, limit.max(FREE_MAX)).await?;
        if !matches!(found.state, CloudVmState::Running | CloudVmState::Starting) {
            let what = format!("server `{}`", found.name);
            let action = self.begin(id, "poweron", None, true, &what).await?;
            self.finish(action, limit).await?;
        }
        self.until_running(id, limit).await
    }

    /// Hetzner's shutdown has succeeded once the guest was asked; whether the guest obeys is seen
    /// only by the server's state.
    pub(super) async fn power_off(
        &self,
        id: &str,
        installation: InstallationId,
        grace: Duration,
    ) -> Result<StoppedVm, CloudError> {
        let found = self.our_server(id, installation).await?;
        refuse_deleting(&found)?;
        let found = if found.state == CloudVmState::Off {
            found
        } else {
            self.until_free(id, FREE_MAX).await?
        };
        if found.state == CloudVmState::Off {
            return Ok(StoppedVm { vm: found, forced: false });
        }
        let what = format!("server `{}`", found.name);
        let asked = self.begin(id, "shutdown", None, true, &what).await?;
        match self.finish(asked, CUT_MAX).await {
            // A guest that cannot be asked is cut off like one that does not listen.
            Ok(()) | Err(CloudError::ActionFailed { .. }) => {}
            Err(error) => return Err(error),
        }
        if let Some(vm) = self.until_off(id, grace).await? {
            return Ok(StoppedVm { vm, forced: false });
        }
        let cut = self.begin(id, "poweroff", None, true, &what).await?;
        self.finish(cut, CUT_MAX).await?;
        match self.until_off(id, CUT_MAX).await? {
            Some(vm) => Ok(StoppedVm { vm, forced: true }),
            None => Err(late(format!("the power-off of {what}"), CUT_MAX)),
        }
    }

    pub(super) async fn power_cycle(
        &self,
        id: &str,
        installation: InstallationId,
        limit: Duration,
    ) -> Result<CloudVm, CloudError> {
        let found = self.our_server(id, installation).await?;
        refuse_deleting(&found)?;
        let found = self.until_free(id, FREE_MAX).await?;
        let what = format!("server `{}`", found.name);
        let action = if found.state == CloudVmState::Off { "poweron" } else { "reset" };
        let action = self.begin(id, action, None, true, &what).await?;
        self.finish(action, limit).await?;
        self.until_running(id, limit).await
    }

    /// The server once it is off; none where it is not within `limit`.
    async fn until_off(&self, id: &str, limit: Duration) -> Result<Option<CloudVm>, CloudError> {
        let mut polls = self.pace().polls(limit);
        loop {
            match self.server(id).await {
                Ok(Some(vm)) if vm.state == CloudVmState::Off => return Ok(Some(vm)),
                Ok(Some(_)) => {}
                Ok(None) => {
                    let what = format!("server {id}");
                    return Err(CloudError::NotFound { provider: PROVIDER, what });
                }
                Err(error) if error.retryable() => {
                    tracing::debug!(code = error.code(), "could not look at server {id}");
                }
                Err(error) => return Err(error),
            }
            if !polls.wait().await {
                return Ok(None);
            }
        }
    }
}

/// What is on its way out is not changed any more.
pub(super) fn refuse_deleting(vm: &CloudVm) -> Result<(), CloudError> {
    if vm.state != CloudVmState::Deleting {
        return Ok(());
    }
    Err(CloudError::Conflict { provider: PROVIDER, what: format!("server `{}`", vm.name) })
}
