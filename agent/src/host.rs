//! The machine that the agent works on: a root directory and a Docker socket, and nothing else.

use std::io;
use std::path::{Path, PathBuf};

/// Everything that the agent touches lies under here; `/` on a VM, a private directory in the
/// sandbox.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// The machine whose root directory is `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path of the machine, such as `etc/hostname`, as this process sees it.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    /// The agent's own configuration.
    pub fn config_file(&self) -> PathBuf {
        self.path("etc/vmkit/agent.toml")
    }

    /// The agent's private key.
    pub fn key_file(&self) -> PathBuf {
        self.path("var/lib/vmkit/agent.key")
    }

    /// Where the agent serves its link to clients on this machine.
    pub fn agent_socket(&self) -> PathBuf {
        self.path("run/vmkit/agent.sock")
    }

    /// The Docker engine's socket: the first of `run/docker.sock` and `var/run/docker.sock` that
    /// is there, else the first.
    pub fn docker_socket(&self) -> PathBuf {
        let usual = self.path("run/docker.sock");
        let old = self.path("var/run/docker.sock");
        if !usual.exists() && old.exists() { old } else { usual }
    }

    /// Where a program of the machine is; none where it is not, or where a link leads out of the
    /// root.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let root = self.root.canonicalize().ok()?;
        ["usr/bin", "bin", "usr/sbin", "sbin"].iter().find_map(|folder| {
            let found = self.path(folder).join(name).canonicalize().ok()?;
            (found.starts_with(&root) && found.is_file()).then_some(found)
        })
    }

    /// A file of the kernel's, such as `stat` for `/proc/stat`: the machine's own where it has one,
    /// else that of the kernel that we run under.
    pub fn proc(&self, inside: &str) -> PathBuf {
        let own = self.path("proc").join(inside);
        if own.exists() { own } else { Path::new("/proc").join(inside) }
    }

    /// A small text file's content without the white space around it; empty where it is absent.
    pub fn read_line(&self, inside: &str) -> String {
        std::fs::read_to_string(self.path(inside)).unwrap_or_default().trim().to_owned()
    }

    /// The id of a group, by the machine's own `etc/group`.
    pub fn group_id(&self, name: &str) -> Option<u32> {
        let groups = std::fs::read_to_string(self.path("etc/group")).ok()?;
        groups.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
        })
    }

    /// A user's group id and home, by the machine's own `etc/passwd`.
    pub fn user(&self, name: &str) -> Option<(u32, String)> {
        let users = std::fs::read_to_string(self.path("etc/passwd")).ok()?;
        users.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let (Some(&user), Some(group), Some(home)) =
                (fields.first(), fields.get(3), fields.get(5))
            else {
                return None;
            };
            (user == name).then(|| Some((group.parse().ok()?, (*home).to_owned()))).flatten()
        })
    }

    /// A user's own id, by the machine's own `etc/passwd`.
    pub fn user_id(&self, name: &str) -> Option<u32> {
        let users = std::fs::read_to_string(self.path("etc/passwd")).ok()?;
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
        })
    }

    /// Kamal's own folder in the home of the user that it logs in as.
    pub fn kamal_folder(&self) -> PathBuf {
        let home = self.user("kamal").map_or_else(|| "/home/kamal".to_owned(), |(_, home)| home);
        self.path(&format!("{home}/.kamal"))
    }

    /// Makes a directory and those above it, the last one with these permissions.
    ///
    /// # Errors
    /// As the file system has it.
    pub fn make_dir(&self, dir: &Path, mode: u32) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        if dir.is_dir() {
            return Ok(());
        }
        std::fs::create_dir_all(dir)?;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode))
    }
}
