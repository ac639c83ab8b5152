//! Named volumes: folders on the machine's disk. And the names by which containers find each other.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;

use super::Docker;
use crate::machines::container::ContainerSpec;

/// How long a container may take to accept a connection.
const ACCEPT: Duration = Duration::from_millis(500);

impl Docker {
    /// The folder of a volume, whether or not there is one.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.root().join("var/lib/docker/volumes").join(name).join("_data")
    }

    fn root(&self) -> PathBuf {
        self.0.home.parent().unwrap_or(&self.0.home).to_owned()
    }

    /// Where a container's process starts; its volumes are made.
    pub(super) fn folder_of(&self, spec: &ContainerSpec) -> Result<PathBuf, String> {
        for mount in &spec.mounts {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            if mount.name.is_empty() || mount.name.contains("..") || !mount.name.chars().all(plain)
            {
                return Err(format!(
                    "Error response from daemon: create {}: invalid name",
                    mount.name
                ));
            }
            let made = std::fs::create_dir_all(self.volume(&mount.name));
            made.map_err(|error| format!("Error response from daemon: {error}"))?;
        }
        Ok(match spec.mounts.first() {
            Some(mount) => self.volume(&mount.name),
            None => spec.image.dir.clone(),
        })
    }

    /// Removes a volume that no container has, with its data.
    pub(in crate::machines) fn remove_volume(
        &self,
        name: &str,
    ) -> Result<(), (StatusCode, String)> {
        let has = |spec: &ContainerSpec| spec.mounts.iter().any(|mount| mount.name == name);
        if let Some(user) = self.all().iter().find(|container| has(&container.spec)) {
            let text = format!("remove {name}: volume is in use - [{}]", user.id);
            return Err((StatusCode::CONFLICT, text));
        }
        let folder = self.volume(name);
        if name.contains(['/', '.']) || !folder.is_dir() {
            return Err((StatusCode::NOT_FOUND, format!("get {name}: no such volume")));
        }
        let removed = std::fs::remove_dir_all(folder.parent().unwrap_or(&folder));
        removed.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    }

    /// Whether a container takes connections.
    pub(in crate::machines) fn answers(&self, port: u16) -> bool {
        TcpStream::connect_timeout(&SocketAddr::new(self.address(), port), ACCEPT).is_ok()
    }

    /// The file that plays Docker's name server: a line `NAME ADDRESS PORT` a container.
    pub(super) fn names_file(&self) -> PathBuf {
        self.root().join("run/containers")
    }

    /// Writes it anew. A container that goes keeps its name until another starts.
    pub(super) fn name_containers(&self) {
        let (address, file) = (self.address(), self.names_file());
        let lines: String = self
            .list()
            .iter()
            .map(|one| format!("{} {address} {}\n", one.name, one.port))
            .collect();
        let written = || -> std::io::Result<()> {
            let folder = file.parent().unwrap_or(&file);
            std::fs::create_dir_all(folder)?;
            let mut draft = tempfile::NamedTempFile::new_in(folder)?;
            draft.write_all(lines.as_bytes())?;
            draft.persist(&file).map(drop).map_err(|error| error.error)
        };
        // Without it an app only finds no other container.
        drop(written());
    }
}
