//! Snapshots of droplets: images that are tagged after they are made.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::droplets::{failed_action, millis, number};
use super::{DigitalOcean, PROVIDER, late, tags, wire};
use crate::clouds::{CloudError, CloudSnapshot, LABEL_INSTALLATION};
use crate::domain::ids::InstallationId;
use crate::requests::Call;

/// How long a snapshot may take: a disk of many GB is read whole.
const SNAPSHOT_MAX: Duration = Duration::from_secs(3600);

impl DigitalOcean {
    pub(super) async fn snapshots(&self) -> Result<Vec<wire::Snapshot>, CloudError> {
        let call = || Call::get("v2/snapshots").query("resource_type", "droplet");
        self.pages(call, "the snapshots", |page: wire::Snapshots| page.snapshots).await
    }

    pub(super) async fn find_or_take_snapshot(
        &self,
        id: &str,
        installation: InstallationId,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<CloudSnapshot, CloudError> {
        let droplet = self.our_droplet(id, installation).await?;
        let found = match self.snapshot_of(id, name, installation).await? {
            Some(found) => found,
            None => self.take_snapshot(droplet.id, name, installation).await?,
        };
        let own = found.tags.clone().unwrap_or_default();
        let missing = tags::tags(labels, name).into_iter().filter(|tag| !own.contains(tag));
        self.tag("image", &found.id, missing).await?;
        let call = Call::get("v2/snapshots").at(&found.id);
        let answer = self.ask(&call, &format!("snapshot `{name}`")).await?;
        Ok(snapshot(answer.json::<wire::SnapshotBody>("a snapshot")?.snapshot))
    }

    /// The snapshot of that name of that droplet, which is ours: a crash may have left it untagged.
    async fn snapshot_of(
        &self,
        droplet: &str,
        name: &str,
        installation: InstallationId,
    ) -> Result<Option<wire::Snapshot>, CloudError> {
        let ours = |one: &wire::Snapshot| {
            let tags = one.tags.clone().unwrap_or_default();
            let labels = tags::labels(&tags, &one.name);
            labels.get(LABEL_INSTALLATION).is_none_or(|own| *own == installation.bare())
        };
        let all = self.snapshots().await?;
        let fits = |one: &wire::Snapshot| one.name == name && one.resource_id == droplet;
        Ok(all.into_iter().find(|one| fits(one) && ours(one)))
    }

    /// Asks once: a second one would be a second snapshot. After a lost answer the droplet's
    /// actions say whether one is being taken.
    async fn take_snapshot(
        &self,
        droplet: u64,
        name: &str,
        installation: InstallationId,
    ) -> Result<wire::Snapshot, CloudError> {
        let what = format!("a snapshot of droplet {droplet}");
        let call = Call::post("v2/droplets").at(droplet).under("actions");
        let call = call.body(json!({ "type": "snapshot", "name": name }));
        let answered = self
            .ask(&call, &what)
            .await
            .and_then(|answer| Ok(answer.json::<wire::ActionBody>("an action")?.action));
        let (mut action, doubt) = match answered {
            Ok(action) => (Some(action), None),
            Err(error) if error.may_have_happened() => (None, Some(error)),
            Err(error) => return Err(error),
        };
        let mut polls = self.pace().polls(SNAPSHOT_MAX);
        let mut doubts = self.pace().polls(self.pace().doubt);
        loop {
            if let Some(running) = action.take() {
                action = self.unfinished(running).await?;
            } else if doubt.is_some() {
                action = self.snapshot_under_way(droplet).await?;
            }
            if action.is_none() {
                let id = droplet.to_string();
                if let Some(found) = self.snapshot_of(&id, name, installation).await? {
                    return Ok(found);
                }
            }
            let goes_on = match (&action, &doubt) {
                (None, Some(_)) => doubts.wait().await,
                _ => polls.wait().await,
            };
            if !goes_on {
                return Err(doubt.unwrap_or_else(|| late(what, SNAPSHOT_MAX)));
            }
        }
    }

    /// The snapshot that is being taken of a droplet.
    async fn snapshot_under_way(&self, droplet: u64) -> Result<Option<wire::Action>, CloudError> {
        let call = Call::get("v2/droplets").at(droplet).under("actions");
        let answer = self.ask(&call, "the actions").await?;
        let actions = answer.json::<wire::Actions>("the actions")?.actions;
        let newest = actions.into_iter().find(|one| one.kind == "snapshot");
        match newest {
            Some(one) if one.status == "errored" => Err(failed_action("snapshot")),
            one => Ok(one.filter(|one| one.status == "in-progress")),
        }
    }

    pub(super) async fn drop_snapshot(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        let call = Call::get("v2/snapshots").at(number("snapshot", id)?);
        let what = format!("snapshot {id}");
        let Some(answer) = self.ask_maybe(&call, &what).await? else { return Ok(()) };
        let found = snapshot(answer.json::<wire::SnapshotBody>("a snapshot")?.snapshot);
        if !found.belongs_to(installation) {
            return Err(CloudError::Foreign { provider: PROVIDER, what });
        }
        let call = Call::delete("v2/snapshots").at(number("snapshot", id)?);
        self.ask_maybe(&call, &what).await?;
        Ok(())
    }
}

pub(super) fn snapshot(found: wire::Snapshot) -> CloudSnapshot {
    let tags = found.tags.unwrap_or_default();
    CloudSnapshot {
        labels: tags::labels(&tags, &found.name),
        provider_id: found.id,
        name: found.name,
        size_gb: found.size_gigabytes.map(|size| size.max(0.0).ceil() as u64),
        min_disk_gb: found.min_disk_size,
        regions: Some(found.regions),
        // DigitalOcean protects no snapshot.
        protected: false,
        created: millis(found.created_at.as_deref()),
    }
}
