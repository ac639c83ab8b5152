//! First boot: the user-data read as cloud-init would, into a machine's root directory.
//!
//! `users`, `groups`, `write_files`, `hostname` and `ssh_authorized_keys` take effect; packages and
//! commands do not, since nothing of a sandbox VM may touch the machine around it. The units that
//! run the agent are started by the machine.

mod config;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use self::config::{CloudConfig, File, User};
use super::machine::MachineOrder;
use crate::SandboxError;

/// What a cloud's image has before first boot.
const FOLDERS: [&str; 11] = [
    "etc/systemd/system",
    "etc/ssh",
    "etc/docker",
    "home",
    "proc",
    "root",
    "run",
    "tmp",
    "usr/local/bin",
    "var/lib",
    "var/log",
];

/// Lays out a root directory, or takes one that a copied disk filled, and applies the order's
/// user-data: every boot of a new instance is a first one. Returns the console's lines; what
/// cloud-init would complain of is one of them, and not an error.
pub(super) fn install(root: &Path, order: &MachineOrder) -> Result<Vec<String>, SandboxError> {
    let mut disk = Disk { root, console: Vec::new() };
    for folder in FOLDERS {
        let path = root.join(folder);
        fs::create_dir_all(&path).map_err(|source| SandboxError::io("make", &path, source))?;
    }
    disk.write("/etc/os-release", b"ID=debian\nVERSION_ID=\"13\"\n", 0o644)?;
    if !root.join("etc/passwd").is_file() {
        disk.write("/etc/passwd", b"root:x:0:0:root:/root:/bin/bash\n", 0o644)?;
        disk.write("/etc/group", b"root:x:0:\ndocker:x:999:\n", 0o644)?;
    }
    let config = match CloudConfig::parse(&order.user_data) {
        Ok(config) => config,
        Err(problem) => {
            disk.say(&problem);
            CloudConfig { delete_keys: true, ..CloudConfig::default() }
        }
    };
    disk.set_host_keys(&config)?;
    disk.apply(&config, order)?;
    disk.say("Cloud-init finished");
    Ok(disk.console)
}

struct Disk<'a> {
    root: &'a Path,
    console: Vec<String>,
}

impl Disk<'_> {
    fn apply(&mut self, config: &CloudConfig, order: &MachineOrder) -> Result<(), SandboxError> {
        let hostname = config.hostname.as_deref().unwrap_or(&order.name);
        self.write("/etc/hostname", format!("{hostname}\n").as_bytes(), 0o644)?;
        self.add_keys("/root", &order.root_keys)?;
        self.add_keys("/root", &config.ssh_authorized_keys)?;
        for group in &config.groups {
            let text = fs::read_to_string(self.root.join("etc/group")).unwrap_or_default();
            if text.lines().any(|line| line.split(':').next() == Some(group)) {
                continue;
            }
            self.append("/etc/group", &format!("{group}:x:999:\n"))?;
        }
        // cloud-init writes the files of a user after it made the user, when they are deferred.
        for file in config.write_files.iter().filter(|file| !file.defer) {
            self.write_file(file)?;
        }
        for (number, user) in config.users.iter().enumerate() {
            self.add_user(1000 + number, user)?;
        }
        for file in config.write_files.iter().filter(|file| file.defer) {
            self.write_file(file)?;
        }
        Ok(())
    }

    /// As cloud-init: those of the user-data; else new ones, unless it says to keep what is there.
    fn set_host_keys(&mut self, config: &CloudConfig) -> Result<(), SandboxError> {
        if config.ssh_keys.is_empty() {
            let there = self.root.join("etc/ssh/ssh_host_ed25519_key").is_file();
            return if there && !config.delete_keys { Ok(()) } else { self.make_host_key() };
        }
        for (name, text) in &config.ssh_keys {
            let (kind, public) = match name.rsplit_once('_') {
                Some((kind, "private")) => (kind, false),
                Some((kind, "public")) => (kind, true),
                _ => continue,
            };
            let path = format!("/etc/ssh/ssh_host_{kind}_key{}", if public { ".pub" } else { "" });
            let mode = if public { 0o644 } else { 0o600 };
            self.write(&path, format!("{}\n", text.trim()).as_bytes(), mode)?;
        }
        Ok(())
    }

    fn make_host_key(&mut self) -> Result<(), SandboxError> {
        use ssh_key::{Algorithm, LineEnding, PrivateKey, rand_core::OsRng};
        let key =
            PrivateKey::random(&mut OsRng, Algorithm::Ed25519).map_err(SandboxError::HostKey)?;
        let private = key.to_openssh(LineEnding::LF).map_err(SandboxError::HostKey)?;
        let public = key.public_key().to_openssh().map_err(SandboxError::HostKey)?;
        self.write_host_key(&private, &format!("{} root@sandbox", public.trim()))
    }

    fn write_host_key(&mut self, private: &str, public: &str) -> Result<(), SandboxError> {
        let private = format!("{}\n", private.trim_end());
        self.write("/etc/ssh/ssh_host_ed25519_key", private.as_bytes(), 0o600)?;
        let line = format!("{}\n", public.trim());
        self.write("/etc/ssh/ssh_host_ed25519_key.pub", line.as_bytes(), 0o644)
    }

    fn add_user(&mut self, id: usize, user: &User) -> Result<(), SandboxError> {
        let User { name, groups, shell, .. } = user;
        if name == "default" || name == "root" {
            return self.add_keys("/root", &user.ssh_authorized_keys);
        }
        if user.system && !user.ssh_authorized_keys.is_empty() {
            // The real one's words; seen in the lab.
            self.console.push(format!(
                "Not creating user {name}. Key(s) ssh_authorized_keys cannot be provided with system"
            ));
            return Ok(());
        }
        let home = user.homedir.clone().unwrap_or_else(|| format!("/home/{name}"));
        let passwd = fs::read_to_string(self.root.join("etc/passwd")).unwrap_or_default();
        if passwd.lines().any(|line| line.split(':').next() == Some(name)) {
            return self.add_keys(&home, &user.ssh_authorized_keys);
        }
        let shell = shell.as_deref().unwrap_or("/bin/sh");
        self.append("/etc/passwd", &format!("{name}:x:{id}:{id}::{home}:{shell}\n"))?;
        self.append("/etc/group", &format!("{name}:x:{id}:\n"))?;
        for group in groups {
            self.join_group(group, name)?;
        }
        let path = inside(self.root, &home);
        fs::create_dir_all(&path).map_err(|source| SandboxError::io("make", &path, source))?;
        self.add_keys(&home, &user.ssh_authorized_keys)
    }

    fn join_group(&mut self, group: &str, user: &str) -> Result<(), SandboxError> {
        let path = self.root.join("etc/group");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let start = format!("{group}:");
        if !text.lines().any(|line| line.starts_with(&start)) {
            return self.append("/etc/group", &format!("{group}:x:998:{user}\n"));
        }
        let joined: Vec<String> = text
            .lines()
            .map(|line| match line.strip_prefix(&start) {
                Some(rest) if rest.ends_with(':') => format!("{line}{user}"),
                Some(_) => format!("{line},{user}"),
                None => line.to_owned(),
            })
            .collect();
        self.write("/etc/group", format!("{}\n", joined.join("\n")).as_bytes(), 0o644)
    }

    fn add_keys(&mut self, home: &str, keys: &[String]) -> Result<(), SandboxError> {
        if keys.is_empty() {
            return Ok(());
        }
        let path = format!("{home}/.ssh/authorized_keys");
        let mut text = fs::read_to_string(inside(self.root, &path)).unwrap_or_default();
        for key in keys {
            if text.lines().all(|line| line != key.trim()) {
                text.push_str(key.trim());
                text.push('\n');
            }
        }
        self.write(&path, text.as_bytes(), 0o600)
    }

    fn write_file(&mut self, file: &File) -> Result<(), SandboxError> {
        let content = match decode(file) {
            Ok(content) => content,
            Err(problem) => {
                self.say(&format!("write_files: `{}`: {problem}", file.path));
                return Ok(());
            }
        };
        let mode = match file.mode() {
            Ok(mode) => mode,
            Err(problem) => {
                self.say(&format!("write_files: `{}`: {problem}", file.path));
                0o644
            }
        };
        if file.append {
            let mut text = fs::read(inside(self.root, &file.path)).unwrap_or_default();
            text.extend(content);
            return self.write(&file.path, &text, mode);
        }
        self.write(&file.path, &content, mode)
    }

    fn append(&mut self, path: &str, line: &str) -> Result<(), SandboxError> {
        let mut text = fs::read(inside(self.root, path)).unwrap_or_default();
        text.extend(line.as_bytes());
        self.write(path, &text, 0o644)
    }

    fn write(&mut self, path: &str, content: &[u8], mode: u32) -> Result<(), SandboxError> {
        let to = inside(self.root, path);
        let fail = |source| SandboxError::io("write", &to, source);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(fail)?;
        }
        fs::write(&to, content).map_err(fail)?;
        fs::set_permissions(&to, fs::Permissions::from_mode(mode)).map_err(fail)
    }

    fn say(&mut self, line: &str) {
        self.console.push(format!("cloud-init: {line}"));
    }
}

fn decode(file: &File) -> Result<Vec<u8>, String> {
    match file.encoding.as_deref() {
        None | Some("text/plain") => Ok(file.content.clone().into_bytes()),
        Some("b64" | "base64") => {
            let packed: String = file.content.split_whitespace().collect();
            STANDARD.decode(packed).map_err(|error| format!("bad base64: {error}"))
        }
        Some(other) => Err(format!("the sandbox does not know the encoding `{other}`")),
    }
}

/// Where a path of the VM is on this machine; never outside `root`.
pub(super) fn inside(root: &Path, path: &str) -> PathBuf {
    let mut inside = root.to_owned();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => inside.push(name),
            Component::ParentDir if inside != root => {
                inside.pop();
            }
            _ => {}
        }
    }
    inside
}

/// The agent's arguments, for each unit of the machine that runs it.
pub(super) fn agent_units(root: &Path) -> Vec<Vec<String>> {
    let Ok(folder) = fs::read_dir(root.join("etc/systemd/system")) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = folder.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "service"))
        .filter_map(|path| fs::read_to_string(path).ok())
        .filter_map(|unit| agent_arguments(&unit))
        .collect()
}

fn agent_arguments(unit: &str) -> Option<Vec<String>> {
    let line = unit.lines().find_map(|line| line.trim().strip_prefix("ExecStart="))?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let program = words.next()?;
    let name = Path::new(&program).file_name()?;
    let mut arguments: Vec<String> = words.collect();
    if name != "vmkit-agent" {
        return None;
    }
    if arguments.is_empty() {
        arguments.push("run".to_owned());
    }
    Some(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(user_data: &str) -> (tempfile::TempDir, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let order = MachineOrder {
            name: "vm1".into(),
            user_data: user_data.into(),
            root_keys: vec!["ssh-ed25519 AAAA owner".into()],
            ..MachineOrder::default()
        };
        let console = install(dir.path(), &order).unwrap();
        (dir, console)
    }

    #[test]
    fn user_data_is_applied_as_cloud_init_would() {
        let (dir, console) = boot(
            "#cloud-config\nhostname: web\ngroups: [docker]\nusers:\n  - default\n  - name: kamal\n    \
             groups: [docker]\n    ssh_authorized_keys:\n      - ssh-ed25519 BBBB deploy\n\
             write_files:\n  - path: /etc/a\n    permissions: '0600'\n    content: hello\n  \
             - path: /etc/b\n    encoding: b64\n    content: aGk=\n  - path: ../../out\n    content: x\n\
             \x20 - path: /etc/systemd/system/vmkit-agent.service\n    content: |\n      [Service]\n      \
             ExecStart=/usr/local/bin/vmkit-agent run --heartbeat-ms 5\n",
        );
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        assert_eq!(console, ["cloud-init: Cloud-init finished"]);
        assert_eq!(read("etc/hostname"), "web\n");
        assert_eq!(read("etc/a"), "hello");
        let mode = fs::metadata(dir.path().join("etc/a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(read("etc/b"), "hi");
        assert_eq!(read("out"), "x");
        assert_eq!(read("home/kamal/.ssh/authorized_keys"), "ssh-ed25519 BBBB deploy\n");
        assert_eq!(read("root/.ssh/authorized_keys"), "ssh-ed25519 AAAA owner\n");
        assert!(read("etc/passwd").contains("kamal:x:1001:1001::/home/kamal:/bin/sh"));
        assert!(read("etc/group").contains("docker:x:999:kamal"));
        assert!(read("etc/ssh/ssh_host_ed25519_key.pub").starts_with("ssh-ed25519 AAAA"));
        assert_eq!(agent_units(dir.path()), [["run", "--heartbeat-ms", "5"]]);
    }

    #[test]
    fn what_cloud_init_would_not_read_is_said_on_the_console() {
        let cases = [
            ("hello", "Unhandled non-multipart"),
            ("#cloud-config\n{", "cannot be parsed"),
            ("#!/bin/sh\ntrue", "script"),
            ("#cloud-config\nwrite_files: [{path: /a, content: x, encoding: gz}]", "encoding `gz`"),
            (
                "#cloud-config\nwrite_files: [{path: /a, content: x, permissions: 'rw'}]",
                "permissions",
            ),
            (
                "#cloud-config\nusers: [{name: a, system: true, ssh_authorized_keys: [ssh-ed25519 A]}]",
                "Not creating user a.",
            ),
        ];
        for (user_data, said) in cases {
            let (_dir, console) = boot(user_data);
            assert!(console[0].contains(said), "{user_data}: {console:?}");
        }
    }

    #[test]
    fn two_machines_have_two_host_keys() {
        let key = |dir: &Path| fs::read(dir.join("etc/ssh/ssh_host_ed25519_key.pub")).unwrap();
        let ((one, _), (two, _)) = (boot(""), boot(""));
        assert_ne!(key(one.path()), key(two.path()));
    }
}
