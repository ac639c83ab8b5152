//! `POST /servers/{id}/actions/{action}`.

use std::time::Duration;

use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::catalogue::{self, ServerType};
use super::create::USER_DATA_BYTES_MAX;
use super::errors::{ApiError, Code};
use super::images::find_image;
use super::input::Input;
use super::project::{Server, Status};
use super::{Answer, Hetzner, created};

/// How long the system of a server takes to shut down after ACPI asked it to, beside its services.
const SHUTDOWN: Duration = Duration::from_millis(20);
/// How long its services may take; systemd gives them 90 s.
const SERVICES: Duration = Duration::from_secs(2);

pub(super) async fn act(
    State(hetzner): State<Hetzner>,
    Path((id, action)): Path<(String, String)>,
    input: Input,
) -> Answer {
    match action.as_str() {
        "poweron" => hetzner.power(&id, "start_server", Power::On),
        "poweroff" => hetzner.power(&id, "stop_server", Power::Off),
        "reboot" => hetzner.power(&id, "reboot_server", Power::Cycle),
        "reset" => hetzner.power(&id, "reset_server", Power::Cycle),
        "shutdown" => hetzner.shut_down(&id),
        "change_type" => hetzner.change_type(&id, &input),
        "rebuild" => hetzner.rebuild(&id, &input),
        "create_image" => hetzner.create_image(&id, &input),
        "change_protection" => hetzner.change_protection(&id, &input),
        _ => Err(ApiError::new(Code::NotFound, "the action was not found")),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    Off,
    Cycle,
}

impl Hetzner {
    fn power(&self, id: &str, command: &str, power: Power) -> Answer {
        let (server, address, action, body) = self.begin(id, command, |server| {
            server.status = match power {
                Power::On if server.status == Status::Running => Status::Running,
                Power::On | Power::Cycle => Status::Starting,
                Power::Off => Status::Stopping,
            };
            Ok(())
        })?;
        let this = self.clone();
        self.later(action, Some(server), async move {
            let machine = this.machine(address)?;
            if power != Power::On {
                machine.power_off().await;
            }
            if power != Power::Off {
                machine.power_on().await.map_err(|error| error.to_string())?;
            }
            let status = if power == Power::Off { Status::Off } else { Status::Running };
            this.project().set_status(server, status);
            Ok(())
        });
        created(json!({"action": body}))
    }

    /// The action succeeds when ACPI was sent; the server is off some time later.
    fn shut_down(&self, id: &str) -> Answer {
        let (server, address, action, body) = self.begin(id, "shutdown_server", |_| Ok(()))?;
        self.later(action, Some(server), std::future::ready(Ok(())));
        let this = self.clone();
        let pressed = self.machine(address).ok().and_then(|it| Some((it.session()?, it)));
        tokio::spawn(async move {
            tokio::time::sleep(SHUTDOWN + Duration::from_millis(this.knobs().action_ms)).await;
            if this.knobs().shutdown_ignored {
                return;
            }
            if let Some((session, machine)) = pressed {
                let off = || this.project().set_status(server, Status::Off);
                machine.shut_down(&session, SERVICES, off).await;
            }
        });
        created(json!({"action": body}))
    }

    fn change_type(&self, id: &str, input: &Input) -> Answer {
        let wanted = input.required_reference("server_type")?;
        let upgrade_disk = input
            .flag("upgrade_disk")?
            .ok_or_else(|| ApiError::field("upgrade_disk", "Missing data for required field."))?;
        let new = catalogue::find_type(&wanted)
            .ok_or_else(|| ApiError::field("server_type", "server type not found"))?;
        let knobs = self.knobs();
        let (server, address, action, body) = self.begin(id, "change_server_type", |server| {
            check_new_type(server, &new)?;
            if !knobs.can_be_ordered(new.name, server.location.name) {
                let message = "error during placement";
                return Err(ApiError::new(Code::ResourceUnavailable, message));
            }
            server.status = Status::Migrating;
            Ok(())
        })?;
        let this = self.clone();
        let (cores, memory) = (new.cores, new.memory);
        self.later(action, Some(server), async move {
            if let Some(server) = this.project().servers.get_mut(&server) {
                if upgrade_disk {
                    server.primary_disk = new.disk;
                }
                server.server_type = new;
            }
            let machine = this.machine(address)?;
            machine.limit(cores, memory).await.map_err(|error| error.to_string())?;
            machine.power_on().await.map_err(|error| error.to_string())?;
            this.project().set_status(server, Status::Running);
            Ok(())
        });
        created(json!({"action": body}))
    }

    fn rebuild(&self, id: &str, input: &Input) -> Answer {
        let wanted = input.required_reference("image")?;
        let user_data = input.text("user_data")?.map(str::to_owned);
        if user_data.as_ref().is_some_and(|text| text.len() > USER_DATA_BYTES_MAX) {
            return Err(ApiError::field("user_data", "is longer than 32 KiB"));
        }
        let image = {
            let project = self.project();
            find_image(&project, &wanted, &project.server(id)?.server_type)?
        };
        let disk = image.disk();
        let (server, address, action, body) = self.begin(id, "rebuild_server", |server| {
            if server.protection.1 {
                return Err(ApiError::new(Code::Protected, "server rebuild is protected"));
            }
            server.image = image;
            server.status = Status::Rebuilding;
            Ok(())
        })?;
        let this = self.clone();
        self.later(action, Some(server), async move {
            let machine = this.machine(address)?;
            machine.rebuild(user_data, disk).await.map_err(|error| error.to_string())?;
            this.project().set_status(server, Status::Running);
            Ok(())
        });
        created(json!({"root_password": "changed-at-first-login", "action": body}))
    }

    fn change_protection(&self, id: &str, input: &Input) -> Answer {
        let (delete, rebuild) = (input.flag("delete")?, input.flag("rebuild")?);
        let (server, _, action, body) = self.begin(id, "change_protection", |server| {
            let old = server.protection;
            let new = (delete.unwrap_or(old.0), rebuild.unwrap_or(old.1));
            if new.0 != new.1 {
                return Err(ApiError::field("rebuild", "must be the same as delete"));
            }
            server.protection = new;
            Ok(())
        })?;
        self.later(action, Some(server), std::future::ready(Ok(())));
        created(json!({"action": body}))
    }

    /// Checks and changes an unlocked server, and begins an action on it.
    fn begin(
        &self,
        id: &str,
        command: &str,
        change: impl FnOnce(&mut Server) -> Result<(), ApiError>,
    ) -> Result<(u64, std::net::IpAddr, u64, Value), ApiError> {
        let mut project = self.project();
        let server = project.unlocked(id)?;
        change(server)?;
        let (server, address) = (server.id, server.address);
        let action = project.begin(command, vec![(server, "server")]);
        Ok((server, address, action, project.action_json(action)))
    }
}

fn check_new_type(server: &Server, new: &ServerType) -> Result<(), ApiError> {
    if server.status != Status::Off {
        let message = "server must be stopped for this operation";
        return Err(ApiError::new(Code::ServerNotStopped, message));
    }
    let invalid = |message: &str| Err(ApiError::new(Code::InvalidServerType, message));
    if new.arch != server.server_type.arch {
        return invalid("the architecture of the server types differs");
    }
    if new.name == server.server_type.name {
        return invalid("the server already has this type");
    }
    if new.disk < server.primary_disk {
        return invalid("the new server type has a smaller disk");
    }
    if !new.is_offered(server.location.name) {
        return invalid("the server type is not offered in the server's location");
    }
    Ok(())
}
