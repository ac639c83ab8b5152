//! `/snapshots` and `/images`: a droplet's snapshot is in both.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::catalogue::IMAGES;
use super::errors::ApiError;
use super::input::Input;
use super::listing::Query;
use super::project::{Project, Snapshot};
use super::{Answer, DigitalOcean, NO_CONTENT, Nothing, answers, ok};
use crate::clock;
use crate::machines::Disk;

/// An image by slug or id, as the API shows it: a distribution's or a snapshot.
pub(super) fn find_image(project: &Project, reference: &str) -> Option<Value> {
    let fits = |slug: &str, id: u64| slug == reference || id.to_string() == reference;
    if let Some(image) = IMAGES.iter().find(|image| fits(image.slug, image.id)) {
        return Some(image.json());
    }
    let snapshot = project.snapshots.get(&reference.parse().ok()?)?;
    Some(answers::snapshot_image(snapshot))
}

/// The copy that an image is, where it is a snapshot.
pub(super) fn disk_of(project: &Project, image: &Value) -> Option<Disk> {
    Some(project.snapshots.get(&image["id"].as_u64()?)?.disk.clone())
}

pub(super) async fn list_images(State(cloud): State<DigitalOcean>, query: Query) -> Response {
    let project = cloud.project();
    let private = query.get("private") == Some("true");
    let base = IMAGES.iter().map(|image| image.json()).filter(|_| !private);
    let own = project.snapshots.values().filter(|_| query.get("type").is_none());
    let shown = base.chain(own.map(answers::snapshot_image)).filter(|image| {
        let tags = image["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
        query.get("tag_name").is_none_or(|tag| tags.iter().any(|own| own == tag))
    });
    query.page("images", shown.collect())
}

pub(super) async fn show_image(
    State(cloud): State<DigitalOcean>,
    Path(id): Path<String>,
) -> Answer {
    let image = find_image(&cloud.project(), &id).ok_or_else(ApiError::not_found)?;
    ok(json!({"image": image}))
}

pub(super) async fn rename(
    State(cloud): State<DigitalOcean>,
    Path(id): Path<String>,
    input: Input,
) -> Answer {
    let mut project = cloud.project();
    let snapshot = id.parse().ok().and_then(|id: u64| project.snapshots.get_mut(&id));
    let snapshot = snapshot.ok_or_else(ApiError::not_found)?;
    snapshot.name = input.required_text("name")?.to_owned();
    ok(json!({"image": answers::snapshot_image(snapshot)}))
}

pub(super) async fn list(State(cloud): State<DigitalOcean>, query: Query) -> Response {
    let project = cloud.project();
    let shown = project.snapshots.values().filter(|_| query.takes("resource_type", "droplet"));
    query.page("snapshots", shown.map(answers::snapshot).collect())
}

pub(super) async fn list_of_droplet(
    State(cloud): State<DigitalOcean>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let project = cloud.project();
    let droplet = project.droplet(&id)?.id;
    let own = project.snapshots.values().filter(|snapshot| snapshot.droplet == droplet);
    let shown = own.map(|snapshot| {
        let mut image = answers::snapshot_image(snapshot);
        image["type"] = "snapshot".into();
        image
    });
    Ok(query.page("snapshots", shown.collect()))
}

pub(super) async fn show(State(cloud): State<DigitalOcean>, Path(id): Path<String>) -> Answer {
    let project = cloud.project();
    let found = id.parse().ok().and_then(|id: u64| project.snapshots.get(&id));
    ok(json!({"snapshot": answers::snapshot(found.ok_or_else(ApiError::not_found)?)}))
}

pub(super) async fn delete(State(cloud): State<DigitalOcean>, Path(id): Path<String>) -> Nothing {
    let id: u64 = id.parse().map_err(|_| ApiError::not_found())?;
    cloud.project().snapshots.remove(&id).ok_or_else(ApiError::not_found)?;
    NO_CONTENT
}

impl DigitalOcean {
    /// The action `snapshot`.
    pub(super) fn snapshot(&self, id: &str, input: &Input) -> Answer {
        let given = input.text("name")?.map(str::to_owned);
        let begun = self.begin(id, "snapshot", |_| Ok(()))?;
        let (this, droplet, address) = (self.clone(), begun.droplet, begun.address);
        self.later(begun.action, Some(droplet), async move {
            let machine = this.machine(address)?;
            let dir = this.0.machines.disk_dir();
            let copying = tokio::task::spawn_blocking(move || machine.copy_disk(dir)).await;
            let disk = copying.map_err(|error| error.to_string())?;
            let disk = disk.map_err(|error| error.to_string())?;
            let mut project = this.project();
            let id = project.next_id();
            let of = project.droplets.get(&droplet).ok_or("the droplet is gone")?;
            let snapshot = Snapshot {
                id,
                name: given.unwrap_or_else(|| format!("{}-{id}", of.name)),
                created: clock::now(),
                droplet,
                regions: vec![of.region.slug],
                min_disk: of.disk,
                disk,
                tags: Default::default(),
            };
            project.snapshots.insert(id, snapshot);
            Ok(())
        });
        begun.answer
    }
}
