//! Hardening on machines whose programs are small scripts that behave as the real ones do.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmkit_agent_protocol::care::{Harden, Hardened, Hardening};

use super::harden::{harden, keep, undo, watch};
use super::undo::Undo;
use crate::host::Host;

const SSHD: &str = r#"
case "$1" in
-t) [ ! -e "$root/bad" ] || { echo "bad configuration" >&2; exit 255; } ;;
-T)
  conf=$root/etc/ssh/sshd_config.d/00-vmkit.conf
  if grep -q Include "$root/etc/ssh/sshd_config" && [ -f "$conf" ]; then
    grep -v '^#' "$conf" | while read -r name value; do echo "$(echo "$name" | tr A-Z a-z) $value"; done
  fi
  printf 'port 22\npermitrootlogin yes\npasswordauthentication yes\nkbdinteractiveauthentication no\n'
  printf 'permitemptypasswords no\nlogingracetime 120\nmaxstartups 10:30:100\nx11forwarding yes\npersourcepenalties crash:90\n'
  ;;
esac"#;
const SYSCTL: &str = r#"
mkdir -p "$root/params"
case "$1" in
-n) case "$2" in *ipv6*) exit 255 ;; esac; cat "$root/params/$2" 2>/dev/null || echo 9 ;;
-q) echo "${3#*=}" > "$root/params/${3%%=*}" ;;
esac"#;

struct Machine {
    root: tempfile::TempDir,
    host: Host,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let machine = Self { host: Host::new(root.path()), root };
        for (path, text) in [
            ("etc/passwd", "root:x:0:0::/root:/bin/sh\nkamal:x:1000:1000::/home/kamal:/bin/sh\n"),
            ("home/kamal/.ssh/authorized_keys", "ssh-ed25519 AAAA me\n"),
            ("etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*.conf\n"),
            ("etc/docker/daemon.json", "{\n  \"dns\": [\"192.0.2.1\"]\n}\n"),
            ("etc/systemd/system.conf", "\n"),
            ("etc/apt/apt.conf.d/20other", "APT::Periodic::Unattended-Upgrade \"1\";\n"),
            ("proc/sys/kernel/random/boot_id", "first\n"),
            ("usr/bin/unattended-upgrade", ""),
        ] {
            machine.write(path, text, 0o644);
        }
        machine.program("usr/sbin/sshd", SSHD);
        machine.program("usr/sbin/sysctl", SYSCTL);
        machine.program("usr/bin/ssh", "[ ! -e \"$root/shut\" ]");
        machine.program("usr/sbin/nft", "");
        machine.program("usr/bin/apt-config", "cat \"$root\"/etc/apt/apt.conf.d/*");
        machine.program("usr/bin/systemctl", "[ \"$*\" != 'is-active --quiet ssh.socket' ]");
        machine
    }

    fn write(&self, path: &str, text: &str, mode: u32) {
        let path = self.host.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn program(&self, path: &str, body: &str) {
        let start = "#!/bin/sh\nroot=$(cd \"$(dirname \"$0\")/../..\" && pwd)\n";
        let log = format!("echo \"{} $*\" >> \"$root/log\"\n", path.rsplit('/').next().unwrap());
        self.write(path, &format!("{start}{log}{body}\n"), 0o755);
    }

    /// Everything that is on the machine, but the agent's own notes and what the scripts note.
    fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        collect(self.root.path(), self.root.path(), &mut files);
        files.retain(|path, _| !path.starts_with("var/lib/vmkit") && path != "log");
        files
    }

    fn log(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.host.path("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    async fn harden(&self) -> Hardened {
        let wanted = Harden { operation: "op_test".to_owned(), undo_after_s: 600 };
        let report = harden(&self.host, &wanted).await.unwrap();
        for measure in &report.measures {
            eprintln!("{:>9}: {:?}: {}", measure.name, measure.outcome, measure.says);
        }
        report
    }
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
            continue;
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        files.insert(name, format!("{mode:o} {text}"));
    }
}

fn outcomes(report: &Hardened) -> Vec<(&str, Hardening)> {
    report.measures.iter().map(|one| (one.name.as_str(), one.outcome)).collect()
}

#[tokio::test]
async fn all_is_done_once_and_right_the_second_time() {
    use Hardening::{AlreadyRight, Changed};
    let machine = Machine::new();
    let report = machine.harden().await;
    assert!(report.armed);
    let done = ["sshd", "upgrades", "sysctl", "journal", "docker", "firewall"];
    let mut wanted: Vec<(&str, Hardening)> = done.map(|name| (name, Changed)).to_vec();
    wanted.push(("bans", AlreadyRight));
    assert_eq!(outcomes(&report), wanted);
    let log = machine.log();
    let at = |word: &str| log.iter().position(|line| line.contains(word));
    assert!(at("sshd -t") < at("ssh -F") && at("ssh -F") < at("try-reload-or-restart ssh.service"));
    assert!(at("nft -c -f") < at("reload-or-restart vmkit-firewall.service"));
    let docker = std::fs::read_to_string(machine.host.path("etc/docker/daemon.json")).unwrap();
    assert!(docker.contains("192.0.2.1") && docker.contains("\"live-restore\": true"), "{docker}");
    assert!(keep(&machine.host).await.unwrap(), "the undo was armed");
    // The unit was enabled by a `systemctl` that does nothing.
    machine.write("etc/systemd/system/multi-user.target.wants/vmkit-firewall.service", "", 0o644);
    let hardened = machine.files();
    let again = machine.harden().await;
    assert!(!again.armed && again.measures.iter().all(|one| one.outcome == AlreadyRight));
    assert_eq!(machine.files(), hardened);
    assert!(!undo(&machine.host).await.unwrap(), "what was kept stays");
    assert_eq!(machine.files(), hardened);
}

#[tokio::test]
async fn what_nobody_keeps_is_taken_back_by_the_machine() {
    let machine = Machine::new();
    // So that a parameter has a value to go back to.
    machine.write("params/kernel.dmesg_restrict", "0\n", 0o644);
    let before = machine.files();
    let report = machine.harden().await;
    assert!(report.armed && machine.files() != before);
    // The machine goes down before anybody says that all is well.
    machine.write("proc/sys/kernel/random/boot_id", "second\n", 0o644);
    let watching = tokio::spawn(watch(machine.host.clone(), Arc::default()));
    let begun = Instant::now();
    while Undo::read(&machine.host).unwrap().is_some() {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing was taken back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    watching.abort();
    let mut after = machine.files();
    after.retain(|path, _| !path.starts_with("params/") || before.contains_key(path));
    let mut before = before;
    before.insert("proc/sys/kernel/random/boot_id".to_owned(), "644 second\n".to_owned());
    assert_eq!(after, before);
    let log = machine.log();
    assert!(log.iter().filter(|line| line.contains("ssh.service")).count() >= 2, "{log:#?}");
}

#[tokio::test]
async fn a_way_in_that_would_close_stays_open() {
    let machine = Machine::new();
    machine.write("shut", "", 0o644);
    let before = machine.files();
    let report = machine.harden().await;
    assert_eq!(report.measures[0].outcome, Hardening::Failed, "{report:#?}");
    assert!(report.measures[0].says.contains("nobody gets in"), "{report:#?}");
    let ssh = |files: BTreeMap<String, String>| {
        files.into_iter().filter(|(path, _)| path.starts_with("etc/ssh")).collect::<Vec<_>>()
    };
    assert_eq!(ssh(machine.files()), ssh(before));
    assert_eq!(report.measures[2].outcome, Hardening::Changed, "the others are not its business");

    let machine = Machine::new();
    machine.write("home/kamal/.ssh/authorized_keys", "", 0o600);
    let report = machine.harden().await;
    assert!(report.measures[0].says.contains("nobody but root"), "{report:#?}");

    let machine = Machine::new();
    machine.write("bad", "", 0o644);
    let report = machine.harden().await;
    assert!(report.measures[0].says.contains("bad configuration"), "{report:#?}");

    let machine = Machine::new();
    machine.write("etc/ssh/sshd_config", "PermitRootLogin yes\n", 0o644);
    let report = machine.harden().await;
    assert!(report.measures[0].says.contains("still takes"), "{report:#?}");
    assert!(!machine.host.path("etc/ssh/sshd_config.d/00-vmkit.conf").exists());
}

#[tokio::test]
async fn a_machine_without_all_of_it_is_told_so() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new(root.path());
    let report = harden(&host, &Harden::default()).await.unwrap();
    let all = outcomes(&report);
    assert!(!report.armed, "{report:#?}");
    assert!(all.iter().take(6).all(|(_, outcome)| *outcome == Hardening::NotHere), "{all:?}");
}
