//! Services beside an app: their env files, and their end.

use std::io;
use std::sync::Arc;

use vmkit_agent_protocol::beside::{RemoveService, ServiceFile};
use vmkit_agent_protocol::calls::{AppRemoved, Reply};

use super::containers::{containers, is_absent};
use super::remove_app::{drop_volume, end, fine_if_absent};
use super::{Fault, blocking, env_files};
use crate::agent::Agent;
use crate::files;
use crate::host::Host;

/// How long a service may take to end, in seconds: a database writes out what it holds.
pub(super) const GRACE_S: i32 = 60;
/// The longest env file that is taken, in bytes.
const LONGEST: usize = 64 * 1024;

/// Refuses what must not become a path or a container's name.
pub(super) fn check_names(app: &str, environment: &str, beside: &str) -> Result<(), Fault> {
    match [app, environment, beside].into_iter().find(|name| !env_files::is_slug(name)) {
        Some(name) => Err(Fault::invalid(format!(
            "`{name}` is not the name of an app, environment or service"
        ))),
        None => Ok(()),
    }
}

/// Puts a service's env file in place, and tells whether there is a volume of its name already.
pub(super) async fn write(agent: &Arc<Agent>, file: ServiceFile) -> Result<Reply, Fault> {
    check_names(&file.app, &file.environment, &file.beside)?;
    let name = format!("{}-{}-{}", file.app, file.environment, file.beside);
    let docker = agent.engine().get().await.map_err(|error| Fault::docker(&error))?;
    let volume = match docker.inspect_volume(&name).await {
        Ok(_) => true,
        Err(error) if is_absent(&error) => false,
        Err(error) => return Err(Fault::docker(&error)),
    };
    let host = agent.host().clone();
    let changed = blocking(move || put(&host, &file)).await??;
    Ok(Reply::ServiceFileWritten { changed, volume })
}

/// It is read when the service's container is made, and not again.
fn put(host: &Host, file: &ServiceFile) -> Result<bool, Fault> {
    let ServiceFile { app, environment, beside, content } = file;
    check_names(app, environment, beside)?;
    let content = content.0.as_bytes();
    if content.len() > LONGEST || content.contains(&0) {
        return Err(Fault::invalid(format!("an env file is text of at most {LONGEST} bytes")));
    }
    let failed = |error: io::Error| Fault::files(&error);
    let target = host.path(&format!("etc/vmkit/env/{app}/{environment}.{beside}.env"));
    if env_files::read(&target).map_err(failed)?.as_deref() == Some(content) {
        return Ok(false);
    }
    let access = env_files::for_kamal(host);
    let dir = target.parent().unwrap_or(host.root());
    env_files::make_readable_dirs(host, dir).map_err(failed)?;
    files::write_whole(&target, content, access).map_err(failed)?;
    Ok(true)
}

/// Takes a service off the VM; what is gone already is fine. The app is not touched.
pub(super) async fn remove(agent: &Arc<Agent>, wanted: RemoveService) -> Result<Reply, Fault> {
    let RemoveService { app, environment, beside, volume, file_only } = wanted;
    check_names(&app, &environment, &beside)?;
    env_files::refuse_if_locked(agent.host(), &app, &environment)?;
    let name = format!("{app}-{environment}-{beside}");
    let docker = agent.engine().get().await.map_err(|error| Fault::docker(&error))?;
    let all = containers(agent.engine()).await?;
    let mut removed = AppRemoved::default();
    // An app's own containers have a role, whatever they are called.
    let ours = all.iter().filter(|one| {
        let of_it = one.labels.get("service") == Some(&name) && !one.labels.contains_key("role");
        of_it && !file_only
    });
    for container in ours {
        end(&docker, &container.id, GRACE_S).await?;
        removed.containers.push(container.name.clone());
    }
    if volume && !file_only && drop_volume(&docker, &name).await? {
        removed.volumes.push(name);
    }
    let host = agent.host().clone();
    let file = host.path(&format!("etc/vmkit/env/{app}/{environment}.{beside}.env"));
    let gone = blocking(move || fine_if_absent(std::fs::remove_file(file))).await?;
    gone.map_err(|error| Fault::files(&error))?;
    Ok(Reply::AppRemoved(removed))
}

/// Removes the env files of all services beside an environment's app.
pub(super) fn clear_files(host: &Host, app: &str, environment: &str) -> io::Result<()> {
    let folder = host.path(&format!("etc/vmkit/env/{app}"));
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let beside = name.strip_suffix(".env").and_then(|name| name.split_once('.'));
        if beside.is_some_and(|(of, _)| of == environment) {
            fine_if_absent(std::fs::remove_file(folder.join(name)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use vmkit_agent_protocol::bytes::Hidden;

    use super::*;

    #[test]
    fn a_services_file_is_private_and_goes_with_its_own_environment_only() {
        let root = tempfile::tempdir().expect("a folder");
        let host = Host::new(root.path());
        let file = |environment: &str, beside: &str| ServiceFile {
            app: "shop".to_owned(),
            environment: environment.to_owned(),
            beside: beside.to_owned(),
            content: Hidden("A=1\n".to_owned()),
        };
        for (environment, changed) in [("staging", true), ("staging", false), ("staging-2", true)] {
            assert_eq!(put(&host, &file(environment, "db")).expect("written"), changed);
        }
        let path = |name: &str| host.path(&format!("etc/vmkit/env/shop/{name}"));
        let mode = std::fs::metadata(path("staging.db.env")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "there is no group kamal here");
        for bad in ["../db", "", "d.b", "Db"] {
            assert!(put(&host, &file("staging", bad)).is_err(), "{bad}");
        }
        std::fs::write(path("staging.env"), "B=1\n").expect("written");
        clear_files(&host, "shop", "staging").expect("cleared");
        assert!(!path("staging.db.env").exists());
        assert!(path("staging.env").exists() && path("staging-2.db.env").exists());
        clear_files(&host, "other", "staging").expect("nothing there");
    }
}
