//! `/images`: the cloud's own, and the snapshots of the project's servers.

use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::catalogue::ServerType;
use super::errors::{ApiError, Code};
use super::input::{Input, Labels};
use super::listing::Query;
use super::project::Project;
use super::{Answer, Hetzner, created, ok};
use crate::clock;
use crate::machines::Disk;

/// What an image has on top of the files that were written to a sandbox VM, in GB.
const SYSTEM_GB: f64 = 1.31;

/// What a server's disk was made from.
#[derive(Clone)]
pub(super) struct Image {
    pub(super) id: u64,
    /// None for a snapshot.
    pub(super) name: Option<&'static str>,
    pub(super) arch: &'static str,
    flavor: &'static str,
    version: &'static str,
    pub(super) snapshot: Option<Snapshot>,
}

/// What a snapshot has beside that.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub(super) description: String,
    pub(super) labels: Labels,
    pub(super) protected: bool,
    created: Timestamp,
    created_from: (u64, String),
    disk_size: u64,
    /// None while it is being made.
    pub(super) disk: Option<Disk>,
}

/// All system images, two of each name.
pub(super) fn all_images() -> Vec<Image> {
    let names = [
        ("debian-12", "debian", "12"),
        ("debian-13", "debian", "13"),
        ("ubuntu-22.04", "ubuntu", "22.04"),
        ("ubuntu-24.04", "ubuntu", "24.04"),
    ];
    let pairs = names.iter().flat_map(|name| ["x86", "arm"].map(|arch| (*name, arch)));
    pairs
        .zip(114_690_387..)
        .map(|(((name, flavor, version), arch), id)| Image {
            id,
            name: Some(name),
            arch,
            flavor,
            version,
            snapshot: None,
        })
        .collect()
}

/// The image for an order: a name for the type's architecture, or an id.
pub(super) fn find_image(
    project: &Project,
    reference: &str,
    for_type: &ServerType,
) -> Result<Image, ApiError> {
    let named = |image: &&Image| image.name == Some(reference) || image.id.to_string() == reference;
    let system = all_images();
    let mut known = system.iter().chain(project.images.values()).filter(named).peekable();
    if known.peek().is_none() {
        return Err(ApiError::field("image", "image not found"));
    }
    let image = known
        .find(|image| image.arch == for_type.arch)
        .ok_or_else(|| ApiError::field("image", "image has the wrong architecture"))?;
    if let Some(snapshot) = &image.snapshot {
        if snapshot.disk.is_none() {
            return Err(ApiError::field("image", "image is not available yet"));
        }
        if snapshot.disk_size > for_type.disk {
            let message = "image disk is bigger than server type disk";
            return Err(ApiError::field("image", message));
        }
    }
    Ok(image.clone())
}

impl Image {
    /// The copy that a new disk is made from, for a snapshot.
    pub(super) fn disk(&self) -> Option<Disk> {
        self.snapshot.as_ref()?.disk.clone()
    }

    fn status(&self) -> &'static str {
        match &self.snapshot {
            Some(Snapshot { disk: None, .. }) => "creating",
            _ => "available",
        }
    }

    fn kind(&self) -> &'static str {
        if self.snapshot.is_some() { "snapshot" } else { "system" }
    }

    pub(super) fn json(&self) -> Value {
        let mut json = json!({
            "id": self.id, "type": self.kind(), "status": self.status(), "name": self.name,
            "description": self.name, "image_size": null, "disk_size": 5,
            "created": "2025-08-12T12:00:00+00:00", "created_from": null, "bound_to": null,
            "os_flavor": self.flavor, "os_version": self.version, "rapid_deploy": true,
            "protection": {"delete": false}, "deprecated": null, "deprecation": null,
            "deleted": null, "labels": {}, "architecture": self.arch,
        });
        if let (Some(snapshot), Some(json)) = (&self.snapshot, json.as_object_mut()) {
            let (server, name) = &snapshot.created_from;
            let more = json!({
                "description": snapshot.description, "disk_size": snapshot.disk_size,
                "image_size": snapshot.disk.as_ref().map(size_gb),
                "created": clock::rfc3339_offset(snapshot.created),
                "created_from": {"id": server, "name": name}, "rapid_deploy": false,
                "protection": {"delete": snapshot.protected}, "labels": snapshot.labels,
            });
            json.extend(more.as_object().cloned().unwrap_or_default());
        }
        json
    }
}

fn size_gb(disk: &Disk) -> f64 {
    let own = u32::try_from(disk.bytes() / 10_000_000).unwrap_or(u32::MAX);
    ((SYSTEM_GB * 100.0) + f64::from(own)).round() / 100.0
}

pub(super) async fn list(State(hetzner): State<Hetzner>, query: Query) -> Response {
    let project = hetzner.project();
    let system = all_images();
    let shown = system.iter().chain(project.images.values()).filter(|image| {
        let none = Labels::new();
        let labels = image.snapshot.as_ref().map_or(&none, |snapshot| &snapshot.labels);
        query.takes(image.name.unwrap_or_default(), labels)
            && query.one_of("architecture", image.arch)
            && query.one_of("type", image.kind())
            && query.one_of("status", image.status())
            && query.get("bound_to").is_none()
    });
    query.page("images", shown.map(Image::json).collect())
}

pub(super) async fn show(State(hetzner): State<Hetzner>, Path(id): Path<String>) -> Answer {
    let project = hetzner.project();
    let system = all_images();
    let mut all = system.iter().chain(project.images.values());
    let found = all.find(|image| image.id.to_string() == id);
    let found = found.ok_or_else(|| ApiError::not_found("image", &id))?;
    ok(json!({"image": found.json()}))
}

pub(super) async fn update(
    State(hetzner): State<Hetzner>,
    Path(id): Path<String>,
    input: Input,
) -> Answer {
    let mut project = hetzner.project();
    let (description, labels) = (input.text("description")?.map(str::to_owned), input.labels()?);
    let (image, snapshot) = snapshot(&mut project, &id)?;
    snapshot.description = description.unwrap_or_else(|| snapshot.description.clone());
    snapshot.labels = labels.unwrap_or_else(|| snapshot.labels.clone());
    ok(json!({"image": project.images[&image].json()}))
}

pub(super) async fn delete(
    State(hetzner): State<Hetzner>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let mut project = hetzner.project();
    let (image, snapshot) = snapshot(&mut project, &id)?;
    if snapshot.protected {
        return Err(ApiError::new(Code::Protected, "image deletion is protected"));
    }
    project.images.remove(&image);
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn act(
    State(hetzner): State<Hetzner>,
    Path((id, action)): Path<(String, String)>,
    input: Input,
) -> Answer {
    if action != "change_protection" {
        return Err(ApiError::new(Code::NotFound, "the action was not found"));
    }
    let mut project = hetzner.project();
    let delete = input.flag("delete")?;
    let (image, snapshot) = snapshot(&mut project, &id)?;
    snapshot.protected = delete.unwrap_or(snapshot.protected);
    created(json!({"action": project.done("change_protection", vec![(image, "image")])}))
}

fn snapshot<'a>(project: &'a mut Project, id: &str) -> Result<(u64, &'a mut Snapshot), ApiError> {
    let number: Option<u64> = id.parse().ok();
    if all_images().iter().any(|image| Some(image.id) == number) {
        return Err(ApiError::field("type", "only snapshots and backups can be changed"));
    }
    let found = number.and_then(|id| project.images.get_mut(&id));
    let found = found.and_then(|image| Some((image.id, image.snapshot.as_mut()?)));
    found.ok_or_else(|| ApiError::not_found("image", id))
}

impl Hetzner {
    /// `POST /servers/{id}/actions/create_image`.
    pub(super) fn create_image(&self, id: &str, input: &Input) -> Answer {
        match input.text("type")?.unwrap_or("snapshot") {
            "snapshot" => {}
            "backup" => {
                let message = "backups are not enabled for this server";
                return Err(ApiError::field("type", message));
            }
            _ => return Err(ApiError::field("type", "must be snapshot or backup")),
        }
        let labels = input.labels()?.unwrap_or_default();
        let (server, address, image, action, body) = {
            let mut project = self.project();
            if self.knobs().snapshot_limit.is_some_and(|most| project.images.len() >= most) {
                return Err(ApiError::limit("snapshot_limit"));
            }
            let image = project.next_id();
            let server = project.unlocked(id)?;
            let description = match input.text("description")? {
                Some(text) if !text.is_empty() => text.to_owned(),
                _ => format!("snapshot of {}", server.name),
            };
            let snapshot = Snapshot {
                description,
                labels,
                protected: false,
                created: clock::now(),
                created_from: (server.id, server.name.clone()),
                disk_size: server.primary_disk,
                disk: None,
            };
            let made =
                Image { id: image, name: None, snapshot: Some(snapshot), ..server.image.clone() };
            let (server, address) = (server.id, server.address);
            let shown = made.json();
            project.images.insert(image, made);
            let action = project.begin("create_image", vec![(server, "server"), (image, "image")]);
            let body = json!({"image": shown, "action": project.action_json(action)});
            (server, address, image, action, body)
        };
        let this = self.clone();
        self.later(action, Some(server), async move {
            let machine = this.machine(address)?;
            let dir = this.0.machines.disk_dir();
            let copying = tokio::task::spawn_blocking(move || machine.copy_disk(dir)).await;
            let disk = copying.map_err(|error| error.to_string());
            let disk = disk.and_then(|disk| disk.map_err(|error| error.to_string()));
            let mut project = this.project();
            // A copy that failed leaves no image that is being made for ever.
            let disk = disk.inspect_err(|_| drop(project.images.remove(&image)))?;
            let found = project.images.get_mut(&image).and_then(|image| image.snapshot.as_mut());
            if let Some(snapshot) = found {
                snapshot.disk = Some(disk);
            }
            Ok(())
        });
        created(body)
    }
}
