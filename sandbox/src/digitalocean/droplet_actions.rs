//! `POST /droplets/{id}/actions`.

use std::time::Duration;

use axum::extract::{Path, State};
use serde_json::json;

use super::catalogue;
use super::errors::ApiError;
use super::input::Input;
use super::project::{Droplet, Status};
use super::snapshots::{disk_of, find_image};
use super::{Answer, DigitalOcean, answers, created};
use crate::formats::is_hostname;

/// How long the system of a droplet takes to shut down after it was asked to, beside its services.
const SHUTDOWN: Duration = Duration::from_millis(20);
/// How long its services may take; systemd gives them 90 s.
const SERVICES: Duration = Duration::from_secs(2);

pub(super) async fn act(
    State(cloud): State<DigitalOcean>,
    Path(id): Path<String>,
    input: Input,
) -> Answer {
    match input.required_text("type")? {
        "power_on" => cloud.power(&id, "power_on", Power::On),
        "power_off" => cloud.power(&id, "power_off", Power::Off),
        "reboot" => cloud.power(&id, "reboot", Power::Cycle),
        "power_cycle" => cloud.power(&id, "power_cycle", Power::Cycle),
        "shutdown" => cloud.shut_down(&id),
        "resize" => cloud.resize(&id, &input),
        "rebuild" | "restore" => cloud.rebuild(&id, &input),
        "rename" => cloud.rename(&id, &input),
        "snapshot" => cloud.snapshot(&id, &input),
        "enable_ipv6" => cloud.enable_ipv6(&id),
        other => Err(ApiError::refused(format!("{other} is not a valid action"))),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    Off,
    Cycle,
}

/// An action that has begun.
pub(super) struct Begun {
    pub(super) droplet: u64,
    pub(super) address: std::net::IpAddr,
    pub(super) action: u64,
    pub(super) answer: Answer,
}

impl DigitalOcean {
    /// Checks and changes an unlocked droplet, and begins an action on it.
    pub(super) fn begin(
        &self,
        id: &str,
        kind: &str,
        change: impl FnOnce(&mut Droplet) -> Result<(), ApiError>,
    ) -> Result<Begun, ApiError> {
        let knobs = self.knobs();
        let mut project = self.project();
        let droplet = project.unlocked(id)?;
        change(droplet)?;
        let (droplet, address) = (droplet.id, droplet.address);
        let action = project.begin(kind, droplet).ok_or_else(ApiError::not_found)?;
        let shown = answers::action(&project.actions[&action], &knobs);
        Ok(Begun { droplet, address, action, answer: created(json!({"action": shown})) })
    }

    fn power(&self, id: &str, kind: &str, power: Power) -> Answer {
        let begun = self.begin(id, kind, |droplet| match (power, droplet.status) {
            (Power::Cycle | Power::Off, Status::Off) => {
                Err(ApiError::refused("Droplet is currently powered off."))
            }
            (Power::On, Status::Active) => Err(ApiError::refused("Droplet is already powered on.")),
            (_, Status::New | Status::Active | Status::Off) => Ok(()),
        })?;
        let (this, droplet, address) = (self.clone(), begun.droplet, begun.address);
        self.later(begun.action, Some(droplet), async move {
            let machine = this.machine(address)?;
            if power != Power::On {
                machine.power_off().await;
            }
            if power != Power::Off {
                machine.power_on().await.map_err(|error| error.to_string())?;
            }
            let status = if power == Power::Off { Status::Off } else { Status::Active };
            this.project().set_status(droplet, status);
            Ok(())
        });
        begun.answer
    }

    /// The action ends when the system was asked; the droplet is off some time later.
    fn shut_down(&self, id: &str) -> Answer {
        let begun = self.begin(id, "shutdown", |droplet| match droplet.status {
            Status::Off => Err(ApiError::refused("Droplet is currently powered off.")),
            Status::New | Status::Active => Ok(()),
        })?;
        self.later(begun.action, Some(begun.droplet), std::future::ready(Ok(())));
        let (this, droplet) = (self.clone(), begun.droplet);
        let pressed = self.machine(begun.address).ok().and_then(|it| Some((it.session()?, it)));
        tokio::spawn(async move {
            let knobs = this.knobs();
            tokio::time::sleep(SHUTDOWN + Duration::from_millis(knobs.action_ms)).await;
            if knobs.shutdown_ignored || knobs.failing_actions.contains("shutdown") {
                return;
            }
            if let Some((session, machine)) = pressed {
                let off = || this.project().set_status(droplet, Status::Off);
                machine.shut_down(&session, SERVICES, off).await;
            }
        });
        begun.answer
    }

    fn resize(&self, id: &str, input: &Input) -> Answer {
        let disk = input.flag("disk")?;
        let new = catalogue::find_size(input.required_text("size")?)
            .ok_or_else(|| ApiError::refused("You specified an invalid size."))?;
        let knobs = self.knobs();
        let begun = self.begin(id, "resize", |droplet| {
            if droplet.status != Status::Off {
                return Err(ApiError::refused("Droplet must be powered off to be resized."));
            }
            if droplet.size.slug == new.slug && !(disk && new.disk > droplet.disk) {
                return Err(ApiError::refused("Droplet already has this size."));
            }
            if new.disk < droplet.disk {
                let message = "This size is not available because it has a smaller disk.";
                return Err(ApiError::refused(message));
            }
            let region = droplet.region.slug;
            if !new.is_offered(region) || !knobs.can_be_ordered(new.slug, region) {
                return Err(ApiError::refused("Size is not available in this region."));
            }
            Ok(())
        })?;
        let (this, droplet) = (self.clone(), begun.droplet);
        self.later(begun.action, Some(droplet), async move {
            if let Some(droplet) = this.project().droplets.get_mut(&droplet) {
                droplet.size = new;
                droplet.disk = if disk { new.disk } else { droplet.disk };
            }
            Ok(())
        });
        begun.answer
    }

    fn rename(&self, id: &str, input: &Input) -> Answer {
        let name = input.required_text("name")?.to_owned();
        if !is_hostname(&name) {
            return Err(ApiError::refused("Only valid hostname characters are allowed."));
        }
        let begun = self.begin(id, "rename", |_| Ok(()))?;
        let (this, droplet) = (self.clone(), begun.droplet);
        self.later(begun.action, Some(droplet), async move {
            if let Some(droplet) = this.project().droplets.get_mut(&droplet) {
                droplet.name = name;
            }
            Ok(())
        });
        begun.answer
    }

    fn enable_ipv6(&self, id: &str) -> Answer {
        let begun = self.begin(id, "enable_ipv6", |_| Ok(()))?;
        let (this, droplet) = (self.clone(), begun.droplet);
        self.later(begun.action, Some(droplet), async move {
            if let Some(droplet) = this.project().droplets.get_mut(&droplet) {
                droplet.ipv6 = true;
            }
            Ok(())
        });
        begun.answer
    }

    /// The disk anew, with the user-data that the droplet was made with.
    fn rebuild(&self, id: &str, input: &Input) -> Answer {
        let wanted = input.required_reference("image")?;
        let (image, disk) = {
            let project = self.project();
            let image = find_image(&project, &wanted)
                .ok_or_else(|| ApiError::refused("You specified an invalid image."))?;
            let disk = disk_of(&project, &image);
            (image, disk)
        };
        let mut user_data = String::new();
        let begun = self.begin(id, "rebuild", |droplet| {
            droplet.image = image;
            user_data.clone_from(&droplet.user_data);
            Ok(())
        })?;
        let (this, droplet, address) = (self.clone(), begun.droplet, begun.address);
        self.later(begun.action, Some(droplet), async move {
            let machine = this.machine(address)?;
            machine.rebuild(Some(user_data), disk).await.map_err(|error| error.to_string())?;
            this.project().set_status(droplet, Status::Active);
            Ok(())
        });
        begun.answer
    }
}
