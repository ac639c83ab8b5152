//! Takes one app off a VM that others use: its route first, so that nobody is sent to a container
//! that ends; then its containers, its env files and the key that deploys it.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use bollard::Docker;
use bollard::exec::{CreateExecOptions, StartExecOptions};
use bollard::query_parameters::{
    RemoveContainerOptionsBuilder, RemoveVolumeOptions, StopContainerOptionsBuilder,
};
use vmkit_agent_protocol::calls::{AppRemoved, Container, RemoveApp, RetireRoles};

use super::containers::{containers, is_absent};
use super::{Fault, beside, blocking, env_files};
use crate::docker::Engine;
use crate::files::{self, Access};
use crate::host::Host;

/// The proxy's container, and the program in it.
const PROXY: &str = "kamal-proxy";
/// How long a container may take to end, in seconds; Docker's own default is 10.
const GRACE_S: i32 = 30;
/// How long the proxy may take to drain a route.
const DRAIN: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// Removes it. What is gone already is fine, so it may be asked for again.
pub(super) async fn remove(
    host: &Host,
    engine: &Engine,
    wanted: RemoveApp,
) -> Result<AppRemoved, Fault> {
    let service = service(&wanted.app, &wanted.environment)?;
    let beside = format!("{service}-");
    if let Some(other) =
        wanted.services.iter().find(|one| **one != service && !one.starts_with(&beside))
    {
        return Err(Fault::invalid(format!("`{other}` is no service of `{service}`")));
    }
    if let Some(other) = wanted.volume_names.iter().find(|one| !one.starts_with(&beside)) {
        return Err(Fault::invalid(format!("`{other}` is no volume of `{service}`")));
    }
    env_files::refuse_if_locked(host, &wanted.app, &wanted.environment)?;
    let docker = engine.get().await.map_err(|error| Fault::docker(&error))?;
    let all = containers(engine).await?;
    let mut removed = AppRemoved::default();
    let ours = |one: &&Container| {
        one.labels.get("service").is_some_and(|label| wanted.services.contains(label))
    };
    if all.iter().any(|one| one.name == PROXY && one.state == "running") {
        for route in routes_of(&service, all.iter().filter(ours)) {
            removed.route |= unroute(&docker, &route).await?;
        }
    }
    for container in all.iter().filter(ours) {
        let volumes = match wanted.volumes {
            true => volumes_of(&docker, &container.id).await?,
            false => Vec::new(),
        };
        end(&docker, &container.id, GRACE_S).await?;
        removed.containers.push(container.name.clone());
        for volume in volumes {
            if drop_volume(&docker, &volume).await? {
                removed.volumes.push(volume);
            }
        }
    }
    for volume in &wanted.volume_names {
        if !removed.volumes.contains(volume) && drop_volume(&docker, volume).await? {
            removed.volumes.push(volume.clone());
        }
    }
    let host = host.clone();
    let files = blocking(move || clear_files(&host, &wanted)).await?;
    removed.key = files.map_err(|error| Fault::files(&error))?;
    Ok(removed)
}

/// Ends the containers of these roles, after their routes. What is gone already is fine.
pub(super) async fn retire(
    host: &Host,
    engine: &Engine,
    wanted: RetireRoles,
) -> Result<AppRemoved, Fault> {
    let service = service(&wanted.app, &wanted.environment)?;
    env_files::refuse_if_locked(host, &wanted.app, &wanted.environment)?;
    let docker = engine.get().await.map_err(|error| Fault::docker(&error))?;
    let all = containers(engine).await?;
    let proxied = all.iter().any(|one| one.name == PROXY && one.state == "running");
    let mut removed = AppRemoved::default();
    for role in &wanted.roles {
        let label = |one: &Container, name: &str, value: &str| {
            one.labels.get(name).is_some_and(|of| of == value)
        };
        let of_role =
            |one: &&Container| label(one, "service", &service) && label(one, "role", role);
        if !all.iter().any(|one| of_role(&one)) {
            continue;
        }
        if proxied {
            removed.route |= unroute(&docker, &format!("{service}-{role}")).await?;
        }
        for container in all.iter().filter(of_role) {
            end(&docker, &container.id, GRACE_S).await?;
            removed.containers.push(container.name.clone());
        }
    }
    Ok(removed)
}

fn service(app: &str, environment: &str) -> Result<String, Fault> {
    for name in [app, environment] {
        if !env_files::is_slug(name) {
            let text = format!("`{name}` is not the name of an app or environment");
            return Err(Fault::invalid(text));
        }
    }
    Ok(format!("{app}-{environment}"))
}

/// The names that Kamal gave the routes to these containers: an app's after its service and role,
/// an accessory's after its service. That of the web role also where its container is gone already.
fn routes_of<'a>(service: &str, of: impl Iterator<Item = &'a Container>) -> BTreeSet<String> {
    let mut routes = BTreeSet::from([format!("{service}-web")]);
    routes.extend(of.filter_map(|one| {
        let label = one.labels.get("service")?;
        Some(match one.labels.get("role") {
            Some(role) => format!("{label}-{role}"),
            None => label.clone(),
        })
    }));
    routes
}

/// Takes the route away, as Kamal would. False where there was none.
async fn unroute(docker: &Docker, service: &str) -> Result<bool, Fault> {
    let failed = |error: bollard::errors::Error| Fault::docker(&error);
    let command = CreateExecOptions {
        cmd: Some(vec!["kamal-proxy", "remove", service]),
        ..CreateExecOptions::default()
    };
    let exec = docker.create_exec(PROXY, command).await.map_err(failed)?;
    let detached = StartExecOptions { detach: true, ..StartExecOptions::default() };
    docker.start_exec(&exec.id, Some(detached)).await.map_err(failed)?;
    let deadline = tokio::time::Instant::now() + DRAIN;
    loop {
        let state = docker.inspect_exec(&exec.id).await.map_err(failed)?;
        if state.running != Some(true) {
            // It ends with 1 where there is no such route.
            return Ok(state.exit_code == Some(0));
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(Fault::timed_out(DRAIN));
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn volumes_of(docker: &Docker, id: &str) -> Result<Vec<String>, Fault> {
    let inspected = match docker.inspect_container(id, None).await {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        inspected => inspected.map_err(|error| Fault::docker(&error))?,
    };
    let mounts = inspected.mounts.unwrap_or_default();
    Ok(mounts.into_iter().filter_map(|mount| mount.name).filter(|name| !name.is_empty()).collect())
}

/// Ends a container and removes it; one that is gone is fine.
pub(super) async fn end(docker: &Docker, id: &str, grace_s: i32) -> Result<(), Fault> {
    let stop = StopContainerOptionsBuilder::new().t(grace_s).build();
    let remove = RemoveContainerOptionsBuilder::new().force(true).build();
    for done in [
        docker.stop_container(id, Some(stop)).await,
        docker.remove_container(id, Some(remove)).await,
    ] {
        match done {
            Err(error) if !is_absent(&error) => return Err(Fault::docker(&error)),
            _ => {}
        }
    }
    Ok(())
}

/// False where another container uses it, or it is gone.
pub(super) async fn drop_volume(docker: &Docker, name: &str) -> Result<bool, Fault> {
    match docker.remove_volume(name, None::<RemoveVolumeOptions>).await {
        Ok(()) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(Fault::docker(&error)),
    }
}

/// Removes the env file with its history, and the deploy key; whether the key is gone.
fn clear_files(host: &Host, wanted: &RemoveApp) -> io::Result<bool> {
    let (app, environment) = (&wanted.app, &wanted.environment);
    fine_if_absent(std::fs::remove_file(
        host.path(&format!("etc/vmkit/env/{app}/{environment}.env")),
    ))?;
    fine_if_absent(std::fs::remove_dir_all(
        host.path(&format!("var/lib/vmkit/env/{app}/{environment}")),
    ))?;
    beside::clear_files(host, app, environment)?;
    match &wanted.deploy_key {
        Some(key) => Ok(forget_key(host, key).is_ok()),
        None => Ok(false),
    }
}

pub(super) fn fine_if_absent(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Takes the key out of those that Kamal's user lets in; the lines of others stay as they are.
fn forget_key(host: &Host, key: &str) -> io::Result<()> {
    let body = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    let Some(ours) = body(key) else { return Ok(()) };
    let user = host.user("kamal");
    let home = user.as_ref().map_or("/home/kamal", |(_, home)| home.as_str());
    let path = host.path(&format!("{home}/.ssh/authorized_keys"));
    let text = std::fs::read_to_string(&path)?;
    let kept: Vec<&str> = text.lines().filter(|line| body(line).as_ref() != Some(&ours)).collect();
    if kept.len() == text.lines().count() {
        return Ok(());
    }
    // sshd reads it as the user, and with StrictModes only where nobody else could have written it.
    let (owner, group) = (host.user_id("kamal"), user.as_ref().map(|(group, _)| *group));
    let access = Access { mode: 0o600, owner, group };
    let mut text = kept.join("\n");
    if !kept.is_empty() {
        text.push('\n');
    }
    files::write_whole(&path, text.as_bytes(), access)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    /// A machine whose kamal has this `authorized_keys`, readable by anybody.
    fn machine(keys: &str) -> (tempfile::TempDir, Host, std::path::PathBuf) {
        let root = tempfile::tempdir().expect("a folder");
        let host = Host::new(root.path());
        let path = host.path("home/kamal/.ssh/authorized_keys");
        for dir in ["etc", "home/kamal/.ssh"] {
            std::fs::create_dir_all(host.path(dir)).expect("made");
        }
        let passwd = "root:x:0:0::/root:/bin/sh\nkamal:x:1001:1002::/home/kamal:/bin/bash\n";
        std::fs::write(host.path("etc/passwd"), passwd).expect("written");
        std::fs::write(&path, keys).expect("written");
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&path, open).expect("set");
        (root, host, path)
    }

    #[test]
    fn routes_are_named_as_kamal_names_them() {
        let container = |service: &str, role: Option<&str>| {
            let labels = [("service", Some(service)), ("role", role)].into_iter();
            let labels = labels.filter_map(|(key, one)| Some((key.to_owned(), one?.to_owned())));
            Container { labels: labels.collect(), ..Container::default() }
        };
        let all = [container("shop-staging", Some("admin")), container("shop-staging-db", None)];
        let routes: Vec<String> = routes_of("shop-staging", all.iter()).into_iter().collect();
        assert_eq!(routes, ["shop-staging-admin", "shop-staging-db", "shop-staging-web"]);
    }

    #[test]
    fn a_forgotten_key_leaves_a_file_that_sshd_accepts() {
        let (_root, host, path) = machine("ssh-ed25519 OURS shop\nssh-ed25519 THEIRS other\n");
        forget_key(&host, "ssh-ed25519 OURS").expect("forgotten");
        let text = std::fs::read_to_string(&path).expect("read");
        assert_eq!(text, "ssh-ed25519 THEIRS other\n");
        let facts = std::fs::metadata(&path).expect("facts");
        assert_eq!(facts.mode() & 0o7777, 0o600);
        if rustix::process::geteuid().is_root() {
            assert_eq!((facts.uid(), facts.gid()), (1001, 1002));
        }
    }

    #[test]
    fn what_does_not_have_the_key_stays_as_it_is() {
        let (_root, host, path) = machine("ssh-ed25519 THEIRS other");
        forget_key(&host, "ssh-ed25519 OURS").expect("nothing to do");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "ssh-ed25519 THEIRS other");
    }
}
