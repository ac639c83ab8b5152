//! `GET /droplets`, `GET|DELETE /droplets/{id}`.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::errors::ApiError;
use super::listing::Query;
use super::{Answer, DigitalOcean, NO_CONTENT, Nothing, answers, ok};

pub(super) async fn list(State(cloud): State<DigitalOcean>, query: Query) -> Response {
    let knobs = cloud.knobs();
    let project = cloud.project();
    let shown: Vec<Value> = project
        .droplets
        .values()
        .filter(|droplet| query.takes("name", &droplet.name))
        .filter(|droplet| query.get("tag_name").is_none_or(|tag| droplet.tags.contains(tag)))
        .map(|droplet| answers::droplet(&project, droplet, &knobs))
        .collect();
    query.page("droplets", shown)
}

pub(super) async fn show(State(cloud): State<DigitalOcean>, Path(id): Path<String>) -> Answer {
    let knobs = cloud.knobs();
    let project = cloud.project();
    ok(json!({"droplet": answers::droplet(&project, project.droplet(&id)?, &knobs)}))
}

/// The droplet is on its way out at once, and can be seen for a moment more.
pub(super) async fn delete(State(cloud): State<DigitalOcean>, Path(id): Path<String>) -> Nothing {
    let droplet = {
        let mut project = cloud.project();
        let droplet = project.unlocked(&id)?;
        droplet.locked = true;
        droplet.id
    };
    cloud.take_away(droplet);
    NO_CONTENT
}

pub(super) async fn delete_tagged(State(cloud): State<DigitalOcean>, query: Query) -> Nothing {
    let tag = query.get("tag_name").ok_or_else(|| ApiError::refused("tag_name is required"))?;
    let found: Vec<u64> = {
        let project = cloud.project();
        let tagged = project.droplets.values().filter(|droplet| droplet.tags.contains(tag));
        tagged.map(|droplet| droplet.id).collect()
    };
    for droplet in found {
        cloud.take_away(droplet);
    }
    NO_CONTENT
}

impl DigitalOcean {
    fn take_away(&self, droplet: u64) {
        let Some(address) = self.project().droplets.get(&droplet).map(|one| one.address) else {
            return;
        };
        let Some(action) = self.project().begin("destroy", droplet) else { return };
        let this = self.clone();
        self.later(action, Some(droplet), async move {
            this.0.machines.delete(address).await;
            this.project().forget(droplet);
            Ok(())
        });
    }
}
