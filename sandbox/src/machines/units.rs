//! systemd's part on a VM whose units come and go while it runs, as on one that is adopted: each
//! enabled unit is a link in a `.wants` folder, as systemd keeps them.

use std::path::Path;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::machine::Machine;
use super::upload;

/// How often it is looked, on a VM that has nothing of VMKit's and on one that has.
const IDLE_LOOK: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(20);

/// Whether a unit is enabled.
pub(super) fn enabled(root: &Path, unit: &str) -> bool {
    let units = root.join("etc/systemd/system");
    ["multi-user.target.wants", "timers.target.wants"]
        .iter()
        .any(|target| units.join(target).join(unit).exists())
}

/// Whether the VM was adopted, so that its units are played here.
pub(super) fn are_ours(root: &Path) -> bool {
    root.join("etc/systemd/system/vmkit-leave.path").is_file()
}

/// Plays them until it is dropped.
pub(super) async fn play(machine: &Machine, agents_start: bool) {
    let root = machine.root();
    let mut agent: Option<DropGuard> = None;
    loop {
        if enabled(root, "vmkit-upload.path") && root.join("var/lib/vmkit-upload/agent").is_file() {
            machine.install_upload().await;
        }
        if enabled(root, "vmkit-leave.path") && root.join("var/lib/vmkit-upload/leave").is_file() {
            machine.run_leave().await;
        }
        let wanted = root.join("etc/systemd/system/vmkit-agent.service").is_file()
            && upload::installed(root)
            && agents_start;
        match (wanted, agent.is_some()) {
            (true, false) => {
                let end = CancellationToken::new();
                agent = Some(end.clone().drop_guard());
                let machine = machine.clone();
                tokio::spawn(async move {
                    end.run_until_cancelled(machine.keep_agents()).await;
                });
            }
            (false, true) => agent = None,
            _ => {}
        }
        let busy = root.join("usr/local/lib/vmkit").is_dir();
        tokio::time::sleep(if busy { LOOK } else { IDLE_LOOK }).await;
    }
}
