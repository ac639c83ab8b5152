//! What somebody who logs in without a forced command meets: a real shell, in the VM's own root,
//! with commands that know no other.

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;

use super::docker::Docker;
use super::spawner::Start;
use crate::SandboxError;

/// The commands that the VM has of its own.
const OWN: [&str; 12] = [
    "id",
    "getent",
    "useradd",
    "userdel",
    "usermod",
    "gpasswd",
    "systemctl",
    "ss",
    "apt-get",
    "sshd",
    "sudo",
    "chown",
];
/// Tools of the machine around it that read and write files by the names that they are given.
const TOOLS: [&str; 26] = [
    "sh",
    "cat",
    "head",
    "tail",
    "tr",
    "grep",
    "sed",
    "awk",
    "cut",
    "sort",
    "mkdir",
    "rm",
    "mv",
    "cp",
    "chmod",
    "touch",
    "ln",
    "dirname",
    "basename",
    "wc",
    "sha256sum",
    "uname",
    "test",
    "sleep",
    "printf",
    "date",
];

/// Makes the folder that is a shell's PATH.
pub(super) fn make_commands(folder: &Path) -> Result<(), SandboxError> {
    let fail = |source| SandboxError::io("fill the folder", folder, source);
    std::fs::create_dir(folder).map_err(fail)?;
    let script = folder.join("commands");
    std::fs::write(&script, include_str!("commands.sh")).map_err(fail)?;
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).map_err(fail)?;
    for name in OWN {
        symlink(&script, folder.join(name)).map_err(fail)?;
    }
    for name in TOOLS {
        let places = ["/usr/bin", "/bin"].map(|place| Path::new(place).join(name));
        if let Some(place) = places.iter().find(|place| place.exists()) {
            symlink(place, folder.join(name)).map_err(fail)?;
        }
    }
    Ok(())
}

/// What a shell on one VM is made of.
#[derive(Clone)]
pub(super) struct Shell {
    pub(super) commands: PathBuf,
    pub(super) docker: Docker,
    pub(super) services: Services,
}

impl Shell {
    /// A process on the VM: a shell that runs `line`.
    pub(super) fn start(&self, root: &Path, line: &str, ssh_port: u16) -> Start {
        self.note(root, ssh_port);
        Start {
            command: vec!["/bin/sh".into(), "-c".into(), OsString::from(line)],
            dir: root.to_owned(),
            env: self.environment(root),
            output: None,
            input: true,
        }
    }

    pub(super) fn environment(&self, root: &Path) -> Vec<(String, String)> {
        let path = format!("{}:{}", self.commands.display(), root.join("usr/bin").display());
        vec![
            ("PATH".into(), path),
            ("VMKIT_ROOT".into(), root.display().to_string()),
            ("HOME".into(), root.join("root").display().to_string()),
        ]
    }

    /// Writes down what listens and what runs, for the commands that list it.
    fn note(&self, root: &Path, ssh_port: u16) {
        let address = self.docker.address();
        let mut listening = vec![("sshd".to_owned(), ssh_port)];
        listening.extend(self.services.all());
        let ports: String = listening
            .iter()
            .map(|(name, port)| {
                format!(
                    "tcp LISTEN 0 128 {address}:{port} 0.0.0.0:* users:((\"{name}\",pid=1,fd=3))\n"
                )
            })
            .collect();
        let containers: String = self
            .docker
            .list()
            .iter()
            .map(|one| {
                let state = if one.running { "running" } else { "exited" };
                format!("{} {state} {}\n", one.name, one.image)
            })
            .collect();
        let written = std::fs::write(root.join("run/ss"), ports)
            .and_then(|()| std::fs::write(root.join("run/docker-ps"), containers));
        if let Err(error) = written {
            tracing::warn!(%error, "what a VM runs cannot be written down");
        }
    }
}

/// Programs of the VM's owner that listen, and answer nothing.
#[derive(Clone, Default)]
pub(super) struct Services(Arc<Mutex<Vec<(String, u16, TcpListener)>>>);

impl Services {
    /// Has one listen; port 0 picks one.
    pub(super) async fn add(&self, name: &str, at: (IpAddr, u16)) -> std::io::Result<u16> {
        let listener = TcpListener::bind(at).await?;
        let port = listener.local_addr()?.port();
        crate::lock(&self.0).push((name.to_owned(), port, listener));
        Ok(port)
    }

    fn all(&self) -> Vec<(String, u16)> {
        crate::lock(&self.0).iter().map(|(name, port, _)| (name.clone(), *port)).collect()
    }

    /// Has one end.
    pub(super) fn stop(&self, name: &str) {
        crate::lock(&self.0).retain(|(own, ..)| own != name);
    }
}
