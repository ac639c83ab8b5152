# What VMKit looks at before it adopts a machine: it reads, and changes nothing. One line a fact.
# VMKIT_ROOT is another root directory, for tests.
set -u
root=${VMKIT_ROOT:-}
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
echo 'vmkit-look 1'
echo "uid $(id -u)"
echo "arch $(uname -m)"
sed -n -e 's/^ID=/os /p' -e 's/^VERSION_ID=/os_version /p' "$root/etc/os-release" 2> /dev/null | tr -d '"'
[ ! -d "$root/run/systemd/system" ] || echo 'systemd yes'
! command -v apt-get > /dev/null || echo 'apt yes'
sed -n 's/^MemTotal: *\([0-9]*\) kB.*/memory_kb \1/p' "$root/proc/meminfo" 2> /dev/null
if command -v ss > /dev/null; then
  ss -Hlntup 2> /dev/null | awk '{ print "port", $1, $5, $7 }' | head -n 200
else
  cat "$root/proc/net/tcp" "$root/proc/net/tcp6" 2> /dev/null | awk '$4 == "0A" { print "port_hex", $2 }' | head -n 200
fi
awk -F: '$7 !~ /\/(nologin|false|sync|shutdown|halt)$/ { print "user", $1, $3, $6 }' "$root/etc/passwd" | head -n 100 |
  while read -r word name uid home; do
    echo "$word $name $uid $home"
    # The last line of such a file may have no end.
    { cat "$root$home/.ssh/authorized_keys" 2> /dev/null; echo; } |
      sed -e '/^ *#/d' -e '/^ *$/d' -e "s/^/key $name /" | head -n 50
  done
sed -n 's/^\(sudo\|wheel\|docker\):[^:]*:[^:]*:\(.*\)/group \1 \2/p' "$root/etc/group" 2> /dev/null
if command -v docker > /dev/null; then
  echo "docker $(docker version --format '{{.Server.Version}}' 2> /dev/null || echo off)"
  docker ps --all --format '{{.Names}} {{.State}} {{.Image}}' 2> /dev/null | head -n 100 | sed 's/^/container /'
fi
! command -v sshd > /dev/null ||
  sshd -T 2> /dev/null | grep -i -E '^(allowusers|denyusers|allowgroups|denygroups|authorizedkeysfile|passwordauthentication) ' | sed 's/^/sshd /'
! command -v ufw > /dev/null || ufw status 2> /dev/null | head -n 60 | sed 's/^/ufw /'
! command -v nft > /dev/null || echo "nft_drops $(nft list chains 2> /dev/null | grep -c 'policy drop')"
sed -n 's/^vm = "\(.*\)"$/vm \1/p' "$root/etc/vmkit/agent.toml" 2> /dev/null
[ ! -e "$root/etc/vmkit/adopted" ] || echo 'adopted yes'
echo 'end'
