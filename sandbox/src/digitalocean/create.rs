//! `POST /droplets`: one, or up to ten at once.

use std::collections::BTreeSet;

use axum::extract::State;
use serde_json::{Value, json};

use super::catalogue::{self, Region, Size};
use super::errors::ApiError;
use super::input::{Input, reference};
use super::project::{Droplet, Project, Status};
use super::snapshots::{disk_of, find_image};
use super::{Answer, DigitalOcean, accepted, account, answers, tags};
use crate::clock;
use crate::formats::is_hostname;
use crate::machines::{MachineOrder, Place};

const USER_DATA_BYTES_MAX: usize = 64 * 1024;
const AT_ONCE_MAX: usize = 10;

/// A checked order of one droplet or of several.
struct Order {
    names: Vec<String>,
    single: bool,
    size: &'static Size,
    region: &'static Region,
    image: Value,
    keys: Vec<String>,
    tags: BTreeSet<String>,
    user_data: String,
    ipv6: bool,
}

pub(super) async fn create(State(cloud): State<DigitalOcean>, input: Input) -> Answer {
    let knobs = cloud.knobs();
    let (body, boots) = {
        let mut project = cloud.project();
        let order = Order::read(&cloud, &mut project, &input)?;
        if project.droplets.len() + order.names.len() > knobs.droplet_limit {
            let message = "creating this/these droplet(s) will exceed your droplet limit";
            return Err(ApiError::refused(message));
        }
        project.tags.extend(order.tags.iter().cloned());
        let (mut boots, mut shown, mut links) = (Vec::new(), Vec::new(), Vec::new());
        for name in &order.names {
            let place = cloud.0.machines.reserve();
            let id = add(&mut project, name, &order, &place);
            let Some(action) = project.begin("create", id) else { continue };
            let href = format!("https://api.digitalocean.com/v2/actions/{action}");
            links.push(json!({"id": action, "rel": "create", "href": href}));
            shown.push(answers::droplet(&project, &project.droplets[&id], &knobs));
            let machine = MachineOrder {
                name: name.clone(),
                user_data: order.user_data.clone(),
                root_keys: order.keys.clone(),
                disk: disk_of(&project, &order.image),
                ..MachineOrder::default()
            };
            boots.push((id, action, place, machine));
        }
        let links = json!({"actions": links});
        let body = match (order.single, shown.pop()) {
            (true, Some(droplet)) => json!({"droplet": droplet, "links": links}),
            (_, last) => {
                shown.extend(last);
                json!({"droplets": shown, "links": links})
            }
        };
        (body, boots)
    };
    for (droplet, action, place, machine) in boots {
        cloud.boot(droplet, action, place, machine);
    }
    accepted(body)
}

fn add(project: &mut Project, name: &str, order: &Order, place: &Place) -> u64 {
    let id = project.next_id();
    let droplet = Droplet {
        id,
        name: name.to_owned(),
        status: Status::New,
        created: clock::now(),
        size: order.size,
        disk: order.size.disk,
        region: order.region,
        image: order.image.clone(),
        tags: order.tags.clone(),
        locked: false,
        address: place.address,
        started: false,
        ipv6: order.ipv6,
        user_data: order.user_data.clone(),
    };
    project.droplets.insert(id, droplet);
    id
}

impl DigitalOcean {
    /// Boots the machine behind a new droplet, and ends its action.
    fn boot(&self, droplet: u64, action: u64, place: Place, order: MachineOrder) {
        let this = self.clone();
        self.later(action, Some(droplet), async move {
            let booted = this.0.machines.create_at(place, order).await;
            booted.map_err(|error| error.to_string())?;
            this.project().set_status(droplet, Status::Active);
            Ok(())
        });
    }
}

impl Order {
    fn read(cloud: &DigitalOcean, project: &mut Project, input: &Input) -> Result<Self, ApiError> {
        let single = input.get("names").is_none();
        let names = match single {
            true => vec![input.required_text("name")?.to_owned()],
            false => input.texts("names")?,
        };
        if names.is_empty() || names.len() > AT_ONCE_MAX {
            return Err(ApiError::refused("names must hold 1 to 10 names"));
        }
        if !names.iter().all(|name| is_hostname(name)) {
            let message = "Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)";
            return Err(ApiError::refused(message));
        }
        let size = catalogue::find_size(input.required_text("size")?);
        let size = size.ok_or_else(|| {
            ApiError::refused("You specified an invalid size for Droplet creation.")
        })?;
        let region = catalogue::find_region(input.required_text("region")?);
        let region = region.ok_or_else(|| {
            ApiError::refused("You specified an invalid region for Droplet creation.")
        })?;
        if !size.is_offered(region.slug) || !cloud.knobs().can_be_ordered(size.slug, region.slug) {
            return Err(ApiError::refused("Size is not available in this region."));
        }
        let image = find_image(project, &input.required_reference("image")?).ok_or_else(|| {
            ApiError::refused("You specified an invalid image for Droplet creation.")
        })?;
        if image["min_disk_size"].as_u64() > Some(size.disk) {
            let message = "This image requires a larger disk. Choose a larger size.";
            return Err(ApiError::refused(message));
        }
        let user_data = input.text("user_data")?.unwrap_or_default().to_owned();
        if user_data.len() > USER_DATA_BYTES_MAX {
            return Err(ApiError::refused("User data is too large (maximum is 64 KiB)."));
        }
        let tags: BTreeSet<String> = input.texts("tags")?.into_iter().collect();
        for tag in &tags {
            tags::check(tag)?;
        }
        Ok(Self {
            keys: find_keys(project, &input.list("ssh_keys")?)?,
            ipv6: input.flag("ipv6")?,
            names,
            single,
            size,
            region,
            image,
            tags,
            user_data,
        })
    }
}

fn find_keys(project: &mut Project, wanted: &[Value]) -> Result<Vec<String>, ApiError> {
    let mut find = |wanted: &Value| {
        let id = reference(wanted).unwrap_or_default();
        let found = account::find(project, &id).map(|key| key.public_key.clone());
        found.map_err(|_| {
            ApiError::refused(format!("{id} are invalid key identifiers for Droplet creation."))
        })
    };
    wanted.iter().map(&mut find).collect()
}
