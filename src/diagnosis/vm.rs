//! The VM: Docker, its disk, and what its cloud says of it.

use super::rule::By::Tool;
use super::rule::Mends::Person;
use super::rule::Row;

pub(super) const ROWS: &[Row] = &[
    (
        "docker_forbidden",
        Tool,
        r"permission denied while trying to connect to the [Dd]ocker (?:daemon socket|API)",
        "the user kamal may not use Docker on the VM",
        "add kamal to the group docker on the VM",
        Person,
        "table",
    ),
    (
        "docker_down",
        Tool,
        r"Cannot connect to the Docker daemon at|failed to connect to the docker API",
        "Docker does not run on the VM",
        "start it: `systemctl start docker`; `journalctl -u docker` says why it stopped",
        Person,
        "table",
    ),
    (
        "docker_missing",
        Tool,
        r"docker: (?:command )?not found",
        "Docker is not installed on the VM",
        "wait until the VM's first boot has ended; if it has, install docker.io",
        Person,
        "table",
    ),
    (
        "disk_full",
        Tool,
        r"no space left on device|No space left on device|Errno::ENOSPC",
        "the VM's disk is full",
        "run `docker system prune -a` on the VM: it removes stopped containers and the images of old versions; look at /var/log and at volumes too, or take a bigger size",
        Person,
        "table",
    ),
];
