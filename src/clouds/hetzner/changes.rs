//! What changes a server: its name, its labels, its disk, its size.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::power::{FREE_MAX, refuse_deleting};
use super::servers::{number, vm};
use super::{Hetzner, PROVIDER, invalid, wire};
use crate::clouds::{
    CloudError, CloudVm, CloudVmState, LABEL_INSTALLATION, LABELS, Rebuild, Resize, ResizeRules,
};
use crate::domain::ids::InstallationId;
use crate::requests::Call;

/// How long a rebuild may take: an image is written to a local disk.
const REBUILD_MAX: Duration = Duration::from_secs(600);

/// Hetzner's price adjustment of 2026-06-15 (its announcement and price list of that date): servers
/// that were ordered earlier keep their old price until they are rescaled, up or down.
pub(super) const RESIZE_RULES: ResizeRules = ResizeRules {
    repricing: Some(
        "a change of size, up or down, moves the server to Hetzner's prices of 2026-06-15; a \
         server that is older loses its old price, and changing back does not bring it back \
         (source: Hetzner's price adjustment of 2026-06-15)",
    ),
    downtime_s: 120,
};

impl Hetzner {
    pub(super) async fn rename(
        &self,
        id: &str,
        installation: InstallationId,
        name: &str,
    ) -> Result<CloudVm, CloudError> {
        let found = self.our_server(id, installation).await?;
        if found.name == name {
            return Ok(found);
        }
        refuse_deleting(&found)?;
        self.put(id, json!({ "name": name }), &format!("a server named `{name}`")).await
    }

    /// Hetzner replaces labels whole, so the ones that are there are sent along.
    pub(super) async fn take_over(
        &self,
        id: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<CloudVm, CloudError> {
        let Some(installation) = labels.get(LABEL_INSTALLATION) else {
            return Err(invalid(
                LABEL_INSTALLATION,
                "it is missing, so nobody would own the server",
            ));
        };
        let Some(found) = self.server(id).await? else {
            return Err(CloudError::NotFound { provider: PROVIDER, what: format!("server {id}") });
        };
        let what = format!("server `{}`", found.name);
        if found.labels.get(LABEL_INSTALLATION).is_some_and(|other| other != installation) {
            return Err(CloudError::Foreign { provider: PROVIDER, what });
        }
        refuse_deleting(&found)?;
        let mut all = found.labels.clone();
        all.extend(labels.clone());
        if all == found.labels {
            return Ok(found);
        }
        self.put(id, json!({ "labels": all }), &what).await
    }

    /// The labels of everybody else stay.
    pub(super) async fn disown(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        let Some(found) = self.server(id).await? else { return Ok(()) };
        if !found.belongs_to(installation) {
            return Ok(());
        }
        let mut labels = found.labels;
        labels.retain(|label, _| !label.starts_with(LABELS));
        let what = format!("server `{}`", found.name);
        self.put(id, json!({ "labels": labels }), &what).await.map(drop)
    }

    async fn put(&self, id: &str, body: Value, what: &str) -> Result<CloudVm, CloudError> {
        let call = Call::put("servers").at(number("server", id)?).body(body);
        let answer = self.ask(&call, what).await?;
        Ok(vm(answer.json::<wire::ServerBody>("the changed server")?.server))
    }

    /// A second rebuild would wipe what the first one's boot has done, so after a lost answer the
    /// server's actions tell whether there was a first.
    pub(super) async fn rebuild(
        &self,
        id: &str,
        installation: InstallationId,
        rebuild: &Rebuild,
    ) -> Result<CloudVm, CloudError> {
        let found = self.our_server(id, installation).await?;
        refuse_deleting(&found)?;
        let raw = self.until_free_raw(number("server", id)?, FREE_MAX).await?;
        let what = format!("server `{}`", raw.name);
        if raw.protection.rebuild {
            return Err(CloudError::Protected { provider: PROVIDER, what });
        }
        let before = self.newest(id, "rebuild_server").await?.map_or(0, |action| action.id);
        let mut body = json!({ "image": rebuild.image });
        if let Some(user_data) = &rebuild.user_data {
            body["user_data"] = user_data.expose().into();
        }
        let action = match self.begin(id, "rebuild", Some(body), false, &what).await {
            Ok(action) => action,
            Err(error) if error.may_have_happened() => {
                match self.look_for_action(id, "rebuild_server", before).await {
                    Some(action) => action,
                    None => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        self.finish(action, REBUILD_MAX).await?;
        self.until_free(id, FREE_MAX).await
    }

    /// Looks for an action whose answer was lost, newer than `before`.
    async fn look_for_action(&self, id: &str, command: &str, before: u64) -> Option<wire::Action> {
        let mut polls = self.pace().polls(self.pace().doubt);
        loop {
            match self.newest(id, command).await {
                Ok(Some(action)) if action.id > before => return Some(action),
                Ok(_) => {}
                Err(error) => tracing::debug!(code = error.code(), "could not look for {command}"),
            }
            if !polls.wait().await {
                return None;
            }
        }
    }

    pub(super) async fn change_size(
        &self,
        id: &str,
        installation: InstallationId,
        resize: &Resize,
    ) -> Result<CloudVm, CloudError> {
        let found = self.our_server(id, installation).await?;
        refuse_deleting(&found)?;
        // An earlier call may still be at it.
        let found = self.until_free(id, resize.limit).await?;
        if found.size == resize.size.as_str() {
            return Ok(found);
        }
        if found.state != CloudVmState::Off {
            return Err(invalid(
                "status",
                "the server runs; switch it off before a change of size",
            ));
        }
        let sold_out =
            || CloudError::SoldOut { size: resize.size.to_string(), region: found.region.clone() };
        let what = format!("server `{}`", found.name);
        let call = Call::post("servers")
            .at(number("server", id)?)
            .under("actions/change_type")
            .body(json!({ "server_type": resize.size, "upgrade_disk": resize.grow_disk }));
        let answered = match self.api.send(&call).await {
            Ok(answer) if super::refusal::is_sold_out(&answer) => return Err(sold_out()),
            Ok(answer) if answer.is_success() => {
                answer.json::<wire::ActionBody>("an action").map_err(CloudError::from)
            }
            Ok(answer) => Err(super::refusal::error(&self.api, &answer, &what)),
            Err(error) => Err(error.into()),
        };
        let lost = match answered {
            Ok(body) => match self.finish_or(body.action, resize.limit).await? {
                Ok(()) => None,
                Err(failure) if failure.is_sold_out() => return Err(sold_out()),
                Err(failure) => return Err(failure.error),
            },
            Err(error) if error.may_have_happened() => Some(error),
            Err(error) => return Err(error),
        };
        let Some(error) = lost else { return self.until_free(id, FREE_MAX).await };
        self.until_size(id, resize).await?.ok_or(error)
    }

    /// After a lost answer: the server once it has the size and is free, none where it keeps the
    /// old one. One that an action holds is being changed.
    async fn until_size(&self, id: &str, resize: &Resize) -> Result<Option<CloudVm>, CloudError> {
        let mut doubt = self.pace().polls(self.pace().doubt);
        loop {
            let now = self.until_free(id, resize.limit).await?;
            if now.size == resize.size.as_str() {
                return Ok(Some(now));
            }
            if !doubt.wait().await {
                return Ok(None);
            }
        }
    }
}
