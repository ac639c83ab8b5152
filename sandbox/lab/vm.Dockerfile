# A server as a cloud delivers it: Debian 13 with cloud-init and sshd, and no Docker yet. What the
# user-data asks for is downloaded already, so that cloud-init really installs it, but in seconds.
FROM vmkit-lab/trixie
RUN printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d \
 && echo force-unsafe-io > /etc/dpkg/dpkg.cfg.d/lab \
 && apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    systemd systemd-sysv dbus openssh-server sudo curl iproute2 iptables procps cloud-init netplan.io gnupg \
    python3 ca-certificates \
 && apt-get clean && DEBIAN_FRONTEND=noninteractive apt-get install -y --download-only \
    docker.io nftables unattended-upgrades \
 && rm -f /usr/sbin/policy-rc.d /etc/ssh/ssh_host_* /etc/machine-id && touch /etc/machine-id \
 && systemctl mask getty.target console-getty.service systemd-networkd.service systemd-networkd.socket \
    systemd-resolved.service systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer
COPY ca.crt /usr/local/share/ca-certificates/vmkit-lab.crt
COPY cloud.cfg /etc/cloud/cloud.cfg.d/99-lab.cfg
COPY vm-init.sh /vm-init.sh
RUN update-ca-certificates && chmod +x /vm-init.sh
STOPSIGNAL SIGRTMIN+3
CMD ["/vm-init.sh"]
