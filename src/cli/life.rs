//! How processes of one installation live together: one worker, kept up by those who need it, and
//! nobody left behind.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::CliError;
use crate::config::Settings;

/// How often a face looks whether its worker is up.
const LOOK: Duration = Duration::from_millis(500);
/// How long a worker that was started may take before another is tried; doubled each time.
const PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// The worker's log is begun anew above this size.
const LOG_BYTES_MAX: u64 = 5 << 20;

/// A lock on a file of the state's folder, held until it is dropped or the process ends.
#[derive(Debug)]
pub(super) struct Held(#[expect(dead_code, reason = "the lock lives as long as the file")] File);

fn lock_file(path: &Path) -> Result<File, CliError> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    file.map_err(|error| CliError::io(&format!("cannot open {}", path.display()), &error))
}

/// Takes the lock alone; nothing where another process has it.
pub(super) fn lock_alone(path: &Path) -> Result<Option<Held>, CliError> {
    let file = lock_file(path)?;
    Ok(file.try_lock().is_ok().then_some(Held(file)))
}

/// Shares the lock with others of our kind.
fn lock_shared(path: &Path) -> Result<Held, CliError> {
    let file = lock_file(path)?;
    let locked = file.lock_shared();
    locked.map_err(|error| CliError::io(&format!("cannot lock {}", path.display()), &error))?;
    Ok(Held(file))
}

/// Whether a face (`vmkit mcp`, `vmkit call`) is open on this state.
pub(super) fn has_faces(settings: &Settings) -> bool {
    match lock_alone(&settings.home.faces_lock()) {
        Ok(free) => free.is_none(),
        // A file that cannot be opened keeps nobody alive.
        Err(_) => false,
    }
}

/// A face's hold on the worker: as long as it lives, a worker runs.
#[derive(Debug)]
pub(super) struct WorkerHold {
    _shared: Held,
    _keeping: DropGuard,
}

/// Starts the worker where there is none, and again whenever it is gone.
pub(super) fn hold_worker(settings: &Settings) -> Result<WorkerHold, CliError> {
    let shared = lock_shared(&settings.home.faces_lock())?;
    let stop = CancellationToken::new();
    tokio::spawn(stop.clone().run_until_cancelled_owned(keep_worker(settings.clone())));
    Ok(WorkerHold { _shared: shared, _keeping: stop.drop_guard() })
}

async fn keep_worker(settings: Settings) {
    let mut patience = PATIENCE;
    loop {
        if is_up(&settings).await {
            patience = PATIENCE;
        } else {
            match start_worker(&settings) {
                Ok(child) => {
                    if !comes_up(&settings, child, patience).await {
                        let log = settings.home.worker_log();
                        tracing::warn!("the worker did not start; see {}", log.display());
                        patience = (patience * 2).min(PATIENCE_MAX);
                        tokio::time::sleep(patience).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the worker cannot be started");
                    tokio::time::sleep(patience).await;
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether a worker answers at its socket.
pub(super) async fn is_up(settings: &Settings) -> bool {
    tokio::net::UnixStream::connect(settings.home.socket()).await.is_ok()
}

/// Waits until the worker answers. A child that ends at once is no fault: another was quicker.
async fn comes_up(settings: &Settings, mut child: Child, limit: Duration) -> bool {
    let up = async {
        while !is_up(settings).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let came = tokio::time::timeout(limit, up).await.is_ok();
    if came {
        // It outlives us; until then it is waited for, so that it leaves no zombie.
        tokio::spawn(async move { drop(child.wait().await) });
    }
    came
}

/// The program, or the one that has taken its place since: of a file that is gone Linux says
/// `NAME (deleted)`, which is what an upgrade under a running `vmkit mcp` leaves.
fn replaced(program: PathBuf) -> PathBuf {
    let name = program.to_str().and_then(|name| name.strip_suffix(" (deleted)"));
    match name.map(PathBuf::from) {
        Some(newer) if !program.exists() && newer.exists() => newer,
        _ => program,
    }
}

fn start_worker(settings: &Settings) -> Result<Child, CliError> {
    let failed = |error: std::io::Error| CliError::io("the worker cannot be started", &error);
    let program = replaced(std::env::current_exe().map_err(failed)?);
    let log = settings.home.worker_log();
    let too_long = std::fs::metadata(&log).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX);
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    let log = if too_long { options.write(true).truncate(true) } else { options.append(true) };
    let log = log.open(settings.home.worker_log()).map_err(failed)?;
    Command::new(program)
        .arg("--home")
        .arg(settings.home.path())
        .args(["--log", &settings.log, "worker", "--detached"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(failed)
}

/// Where a tether is set: ends this process as soon as the tether's other end closes.
pub(super) fn tie(settings: &Settings) {
    let Some(path) = settings.tether.clone() else { return };
    std::thread::spawn(move || {
        if let Ok(mut stream) = UnixStream::connect(&path) {
            let mut nothing = [0u8; 64];
            while stream.read(&mut nothing).is_ok_and(|read| read > 0) {}
        }
        tracing::info!("the tether is gone, and so am I");
        std::process::exit(0);
    });
}

/// Cancelled once somebody asks this process to end.
pub(super) fn asked_to_end() -> Result<CancellationToken, CliError> {
    let failed = |error: std::io::Error| CliError::io("signals cannot be heard", &error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let asked = CancellationToken::new();
    let tell = asked.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tell.cancel();
    });
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_that_took_the_place_of_ours_is_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let (here, gone) = (folder.path().join("vmkit"), folder.path().join("vmkit (deleted)"));
        assert_eq!(replaced(gone.clone()), gone, "there is no newer one");
        std::fs::write(&here, "").expect("written");
        assert_eq!(replaced(gone.clone()), here);
        assert_eq!(replaced(here.clone()), here);
        // Somebody's program may be called so.
        std::fs::write(&gone, "").expect("written");
        assert_eq!(replaced(gone.clone()), gone);
    }
}
