//! Who drives: tasks of this process, which can be given another clock or shorter waits, or a real
//! `vmkit worker`, which can be killed.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vmkit::config::Settings;
use vmkit::domain::clock::Clock;
use vmkit::installation::{Part, open};
use vmkit::operations::destroy::sweep;
use vmkit::operations::{Context, Driver, links};

/// What drives the operations of a stage.
pub(crate) enum Driving {
    /// A process.
    Process(Child),
    /// Tasks of this process.
    Here { stop: CancellationToken, tasks: Vec<JoinHandle<()>>, context: Arc<Context> },
}

impl Driving {
    /// `vmkit worker`, which does not outlive this process.
    pub(crate) fn process(pairs: &[(String, String)], log: std::fs::File) -> Self {
        let vmkit = env!("CARGO_BIN_EXE_vmkit");
        let parent = std::process::id().to_string();
        let child = Command::new(vmkit)
            .args(["tethered", "--parent", &parent, "--", vmkit, "worker"])
            .env_clear()
            .envs(pairs.iter().cloned())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        Self::Process(child.expect("a worker"))
    }

    /// A worker in this process, on a context that `change` may change.
    pub(crate) async fn here(
        settings: &Settings,
        clock: Clock,
        change: impl FnOnce(&mut Context),
    ) -> Self {
        let mut context = open(settings, Part::Worker, clock).await.expect("open");
        change(&mut context);
        let context = Arc::new(context);
        let stop = CancellationToken::new();
        let tasks = work(settings, &context, &stop).await;
        Self::Here { stop, tasks, context }
    }

    /// Its process id, where it has one of its own.
    pub(crate) fn pid(&self) -> Option<rustix::process::Pid> {
        match self {
            Self::Process(child) => {
                rustix::process::Pid::from_raw(i32::try_from(child.id()?).ok()?)
            }
            Self::Here { .. } => None,
        }
    }

    /// Kills the process with SIGKILL, or drops the tasks where they stand; waits until it is gone.
    pub(crate) async fn kill(self) {
        match self {
            Self::Process(mut child) => child.kill().await.expect("killed"),
            Self::Here { stop, tasks, context } => {
                stop.cancel();
                context.fleet.close();
                for task in tasks {
                    task.await.expect("it ends");
                }
            }
        }
    }
}

/// What `vmkit worker` does: the driver, the sweep, the socket of the faces, the door of the agents.
async fn work(
    settings: &Settings,
    context: &Arc<Context>,
    stop: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    let socket = settings.home.socket();
    drop(std::fs::remove_file(&socket));
    let faces = UnixListener::bind(&socket).expect("a socket");
    let address = settings.agent_listen.expect("an address for agents");
    let agents = TcpListener::bind(address).await.expect("the port of the agents");
    let until = stop.clone().cancelled_owned();
    let serve = axum::serve(agents, context.fleet.router().into_make_service())
        .with_graceful_shutdown(until);
    let (fleet, until) = (context.fleet.clone(), stop.clone());
    let driver = Driver::new(Arc::clone(context), format!("test-{:016x}", rand::random::<u64>()));
    let (reaching, until_then) = (Arc::clone(context), stop.clone());
    let (sweeping, over, stop) = (Arc::clone(context), stop.clone(), stop.clone());
    vec![
        tokio::spawn(async move { fleet.serve_socket(faces, until).await }),
        tokio::spawn(async move { drop(serve.await) }),
        tokio::spawn(async move { driver.run(stop).await }),
        tokio::spawn(async move { sweep::daily(&sweeping, &over).await }),
        tokio::spawn(links::keep(reaching, until_then)),
    ]
}

/// A port that is free now, below those that connections of this machine are given.
pub(crate) fn free_address() -> SocketAddr {
    loop {
        let address = SocketAddr::from(([127, 0, 0, 1], rand::random_range(12_000..30_000)));
        if std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
