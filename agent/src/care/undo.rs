//! What hardening changed, so that it can be taken back: written down on the VM before each change,
//! with the time at which the VM takes it back by itself.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::measures::Area;
use crate::calls::facts;
use crate::files::{self, Access};
use crate::host::Host;
use crate::time::now_ms;

/// What was changed and not yet kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Undo {
    /// Whose work it was.
    pub(crate) operation: String,
    /// The boot in which it was done.
    pub(crate) boot_id: String,
    /// When the VM takes it back, in milliseconds since 1970.
    pub(crate) deadline_ms: i64,
    /// In the order in which they were made.
    pub(crate) changes: Vec<Change>,
}

/// One file, or one kernel parameter, as it was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// What has to be told of it.
    pub(crate) area: Area,
    /// A file's path within the machine, or a parameter's name.
    pub(crate) path: String,
    /// None where there was no such file.
    pub(crate) before: Option<Before>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Before {
    File { mode: u32, base64: String },
    Parameter { value: String },
}

impl Undo {
    /// What is armed on this host; none where nothing is.
    pub(crate) fn read(host: &Host) -> io::Result<Option<Self>> {
        match std::fs::read(file(host)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn write(&self, host: &Host) -> io::Result<()> {
        let file = file(host);
        host.make_dir(file.parent().unwrap_or(host.root()), 0o700)?;
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        files::write_whole(&file, &text, files::PRIVATE)
    }

    /// Disarms it. False where nothing was armed.
    pub(crate) fn forget(host: &Host) -> io::Result<bool> {
        match std::fs::remove_file(file(host)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the time is up: the deadline has passed, or the machine went down meanwhile.
    pub(crate) fn is_due(&self, host: &Host) -> bool {
        self.boot_id != facts::boot_id(host) || now_ms() >= self.deadline_ms
    }

    /// A file as it is now.
    pub(crate) fn before(host: &Host, path: &str) -> io::Result<Option<Before>> {
        let there = host.path(path);
        match std::fs::read(&there) {
            Ok(bytes) => {
                let mode = std::fs::metadata(&there)?.permissions().mode() & 0o7777;
                Ok(Some(Before::File { mode, base64: STANDARD.encode(bytes) }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Change {
    /// Puts a file back as it was. A parameter is for whoever can set it.
    pub(crate) fn put_back(&self, host: &Host) -> io::Result<()> {
        let path = host.path(&self.path);
        match &self.before {
            None => match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            Some(Before::File { mode, base64 }) => {
                let bytes = STANDARD.decode(base64).map_err(io::Error::other)?;
                let access = Access { mode: *mode, owner: None, group: None };
                files::write_whole(&path, &bytes, access)
            }
            Some(Before::Parameter { .. }) => Ok(()),
        }
    }
}

fn file(host: &Host) -> PathBuf {
    host.path("var/lib/vmkit/care/undo.json")
}
