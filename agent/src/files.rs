//! Files that are either the old content or the new, never half of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Who may read a file: the mode, and the owner and the group that root gives it to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    pub(crate) mode: u32,
    pub(crate) owner: Option<u32>,
    pub(crate) group: Option<u32>,
}

/// For nobody but the owner.
pub(crate) const PRIVATE: Access = Access { mode: 0o600, owner: None, group: None };

/// Puts `content` at `path` by writing beside it and renaming; survives a power cut.
pub(crate) fn write_whole(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let beside = beside(path);
    let written = write_new(&beside, content, access)
        .and_then(|()| std::fs::rename(&beside, path))
        .and_then(|()| File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all());
    if written.is_err() {
        drop(std::fs::remove_file(&beside));
    }
    written
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    path.with_file_name(format!(".{name}.{:08x}.new", rand::random::<u32>()))
}

fn write_new(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    // They are set before the mode opens the file to them, and the content comes last.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let owner = access.owner.map(rustix::fs::Uid::from_raw);
    let group = access.group.map(rustix::fs::Gid::from_raw);
    if (owner.is_some() || group.is_some()) && rustix::process::geteuid().is_root() {
        rustix::fs::fchown(&file, owner, group)?;
    }
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(access.mode))?;
    file.write_all(content)?;
    file.sync_all()
}
