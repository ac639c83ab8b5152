//! A copy of a VM's disk: its files, its containers, and what its proxy was told.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::container::ContainerSpec;
use crate::SandboxError;
use crate::lab::snapshot::Snapshot;

/// What lives in memory and is not on a disk.
const VOLATILE: [&str; 3] = ["run", "proc", "tmp"];

/// A copy of a VM's disk. Cheap to clone; its folder goes with the last clone.
#[derive(Clone)]
pub struct Disk(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    bytes: u64,
    pub(super) containers: Vec<SavedContainer>,
    pub(super) proxy: SavedProxy,
    /// The copy of a lab VM's disk; then there are no files.
    lab: Option<Snapshot>,
}

/// A container as it lies on a disk.
#[derive(Clone)]
pub(super) struct SavedContainer {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) spec: ContainerSpec,
    /// Somebody stopped it by hand, so that it does not start with the machine.
    pub(super) stopped: bool,
    pub(super) exit_code: Option<i32>,
    pub(super) published: Vec<(u16, u16)>,
}

/// What a proxy was told: its port, and each service with its host and its container's id.
#[derive(Clone, Default)]
pub(super) struct SavedProxy {
    pub(super) port: Option<u16>,
    pub(super) services: Vec<(String, Option<String>, String)>,
}

impl Disk {
    /// Copies the files below `root` into the new folder `dir`.
    pub(super) fn copy(
        root: &Path,
        dir: PathBuf,
        containers: Vec<SavedContainer>,
        proxy: SavedProxy,
    ) -> Result<Self, SandboxError> {
        let bytes = copy_tree(root, &dir, true)?;
        Ok(Self(Arc::new(Inner { dir, bytes, containers, proxy, lab: None })))
    }

    /// The copy of a lab VM's disk.
    pub(super) fn of_lab(dir: PathBuf, snapshot: Snapshot) -> Self {
        let bytes = snapshot.bytes();
        let (containers, proxy) = (Vec::new(), SavedProxy::default());
        Self(Arc::new(Inner { dir, bytes, containers, proxy, lab: Some(snapshot) }))
    }

    /// Its parts in the lab.
    pub(crate) fn snapshot(&self) -> Option<&Snapshot> {
        self.0.lab.as_ref()
    }

    /// Writes the files below `root`.
    pub(super) fn restore(&self, root: &Path) -> Result<(), SandboxError> {
        copy_tree(&self.0.dir, root, false).map(drop)
    }

    pub(super) fn containers(&self) -> &[SavedContainer] {
        &self.0.containers
    }

    pub(super) fn proxy(&self) -> &SavedProxy {
        &self.0.proxy
    }

    /// How many bytes its files have.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Disk").field(&self.0.dir).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// Copies files, folders and links; sockets and what vanishes meanwhile are left out.
fn copy_tree(from: &Path, to: &Path, top: bool) -> Result<u64, SandboxError> {
    let fail = |source| SandboxError::io("copy", from, source);
    fs::create_dir_all(to).map_err(fail)?;
    let mut bytes = 0;
    for entry in fs::read_dir(from).map_err(fail)?.flatten() {
        let (name, Ok(meta)) = (entry.file_name(), entry.metadata()) else { continue };
        let target = to.join(&name);
        if meta.is_dir() {
            if top && name.to_str().is_some_and(|name| VOLATILE.contains(&name)) {
                fs::create_dir_all(&target).map_err(fail)?;
                continue;
            }
            bytes += copy_tree(&entry.path(), &target, false)?;
            let mode = fs::Permissions::from_mode(meta.permissions().mode());
            fs::set_permissions(&target, mode).map_err(fail)?;
        } else if meta.is_symlink() {
            if let Ok(link) = fs::read_link(entry.path()) {
                symlink(link, &target).map_err(fail)?;
            }
        } else if meta.is_file() {
            match fs::copy(entry.path(), &target) {
                Ok(copied) => bytes += copied,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(fail(error)),
            }
        }
    }
    Ok(bytes)
}
