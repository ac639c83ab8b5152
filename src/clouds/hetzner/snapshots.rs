//! Snapshots: images of type `snapshot`. Hetzner does not keep their names apart, so ours are told
//! by name and label together.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::actions::late;
use super::power::{FREE_MAX, refuse_deleting};
use super::servers::{number, time};
use super::{Hetzner, PROVIDER, invalid, wire};
use crate::clouds::{CloudError, CloudSnapshot, LABEL_INSTALLATION};
use crate::domain::ids::InstallationId;
use crate::requests::Call;

/// How long a snapshot may take: a large disk is copied to another place.
const SNAPSHOT_MAX: Duration = Duration::from_secs(3600);

impl Hetzner {
    pub(super) async fn keep_disk(
        &self,
        id: &str,
        installation: InstallationId,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<CloudSnapshot, CloudError> {
        if labels.get(LABEL_INSTALLATION) != Some(&installation.bare()) {
            let message = "it is not this installation's, so the snapshot could not be found again";
            return Err(invalid(LABEL_INSTALLATION, message));
        }
        let server = number("server", id)?;
        if let Some(found) = self.our_snapshot(name, installation).await? {
            return self.until_available(found).await;
        }
        let found = self.our_server(id, installation).await?;
        refuse_deleting(&found)?;
        self.until_free_raw(server, FREE_MAX).await?;
        let what = format!("server `{}`", found.name);
        let call = Call::post("servers").at(server).under("actions/create_image").body(json!({
            "type": "snapshot", "description": name, "labels": labels,
        }));
        let made = match self.ask(&call, &what).await {
            Ok(answer) => answer
                .json::<wire::ImageBody>("the new snapshot")
                .and_then(|body| Ok((body, answer.json::<wire::ActionBody>("an action")?)))
                .map_err(CloudError::from),
            Err(error) => Err(error),
        };
        match made {
            Ok((body, action)) => {
                self.finish(action.action, SNAPSHOT_MAX).await?;
                self.until_available(body.image).await
            }
            Err(error) if error.may_have_happened() => {
                match self.look_for_snapshot(name, installation).await {
                    Some(found) => self.until_available(found).await,
                    None => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn our_snapshot(
        &self,
        name: &str,
        installation: InstallationId,
    ) -> Result<Option<wire::Image>, CloudError> {
        let ours = |image: &wire::Image| {
            image.description.as_deref() == Some(name)
                && image.labels.get(LABEL_INSTALLATION) == Some(&installation.bare())
                && image.status.as_deref() != Some("unavailable")
        };
        let selector = format!("{LABEL_INSTALLATION}={}", installation.bare());
        Ok(self.images_of_snapshots(Some(&selector)).await?.into_iter().find(ours))
    }

    async fn images_of_snapshots(
        &self,
        selector: Option<&str>,
    ) -> Result<Vec<wire::Image>, CloudError> {
        let call = || {
            let call = Call::get("images").query("type", "snapshot");
            match selector {
                Some(selector) => call.query("label_selector", selector),
                None => call,
            }
        };
        self.pages(call, "the snapshots", |page: wire::Images| page.images).await
    }

    async fn look_for_snapshot(
        &self,
        name: &str,
        installation: InstallationId,
    ) -> Option<wire::Image> {
        let mut polls = self.pace().polls(self.pace().doubt);
        loop {
            match self.our_snapshot(name, installation).await {
                Ok(Some(found)) => return Some(found),
                Ok(None) => {}
                Err(error) => tracing::debug!(code = error.code(), "could not look for {name}"),
            }
            if !polls.wait().await {
                return None;
            }
        }
    }

    /// Waits until a snapshot can be used; one that vanishes has failed.
    async fn until_available(&self, image: wire::Image) -> Result<CloudSnapshot, CloudError> {
        let (id, mut now) = (image.id, image);
        let mut polls = self.pace().polls(SNAPSHOT_MAX);
        loop {
            if now.status.as_deref().is_none_or(|status| status == "available") {
                return Ok(snapshot(now));
            }
            if !polls.wait().await {
                return Err(late(format!("snapshot {id}"), SNAPSHOT_MAX));
            }
            now = match self.image_by_id(id).await {
                Ok(Some(image)) => image,
                Ok(None) => {
                    return Err(CloudError::ActionFailed {
                        provider: PROVIDER,
                        command: "create_image".to_owned(),
                        reason: format!("snapshot {id} is gone"),
                    });
                }
                Err(error) if error.retryable() => continue,
                Err(error) => return Err(error),
            };
        }
    }

    async fn image_by_id(&self, id: u64) -> Result<Option<wire::Image>, CloudError> {
        let call = Call::get("images").at(id);
        match self.ask_maybe(&call, &format!("snapshot {id}")).await? {
            Some(answer) => Ok(Some(answer.json::<wire::ImageBody>("a snapshot")?.image)),
            None => Ok(None),
        }
    }

    pub(super) async fn snapshots(&self) -> Result<Vec<CloudSnapshot>, CloudError> {
        let images = self.images_of_snapshots(None).await?;
        Ok(images.into_iter().map(snapshot).collect())
    }

    pub(super) async fn drop_snapshot(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        let number = number("snapshot", id)?;
        let Some(found) = self.image_by_id(number).await? else { return Ok(()) };
        let what = format!("snapshot {id}");
        let ours = found.labels.get(LABEL_INSTALLATION) == Some(&installation.bare());
        if found.kind != "snapshot" || !ours {
            return Err(CloudError::Foreign { provider: PROVIDER, what });
        }
        if found.protection.delete {
            return Err(CloudError::Protected { provider: PROVIDER, what });
        }
        self.ask_maybe(&Call::delete("images").at(number), &what).await?;
        Ok(())
    }
}

fn snapshot(image: wire::Image) -> CloudSnapshot {
    CloudSnapshot {
        provider_id: image.id.to_string(),
        name: image.description.unwrap_or_default(),
        size_gb: image.image_size.map(|gb| gb.ceil() as u64),
        min_disk_gb: image.disk_size.ceil() as u64,
        // Hetzner's snapshots can be used in every location.
        regions: None,
        labels: image.labels,
        protected: image.protection.delete,
        created: image.created.as_deref().and_then(time),
    }
}
