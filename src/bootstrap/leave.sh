#!/bin/sh
# Takes off this machine what VMKit put on it when it adopted it, by the list that it kept, and
# nothing else. Docker stays, where VMKit installed it; so does what the apps' containers left.
# It may run twice. VMKIT_ROOT is another root directory, for tests.
set -u
root=${VMKIT_ROOT:-}
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
mine=$root/var/lib/vmkit-adopted
units=$root/etc/systemd/system
for unit in vmkit-leave.path vmkit-upload.path vmkit-agent.service; do
  [ ! -e "$units/$unit" ] || systemctl disable --now "$unit"
done
home_of() { getent passwd "$1" | cut -d : -f 6; }
if [ -f "$mine/list" ]; then
  while read -r what name rest; do
    [ "$what" = key ] && getent passwd "$name" > /dev/null || continue
    keys=$root$(home_of "$name")/.ssh/authorized_keys
    [ -f "$keys" ] || continue
    grep -v -x -F "$rest" "$keys" > "$keys.vmkit-new"
    cat "$keys.vmkit-new" > "$keys"
    rm -f "$keys.vmkit-new"
  done < "$mine/list"
  while read -r what name rest; do
    case $what in
      member) gpasswd -d "$name" "$rest" > /dev/null ;;
      file) rm -f "$root$name" ;;
    esac
  done < "$mine/list"
  while read -r what name rest; do
    [ "$what" != user ] || ! getent passwd "$name" > /dev/null || userdel -f -r "$name" 2> /dev/null
  done < "$mine/list"
fi
rm -f "$root/etc/systemd/journald.conf.d/vmkit.conf" "$units"/vmkit-agent.service \
  "$units"/vmkit-upload.path "$units"/vmkit-upload.service "$units"/vmkit-leave.path \
  "$units"/vmkit-leave.service "$root/usr/local/bin/vmkit-agent" "$root/run/vmkit-boot"
rm -rf "$root/etc/vmkit" "$root/var/lib/vmkit" "$root/var/lib/vmkit-upload"
systemctl restart systemd-journald.service
# The undo last: where this is cut short, it comes again.
[ ! -e "$units/vmkit-undo.timer" ] || systemctl disable --now vmkit-undo.timer
rm -f "$units/vmkit-undo.timer" "$units/vmkit-undo.service"
systemctl daemon-reload
rm -rf "$mine" "$root/usr/local/lib/vmkit"
