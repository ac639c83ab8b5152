# What VMKit does on a machine that it adopts; the first argument says which part. Each part may run
# twice. VMKIT_ROOT is another root directory, for tests.
set -eu
root=${VMKIT_ROOT:-}
export LC_ALL=C DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l
PATH=$PATH:/usr/sbin:/sbin
umask 022
mine=/var/lib/vmkit-adopted
list=$root$mine/list
units=/etc/systemd/system

# A file as it should be, in one go: put MODE PATH < content.
put() {
  mkdir -p "$root$(dirname "$2")"
  cat > "$root$2.vmkit-new"
  chmod "$1" "$root$2.vmkit-new"
  mv "$root$2.vmkit-new" "$root$2"
}
# Written down before it is done, so that `leave` takes back what was only begun.
note() { grep -q -x -F "$1" "$list" || echo "$1" >> "$list"; }
known() { getent passwd "$1" > /dev/null; }
home_of() { getent passwd "$1" | cut -d : -f 6; }
# A user of our own; one that is there already stays as it is.
user() {
  known "$1" && return 0
  note "user $1"
  name=$1
  shift
  useradd --create-home --password '*' "$@" "$name"
}
# One more key of a user's: authorize USER LINE.
authorize() {
  ssh_dir=$root$(home_of "$1")/.ssh
  [ -d "$ssh_dir" ] || { mkdir -p "$ssh_dir"; chmod 700 "$ssh_dir"; chown "$1:" "$ssh_dir"; }
  keys=$ssh_dir/authorized_keys
  [ -f "$keys" ] || { : > "$keys"; chmod 600 "$keys"; chown "$1:" "$keys"; }
  ! grep -q -x -F "$2" "$keys" || return 0
  note "key $1 $2"
  # A last line without an end would swallow ours.
  [ -z "$(tail -c 1 "$keys")" ] || echo >> "$keys"
  echo "$2" >> "$keys"
}
guard() {
  owner=$(sed -n 's/^vm = "\(.*\)"$/\1/p' "$root/etc/vmkit/agent.toml" 2> /dev/null || true)
  case $owner in
    '' | '@VM@') ;;
    *) echo "this machine is VM $owner of an installation of VMKit" >&2; exit 65 ;;
  esac
}

# The undo first: unless it is disarmed, this machine takes everything off again by itself.
arm() {
  guard
  mkdir -p "$root$mine"
  chmod 700 "$root$mine"
  [ -f "$list" ] || : > "$list"
#<leave>
  put 0644 "$units/vmkit-undo.service" << 'END_OF_FILE'
[Unit]
Description=VMKit: takes its things off this machine, since nobody confirmed them

[Service]
Type=oneshot
ExecStart=/usr/local/lib/vmkit/leave
END_OF_FILE
  put 0644 "$units/vmkit-undo.timer" << 'END_OF_FILE'
[Unit]
Description=VMKit: waits for a confirmation

[Timer]
OnActiveSec=@UNDO_MINUTES@min
AccuracySec=1s

[Install]
WantedBy=timers.target
END_OF_FILE
  systemctl daemon-reload
  systemctl enable --now vmkit-undo.timer
  systemctl is-active --quiet vmkit-undo.timer
}

set_up() {
  guard
  systemctl is-active --quiet vmkit-undo.timer || { echo 'the undo is not armed' >&2; exit 66; }
  user kamal --shell /bin/bash --comment 'Kamal deploys'
  user vmkit --system --home-dir /home/vmkit --shell /bin/sh --comment VMKit
  if ! command -v docker > /dev/null; then
    if [ ! -e "$root/etc/docker/daemon.json" ]; then
      note 'file /etc/docker/daemon.json'
#<daemon>
    fi
    apt-get update
    apt-get install -y --no-install-recommends ca-certificates docker.io
    command -v docker > /dev/null || apt-get install -y --no-install-recommends docker-cli
    systemctl enable --now docker.service
  fi
  docker version > /dev/null
  case " $(id -nG kamal) " in
    *' docker '*) ;;
    *) note 'member kamal docker'; usermod -a -G docker kamal ;;
  esac
  authorize kamal '@DEPLOY_KEY@'
#<owner>
  authorize kamal '@OWNER_KEY@'
#</owner>
  authorize vmkit 'restrict,command="/usr/local/lib/vmkit/link" @LINK_KEY@'
#<files>
  put 0644 "$units/vmkit-leave.path" << 'END_OF_FILE'
[Unit]
Description=VMKit: waits for the word to leave

[Path]
PathExists=/var/lib/vmkit-upload/leave
Unit=vmkit-leave.service

[Install]
WantedBy=multi-user.target
END_OF_FILE
  put 0644 "$units/vmkit-leave.service" << 'END_OF_FILE'
[Unit]
Description=VMKit: takes its things off this machine

[Service]
Type=oneshot
ExecStart=/usr/local/lib/vmkit/leave
END_OF_FILE
  mkdir -p "$root/var/lib/vmkit" "$root/var/lib/vmkit-upload"
  chmod 700 "$root/var/lib/vmkit" "$root/var/lib/vmkit-upload"
  chown vmkit: "$root/var/lib/vmkit-upload"
  systemctl restart systemd-journald.service
  systemctl daemon-reload
  systemctl enable --now vmkit-upload.path vmkit-leave.path
  echo done > "$root/run/vmkit-boot"
}

# Everything is as it should be: the machine need not take it off by itself any more.
confirm() {
  if [ ! -e "$root/etc/vmkit/adopted" ]; then
    systemctl is-active --quiet vmkit-undo.timer || { echo 'the undo ran already' >&2; exit 66; }
    echo '@VM@' > "$root/etc/vmkit/adopted"
  fi
  [ ! -e "$root$units/vmkit-undo.timer" ] || systemctl disable --now vmkit-undo.timer
  rm -f "$root$units/vmkit-undo.timer" "$root$units/vmkit-undo.service"
  systemctl daemon-reload
}

# The line that let VMKit in as @LOGIN@ goes again: from now on it comes in as `vmkit` alone.
lock_out() {
  keys=$root$(home_of '@LOGIN@')/.ssh/authorized_keys
  grep -v -F '@LOGIN_KEY_BODY@' "$keys" > "$keys.vmkit-new" || true
  cat "$keys.vmkit-new" > "$keys"
  rm -f "$keys.vmkit-new"
}

"$1"
