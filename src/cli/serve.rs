//! `vmkit serve`: the gateway.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::{CliError, Start, life, worker};
use crate::access::{Audit, Keys};
use crate::http::{self, Gateway, HttpError};
use crate::installation::Part;
use crate::mcp::{Server, ToolError};
use crate::operations::deploy::pushed;
use crate::operations::destroy::sweep;
use crate::operations::{Driver, OpError, links, silence, webhooks};

/// How long answers under way may take once the gateway is to end.
const GRACE: Duration = Duration::from_secs(3);

/// Serve MCP over HTTP to everybody with a key (`vmkit keys create`), and to agents.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The address to listen on; put a proxy with HTTPS before it, or use a tunnel.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// Ask for no key: whoever can connect may do everything. On a loopback address only.
    #[arg(long)]
    no_auth: bool,
}

impl From<HttpError> for CliError {
    fn from(error: HttpError) -> Self {
        Self::new(error.code(), error.to_string()).usage()
    }
}

impl Serve {
    pub(super) async fn run(self, start: Start) -> Result<ExitCode, CliError> {
        life::tie(&start.settings);
        start.settings.home.prepare()?;
        let Some(_alone) = life::lock_alone(&start.settings.home.worker_lock())? else {
            let message = format!("{} is served already", start.settings.home.path().display());
            return Err(CliError::new("worker_running", message).fix("end the other process first"));
        };
        let context = Arc::new(start.open(Part::Gateway).await?);
        let url = start.settings.public_url.clone();
        let door = http::door(
            Keys::new(context.store.clone()),
            start.clock.clone(),
            self.no_auth,
            self.listen,
            url.as_ref(),
        )?;
        let listener = TcpListener::bind(self.listen).await.map_err(|error| {
            CliError::io(&format!("cannot listen on {}", self.listen), &error)
                .fix("choose another address with --listen")
        })?;
        let address = listener.local_addr().unwrap_or(self.listen);
        let remembered = url.as_ref().map_or(format!("http://{address}"), ToString::to_string);
        context.store.set_url(Some(remembered)).await.map_err(OpError::from)?;
        let stop = life::asked_to_end()?;
        let tasks = TaskTracker::new();
        worker::serve_faces(&start.settings, &context, &stop, &tasks)?;
        let driver = Driver::new(Arc::clone(&context), worker::holder());
        tasks.spawn(links::keep(Arc::clone(&context), stop.clone()));
        let until = stop.clone();
        tasks.spawn(async move { driver.run(until).await });
        let (sweeping, until) = (Arc::clone(&context), stop.clone());
        tasks.spawn(async move { sweep::daily(&sweeping, &until).await });
        let (asking, until) = (Arc::clone(&context), stop.clone());
        tasks.spawn(async move { silence::watch(&asking, &until).await });
        let (looking, until) = (Arc::clone(&context), stop.clone());
        tasks.spawn(async move { pushed::watch(&looking, &until).await });
        let (hearing, until) = (Arc::clone(&context), stop.clone());
        tasks.spawn(async move { webhooks::work(&hearing, &until).await });
        let audit = Audit::new(context.store.clone(), context.clock.clone());
        let server = Server::new(audit, Arc::clone(&context));
        let closing = server.closing().clone();
        let store = context.store.clone();
        let gateway = Gateway {
            server,
            door,
            public_url: url,
            agents: http::agents(Arc::clone(&context)),
            webhooks: http::webhooks(Arc::clone(&context)),
            ready: Arc::new(move || {
                let store = store.clone();
                Box::pin(async move {
                    store.environments().await.map_err(OpError::from).map_err(ToolError::from)?;
                    Ok(())
                })
            }),
            stop: stop.clone(),
        };
        super::say(&format!("serving MCP at http://{address}/mcp"));
        let keys = context.store.keys().await.map_err(OpError::from)?;
        if !self.no_auth && keys.iter().all(|key| key.revoked_at.is_some()) {
            super::say("nobody can use it yet: make a key with `vmkit keys create`");
        }
        let ended = stop.clone();
        let served = axum::serve(listener, gateway.router()).with_graceful_shutdown(async move {
            ended.cancelled().await;
            closing.cancel();
        });
        // A client that stays silent in the middle of a request must not keep us.
        let patience = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        let served = tokio::select! {
            served = served.into_future() => served,
            () = patience => Ok(()),
        };
        stop.cancel();
        tasks.close();
        drop(tokio::time::timeout(Duration::from_secs(10), tasks.wait()).await);
        served.map_err(|error| CliError::io("serving ended", &error))?;
        Ok(ExitCode::SUCCESS)
    }
}
