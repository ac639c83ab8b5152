//! `kamal deploy --skip-push`: pull, lock, start the new, switch, stop the old.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use regex::Regex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::config::Role;
use super::{Call, Failure, Session, secrets};
use crate::build::{command_line, split};
use crate::machines::{ContainerInfo, ContainerSpec, Image, Machine};

/// How long a container without a proxy is watched (Kamal's `readiness_delay`, in sandbox time).
const READINESS: Duration = Duration::from_millis(300);
/// How long an app that answers badly is given to get well, in sandbox time.
const RECOVERY: Duration = Duration::from_millis(600);
/// How long a container may take to end.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// How many of a failed container's last lines are shown, as Kamal does.
const LINES_MAX: usize = 100;

impl Session<'_> {
    pub(super) async fn deploy(&mut self, call: &Call) -> Result<(), Failure> {
        if !call.skip_push {
            return Err(Failure::new(
                "SSHKit::Command::Failed",
                "Exception while executing on host : docker exit status: 127: the sandbox deploys with --skip-push only",
            ));
        }
        let Some(version) = call.version.clone().filter(|version| !version.is_empty()) else {
            return Err(Failure::config(
                "Can't use commit hash as version, no git repository found in /home/runner/work",
            ));
        };
        self.hooks.version.clone_from(&version);
        let began = tokio::time::Instant::now();
        self.pre_connect().await?;
        self.say("Log into image registry...");
        self.log_in_registry()?;
        let mut machines = Vec::new();
        for host in self.config.hosts() {
            let machine = self.log_in(&host).await?;
            machines.push((host, machine));
        }
        self.say("Pull app image...");
        let reference = format!("{}:{version}", self.config.image);
        let mut image = None;
        for (host, _) in &machines {
            self.say(format!("  INFO Running docker pull {reference} on {host}"));
            image = Some(self.pull(host, &reference)?);
        }
        let Some((image, (host, primary))) = image.zip(machines.first().cloned()) else {
            return Err(Failure::config("servers: no hosts are given"));
        };
        // The wait for a lock is bounded in sandbox time: nobody waits 15 minutes here.
        let lock_deadline = tokio::time::Instant::now() + self.kamal.patience;
        while call.lock_wait
            && self.lock_details(&primary).is_some()
            && tokio::time::Instant::now() < lock_deadline
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.take_lock(&host, &primary, &version)?;
        let result = self.under_lock(&machines, &image, &version).await;
        self.release_lock(&primary);
        let seconds = began.elapsed().as_secs_f64();
        self.say(format!("  Finished all in {seconds:.1} seconds"));
        result?;
        let runtime = ("KAMAL_RUNTIME", format!("{seconds:.0}"));
        self.hook("post-deploy", true, &[runtime]).await
    }

    async fn under_lock(
        &mut self,
        machines: &[(String, Machine)],
        image: &Image,
        version: &str,
    ) -> Result<(), Failure> {
        self.hook("pre-deploy", true, &[]).await?;
        self.say("Ensure kamal-proxy is running...");
        self.say("Detect stale containers...");
        let hosts = machines.iter().map(|(host, _)| host.as_str()).collect::<Vec<_>>().join(",");
        let hosts = [("KAMAL_HOSTS", hosts)];
        self.hook("pre-app-boot", false, &hosts).await?;
        self.boot_all(machines, image, version).await?;
        self.hook("post-app-boot", false, &hosts).await
    }

    pub(super) fn log_in_registry(&mut self) -> Result<(), Failure> {
        let host = self.config.hosts().first().cloned().unwrap_or_default();
        let Some(name) = self.config.password.clone() else { return Ok(()) };
        let password = secrets::value(self.shell, &name)?;
        if password.is_empty() {
            return Err(Failure::command(
                &host,
                125,
                "",
                "flag needs an argument: 'p' in -p\n\nUsage:  docker login [OPTIONS] [SERVER]",
            ));
        }
        let (server, username) = (&self.config.server, &self.config.username);
        let line =
            format!("  INFO Running docker login {server} -u {username} -p [REDACTED] on {host}");
        self.say(line);
        for secret in self.config.secret_names.clone() {
            secrets::value(self.shell, &secret)?;
        }
        Ok(())
    }

    fn pull(&self, host: &str, reference: &str) -> Result<Image, Failure> {
        let Some(image) = self.kamal.registry.image(reference) else {
            let text = format!(
                "Error response from daemon: manifest for {reference} not found: manifest unknown"
            );
            return Err(Failure::command(host, 1, "", &text));
        };
        match image.labels.get("service") {
            None => {
                let text = format!("Image {reference} is missing the 'service' label");
                Err(Failure::command(host, 1, &text, ""))
            }
            Some(service) if *service != self.config.service => {
                let text = format!(
                    "Image {reference} has the 'service' label {service}, not {}",
                    self.config.service
                );
                Err(Failure::command(host, 1, &text, ""))
            }
            Some(_) => Ok(image),
        }
    }

    async fn boot_all(
        &mut self,
        machines: &[(String, Machine)],
        image: &Image,
        version: &str,
    ) -> Result<(), Failure> {
        for role in self.config.roles.clone() {
            for (host, machine) in machines.iter().filter(|(host, _)| role.hosts.contains(host)) {
                self.boot(&role, host, machine, image, version).await?;
            }
        }
        Ok(())
    }

    /// Starts a role's new container; the old one goes only when the new one is well.
    async fn boot(
        &mut self,
        role: &Role,
        host: &str,
        machine: &Machine,
        image: &Image,
        version: &str,
    ) -> Result<(), Failure> {
        let name = format!("{}-{}-{version}", self.config.service, role.name);
        let docker = machine.docker();
        let olds: Vec<ContainerInfo> =
            docker.list().into_iter().filter(|container| self.is_of(container, role)).collect();
        if olds.iter().any(|old| old.name == name) {
            self.say(format!("  INFO Renaming container {version} to {version}_replaced as already deployed on {host}"));
            let replaced = format!("{name}_replaced_{:016x}", rand::random::<u64>());
            docker.rename(&name, &replaced).map_err(|text| Failure::command(host, 1, "", &text))?;
        }
        let olds: Vec<String> = olds.into_iter().map(|old| old.id).collect();
        let spec = self.spec(role, host, machine, image, version, &name)?;
        self.say(format!("  INFO Running docker run --detach --restart unless-stopped --name {name} {} on {host}", image.reference));
        docker
            .run(spec)
            .await
            .map_err(|text| Failure::command(host, 125, "", &format!("docker: {text}")))?;
        let outcome = if role.proxied {
            self.switch(role, host, machine, &name).await
        } else {
            self.watch(host, machine, &name).await
        };
        if let Err(failure) = outcome {
            self.give_up(role, host, machine, &name).await;
            return Err(failure);
        }
        for old in olds {
            // Removed at once, where real Kamal keeps the last few for its own rollback.
            drop(docker.stop(&old, STOP_GRACE).await);
            drop(docker.remove(&old).await);
        }
        self.say(format!(
            "  INFO First {} container is healthy on {host}, booting any other roles",
            role.name
        ));
        Ok(())
    }

    fn is_of(&self, container: &ContainerInfo, role: &Role) -> bool {
        let has = |label: &str, value: &str| {
            container.labels.get(label).is_some_and(|found| found == value)
        };
        has("service", &self.config.service) && has("role", &role.name) && has("destination", "")
    }

    fn spec(
        &self,
        role: &Role,
        host: &str,
        machine: &Machine,
        image: &Image,
        version: &str,
        name: &str,
    ) -> Result<ContainerSpec, Failure> {
        let mut env = Vec::new();
        for path in &role.env_files {
            env.extend(read_env_file(machine, host, path)?);
        }
        for secret in &self.config.secret_names {
            let key = secret.split(':').next().unwrap_or(secret);
            env.push((key.to_owned(), secrets::value(self.shell, secret)?));
        }
        env.extend(role.env.iter().map(owned));
        env.extend(
            [("KAMAL_CONTAINER_NAME", name), ("KAMAL_VERSION", version), ("KAMAL_HOST", host)]
                .map(owned),
        );
        let mut labels: BTreeMap<String, String> = role.labels.clone();
        let own = [
            ("service", self.config.service.as_str()),
            ("role", role.name.as_str()),
            ("destination", ""),
        ];
        labels.extend(own.map(owned));
        let command = match (&role.entrypoint, &role.cmd) {
            (Some(process), cmd) => Some(process_command(image, process, cmd.as_deref())),
            (None, Some(cmd)) => Some(split(cmd)),
            (None, None) => None,
        };
        Ok(ContainerSpec {
            name: name.to_owned(),
            image: image.clone(),
            labels,
            env,
            command,
            restart: true,
            ..ContainerSpec::default()
        })
    }

    /// Waits for the app's health and makes it the proxy's target.
    async fn switch(
        &mut self,
        role: &Role,
        host: &str,
        machine: &Machine,
        name: &str,
    ) -> Result<(), Failure> {
        // Kamal names a route after the service and the role.
        let route = format!("{}-{}", self.config.service, role.name);
        let path = self.config.health_path.clone();
        let timeout = self.first_answer(machine, name, &path).await;
        self.say(format!("  INFO Running docker exec kamal-proxy kamal-proxy deploy {route} --target={name} on {host}"));
        let result =
            machine.proxy().deploy(&route, self.config.host.clone(), name, &path, timeout).await;
        result.map_err(|text| {
            // The sandbox waited less; the text names the time that the config allows.
            let said = format!("timeout ({}s)", self.config.deploy_timeout_s);
            let text = Regex::new(r"timeout \([^)]*\)")
                .map_or_else(|_| text.clone(), |time| time.replace(&text, said).into_owned());
            Failure::command(host, 1, "", &text)
        })
    }

    /// Waits until the app answers anything at all; answers how long the proxy may then wait.
    async fn first_answer(&self, machine: &Machine, name: &str, path: &str) -> Duration {
        let deadline = tokio::time::Instant::now() + self.kamal.patience;
        while tokio::time::Instant::now() < deadline {
            let container =
                machine.docker().list().into_iter().find(|container| container.name == name);
            let Some(container) = container
                .filter(|container| container.restarts == 0 && container.exit_code.is_none())
            else {
                return RECOVERY;
            };
            match status(machine.address(), container.port, path).await {
                Some(status) if (200..400).contains(&status) => return self.kamal.patience,
                Some(_) => return RECOVERY,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        RECOVERY
    }

    /// A container without a proxy is well when it still runs after a while.
    async fn watch(&mut self, host: &str, machine: &Machine, name: &str) -> Result<(), Failure> {
        tokio::time::sleep(READINESS).await;
        let runs = machine.docker().list().into_iter().any(|container| {
            container.name == name && container.running && container.restarts == 0
        });
        if runs {
            return Ok(());
        }
        let text = format!(
            "Exception while executing on host {host}: container not ready after 7 seconds: container not ready (restarting)"
        );
        Err(Failure::new("Kamal::Cli::Healthcheck::Error", text))
    }

    /// Shows the failed container's last lines and stops it.
    async fn give_up(&mut self, role: &Role, host: &str, machine: &Machine, name: &str) {
        self.say(format!(
            "  INFO First {} container is unhealthy on {host}, not booting any other roles",
            role.name
        ));
        let lines = machine.docker().logs(name, LINES_MAX);
        let text = lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        self.say(format!(" ERROR {text}"));
        self.say(" ERROR null");
        drop(machine.docker().stop(name, STOP_GRACE).await);
    }
}

/// The lines of an env file on the VM, as `docker run --env-file` reads them.
pub(super) fn read_env_file(
    machine: &Machine,
    host: &str,
    path: &str,
) -> Result<Vec<(String, String)>, Failure> {
    let text = machine.has_file(path).then(|| std::fs::read_to_string(machine.path(path)).ok());
    let Some(content) = text.flatten() else {
        let text = format!(
            "docker: open {path}: no such file or directory\n\nRun 'docker run --help' for more information"
        );
        return Err(Failure::command(host, 125, "", &text));
    };
    if content.lines().any(|line| line.len() >= 64 * 1024) {
        return Err(Failure::command(host, 125, "", "docker: bufio.Scanner: token too long"));
    }
    let lines = content.lines().filter(|line| !line.starts_with('#'));
    Ok(lines.filter_map(|line| line.split_once('=')).map(owned).collect())
}

pub(super) fn owned<K: ToString, V: ToString>((key, value): (K, V)) -> (String, String) {
    (key.to_string(), value.to_string())
}

/// The command of a Buildpack image's process type: its line in the Procfile.
fn process_command(image: &Image, process: &str, arguments: Option<&str>) -> Vec<String> {
    let procfile = std::fs::read_to_string(image.dir.join("Procfile")).unwrap_or_default();
    let line = procfile.lines().find_map(|line| line.strip_prefix(process)?.strip_prefix(':'));
    let mut command =
        line.map_or_else(|| vec![process.to_owned()], |line| command_line(line.trim()));
    command.extend(arguments.map(split).unwrap_or_default());
    command
}

/// The status of one GET, if there is an answer.
async fn status(address: IpAddr, port: u16, path: &str) -> Option<u16> {
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect((address, port)).await.ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = [0; 64];
        let mut length = 0;
        while length < 12 {
            match stream.read(&mut answer[length..]).await.ok()? {
                0 => return None,
                more => length += more,
            }
        }
        std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
    };
    tokio::time::timeout(Duration::from_secs(2), ask).await.ok().flatten()
}
