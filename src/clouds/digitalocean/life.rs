//! What changes a droplet that exists: power, name, tags, disk, size.
//!
//! Every action here means the same when it is asked for twice, so a lost answer is asked for
//! again, and what counts in the end is how the droplet is.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::droplets::{failed_action, is_ours, number, reference, unlabelled};
use super::{DigitalOcean, PROVIDER, late, refusal, tags, wire};
use crate::clouds::{
    CloudError, CloudVm, FieldFault, LABEL_INSTALLATION, Rebuild, Resize, StoppedVm,
};
use crate::domain::ids::InstallationId;
use crate::requests::Call;

/// How long power takes to go once it is cut.
const CUT_MAX: Duration = Duration::from_secs(120);
/// How long a new name takes.
const NAME_MAX: Duration = Duration::from_secs(60);
/// How long a disk takes to be written anew.
const REBUILD_MAX: Duration = Duration::from_secs(600);

impl DigitalOcean {
    /// Does an action on a droplet and waits until it is `done`. A refusal is no error where the
    /// droplet is so already.
    async fn act(
        &self,
        droplet: u64,
        body: Value,
        limit: Duration,
        done: impl Fn(&wire::Droplet) -> bool,
    ) -> Result<wire::Droplet, CloudError> {
        let kind = body["type"].as_str().unwrap_or_default().to_owned();
        let what = format!("droplet {droplet}");
        let call = Call::post("v2/droplets").at(droplet).under("actions").body(body).repeatable();
        let is = |found: &wire::Droplet| !found.locked && done(found);
        let answered = self
            .ask(&call, &what)
            .await
            .and_then(|answer| Ok(answer.json::<wire::ActionBody>("an action")?.action));
        let (mut action, limit, doubt) = match answered {
            Ok(action) => (Some(action), limit, None),
            Err(error) if error.may_have_happened() => (None, self.pace().doubt, Some(error)),
            Err(error) => {
                let found = self.droplet(&droplet.to_string()).await?;
                return found.filter(is).ok_or(error);
            }
        };
        let mut polls = self.pace().polls(limit);
        loop {
            if let Some(running) = action.take() {
                action = self.unfinished(running).await?;
            }
            if action.is_none()
                && let Some(found) = self.droplet(&droplet.to_string()).await?.filter(is)
            {
                return Ok(found);
            }
            if !polls.wait().await {
                let late = || late(format!("`{kind}` of {what}"), limit);
                return Err(doubt.unwrap_or_else(late));
            }
        }
    }

    /// The action as it is now if it is under way, none once it is done; an error where it failed.
    pub(super) async fn unfinished(
        &self,
        action: wire::Action,
    ) -> Result<Option<wire::Action>, CloudError> {
        let now = if action.status == "in-progress" {
            let call = Call::get("v2/actions").at(action.id);
            match self.ask_maybe(&call, "the action").await? {
                Some(answer) => answer.json::<wire::ActionBody>("an action")?.action,
                None => return Ok(None),
            }
        } else {
            action
        };
        match now.status.as_str() {
            "completed" => Ok(None),
            "errored" => Err(failed_action(&self.api.clean(&now.kind))),
            _ => Ok(Some(now)),
        }
    }

    pub(super) async fn power_on(
        &self,
        id: &str,
        installation: InstallationId,
        limit: Duration,
    ) -> Result<CloudVm, CloudError> {
        let found = self.our_droplet(id, installation).await?;
        if found.status != "active" {
            self.act(found.id, json!({ "type": "power_on" }), limit, |now| now.status == "active")
                .await?;
        }
        self.until_running(id, limit).await
    }

    pub(super) async fn shut_down(
        &self,
        id: &str,
        installation: InstallationId,
        grace: Duration,
    ) -> Result<StoppedVm, CloudError> {
        let found = self.our_droplet(id, installation).await?;
        if found.status == "off" {
            return Ok(StoppedVm { vm: self.vm(found).await?, forced: false });
        }
        let call = Call::post("v2/droplets").at(found.id).under("actions");
        let call = call.body(json!({ "type": "shutdown" })).repeatable();
        let asked = self.ask(&call, &format!("droplet {id}")).await;
        let asked =
            asked.and_then(|answer| Ok(answer.json::<wire::ActionBody>("an action")?.action));
        // Where nobody was asked to shut down, there is nothing to wait for: power is cut below.
        let (mut action, grace) = match asked {
            Err(error @ (CloudError::Auth { .. } | CloudError::Forbidden { .. })) => {
                return Err(error);
            }
            Err(error) => {
                tracing::debug!(code = error.code(), "droplet {id} was not shut down");
                let doubt = self.pace().doubt.min(grace);
                (None, if error.may_have_happened() { doubt } else { Duration::ZERO })
            }
            Ok(action) => (Some(action), grace),
        };
        let mut polls = self.pace().polls(grace);
        loop {
            let now = self.our_droplet(id, installation).await?;
            if now.status == "off" && !now.locked {
                return Ok(StoppedVm { vm: self.vm(now).await?, forced: false });
            }
            if let Some(running) = action.take() {
                match self.unfinished(running).await {
                    Err(CloudError::ActionFailed { .. }) => break,
                    running => action = running?,
                }
            }
            if !polls.wait().await {
                break;
            }
        }
        let off = |now: &wire::Droplet| now.status == "off";
        let now = self.act(found.id, json!({ "type": "power_off" }), CUT_MAX, off).await?;
        Ok(StoppedVm { vm: self.vm(now).await?, forced: true })
    }

    pub(super) async fn power_cycle(
        &self,
        id: &str,
        installation: InstallationId,
        limit: Duration,
    ) -> Result<CloudVm, CloudError> {
        let found = self.our_droplet(id, installation).await?;
        if found.status == "off" {
            return self.power_on(id, installation, limit).await;
        }
        let on = |now: &wire::Droplet| now.status == "active";
        self.act(found.id, json!({ "type": "power_cycle" }), limit, on).await?;
        self.until_running(id, limit).await
    }

    pub(super) async fn rename(
        &self,
        id: &str,
        installation: InstallationId,
        name: &str,
    ) -> Result<CloudVm, CloudError> {
        let found = self.our_droplet(id, installation).await?;
        if found.name == name {
            return self.vm(found).await;
        }
        // The old name said which VM it is.
        let labels = tags::labels(&found.tags, &found.name);
        self.tag("droplet", id, missing(&found, &labels, name)).await?;
        let body = json!({ "type": "rename", "name": name });
        let now = self.act(found.id, body, NAME_MAX, |now| now.name == name).await?;
        self.vm(now).await
    }

    pub(super) async fn adopt(
        &self,
        id: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<CloudVm, CloudError> {
        let Some(installation) = labels.get(LABEL_INSTALLATION) else {
            return Err(unlabelled());
        };
        let what = format!("droplet {id}");
        let found = self.droplet(id).await?;
        let found = found.ok_or(CloudError::NotFound { provider: PROVIDER, what })?;
        let own = tags::labels(&found.tags, &found.name);
        if own.get(LABEL_INSTALLATION).is_some_and(|theirs| theirs != installation) {
            let what = format!("droplet `{}`", found.name);
            return Err(CloudError::Foreign { provider: PROVIDER, what });
        }
        self.tag("droplet", id, missing(&found, labels, &found.name)).await?;
        let what = format!("droplet {id}");
        let now = self.droplet(id).await?;
        self.vm(now.ok_or(CloudError::NotFound { provider: PROVIDER, what })?).await
    }

    /// The tag that says whose it is goes last: until then it can be found again.
    pub(super) async fn disown(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> Result<(), CloudError> {
        let Some(found) = self.droplet(id).await? else { return Ok(()) };
        let own = tags::labels(&found.tags, &found.name);
        if own.get(LABEL_INSTALLATION) != Some(&installation.bare()) {
            return Ok(());
        }
        let last = tags::installation_tag(installation);
        let (mut ours, mut rest): (Vec<String>, Vec<String>) =
            found.tags.into_iter().filter(|tag| tags::is_ours(tag)).partition(|tag| *tag == last);
        rest.append(&mut ours);
        for tag in rest {
            let resources = json!([{ "resource_id": id, "resource_type": "droplet" }]);
            let call = Call::delete("v2/tags").at(&tag).under("resources");
            let call = call.body(json!({ "resources": resources }));
            self.ask_maybe(&call, &format!("droplet {id}")).await?;
        }
        Ok(())
    }

    /// DigitalOcean takes no user-data for a rebuild: the droplet gets what it was made with.
    pub(super) async fn rebuild(
        &self,
        id: &str,
        installation: InstallationId,
        rebuild: &Rebuild,
    ) -> Result<CloudVm, CloudError> {
        let found = self.our_droplet(id, installation).await?;
        let body = json!({ "type": "rebuild", "image": reference(&rebuild.image) });
        let on = |now: &wire::Droplet| now.status == "active";
        self.act(found.id, body, REBUILD_MAX, on).await?;
        self.until_running(id, REBUILD_MAX).await
    }

    pub(super) async fn resize(
        &self,
        id: &str,
        installation: InstallationId,
        resize: &Resize,
    ) -> Result<CloudVm, CloudError> {
        let found = self.our_droplet(id, installation).await?;
        let size = resize.size.as_str();
        if found.size_slug == size {
            return self.vm(found).await;
        }
        if found.status != "off" {
            let message = "it has to be off for another size".to_owned();
            let fields = vec![FieldFault { field: format!("droplet `{}`", found.name), message }];
            return Err(CloudError::Invalid { provider: PROVIDER, fields });
        }
        let body = json!({ "type": "resize", "size": size, "disk": resize.grow_disk });
        let fits = |now: &wire::Droplet| now.size_slug == size;
        let resized = self.act(found.id, body, resize.limit, fits).await;
        let now = resized.map_err(|error| refusal::sold_out(error, size, &found.region.slug))?;
        self.vm(now).await
    }

    /// Makes a reserved address the droplet's, and waits until it is.
    pub(super) async fn point_ip(&self, ip: &str, droplet: u64) -> Result<(), CloudError> {
        let wanted = |ip: &wire::ReservedIp| ip.droplet_id() == Some(droplet);
        let body = json!({ "type": "assign", "droplet_id": droplet });
        self.act_on_ip(ip, body, wanted).await
    }

    /// The droplet's id as a number, where it is ours.
    pub(super) async fn our_id(
        &self,
        id: &str,
        installation: InstallationId,
    ) -> Result<u64, CloudError> {
        self.our_droplet(id, installation).await?;
        number("droplet", id)
    }

    /// Whether a droplet is ours; one that is gone is nobody's.
    pub(super) async fn is_our_id(
        &self,
        id: u64,
        installation: InstallationId,
    ) -> Result<bool, CloudError> {
        let found = self.droplet(&id.to_string()).await?;
        Ok(found.is_none_or(|found| is_ours(&found, &installation.bare())))
    }
}

/// The tags that a droplet of that name lacks to say what `labels` say.
fn missing(droplet: &wire::Droplet, labels: &BTreeMap<String, String>, name: &str) -> Vec<String> {
    let wanted = tags::tags(labels, name).into_iter();
    wanted.filter(|tag| !droplet.tags.contains(tag)).collect()
}
