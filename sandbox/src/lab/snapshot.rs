//! A copy of a lab VM's disk: an image of its root, and a volume with what its Docker engine holds.

use super::Lab;
use crate::SandboxError;

/// Cheap to hold; its image and its volume go with it.
pub(crate) struct Snapshot {
    lab: Lab,
    image: String,
    volume: String,
    bytes: u64,
}

impl Snapshot {
    /// Copies the disk of the VM whose container has this name; blocks.
    pub(super) fn take(lab: &Lab, vm: &str) -> Result<Self, SandboxError> {
        let volume = lab.name("snapshot");
        let image = format!("vmkit-lab/snapshot:{volume}");
        let label = format!("LABEL {}", lab.engine().label());
        lab.engine().docker(&["commit", "--change", &label, vm, &image])?;
        let mut snapshot = Self { lab: lab.clone(), image, volume, bytes: 0 };
        copy(lab, &format!("{vm}-docker"), &snapshot.volume)?;
        let size =
            lab.engine().docker(&["image", "inspect", "-f", "{{.Size}}", &snapshot.image])?;
        snapshot.bytes = size.trim().parse().unwrap_or(0);
        Ok(snapshot)
    }

    pub(super) fn image(&self) -> &str {
        &self.image
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills a new volume with what the engine of the copied VM held; blocks.
    pub(super) fn copy_volume(&self, to: &str) -> Result<(), SandboxError> {
        copy(&self.lab, &self.volume, to)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        drop(self.lab.engine().docker(&["image", "rm", "-f", &self.image]));
        drop(self.lab.engine().docker(&["volume", "rm", "-f", &self.volume]));
    }
}

fn copy(lab: &Lab, from: &str, to: &str) -> Result<(), SandboxError> {
    let engine = lab.engine();
    engine.docker(&["volume", "create", "--label", engine.label(), to])?;
    let (from, to) = (format!("{from}:/from:ro"), format!("{to}:/to"));
    let work = ["cp", "-a", "/from/.", "/to/"];
    let args =
        ["run", "--rm", "--label", engine.label(), "-v", &from, "-v", &to, "vmkit-lab/runner"];
    engine.docker(&[&args[..], &work[..]].concat()).map(drop)
}
