//! The measures that are a file and a word to whoever reads it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use vmkit_agent_protocol::care::Hardening;

use super::harden::{Job, SYSTEMD};
use crate::host::Host;
use crate::programs::{self, Program, ProgramError};

/// What a measure is about; the order is the one in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Area {
    Sshd,
    Upgrades,
    Sysctl,
    Journal,
    Docker,
    Firewall,
    Bans,
}

impl Area {
    pub(super) const ALL: [Self; 7] = [
        Self::Sshd,
        Self::Upgrades,
        Self::Sysctl,
        Self::Journal,
        Self::Docker,
        Self::Firewall,
        Self::Bans,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sshd => "sshd",
            Self::Upgrades => "upgrades",
            Self::Sysctl => "sysctl",
            Self::Journal => "journal",
            Self::Docker => "docker",
            Self::Firewall => "firewall",
            Self::Bans => "bans",
        }
    }
}

/// How a measure ended.
pub(super) struct Verdict {
    pub(super) outcome: Hardening,
    pub(super) says: String,
}

impl Verdict {
    pub(super) fn of(changed: bool, says: impl Into<String>) -> Self {
        let outcome = if changed { Hardening::Changed } else { Hardening::AlreadyRight };
        Self { outcome, says: says.into() }
    }

    pub(super) fn not_here(says: impl Into<String>) -> Self {
        Self { outcome: Hardening::NotHere, says: says.into() }
    }
}

/// Why a measure was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("a file cannot be read or written")]
    File(#[from] std::io::Error),
    #[error("{0}")]
    Wrong(String),
}

impl Trouble {
    /// What lacks a program is not here; what a program refuses has failed.
    pub(super) fn outcome(&self) -> Hardening {
        match self {
            Self::Program(ProgramError::Absent { .. }) => Hardening::NotHere,
            Self::Program(_) | Self::File(_) | Self::Wrong(_) => Hardening::Failed,
        }
    }

    /// With its causes.
    pub(super) fn told(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        text
    }
}

pub(super) fn mode_of(path: &Path) -> Option<u32> {
    Some(std::fs::metadata(path).ok()?.permissions().mode() & 0o7777)
}

const UPGRADES_FILE: &str = "etc/apt/apt.conf.d/52vmkit-upgrades";
const UPGRADES: &str = r#"// Written by VMKit. Security updates come by themselves; a reboot is for a person to choose.
APT::Periodic::Update-Package-Lists "1";
APT::Periodic::Unattended-Upgrade "1";
Unattended-Upgrade::Automatic-Reboot "false";
"#;

pub(super) async fn upgrades(job: &mut Job) -> Result<Verdict, Trouble> {
    if !job.host.path("usr/bin/unattended-upgrade").exists() {
        return Ok(Verdict::not_here("the package unattended-upgrades is not installed"));
    }
    let changed = job.put(Area::Upgrades, UPGRADES_FILE, UPGRADES, 0o644)?;
    // A file that comes later in the alphabet may say otherwise.
    let effective = job.run(Program::AptConfig, &["dump"]).await?;
    for wanted in UPGRADES.lines().filter(|line| !line.starts_with("//")) {
        if !effective.lines().any(|line| line == wanted) {
            return Err(Trouble::Wrong(format!(
                "apt does not take `{wanted}`: another file says otherwise"
            )));
        }
    }
    Ok(Verdict::of(changed, "security updates come by themselves, without a reboot"))
}

const SYSCTL_FILE: &str = "etc/sysctl.d/60-vmkit.conf";
/// Forwarding is Docker's own business.
const SYSCTL: [(&str, &str); 11] = [
    ("fs.protected_fifos", "2"),
    ("fs.protected_hardlinks", "1"),
    ("fs.protected_regular", "2"),
    ("fs.protected_symlinks", "1"),
    ("kernel.dmesg_restrict", "1"),
    ("kernel.kptr_restrict", "1"),
    ("net.ipv4.conf.all.accept_redirects", "0"),
    ("net.ipv4.conf.all.accept_source_route", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.tcp_syncookies", "1"),
    ("net.ipv6.conf.all.accept_redirects", "0"),
];

pub(super) async fn sysctl(job: &mut Job) -> Result<Verdict, Trouble> {
    if !job.has(Program::Sysctl) {
        return Ok(Verdict::not_here("there is no `sysctl`"));
    }
    let mut text = "# Written by VMKit.\n".to_owned();
    let mut different = Vec::new();
    for (name, wanted) in SYSCTL {
        // A kernel without IPv6, or a container's, does not have them all.
        let Ok(now) = job.run(Program::Sysctl, &["-n", name]).await else { continue };
        text.push_str(&format!("{name} = {wanted}\n"));
        if now.trim() != wanted {
            different.push((name, wanted, now.trim().to_owned()));
        }
    }
    let count = text.lines().count() - 1;
    if count == 0 {
        return Ok(Verdict::not_here("the kernel's parameters cannot be read here"));
    }
    let written = job.put(Area::Sysctl, SYSCTL_FILE, &text, 0o644)?;
    for (name, wanted, before) in &different {
        job.note_parameter(Area::Sysctl, name, before.clone())?;
        set_parameter(&job.host, name, wanted).await?;
    }
    Ok(Verdict::of(
        written || !different.is_empty(),
        format!("{count} kernel parameters, {} of them set now", different.len()),
    ))
}

pub(super) async fn set_parameter(host: &Host, name: &str, value: &str) -> Result<(), Trouble> {
    let pair = format!("{name}={value}");
    programs::run(host, Program::Sysctl, &["-q", "-w", &pair], SYSTEMD).await?;
    Ok(())
}

const JOURNAL_FILE: &str = "etc/systemd/journald.conf.d/vmkit.conf";
/// As the user-data writes it.
const JOURNAL: &str =
    "# The apps' lines go to the journal and are kept there, none of them dropped.
[Journal]
Storage=persistent
SystemMaxUse=1G
RateLimitIntervalSec=0
";

pub(super) async fn journal(job: &mut Job) -> Result<Verdict, Trouble> {
    if !job.host.path("etc/systemd").is_dir() {
        return Ok(Verdict::not_here("there is no systemd"));
    }
    let changed = job.put(Area::Journal, JOURNAL_FILE, JOURNAL, 0o644)?;
    if changed {
        restart_journal(&job.host).await?;
    }
    Ok(Verdict::of(changed, "the journal is kept, up to 1 GiB of it"))
}

pub(super) async fn restart_journal(host: &Host) -> Result<(), Trouble> {
    let restart = ["restart", "systemd-journald.service"];
    programs::run(host, Program::Systemctl, &restart, SYSTEMD).await?;
    Ok(())
}

const DOCKER_FILE: &str = "etc/docker/daemon.json";

/// Limits the containers' logs, whichever driver the owner chose, and keeps containers running
/// while the engine restarts. Settings of the owner's own stay.
pub(super) async fn docker(job: &mut Job) -> Result<Verdict, Trouble> {
    if !job.host.path("etc/docker").is_dir() && !job.has(Program::Dockerd) {
        return Ok(Verdict::not_here("there is no Docker"));
    }
    let text = std::fs::read_to_string(job.host.path(DOCKER_FILE)).unwrap_or_default();
    let now: Map<String, Value> = if text.trim().is_empty() {
        Map::new()
    } else {
        serde_json::from_str(&text)
            .map_err(|error| Trouble::Wrong(format!("`/{DOCKER_FILE}` is not JSON: {error}")))?
    };
    let mut wanted = now.clone();
    wanted.entry("live-restore").or_insert(json!(true));
    let driver = wanted.entry("log-driver").or_insert(json!("journald")).clone();
    if ["json-file", "local"].contains(&driver.as_str().unwrap_or_default()) {
        let options = wanted.entry("log-opts").or_insert_with(|| json!({}));
        if let Some(options) = options.as_object_mut() {
            options.entry("max-size").or_insert(json!("10m"));
            options.entry("max-file").or_insert(json!("3"));
        }
    }
    let live = wanted.get("live-restore") == Some(&json!(true));
    let says = format!(
        "logs go to {}, limited; containers {} while Docker restarts",
        driver.as_str().unwrap_or("a driver of the owner's"),
        if live { "run on" } else { "stop (the owner's setting)" }
    );
    if wanted == now {
        return Ok(Verdict::of(false, says));
    }
    let text = serde_json::to_string_pretty(&wanted).map_err(std::io::Error::other)?;
    job.put(Area::Docker, DOCKER_FILE, &format!("{text}\n"), 0o644)?;
    if job.has(Program::Dockerd) {
        let file = job.host.path(DOCKER_FILE);
        let file = format!("--config-file={}", file.display());
        job.run(Program::Dockerd, &["--validate", &file]).await?;
    }
    reload_docker(&job.host).await?;
    Ok(Verdict::of(true, format!("{says}; another log driver counts from Docker's next start on")))
}

/// A reload disturbs no container.
pub(super) async fn reload_docker(host: &Host) -> Result<(), Trouble> {
    let reload = ["try-reload-or-restart", "docker.service"];
    let is_active = ["is-active", "--quiet", "docker.service"];
    if programs::run(host, Program::Systemctl, &is_active, SYSTEMD).await.is_ok() {
        programs::run(host, Program::Systemctl, &reload, SYSTEMD).await?;
    }
    Ok(())
}

/// Nothing is installed: runners of GitHub come from few addresses, and one that fails to log in
/// must not lock out the others. `sshd` limits attempts by itself.
pub(super) fn bans(job: &Job) -> Result<Verdict, Trouble> {
    if job.host.path("usr/bin/fail2ban-server").exists() {
        let says = "fail2ban is installed, and left alone; it bans addresses of GitHub's runners, and a \
                    deploy with them: `apt-get remove fail2ban` if that happens";
        return Ok(Verdict { outcome: Hardening::NotHere, says: says.to_owned() });
    }
    Ok(Verdict::of(false, "no fail2ban: it would ban GitHub's runners"))
}
