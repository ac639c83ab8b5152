//! What the look at a machine said, read into facts; everything in it is the machine's word and is
//! cleaned before anybody reads it.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::size::Arch;
use crate::fleet::shell::fingerprint;

/// Ports from here on are given to whoever asks for any: a UDP one of these is no service.
const EPHEMERAL: u16 = 32_768;
/// The most that a plan shows of one kind.
const SHOWN: usize = 12;

/// A machine as it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Look {
    complete: bool,
    root: bool,
    arch: String,
    os: String,
    os_version: String,
    systemd: bool,
    apt: bool,
    memory_mib: u64,
    /// `tcp 0.0.0.0:80 nginx`.
    ports: BTreeSet<(String, String, u16, String)>,
    /// Users who can log in, with the fingerprints of their keys.
    users: BTreeMap<String, BTreeSet<String>>,
    /// Who is in a group that makes root.
    groups: BTreeMap<String, Vec<String>>,
    /// Docker's version, `off` where it does not run; none where there is none.
    docker: Option<String>,
    /// Name, state and image.
    containers: BTreeMap<String, (String, String)>,
    sshd: BTreeMap<String, Vec<String>>,
    firewalls: Vec<String>,
    ufw_allows: Vec<String>,
    ufw: bool,
    /// The VM that an agent's configuration on it names.
    pub(super) vm: Option<String>,
}

impl Look {
    pub(super) fn read(text: &str) -> Self {
        let mut look = Self::default();
        for line in text.lines() {
            look.line(&clean(line));
        }
        look
    }

    fn line(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        match (word, words.as_slice()) {
            ("uid", ["0"]) => self.root = true,
            ("arch", [arch]) => self.arch = (*arch).to_owned(),
            ("os", [name]) => self.os = (*name).to_owned(),
            ("os_version", [version]) => self.os_version = (*version).to_owned(),
            ("systemd", ["yes"]) => self.systemd = true,
            ("apt", ["yes"]) => self.apt = true,
            ("memory_kb", [kb]) => self.memory_mib = kb.parse().unwrap_or(0) / 1024,
            ("port", [proto, local, owner @ ..]) => {
                let owner = owner.join(" ");
                let name = owner.split('"').nth(1).unwrap_or_default().to_owned();
                self.port(proto, local, name);
            }
            ("port_hex", [local]) => {
                let port = local.rsplit_once(':').map_or("", |(_, port)| port);
                if let Ok(port) = u16::from_str_radix(port, 16) {
                    self.port("tcp", &format!("*:{port}"), String::new());
                }
            }
            ("user", [name, ..]) => {
                self.users.entry((*name).to_owned()).or_default();
            }
            ("key", [name, line @ ..]) => {
                let at = line.iter().position(|word| {
                    word.starts_with("ssh-")
                        || word.starts_with("ecdsa-")
                        || word.starts_with("sk-")
                });
                let key = at.map(|at| line[at..].join(" ")).unwrap_or_default();
                let short =
                    fingerprint(&key).unwrap_or_else(|| "a key of an unknown kind".to_owned());
                self.users.entry((*name).to_owned()).or_default().insert(short);
            }
            ("group", [name, members]) => {
                let members = members.split(',').map(str::to_owned).collect();
                self.groups.insert((*name).to_owned(), members);
            }
            ("docker", [version, ..]) => self.docker = Some((*version).to_owned()),
            ("container", [name, state, image, ..]) => {
                let facts = ((*state).to_owned(), (*image).to_owned());
                self.containers.insert((*name).to_owned(), facts);
            }
            ("sshd", [name, values @ ..]) => {
                let values = values.iter().map(|value| (*value).to_owned());
                self.sshd.entry(name.to_lowercase()).or_default().extend(values);
            }
            ("ufw", ["Status:", "active"]) => {
                self.ufw = true;
                self.firewalls.push("ufw is active".to_owned());
            }
            ("ufw", [port, "ALLOW", ..]) => {
                self.ufw_allows.push((*port).to_lowercase());
            }
            ("nft_drops", [count]) if *count != "0" => {
                self.firewalls.push(format!("nftables drops by default in {count} chains"));
            }
            ("vm", [vm]) => self.vm = Some((*vm).to_owned()),
            ("end", []) => self.complete = true,
            _ => {}
        }
    }

    fn port(&mut self, proto: &str, local: &str, name: String) {
        let Some((address, port)) = local.rsplit_once(':') else { return };
        let Ok(port) = port.parse::<u16>() else { return };
        if proto.starts_with("udp") && port >= EPHEMERAL {
            return;
        }
        self.ports.insert((proto.to_owned(), address.to_owned(), port, name));
    }

    /// Whether all of the look came, as root.
    pub(super) fn is_whole(&self) -> bool {
        self.complete && self.root
    }

    pub(super) fn arch(&self) -> Option<Arch> {
        match self.arch.as_str() {
            "x86_64" | "amd64" => Some(Arch::Amd64),
            "aarch64" | "arm64" => Some(Arch::Arm64),
            _ => None,
        }
    }

    /// `debian 13, amd64, 4 GiB`.
    pub(super) fn told(&self) -> String {
        let gib = self.memory_mib.div_ceil(1024);
        let arch = self.arch().map_or(self.arch.as_str(), |arch| arch.as_str());
        let os = if self.os.is_empty() { "an unknown system" } else { self.os.as_str() };
        let os = [os, self.os_version.as_str()].join(" ");
        let os = os.trim_end();
        let memory = if gib > 0 { format!(", {gib} GiB memory") } else { String::new() };
        format!("{os}, {arch}{memory}")
    }

    /// What stands in the way; each is a person's to mend.
    pub(super) fn obstacles(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.arch().is_none() {
            found.push(format!(
                "its architecture is `{}`, and there is an agent for amd64 and arm64",
                self.arch
            ));
        }
        if !self.systemd {
            found.push(
                "it does not run systemd, which starts the agent and arms the undo".to_owned(),
            );
        }
        if self.docker.is_none() && !self.apt {
            found.push("it has neither Docker nor apt-get to install it with".to_owned());
        }
        if self.docker.as_deref() == Some("off") {
            found.push("its Docker is installed and does not run".to_owned());
        }
        let list = |name: &str| self.sshd.get(name).filter(|list| !list.is_empty());
        for user in ["kamal", "vmkit"] {
            if list("allowusers").is_some_and(|all| !all.iter().any(|one| one == user)) {
                found.push(format!(
                    "its SSH server lets in only AllowUsers, and `{user}` is not among them"
                ));
            }
            if list("allowgroups").is_some_and(|all| {
                !all.iter().any(|one| one == user || (user == "kamal" && one == "docker"))
            }) {
                found.push(format!("its SSH server lets in only AllowGroups, and no group of `{user}` is among them"));
            }
        }
        let reads = |all: &Vec<String>| all.iter().any(|one| one.ends_with(".ssh/authorized_keys"));
        if list("authorizedkeysfile").is_some_and(|all| !reads(all)) {
            found.push("its SSH server does not read ~/.ssh/authorized_keys".to_owned());
        }
        found
    }

    /// What a plan tells of what is there, and what will not work.
    pub(super) fn lines(&self) -> Vec<String> {
        let ports = self.ports.iter().map(|(proto, address, port, name)| {
            let name = if name.is_empty() { String::new() } else { format!(" ({name})") };
            format!("{proto} {address}:{port}{name}")
        });
        let mut lines = vec![format!("listens, and goes on listening: {}", shown(ports))];
        let users = self.users.iter().map(|(name, keys)| match keys.len() {
            0 => format!("{name} (no key)"),
            _ => format!("{name} ({})", shown(keys.iter().cloned())),
        });
        lines.push(format!("users and their keys, all of which stay: {}", shown(users)));
        lines.extend(self.groups.iter().filter(|(_, members)| !members.is_empty()).map(
            |(name, members)| format!("in the group {name}: {}", shown(members.iter().cloned())),
        ));
        let containers = self
            .containers
            .iter()
            .map(|(name, (state, image))| format!("{name} ({image}, {state})"));
        lines.push(format!("containers, none of which is touched: {}", shown(containers)));
        lines.push(match &self.docker {
            Some(version) => format!("Docker {version} is used as it is"),
            None => "there is no Docker: it is installed (docker.io), and stays when VMKit leaves"
                .to_owned(),
        });
        if !self.firewalls.is_empty() {
            lines.push(format!(
                "firewall, left as it is: {}",
                shown(self.firewalls.iter().cloned())
            ));
        }
        lines.extend(self.warnings());
        lines
    }

    /// What will not work as it is.
    fn warnings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for port in [80, 443] {
            let taken = |(proto, _, own, name): &&(String, String, u16, String)| {
                proto == "tcp" && *own == port && name != "kamal-proxy"
            };
            if let Some((_, _, _, name)) = self.ports.iter().find(taken) {
                let name = if name.is_empty() { "something" } else { name };
                lines.push(format!("PORT {port} IS TAKEN by {name}: the proxy of the apps needs it, and the first deploy fails until it is free"));
            }
            let allowed = |rule: &String| {
                let number = port.to_string();
                rule.split(['/', ',']).any(|part| part == number)
                    || rule.contains("www")
                    || rule.contains("anywhere")
            };
            if self.ufw && !self.ufw_allows.iter().any(allowed) {
                lines.push(format!("ufw lets nobody in at port {port}: open it (`ufw allow {port}/tcp`) before the first deploy"));
            }
        }
        if let Some(keys) = self.users.get("kamal") {
            lines.push(format!("the user `kamal` is there already, with {} keys: it gets the deploy key, and into the group docker, which is as good as root", keys.len()));
        }
        lines
    }

    /// What must still be there afterwards.
    pub(super) fn kept(&self) -> Vec<String> {
        let ports = self.ports.iter().filter(|(proto, ..)| proto == "tcp");
        let ports = ports.map(|(_, address, port, _)| format!("port {address}:{port}"));
        let users = self.users.iter().flat_map(|(name, keys)| {
            std::iter::once(format!("user {name}"))
                .chain(keys.iter().map(move |key| format!("key {key} of {name}")))
        });
        let running = self.containers.iter().filter(|(_, (state, _))| state == "running");
        ports.chain(users).chain(running.map(|(name, _)| format!("container {name}"))).collect()
    }
}

/// A list that stays short.
fn shown(items: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = items.collect();
    match all.len() {
        0 => "none".to_owned(),
        count if count > SHOWN => {
            format!("{} and {} more", all[..SHOWN].join(", "), count - SHOWN)
        }
        _ => all.join(", "),
    }
}

/// Without control characters, and of a bounded length.
fn clean(line: &str) -> String {
    line.chars().filter(|c| !c.is_control() || *c == '\t').take(2_000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "vmkit-look 1\nuid 0\narch x86_64\nos_version 13\nos debian\nsystemd yes\napt yes\n\
        memory_kb 4000000\nport tcp 0.0.0.0:22 users:((\"sshd\",pid=1,fd=3))\n\
        port tcp [::]:80 users:((\"nginx\",pid=2,fd=3),(\"nginx\",pid=3,fd=3))\n\
        port udp 0.0.0.0:41234 users:((\"ntp\",pid=2,fd=3))\nport udp 127.0.0.53:53\n\
        user root 0 /root\nkey root ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMD me\n\
        key root command=\"x\" nonsense\nuser deploy 1000 /srv/deploy\ngroup sudo deploy\n\
        docker 28.1\ncontainer db running postgres:17\ncontainer old exited x\nsshd permitrootlogin yes\nend\n";

    #[test]
    fn a_look_becomes_lines_of_a_plan() {
        let look = Look::read(TEXT);
        assert!(look.is_whole());
        assert_eq!(look.told(), "debian 13, amd64, 4 GiB memory");
        assert_eq!(look.obstacles(), Vec::<String>::new());
        let lines = look.lines().join("\n");
        for wanted in [
            "tcp 0.0.0.0:22 (sshd)",
            "udp 127.0.0.53:53",
            "root (SHA256:",
            "a key of an unknown kind",
            "deploy (no key)",
            "in the group sudo: deploy",
            "db (postgres:17, running)",
            "PORT 80 IS TAKEN by nginx",
        ] {
            assert!(lines.contains(wanted), "{wanted}: {lines}");
        }
        assert!(!lines.contains("41234") && !lines.contains("PORT 443"), "{lines}");
        let kept = look.kept();
        assert!(
            kept.contains(&"container db".to_owned())
                && !kept.contains(&"container old".to_owned())
        );
        assert!(kept.contains(&"port [::]:80".to_owned()), "{kept:?}");
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let rows = [
            ("systemd yes\n", "", "does not run systemd"),
            ("x86_64", "riscv64", "riscv64"),
            ("docker 28.1\n", "docker off\n", "does not run"),
            ("end\n", "sshd allowusers root deploy\nend\n", "`vmkit` is not among them"),
            ("end\n", "sshd allowgroups docker\nend\n", "no group of `vmkit`"),
            ("end\n", "sshd authorizedkeysfile /etc/keys/%u\nend\n", "does not read"),
        ];
        for (there, instead, told) in rows {
            let look = Look::read(&TEXT.replace(there, instead));
            assert!(look.obstacles().join("\n").contains(told), "{told}: {look:?}");
        }
        let bare = TEXT.replace("docker 28.1\n", "");
        assert!(Look::read(&bare).obstacles().is_empty());
        assert!(Look::read(&bare).lines().join("\n").contains("there is no Docker"));
        assert!(!Look::read(&bare.replace("apt yes\n", "")).obstacles().is_empty());
        assert!(!Look::read("end").is_whole() && !Look::read("uid 0").is_whole());
    }

    #[test]
    fn a_closed_firewall_is_told() {
        let text = TEXT.replace(
            "end\n",
            "ufw Status: active\nufw 22/tcp ALLOW Anywhere\nufw 80,443/tcp ALLOW Anywhere\nend\n",
        );
        assert!(!Look::read(&text).lines().join("\n").contains("lets nobody in"));
        let text = text.replace("80,443/tcp", "80/tcp");
        assert!(Look::read(&text).lines().join("\n").contains("lets nobody in at port 443"));
    }
}
