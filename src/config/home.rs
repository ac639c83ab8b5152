//! The folder of the state: where it is, what lies in it, and whether SQLite may live there.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Environment, SettingsError};

/// A Unix socket's path must fit in `sockaddr_un`; we stay under this many bytes everywhere.
const SOCKET_PATH_MAX: usize = 100;

/// The folder of the state. All processes of one installation share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    path: PathBuf,
    runtime: PathBuf,
}

impl Home {
    /// `--home`, else `VMKIT_HOME`, else systemd's `StateDirectory=` of the unit, else the platform's data directory.
    ///
    /// # Errors
    /// There is no home directory.
    pub(super) fn find(
        flag: Option<&Path>,
        environment: &Environment,
    ) -> Result<Self, SettingsError> {
        let named = flag.map(Path::to_owned).or_else(|| environment.path("VMKIT_HOME"));
        let path = match named.or_else(|| environment.path("STATE_DIRECTORY")) {
            Some(path) => path,
            None => directories::ProjectDirs::from("", "", "vmkit")
                .map(|dirs| dirs.data_dir().to_owned())
                .ok_or(SettingsError::NoHome)?,
        };
        let path = std::path::absolute(&path).map_err(|source| SettingsError::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        let runtime = environment.path("XDG_RUNTIME_DIR").unwrap_or_else(std::env::temp_dir);
        Ok(Self { path, runtime })
    }

    /// Makes the folder (only we may enter it), after a look at its file system.
    ///
    /// # Errors
    /// A network file system, or a folder that cannot be made.
    pub fn prepare(&self) -> Result<(), SettingsError> {
        if let Some(kind) = self.network_file_system() {
            return Err(SettingsError::NetworkFileSystem { path: self.path.clone(), kind });
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(
            |source| SettingsError::Io { action: "create", path: self.path.clone(), source },
        )
    }

    /// The kind of the network file system that the folder is on, or will be; nothing for a local one.
    pub fn network_file_system(&self) -> Option<String> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        let standing = self.path.ancestors().find_map(|path| path.canonicalize().ok())?;
        network_mount(&mounts, &standing)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.path.join("vmkit.db")
    }

    /// The vault's key.
    pub fn key_file(&self) -> PathBuf {
        self.path.join("master.key")
    }

    /// `vmkit.toml`.
    pub fn settings_file(&self) -> PathBuf {
        self.path.join("vmkit.toml")
    }

    /// Held by the one worker of this state.
    pub fn worker_lock(&self) -> PathBuf {
        self.path.join("worker.lock")
    }

    /// Shared by every open face (`vmkit mcp`, `vmkit call`): while it is, the worker stays.
    pub fn faces_lock(&self) -> PathBuf {
        self.path.join("faces.lock")
    }

    /// What the detached worker says.
    pub fn worker_log(&self) -> PathBuf {
        self.path.join("worker.log")
    }

    /// What keeps the agents' programs that were fetched.
    pub fn agents(&self) -> PathBuf {
        self.path.join("agents")
    }

    /// Where the worker listens: beside the database, or, where that path is too long for a
    /// socket, under a short name in the runtime or temporary directory.
    pub fn socket(&self) -> PathBuf {
        let beside = self.path.join("vmkit.sock");
        if beside.as_os_str().len() < SOCKET_PATH_MAX {
            return beside;
        }
        let digest = Sha256::digest(self.path.as_os_str().as_bytes());
        let name = format!("vmkit-{}", hex::encode(&digest[..8]));
        let short = self.runtime.join(&name).join("s");
        if short.as_os_str().len() < SOCKET_PATH_MAX {
            return short;
        }
        Path::new("/tmp").join(name).join("s")
    }
}

/// The network file system that holds `path`, judged by the longest mount point above it.
fn network_mount(mountinfo: &str, path: &Path) -> Option<String> {
    const KINDS: &[&str] = &[
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "lustre",
        "glusterfs",
        "gfs2",
        "ocfs2",
        "beegfs",
        "davfs",
        "ncpfs",
        "coda",
    ];
    const FUSE: &[&str] = &["sshfs", "glusterfs", "s3fs", "rclone", "gcsfuse", "davfs2", "ceph"];
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, rest) = line.split_once(" - ")?;
        let point = unescape(mount.split(' ').nth(4)?);
        let kind = rest.split(' ').next()?;
        path.starts_with(&point).then_some((point, kind))
    });
    // Of two mounts on one point the later covers the earlier.
    let (_, kind) = mounts.max_by_key(|(point, _)| point.as_os_str().len())?;
    let over_fuse = kind.strip_prefix("fuse.").is_some_and(|name| FUSE.contains(&name));
    (KINDS.contains(&kind) || over_fuse).then(|| kind.to_owned())
}

/// Undoes the kernel's octal escapes of space, tab, newline and backslash.
fn unescape(point: &str) -> PathBuf {
    let spelled = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    PathBuf::from(
        spelled.iter().fold(point.to_owned(), |text, (code, plain)| text.replace(code, plain)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:40 / /home rw,relatime shared:5 - nfs4 server:/home rw
31 30 0:41 / /home/anna/local\\040disk rw - ext4 /dev/vdb rw
32 27 0:42 / /mnt/c rw - 9p C: rw
33 27 0:43 / /srv/remote rw - fuse.sshfs host:/srv rw
34 27 0:44 / /srv/crypt rw - fuse.gocryptfs /x rw";

    #[test]
    fn a_network_file_system_is_seen_through_the_longest_mount() {
        let kind = |path: &str| network_mount(MOUNTS, Path::new(path));
        assert_eq!(kind("/home/anna/.local/share/vmkit").as_deref(), Some("nfs4"));
        assert_eq!(kind("/mnt/c/Users/anna").as_deref(), Some("9p"));
        assert_eq!(kind("/srv/remote/x").as_deref(), Some("fuse.sshfs"));
        assert_eq!(kind("/srv/crypt/x"), None);
        assert_eq!(kind("/home/anna/local disk/vmkit"), None);
        assert_eq!(kind("/homes/anna"), None);
    }

    #[test]
    fn a_network_file_system_is_refused_with_advice() {
        let error =
            SettingsError::NetworkFileSystem { path: "/home/x".into(), kind: "nfs4".into() };
        assert_eq!(error.code(), "network_file_system");
        assert!(error.to_string().contains("set VMKIT_HOME to a folder on a local disk"));
    }

    #[test]
    fn a_socket_lies_beside_the_database_unless_its_path_is_too_long() {
        let short = Home { path: "/var/lib/vmkit".into(), runtime: "/run/user/1000".into() };
        assert_eq!(short.socket(), Path::new("/var/lib/vmkit/vmkit.sock"));
        let long = Home { path: format!("/{}", "d".repeat(120)).into(), ..short.clone() };
        assert!(long.socket().starts_with("/run/user/1000"), "{:?}", long.socket());
        assert!(long.socket().as_os_str().len() < SOCKET_PATH_MAX);
        let other = Home { path: format!("/{}", "e".repeat(120)).into(), ..short.clone() };
        assert_ne!(long.socket(), other.socket());
        let all_long = Home { runtime: format!("/{}", "r".repeat(120)).into(), ..long };
        assert!(all_long.socket().as_os_str().len() < SOCKET_PATH_MAX);
    }

    #[test]
    fn the_folder_is_ours_alone() {
        use std::os::unix::fs::PermissionsExt;
        let top = tempfile::tempdir().expect("a folder");
        let home = Home { path: top.path().join("a/b"), runtime: top.path().to_owned() };
        home.prepare().expect("made");
        let mode = std::fs::metadata(home.path()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
