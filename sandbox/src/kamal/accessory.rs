//! `kamal accessory boot` and `reboot`: services beside the app, as containers of a stand-in server.

use std::path::PathBuf;
use std::time::Duration;

use super::boot::{owned, read_env_file};
use super::config::Accessory;
use super::{Failure, Session};
use crate::machines::{ContainerSpec, Image, Machine, Mount};

/// How long a service may take to end.
const STOP_GRACE: Duration = Duration::from_secs(60);
/// Docker Hub is not there: of every image all tags are taken to exist, but for those from this
/// minor version on, which nobody has made.
const FIRST_MISSING_MINOR: u32 = 90;

impl Session<'_> {
    /// Boots one, or all; those that have a container stay as they are.
    pub(super) async fn accessory_boot(&mut self, name: &str) -> Result<(), Failure> {
        let all: Vec<Accessory> = match name {
            "all" => self.config.accessories.clone(),
            name => vec![self.accessory(name)?],
        };
        let (host, machine) = self.primary().await?;
        self.take_lock(&host, &machine, "HEAD")?;
        let mut result = Ok(());
        for accessory in &all {
            result = match self.log_in_registry() {
                Ok(()) => self.boot_accessory(accessory, &host, &machine).await,
                refused => refused,
            };
            if result.is_err() {
                break;
            }
        }
        self.release_lock(&machine);
        result
    }

    /// Stops and removes the container of one, and boots it anew. The image comes first.
    pub(super) async fn accessory_reboot(&mut self, name: &str) -> Result<(), Failure> {
        let accessory = self.accessory(name)?;
        let (host, machine) = self.primary().await?;
        self.take_lock(&host, &machine, "HEAD")?;
        let result = self.make_anew(&accessory, &host, &machine).await;
        self.release_lock(&machine);
        result
    }

    async fn make_anew(
        &mut self,
        accessory: &Accessory,
        host: &str,
        machine: &Machine,
    ) -> Result<(), Failure> {
        self.log_in_registry()?;
        self.pull_accessory(accessory, host)?;
        let service = self.service_of(accessory);
        self.say(format!("  INFO Running docker container stop {service} on {host}"));
        drop(machine.docker().stop(&service, STOP_GRACE).await);
        self.say(format!(
            "  INFO Running docker container prune --force --filter label=service={service} on {host}"
        ));
        drop(machine.docker().remove(&service).await);
        self.boot_accessory(accessory, host, machine).await
    }

    fn accessory(&self, name: &str) -> Result<Accessory, Failure> {
        let found = self.config.accessories.iter().find(|one| one.name == name).cloned();
        found.ok_or_else(|| {
            let known: Vec<&str> =
                self.config.accessories.iter().map(|one| one.name.as_str()).collect();
            let text =
                format!("No accessory by the name of '{name}' (options: {})", known.join(", "));
            Failure::new("RuntimeError", text)
        })
    }

    fn service_of(&self, accessory: &Accessory) -> String {
        let own = || format!("{}-{}", self.config.service, accessory.name);
        accessory.service.clone().unwrap_or_else(own)
    }

    fn pull_accessory(&mut self, accessory: &Accessory, host: &str) -> Result<(), Failure> {
        let image = &accessory.image;
        self.say(format!("  INFO Running docker pull {image} on {host}"));
        let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
        let minor = tag.split('.').nth(1).and_then(|part| part.parse::<u32>().ok());
        if minor.is_some_and(|minor| minor >= FIRST_MISSING_MINOR) {
            let text = format!(
                "Error response from daemon: manifest for {image} not found: manifest unknown: manifest unknown"
            );
            return Err(Failure::command(host, 1, "", &text));
        }
        Ok(())
    }

    async fn boot_accessory(
        &mut self,
        accessory: &Accessory,
        host: &str,
        machine: &Machine,
    ) -> Result<(), Failure> {
        let service = self.service_of(accessory);
        if machine.docker().get(&service).is_some() {
            self.say(format!(
                "Skipping booting `{}` on {host}, a container already exists",
                accessory.name
            ));
            return Ok(());
        }
        self.pull_accessory(accessory, host)?;
        let mut env = Vec::new();
        for path in &accessory.env_files {
            env.extend(read_env_file(machine, host, path)?);
        }
        env.push(owned(("KAMAL_HOST", host)));
        let traefik = accessory.image.starts_with("traefik:");
        let spec = ContainerSpec {
            name: service.clone(),
            image: Image {
                reference: accessory.image.clone(),
                // Traefik has the port, and no process: the proxy behind it answers.
                dir: if traefik { PathBuf::new() } else { PathBuf::from("/") },
                command: ["vmkit", "sample-service"].map(str::to_owned).to_vec(),
                ..Image::default()
            },
            labels: [owned(("service", &service))].into(),
            env,
            restart: true,
            mounts: accessory
                .volumes
                .iter()
                .map(|(name, at)| Mount { name: name.clone(), at: at.clone() })
                .collect(),
            health: accessory.health,
            ..ContainerSpec::default()
        };
        self.say(format!(
            "  INFO Running docker run --name {service} --detach --restart unless-stopped {} on {host}",
            accessory.image
        ));
        let mut run = machine.docker().run(spec).await.map(drop);
        if run.is_ok() && traefik {
            run = machine.proxy().stand_behind(&service).await;
        }
        run.map_err(|text| Failure::command(host, 125, "", &format!("docker: {text}")))
    }
}
