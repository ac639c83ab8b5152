//! The VM's own firewall, a table of nftables beside Docker's: in come SSH, HTTP and HTTPS, and no
//! container reaches the cloud's metadata service, where the user-data stays readable.

use super::harden::{Job, SYSTEMD};
use super::measures::{Area, Trouble, Verdict};
use super::sshd;
use crate::host::Host;
use crate::programs::{self, Program};

const RULES_FILE: &str = "etc/vmkit/firewall.nft";
const UNIT: &str = "vmkit-firewall.service";
const UNIT_FILE: &str = "etc/systemd/system/vmkit-firewall.service";
const UNIT_TEXT: &str = "[Unit]
Description=VMKit: the VM's own firewall
Before=network-pre.target docker.service
Wants=network-pre.target
DefaultDependencies=no
After=local-fs.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStartPre=/usr/sbin/nft -c -f /etc/vmkit/firewall.nft
ExecStart=/usr/sbin/nft -f /etc/vmkit/firewall.nft
ExecReload=/usr/sbin/nft -f /etc/vmkit/firewall.nft
ExecStop=-/usr/sbin/nft delete table inet vmkit

[Install]
WantedBy=multi-user.target
";
const MADE_FOR_BOOT: &str = "etc/systemd/system/multi-user.target.wants/vmkit-firewall.service";

pub(super) async fn harden(job: &mut Job) -> Result<Verdict, Trouble> {
    if !job.has(Program::Nft) {
        return Ok(Verdict::not_here("the package nftables is not installed"));
    }
    let other = other_firewall(&job.host);
    let ports = sshd::ports(job).await;
    let rules = rules(if other.is_some() { None } else { Some(&ports) });
    let mut changed = job.put(Area::Firewall, RULES_FILE, &rules, 0o644)?;
    changed |= job.put(Area::Firewall, UNIT_FILE, UNIT_TEXT, 0o644)?;
    let file = job.host.path(RULES_FILE);
    job.run(Program::Nft, &["-c", "-f", &file.to_string_lossy()]).await?;
    let enabled = std::fs::symlink_metadata(job.host.path(MADE_FOR_BOOT)).is_ok();
    if changed || !enabled {
        job.run(Program::Systemctl, &["daemon-reload"]).await?;
        job.run(Program::Systemctl, &["enable", "--quiet", UNIT]).await?;
        job.run(Program::Systemctl, &["reload-or-restart", UNIT]).await?;
    }
    let metadata = "containers do not reach the metadata service";
    Ok(Verdict::of(
        changed || !enabled,
        match other {
            Some(other) => format!("{metadata}; what comes in is left to {other}"),
            None => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                format!("in come tcp {}, 80, 443, udp 443 and ICMP; {metadata}", ports.join(", "))
            }
        },
    ))
}

/// A firewall that the owner set up: two that decide what comes in are one too many.
fn other_firewall(host: &Host) -> Option<&'static str> {
    let ufw = std::fs::read_to_string(host.path("etc/ufw/ufw.conf")).unwrap_or_default();
    if ufw.lines().any(|line| line.trim() == "ENABLED=yes") {
        return Some("ufw");
    }
    let wants = "etc/systemd/system/multi-user.target.wants/firewalld.service";
    std::fs::symlink_metadata(host.path(wants)).is_ok().then_some("firewalld")
}

/// Loaded as a whole or not at all. Ports that Docker publishes do not pass `input`; what a
/// container sends does not pass `output`.
fn rules(input: Option<&[u16]>) -> String {
    let mut text =
        "# Written by VMKit. Rules of the owner's own, for this table, go into firewall.d/*.nft.
table inet vmkit
delete table inet vmkit
table inet vmkit {
  chain metadata {
    type filter hook forward priority -10; policy accept;
    ip daddr 169.254.169.254 counter reject
    ip6 daddr fd00:ec2::254 counter reject
  }
"
        .to_owned();
    if let Some(ports) = input {
        let ssh: Vec<String> = ports.iter().map(u16::to_string).collect();
        text.push_str(&format!(
            "  chain input {{
    type filter hook input priority 0; policy drop;
    ct state established,related accept
    ct state invalid drop
    iifname \"lo\" accept
    iifname \"docker0\" accept
    iifname \"br-*\" accept
    meta l4proto {{ icmp, ipv6-icmp }} accept
    udp dport {{ 68, 546 }} accept
    tcp dport {{ {}, 80, 443 }} accept
    udp dport 443 accept
  }}
",
            ssh.join(", ")
        ));
    }
    text.push_str("}\ninclude \"/etc/vmkit/firewall.d/*.nft\"\n");
    text
}

/// After the files were put back: the rules of before, or none.
pub(super) async fn reload(host: &Host) -> Result<(), Trouble> {
    if Program::Systemctl.find(host).is_none() {
        return Ok(());
    }
    if host.path(UNIT_FILE).is_file() {
        programs::run(host, Program::Systemctl, &["daemon-reload"], SYSTEMD).await?;
        programs::run(host, Program::Systemctl, &["reload-or-restart", UNIT], SYSTEMD).await?;
    } else {
        // The unit is still known until it has stopped, which takes the table away.
        drop(programs::run(host, Program::Systemctl, &["stop", UNIT], SYSTEMD).await);
        match std::fs::remove_file(host.path(MADE_FOR_BOOT)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        programs::run(host, Program::Systemctl, &["daemon-reload"], SYSTEMD).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_firewall_keeps_its_say_over_what_comes_in() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        assert_eq!(other_firewall(&host), None);
        std::fs::create_dir_all(root.path().join("etc/ufw")).unwrap();
        std::fs::write(root.path().join("etc/ufw/ufw.conf"), "ENABLED=no\n").unwrap();
        assert_eq!(other_firewall(&host), None);
        std::fs::write(root.path().join("etc/ufw/ufw.conf"), "# x\nENABLED=yes\n").unwrap();
        assert_eq!(other_firewall(&host), Some("ufw"));
        assert!(!rules(None).contains("chain input") && rules(None).contains("169.254.169.254"));
        assert!(rules(Some(&[22, 2222])).contains("tcp dport { 22, 2222, 80, 443 }"));
    }
}
