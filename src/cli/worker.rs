//! `vmkit worker`: drives the operations of a local installation and holds its agents' links.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{CliError, Start, life};
use crate::config::Settings;
use crate::http;
use crate::installation::Part;
use crate::operations::deploy::pushed;
use crate::operations::destroy::sweep;
use crate::operations::{Context, Driver, links, silence};

/// How often the worker looks whether anybody needs it.
const LOOK: Duration = Duration::from_millis(250);
/// How long steps under way may take once the worker is to end; the next worker goes on from there.
const GRACE: Duration = Duration::from_secs(10);

/// Drive operations in local mode. `vmkit mcp` and `vmkit call` start it when they need it.
#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// In a session of its own, and silent where another worker runs already.
    #[arg(long)]
    detached: bool,
}

impl Worker {
    pub(super) async fn run(self, start: Start) -> Result<ExitCode, CliError> {
        if self.detached
            && let Err(error) = rustix::process::setsid()
        {
            tracing::debug!(%error, "leading a group already, which is detached enough");
        }
        life::tie(&start.settings);
        start.settings.home.prepare()?;
        let Some(_alone) = life::lock_alone(&start.settings.home.worker_lock())? else {
            if self.detached {
                return Ok(ExitCode::SUCCESS);
            }
            let message =
                format!("a worker runs already on {}", start.settings.home.path().display());
            return Err(CliError::new("worker_running", message)
                .fix("it ends by itself when nobody needs it"));
        };
        let context = Arc::new(start.open(Part::Worker).await?);
        let stop = life::asked_to_end()?;
        let tasks = TaskTracker::new();
        serve_faces(&start.settings, &context, &stop, &tasks)?;
        serve_agents(&start.settings, &context, &stop, &tasks).await?;
        let driver = Arc::new(Driver::new(Arc::clone(&context), holder()));
        tasks.spawn(links::keep(Arc::clone(&context), stop.clone()));
        let driving = Arc::clone(&driver);
        let until = stop.clone();
        tasks.spawn(async move { driving.run(until).await });
        let (sweeping, until) = (Arc::clone(&context), stop.clone());
        tasks.spawn(async move { sweep::daily(&sweeping, &until).await });
        let (asking, until) = (Arc::clone(&context), stop.clone());
        tasks.spawn(async move { silence::watch(&asking, &until).await });
        let (looking, until) = (Arc::clone(&context), stop.clone());
        tasks.spawn(async move { pushed::watch(&looking, &until).await });
        tracing::info!("the worker drives {}", context.store.path().display());
        until_idle(&start.settings, &context, &driver, &stop).await;
        stop.cancel();
        tasks.close();
        if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
            tracing::warn!("steps are still under way; the next worker goes on with them");
        }
        drop(std::fs::remove_file(start.settings.home.socket()));
        Ok(ExitCode::SUCCESS)
    }
}

/// Who holds the leases, for the journal.
pub(super) fn holder() -> String {
    let random: u64 = rand::random();
    format!("worker-{}-{random:016x}", std::process::id())
}

/// The socket for `vmkit mcp` and the command line. Only the owner may connect.
pub(super) fn serve_faces(
    settings: &Settings,
    context: &Arc<Context>,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<(), CliError> {
    let path = settings.home.socket();
    let failed = |error: std::io::Error| {
        CliError::io(&format!("cannot listen on {}", path.display()), &error)
    };
    if let Some(folder) = path.parent() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    // We hold the lock, so a socket that is there is a dead worker's.
    remove_stale(&path).map_err(failed)?;
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let (fleet, stop) = (context.fleet.clone(), stop.clone());
    tasks.spawn(async move { fleet.serve_socket(listener, stop).await });
    Ok(())
}

fn remove_stale(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The door for agents that dial in, where an address for it is set.
async fn serve_agents(
    settings: &Settings,
    context: &Arc<Context>,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<(), CliError> {
    let Some(address) = settings.agent_listen else { return Ok(()) };
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| CliError::io(&format!("cannot listen for agents on {address}"), &error))?;
    let router = http::agents(Arc::clone(context));
    let ended = stop.clone().cancelled_owned();
    tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(ended).await {
            tracing::error!(%error, "agents can dial in no more");
        }
    });
    Ok(())
}

/// Waits until nobody has needed the worker for a while, or somebody asks it to end.
async fn until_idle(
    settings: &Settings,
    context: &Context,
    driver: &Driver,
    stop: &CancellationToken,
) {
    let mut needed = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let open = context.store.open_operations().await;
        let works = driver.busy() > 0 || open.is_ok_and(|open| !open.is_empty());
        if works || life::has_faces(settings) {
            needed = tokio::time::Instant::now();
        } else if needed.elapsed() >= settings.worker_idle {
            tracing::info!("nobody needs the worker; it ends");
            return;
        }
    }
}
