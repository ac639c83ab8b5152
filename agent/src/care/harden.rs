//! Hardening: measure after measure, each checked, each taken back where its check fails, and all
//! of them taken back by the VM itself unless VMKit says in time that it still gets in.

use std::sync::Arc;
use std::time::Duration;

use vmkit_agent_protocol::care::{Harden, Hardened, Hardening, Measure};

use super::measures::{self, Area, Trouble, Verdict};
use super::sshd;
use super::undo::{Before, Change, Undo};
use crate::calls::{Fault, blocking, facts};
use crate::files::{self, Access};
use crate::host::Host;
use crate::programs::{self, Program};
use crate::time::now_ms;

/// The shortest and the longest time until the undo.
const UNDO_S: std::ops::RangeInclusive<u32> = 5..=3_600;
/// How long systemd may take for one thing.
pub(crate) const SYSTEMD: Duration = Duration::from_secs(90);

/// One run of the measures.
pub(super) struct Job {
    pub(super) host: Host,
    undo: Undo,
}

impl Job {
    /// Puts a file in place, and first writes down what was there. False where it is so already.
    pub(super) fn put(
        &mut self,
        area: Area,
        path: &str,
        text: &str,
        mode: u32,
    ) -> Result<bool, Trouble> {
        let there = self.host.path(path);
        let same = std::fs::read_to_string(&there).is_ok_and(|now| now == text);
        if same && measures::mode_of(&there) == Some(mode) {
            return Ok(false);
        }
        let before = Undo::before(&self.host, path)?;
        self.note(Change { area, path: path.to_owned(), before })?;
        let folder = there.parent().unwrap_or(self.host.root());
        self.host.make_dir(folder, 0o755)?;
        files::write_whole(&there, text.as_bytes(), Access { mode, owner: None, group: None })?;
        Ok(true)
    }

    /// Writes down a parameter's value before it is set.
    pub(super) fn note_parameter(
        &mut self,
        area: Area,
        name: &str,
        value: String,
    ) -> Result<(), Trouble> {
        let before = Some(Before::Parameter { value });
        self.note(Change { area, path: name.to_owned(), before })
    }

    fn note(&mut self, change: Change) -> Result<(), Trouble> {
        self.undo.changes.push(change);
        Ok(self.undo.write(&self.host)?)
    }

    pub(super) async fn run(&self, program: Program, args: &[&str]) -> Result<String, Trouble> {
        Ok(programs::run(&self.host, program, args, SYSTEMD).await?)
    }

    pub(super) fn has(&self, program: Program) -> bool {
        program.find(&self.host).is_some()
    }

    fn mark(&self) -> usize {
        self.undo.changes.len()
    }

    /// Takes back what was changed since the mark.
    async fn take_back(&mut self, mark: usize) -> Result<(), Trouble> {
        let these = self.undo.changes.split_off(mark);
        take_back(&self.host, &these).await?;
        Ok(self.undo.write(&self.host)?)
    }
}

/// Hardens the host. What is right already is left alone, so it may be asked for again.
pub(crate) async fn harden(host: &Host, wanted: &Harden) -> Result<Hardened, Fault> {
    // What an earlier run left and nobody kept is not built upon.
    undo(host).await?;
    let undo_after_s = wanted.undo_after_s.clamp(*UNDO_S.start(), *UNDO_S.end());
    let armed = Undo {
        operation: wanted.operation.clone(),
        boot_id: facts::boot_id(host),
        deadline_ms: now_ms() + i64::from(undo_after_s) * 1_000,
        changes: Vec::new(),
    };
    let mut job = Job { host: host.clone(), undo: armed };
    arm(&job, undo_after_s).await?;
    let mut measures = Vec::new();
    for area in Area::ALL {
        let mark = job.mark();
        let verdict = match area {
            Area::Sshd => sshd::harden(&mut job).await,
            Area::Upgrades => measures::upgrades(&mut job).await,
            Area::Sysctl => measures::sysctl(&mut job).await,
            Area::Journal => measures::journal(&mut job).await,
            Area::Docker => measures::docker(&mut job).await,
            Area::Firewall => super::firewall::harden(&mut job).await,
            Area::Bans => measures::bans(&job),
        };
        let (outcome, says) = match verdict {
            Ok(Verdict { outcome, says }) => (outcome, says),
            Err(trouble) => {
                let (mut says, mut outcome) = (trouble.told(), trouble.outcome());
                if let Err(worse) = job.take_back(mark).await {
                    says = format!("{says}; and it could not be taken back: {}", worse.told());
                    outcome = Hardening::Failed;
                }
                (outcome, says)
            }
        };
        tracing::info!(measure = area.name(), ?outcome, says, "hardening");
        measures.push(Measure { name: area.name().to_owned(), outcome, says });
    }
    let armed = !job.undo.changes.is_empty();
    if !armed {
        keep(host).await?;
    }
    Ok(Hardened { measures, armed })
}

/// The undo is on the disk before the first change; where the machine has systemd, a timer of its
/// own takes things back even if the agent is gone by then.
async fn arm(job: &Job, undo_after_s: u32) -> Result<(), Fault> {
    job.undo.write(&job.host).map_err(|error| Fault::files(&error))?;
    disarm_timer(&job.host).await;
    let after = format!("--on-active={undo_after_s}s");
    let timer = [
        "--quiet",
        "--collect",
        "--unit=vmkit-undo",
        after.as_str(),
        "--timer-property=AccuracySec=1s",
        "--",
        "/usr/local/bin/vmkit-agent",
        "care",
        "undo",
    ];
    if !has_systemd(&job.host) {
        return Ok(());
    }
    match programs::run(&job.host, Program::SystemdRun, &timer, SYSTEMD).await {
        Ok(_) => Ok(()),
        Err(error) => {
            Undo::forget(&job.host).map_err(|error| Fault::files(&error))?;
            Err(Fault::unsupported_here(format!(
                "no undo can be armed, so nothing was changed: {error}"
            )))
        }
    }
}

/// Whether systemd runs this machine, and not only lies on its disk.
fn has_systemd(host: &Host) -> bool {
    host.path("run/systemd/system").is_dir() && Program::SystemdRun.find(host).is_some()
}

async fn disarm_timer(host: &Host) {
    if has_systemd(host) {
        let stop = ["stop", "vmkit-undo.timer"];
        // There is none as a rule.
        drop(programs::run(host, Program::Systemctl, &stop, SYSTEMD).await);
    }
}

/// All is well: what was changed stays. False where nothing was armed.
pub(crate) async fn keep(host: &Host) -> Result<bool, Fault> {
    let kept = Undo::forget(host).map_err(|error| Fault::files(&error))?;
    disarm_timer(host).await;
    Ok(kept)
}

/// Takes everything back that is not kept. False where there is nothing.
pub(crate) async fn undo(host: &Host) -> Result<bool, Fault> {
    let Some(armed) = Undo::read(host).map_err(|error| Fault::files(&error))? else {
        return Ok(false);
    };
    tracing::warn!(armed.operation, changes = armed.changes.len(), "hardening is taken back");
    let done = take_back(host, &armed.changes).await;
    // Files that could be put back are; the record stays where one could not.
    done.map_err(|trouble| Fault::unsupported_here(trouble.told()))?;
    keep(host).await?;
    Ok(!armed.changes.is_empty())
}

/// In reverse, and then whoever reads the files is told.
async fn take_back(host: &Host, changes: &[Change]) -> Result<(), Trouble> {
    let mut first = None;
    for change in changes.iter().rev() {
        let done = match &change.before {
            Some(Before::Parameter { value }) => {
                measures::set_parameter(host, &change.path, value).await
            }
            _ => change.put_back(host).map_err(Trouble::from),
        };
        first = first.or(done.err());
    }
    for area in Area::ALL {
        if changes.iter().any(|change| change.area == area) {
            let told = match area {
                Area::Sshd => sshd::reload(host).await,
                Area::Upgrades | Area::Sysctl | Area::Bans => Ok(()),
                Area::Journal => measures::restart_journal(host).await,
                Area::Docker => measures::reload_docker(host).await,
                Area::Firewall => super::firewall::reload(host).await,
            };
            first = first.or(told.err());
        }
    }
    first.map_or(Ok(()), Err)
}

/// Takes back what nobody keeps in time; runs as long as the agent does.
pub(crate) async fn watch(host: Host, one: Arc<tokio::sync::Mutex<()>>) {
    const LOOK: Duration = Duration::from_secs(1);
    loop {
        {
            let _one = one.lock().await;
            let there = host.clone();
            let due = blocking(move || {
                Undo::read(&there).ok().flatten().is_some_and(|armed| armed.is_due(&there))
            });
            if due.await.unwrap_or(false)
                && let Err(fault) = outside(&host, &["care", "undo"], "").await
            {
                tracing::error!(fault.message, "hardening could not be taken back");
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Does a job of `vmkit-agent care` outside the walls of the agent's own unit, where the machine
/// has systemd; else within this process. Returns what it printed.
pub(crate) async fn outside(host: &Host, job: &[&str], input: &str) -> Result<String, Fault> {
    if !has_systemd(host) {
        return super::job(host, job, input).await;
    }
    let mut args = vec![
        "--quiet",
        "--wait",
        "--collect",
        "--pipe",
        "--unit=vmkit-care",
        "--",
        "/usr/local/bin/vmkit-agent",
    ];
    args.extend(job);
    let limit = Duration::from_secs(600);
    let ran = programs::run_with(host, Program::SystemdRun, &args, input, limit).await;
    ran.map_err(|error| Fault::unsupported_here(error.to_string()))
}
