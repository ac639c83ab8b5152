//! The mounted disks, the root first.

use std::path::Path;

use procfs::{FromRead, MountEntry};
use vmkit_agent_protocol::metrics::Disk;

use crate::host::Host;

/// More than a VM has; what is mounted beyond is left out.
const DISKS: usize = 8;

/// The root, and every other device that is mounted from `/dev`, once.
pub(super) fn read(host: &Host) -> Vec<Disk> {
    let mut disks: Vec<Disk> = look(host.root(), "/").into_iter().collect();
    let mut devices = Vec::new();
    // Only the machine's own list: that of another machine says nothing about these folders.
    let list = if host.root() == Path::new("/") {
        host.path("proc/self/mounts")
    } else {
        host.path("proc/mounts")
    };
    let mounts = Vec::<MountEntry>::from_file(list).unwrap_or_default();
    let root = mounts.iter().rev().find(|mount| mount.fs_file == "/");
    devices.extend(root.map(|mount| mount.fs_spec.clone()));
    for mount in &mounts {
        // A loop device is a package's image (snap), which is full by nature.
        let real = mount.fs_spec.starts_with("/dev/") && !mount.fs_spec.starts_with("/dev/loop");
        if disks.len() >= DISKS || !real || devices.contains(&mount.fs_spec) {
            continue;
        }
        devices.push(mount.fs_spec.clone());
        disks.extend(look(&host.path(&mount.fs_file), &mount.fs_file));
    }
    disks
}

fn look(path: &Path, mount: &str) -> Option<Disk> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(Disk {
        mount: mount.to_owned(),
        bytes: found.f_blocks.saturating_mul(found.f_frsize),
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        inodes: found.f_files,
        inodes_free: found.f_favail,
        full_in_days: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_counts_once_and_packages_images_do_not() {
        let root = tempfile::tempdir().expect("a folder");
        for folder in ["proc", "data", "again", "snap"] {
            std::fs::create_dir(root.path().join(folder)).expect("made");
        }
        let mounts = "/dev/sda1 / ext4 rw 0 0\nproc /proc proc rw 0 0\n\
                      /dev/sda1 /again ext4 rw 0 0\n/dev/sdb /data ext4 rw 0 0\n\
                      /dev/loop1 /snap squashfs ro 0 0\n/dev/sdc /gone ext4 rw 0 0\n";
        std::fs::write(root.path().join("proc/mounts"), mounts).expect("written");
        let found = read(&Host::new(root.path()));
        let names: Vec<&str> = found.iter().map(|disk| disk.mount.as_str()).collect();
        assert_eq!(names, ["/", "/data"]);
        assert!(found.iter().all(|disk| disk.bytes > 0 && disk.free_bytes <= disk.bytes));
    }
}
