//! The agent as a part of the machine: its unit, and how it goes without taking anything along that
//! Kamal needs.

use std::io;
use std::path::PathBuf;

use crate::calls::kamal_locks;
use crate::care::harden::SYSTEMD;
use crate::files::{self, Access};
use crate::host::Host;
use crate::programs::{self, Program, ProgramError};

const UNIT: &str = "vmkit-agent.service";
const UNIT_FILE: &str = "etc/systemd/system/vmkit-agent.service";
/// As the user-data and the Debian package have it, too.
const UNIT_TEXT: &str = include_str!("../units/vmkit-agent.service");

/// Why the agent was not installed, or not removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnitError {
    #[error("`{path}` cannot be written or removed")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("systemd did not do as it was told")]
    Systemd(#[source] ProgramError),
    #[error(
        "apps were stopped for work on this VM and wait to be started: {names}; start them with `docker start`, and ask again"
    )]
    Resting { names: String },
}

/// Puts the unit in place and starts the agent under it. Returns what was done, a line each.
pub(crate) async fn install(host: &Host) -> Result<Vec<String>, UnitError> {
    let path = host.path(UNIT_FILE);
    let at = |source| UnitError::File { path: path.clone(), source };
    host.make_dir(path.parent().unwrap_or(host.root()), 0o755).map_err(at)?;
    let access = Access { mode: 0o644, owner: None, group: None };
    files::write_whole(&path, UNIT_TEXT.as_bytes(), access).map_err(at)?;
    let mut done = vec![format!("wrote /{UNIT_FILE}")];
    for words in [["daemon-reload", ""], ["enable", UNIT], ["restart", UNIT]] {
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        if tell(host, &words).await? {
            done.push(format!("systemctl {}", words.join(" ")));
        }
    }
    Ok(done)
}

/// False where there is no systemd to tell.
async fn tell(host: &Host, words: &[&str]) -> Result<bool, UnitError> {
    match programs::run(host, Program::Systemctl, words, SYSTEMD).await {
        Ok(_) => Ok(true),
        Err(ProgramError::Absent { .. }) => Ok(false),
        Err(error) => Err(UnitError::Systemd(error)),
    }
}

/// Files and folders that are the agent's alone.
const OURS: [&str; 14] = [
    UNIT_FILE,
    "etc/systemd/system/multi-user.target.wants/vmkit-agent.service",
    "etc/systemd/system/vmkit-upload.path",
    "etc/systemd/system/vmkit-upload.service",
    "etc/systemd/system/multi-user.target.wants/vmkit-upload.path",
    "etc/ssh/sshd_config.d/20-vmkit.conf",
    "etc/vmkit/agent.toml",
    "etc/vmkit/agent.sha256",
    "run/vmkit",
    "usr/local/lib/vmkit",
    "var/lib/vmkit-upload",
    "var/lib/vmkit",
    "usr/local/bin/.vmkit-agent.before",
    "usr/local/bin/.vmkit-agent.next",
];

/// Takes the agent off the machine: its units, its keys, its files, the way in for VMKit's own key.
/// What Kamal needs stays (Docker, the users `kamal` and `admin`, the env files), and so does what
/// makes the machine safe. Returns what was done, a line each.
pub(crate) async fn uninstall(host: &Host) -> Result<Vec<String>, UnitError> {
    let at = |path: PathBuf| move |source| UnitError::File { path, source };
    let resting = crate::calls::quiesce::resting_names(host).unwrap_or_default();
    if !resting.is_empty() {
        return Err(UnitError::Resting { names: resting.join(", ") });
    }
    let mut done = Vec::new();
    for unit in ["vmkit-upload.path", UNIT] {
        // One that is not there is what is wanted.
        if let Ok(true) = tell(host, &["disable", "--now", unit]).await {
            done.push(format!("stopped {unit}"));
        }
    }
    let kamal = host.kamal_folder();
    for service in kamal_locks::release_ours(&kamal).map_err(at(kamal.clone()))? {
        done.push(format!("gave back Kamal's lock of {service}"));
    }
    if let Some((_, home)) = host.user("vmkit") {
        let keys = format!("{}/.ssh/authorized_keys", home.trim_start_matches('/'));
        if remove(host, &keys)? {
            done.push("VMKit's own key lets nobody in any more".to_owned());
        }
    }
    for path in OURS {
        if remove(host, path)? {
            done.push(format!("removed /{path}"));
        }
    }
    tell(host, &["daemon-reload"]).await?;
    tell(host, &["try-reload-or-restart", "ssh.service"]).await?;
    // The program itself last: until then it can be asked again.
    if remove(host, "usr/local/bin/vmkit-agent")? {
        done.push("removed /usr/local/bin/vmkit-agent".to_owned());
    }
    done.push(
        "kept: Docker and its containers, the users kamal and admin, /etc/vmkit/env, hardening"
            .to_owned(),
    );
    Ok(done)
}

/// False where it was not there.
fn remove(host: &Host, path: &str) -> Result<bool, UnitError> {
    let path = host.path(path);
    let Ok(found) = std::fs::symlink_metadata(&path) else { return Ok(false) };
    let removed =
        if found.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
    removed.map(|()| true).map_err(|source| UnitError::File { path, source })
}
