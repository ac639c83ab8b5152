#!/bin/sh
# First process of a lab VM: makes the cgroups writable for the inner engine, then is systemd.
# On a host with cgroup v1, systemd 257 wants to be forced.
set -e
mount -o remount,bind,rw /sys
for dir in /sys/fs/cgroup /sys/fs/cgroup/*; do
  [ ! -d "$dir" ] || mount -o remount,bind,rw "$dir" 2>/dev/null || true
done
mount --make-rshared /
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
  exec /lib/systemd/systemd
fi
exec /lib/systemd/systemd SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1 systemd.unified_cgroup_hierarchy=0
