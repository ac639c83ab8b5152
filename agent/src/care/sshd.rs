//! The SSH server: no root, no passwords, limits that GitHub's runners live with. The new
//! configuration is checked, its effect is read back, and somebody logs in under it before the
//! server that listens is told of it.

use std::collections::BTreeMap;
use std::time::Duration;

use ssh_key::LineEnding;
use ssh_key::private::{Ed25519Keypair, KeypairData, PrivateKey};

use super::harden::{Job, SYSTEMD};
use super::measures::{Area, Trouble, Verdict};
use crate::calls::host_key;
use crate::files::{self, Access};
use crate::host::Host;
use crate::programs::{self, Program};

/// Read first, and the first value of a setting counts.
const FILE: &str = "etc/ssh/sshd_config.d/00-vmkit.conf";
const SETTINGS: [(&str, &str); 7] = [
    ("PermitRootLogin", "no"),
    ("PasswordAuthentication", "no"),
    ("KbdInteractiveAuthentication", "no"),
    ("PermitEmptyPasswords", "no"),
    ("LoginGraceTime", "30"),
    // Deploys of several apps begin at once, each with several connections.
    ("MaxStartups", "30:30:100"),
    ("X11Forwarding", "no"),
];
/// OpenSSH 9.8 and later. Runners share few addresses, so a ban takes more than one of them that
/// has an old key, and is short.
const PENALTIES: &str = "authfail:3s noauth:1s grace-exceeded:5s min:30s max:120s";
const TRIAL: &str = "run/vmkit/trial-login";

pub(super) async fn harden(job: &mut Job) -> Result<Verdict, Trouble> {
    if !job.has(Program::Sshd) || !job.host.path("etc/ssh/sshd_config").is_file() {
        return Ok(Verdict::not_here("there is no SSH server"));
    }
    // Where a socket starts the server, nobody may have made it yet, and every check wants it.
    job.host.make_dir(&job.host.path("run/sshd"), 0o755)?;
    let before = effective(job).await?;
    let others = others_who_log_in(&job.host);
    if others.is_empty() {
        let text = "nobody but root has an SSH key, and would be locked out";
        return Err(Trouble::Wrong(text.to_owned()));
    }
    let penalties = before.contains_key("persourcepenalties");
    let mut text = "# Written by VMKit. Remove this file and reload ssh to undo it.\n".to_owned();
    for (name, value) in SETTINGS {
        text.push_str(&format!("{name} {value}\n"));
    }
    if penalties {
        text.push_str(&format!("PerSourcePenalties {PENALTIES}\n"));
    }
    let changed = job.put(Area::Sshd, FILE, &text, 0o644)?;
    job.run(Program::Sshd, &["-t"]).await?;
    let after = effective(job).await?;
    for (name, value) in SETTINGS {
        let said = after.get(&name.to_ascii_lowercase()).map_or("nothing", String::as_str);
        if said != value {
            let file = "/etc/ssh/sshd_config";
            return Err(Trouble::Wrong(format!(
                "the SSH server still takes `{name} {said}`: `{file}` sets it before its `Include`, or has none"
            )));
        }
    }
    let mut says = "no root, no passwords, only keys".to_owned();
    if changed {
        says = match try_login(job, &others).await? {
            Some(user) => {
                format!("{says}; `{user}` logged in under the new rules before they counted")
            }
            None => format!("{says}; no `ssh` here to try a login with"),
        };
        reload(&job.host).await?;
    }
    if penalties {
        says.push_str("; short penalties for addresses that fail");
    }
    if socket_starts_it(&job.host).await {
        says.push_str("; ssh.socket starts the server");
    }
    Ok(Verdict::of(changed, says))
}

/// What the server would do, by its own word.
async fn effective(job: &Job) -> Result<BTreeMap<String, String>, Trouble> {
    let text = job.run(Program::Sshd, &["-T"]).await?;
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    // The first counts here as well.
    let mut settings = BTreeMap::new();
    for (name, value) in pairs {
        settings.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    Ok(settings)
}

/// The ports that it listens on.
pub(super) async fn ports(job: &Job) -> Vec<u16> {
    let text = job.run(Program::Sshd, &["-T"]).await.unwrap_or_default();
    let ports = text.lines().filter_map(|line| line.strip_prefix("port ")?.trim().parse().ok());
    let ports: Vec<u16> = ports.collect();
    if ports.is_empty() { vec![22] } else { ports }
}

/// Users beside root with a key and a shell.
fn others_who_log_in(host: &Host) -> Vec<String> {
    let passwd = std::fs::read_to_string(host.path("etc/passwd")).unwrap_or_default();
    let mut users: Vec<String> = passwd
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let (name, id) = (*fields.first()?, *fields.get(2)?);
            let (home, shell) = (fields.get(5)?, *fields.get(6)?);
            let keys = host.path(&format!("{home}/.ssh/authorized_keys"));
            let has_key = std::fs::read_to_string(keys).is_ok_and(|keys| {
                keys.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#'))
            });
            let shuts_out = ["nologin", "false"].iter().any(|no| shell.ends_with(no));
            // VMKit's own user runs one command and nothing else.
            (id != "0" && name != "vmkit" && has_key && !shuts_out).then(|| name.to_owned())
        })
        .collect();
    users.sort_by_key(|name| (name != "kamal", name != "admin", name.clone()));
    users
}

/// A login through a server of its own that takes the new configuration and listens nowhere. None
/// where there is no client to try it with.
async fn try_login(job: &Job, users: &[String]) -> Result<Option<String>, Trouble> {
    if !job.has(Program::Ssh) {
        return Ok(None);
    }
    let folder = job.host.path(TRIAL);
    job.host.make_dir(&job.host.path("run/vmkit"), 0o755)?;
    job.host.make_dir(&folder, 0o755)?;
    let tried = log_in(job, users).await;
    std::fs::remove_dir_all(&folder)?;
    tried.map(Some)
}

async fn log_in(job: &Job, users: &[String]) -> Result<String, Trouble> {
    let pair = Ed25519Keypair::from_seed(&rand::random());
    let made = |error: ssh_key::Error| Trouble::File(std::io::Error::other(error));
    let key = PrivateKey::new(KeypairData::from(pair), "vmkit-trial").map_err(made)?;
    let (private, public) = (format!("{TRIAL}/key"), format!("{TRIAL}/keys"));
    let text = key.to_openssh(LineEnding::LF).map_err(made)?;
    files::write_whole(&job.host.path(&private), text.as_bytes(), files::PRIVATE)?;
    let line = format!("restrict {}\n", key.public_key().to_openssh().map_err(made)?);
    let for_all = Access { mode: 0o644, owner: None, group: None };
    files::write_whole(&job.host.path(&public), line.as_bytes(), for_all)?;
    let server = "ProxyCommand=/usr/sbin/sshd -i -o AuthorizedKeysFile=/run/vmkit/trial-login/keys";
    let identity = format!("/{private}");
    let mut last = None;
    for user in users {
        let whom = format!("{user}@trial");
        let args = [
            "-F",
            "none",
            "-i",
            identity.as_str(),
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "BatchMode=yes",
            "-o",
            "LogLevel=ERROR",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            server,
            whom.as_str(),
            "true",
        ];
        match programs::run(&job.host, Program::Ssh, &args, Duration::from_secs(30)).await {
            Ok(_) => return Ok(user.clone()),
            Err(error) => last = Some(error),
        }
    }
    let why = last.map(|error| error.to_string()).unwrap_or_default();
    Err(Trouble::Wrong(format!("nobody gets in under the new rules: {why}")))
}

/// Lets the server read its configuration; sessions that are open stay. One that a socket starts
/// reads it at the next connection.
pub(super) async fn reload(host: &Host) -> Result<(), Trouble> {
    if Program::Systemctl.find(host).is_some() {
        let reload = ["try-reload-or-restart", "ssh.service"];
        programs::run(host, Program::Systemctl, &reload, SYSTEMD).await?;
    } else {
        host_key::reload(host);
    }
    Ok(())
}

async fn socket_starts_it(host: &Host) -> bool {
    let is_active = ["is-active", "--quiet", "ssh.socket"];
    programs::run(host, Program::Systemctl, &is_active, SYSTEMD).await.is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn who_is_left_to_log_in_has_a_key_and_a_shell() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        let passwd = "root:x:0:0::/root:/bin/bash\nkamal:x:1000:1000::/home/kamal:/bin/bash\n\
                      vmkit:x:999:999::/home/vmkit:/bin/sh\nadmin:x:1001:1001::/home/admin:/bin/bash\n\
                      off:x:1002:1002::/srv/off:/usr/sbin/nologin\nbare:x:1003:1003::/srv/bare:/bin/sh\n";
        std::fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        for home in ["root", "home/kamal", "home/vmkit", "home/admin", "srv/off", "srv/bare"] {
            let keys = root.path().join(home).join(".ssh/authorized_keys");
            std::fs::create_dir_all(keys.parent().unwrap()).unwrap();
            let text = if home == "srv/bare" { "# none\n\n" } else { "ssh-ed25519 AAAA x\n" };
            std::fs::write(&keys, text).unwrap();
            std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        assert_eq!(others_who_log_in(&host), ["kamal", "admin"]);
    }
}
