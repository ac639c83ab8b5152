#!/bin/sh
# The commands of a sandbox VM's own system: each of their names leads here. They change what lies
# below VMKIT_ROOT and nothing else; a shell finds these, and a few tools that only read and write
# files, and no other program of the machine around it.
set -eu
root=$VMKIT_ROOT
units=$root/etc/systemd/system
name=${0##*/}

last() { for word; do :; done; echo "$word"; }
wanted() {
  case $1 in
    *.timer) echo "$units/timers.target.wants/$1" ;;
    *) echo "$units/multi-user.target.wants/$1" ;;
  esac
}
rewrite() { sed "$1" "$2" > "$2.new" && mv "$2.new" "$2"; }

case $name in
  id)
    case $1 in
      -u) echo 0 ;;
      *) sed -n -e "s/^\($2\):.*/\1/p" -e "s/^\([^:]*\):.*[:,]$2\$/\1/p" -e "s/^\([^:]*\):.*[:,]$2,.*/\1/p" "$root/etc/group" | tr '\n' ' ' ;;
    esac
    ;;
  getent) grep "^$2:" "$root/etc/$1" ;;
  useradd)
    user=$(last "$@") home= shell=/bin/sh
    while [ $# -gt 0 ]; do
      case $1 in
        --home-dir) home=$2 ;;
        --shell) shell=$2 ;;
      esac
      shift
    done
    ! grep -q "^$user:" "$root/etc/passwd" || { echo "useradd: user '$user' already exists" >&2; exit 9; }
    uid=$((2000 + $(wc -l < "$root/etc/passwd")))
    echo "$user:x:$uid:$uid::${home:-/home/$user}:$shell" >> "$root/etc/passwd"
    echo "$user:x:$uid:" >> "$root/etc/group"
    mkdir -p "$root${home:-/home/$user}"
    ;;
  userdel)
    user=$(last "$@")
    home=$(sed -n "s/^$user:.*:\([^:]*\):[^:]*\$/\1/p" "$root/etc/passwd")
    rewrite "/^$user:/d" "$root/etc/passwd"
    rewrite "/^$user:/d" "$root/etc/group"
    [ -z "$home" ] || rm -rf "$root$home"
    ;;
  usermod)
    grep -q "^$3:" "$root/etc/group" || { echo "usermod: group '$3' does not exist" >&2; exit 6; }
    rewrite "s/^\($3:.*[^:]\)\$/\1,$4/; s/^\($3:.*:\)\$/\1$4/" "$root/etc/group"
    ;;
  gpasswd) rewrite "s/^\($3:.*\),$2\$/\1/; s/^\($3:.*:\)$2,*/\1/" "$root/etc/group" ;;
  systemctl)
    verb='' names=''
    for word; do
      case $word in
        -*) ;;
        *) if [ -z "$verb" ]; then verb=$word; else names="$names $word"; fi ;;
      esac
    done
    echo "$verb$names" >> "$root/var/log/systemctl.log"
    for unit in $names; do
      case $verb in
        enable)
          [ "$unit" != docker.service ] || continue
          [ -f "$units/$unit" ] || { echo "Failed to enable unit: Unit $unit does not exist" >&2; exit 1; }
          link=$(wanted "$unit")
          mkdir -p "${link%/*}"
          ln -s -f "../$unit" "$link"
          ;;
        disable) rm -f "$(wanted "$unit")" ;;
        is-active) [ -e "$(wanted "$unit")" ] || exit 3 ;;
      esac
    done
    ;;
  ss) cat "$root/run/ss" ;;
  docker)
    case $1 in
      ps) cat "$root/run/docker-ps" ;;
      *) echo 28.1.0 ;;
    esac
    ;;
  apt-get)
    case "$*" in
      *docker.io*) mkdir -p "$root/usr/bin" && ln -s -f "${0%/*}/commands" "$root/usr/bin/docker" ;;
    esac
    ;;
  sshd) cat "$root/etc/ssh/sshd_effective" 2> /dev/null || true ;;
  sudo)
    shift
    exec "$@"
    ;;
  chown) ;;
esac
