//! The upload of the agent as a VM's systemd units play it: what the receiver took is installed by
//! the user-data's own script, if its checksum is the known one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::spawner::{Spawner, Start};

/// How often systemd would be told of a new file, roughly.
const LOOK: Duration = Duration::from_millis(30);

/// Whether the user-data has the agent uploaded.
pub(super) fn expected(root: &Path) -> bool {
    root.join("etc/systemd/system/vmkit-upload.path").is_file()
}

/// Whether it has been installed.
pub(super) fn installed(root: &Path) -> bool {
    root.join("usr/local/bin/vmkit-agent").exists()
}

/// Waits for an upload that the install script accepts.
pub(super) async fn receive(root: &Path, spawner: &Spawner, exe: &Path) {
    let folder = root.join("var/lib/vmkit-upload");
    let ready = fs::create_dir_all(&folder)
        .and_then(|()| fs::create_dir_all(root.join("var/lib/vmkit")))
        .and_then(|()| fs::write(root.join("run/vmkit-boot"), "done\n"));
    if let Err(error) = ready {
        tracing::warn!(%error, root = %root.display(), "the upload's folder cannot be made");
    }
    loop {
        if folder.join("agent").symlink_metadata().is_ok() && take(root, spawner, exe).await {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Has an upload installed; whether there is an agent then. A sandbox plays the agent itself, so
/// `exe` takes the place of what was installed.
pub(super) async fn take(root: &Path, spawner: &Spawner, exe: &Path) -> bool {
    let agent = root.join("usr/local/bin/vmkit-agent");
    install(root, spawner).await;
    if !agent.is_file() {
        return false;
    }
    let put = symlink(exe, beside(&agent)).and_then(|()| fs::rename(beside(&agent), &agent));
    if let Err(error) = &put {
        tracing::warn!(%error, "the agent cannot be put in place");
    }
    put.is_ok()
}

fn beside(agent: &Path) -> PathBuf {
    agent.with_extension("sandbox")
}

async fn install(root: &Path, spawner: &Spawner) {
    let log =
        fs::File::options().create(true).append(true).open(root.join("var/log/vmkit-upload.log"));
    let start = Start {
        command: vec![
            "/bin/sh".into(),
            root.join("usr/local/lib/vmkit/install-agent").into(),
            root.into(),
        ],
        dir: root.to_owned(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        output: log.ok(),
        input: false,
    };
    match spawner.spawn(start).await {
        Ok(mut process) => {
            process.ended().await;
        }
        Err(error) => tracing::warn!(%error, "the install script cannot be started"),
    }
}
