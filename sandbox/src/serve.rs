//! Serving a router on TCP and on Unix sockets, with two things that axum's own loop lacks: an
//! answer that closes the connection unsaid, and an end that takes open connections with it.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::response::Response;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::SandboxError;

/// In the extensions of a response: close the connection without an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vanish;

/// A server that runs until it is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Server {
    off: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Listens on `address` (port 0 picks one).
    pub(crate) async fn bind(
        address: SocketAddr,
    ) -> Result<(TcpListener, SocketAddr), SandboxError> {
        let fail = |source| SandboxError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let bound = listener.local_addr().map_err(fail)?;
        Ok((listener, bound))
    }

    /// Serves `router` on a listener.
    pub(crate) fn start(listener: TcpListener, router: Router) -> Self {
        let off = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (accepting, connections) = (off.clone(), tasks.clone());
        tasks.spawn(async move {
            while let Some(accepted) = accepting.run_until_cancelled(listener.accept()).await {
                if let Ok((stream, _)) = accepted {
                    // Small answers must not wait for a full packet.
                    drop(stream.set_nodelay(true));
                    connections.spawn(connection(stream, router.clone(), accepting.clone()));
                }
            }
        });
        Self { off, tasks }
    }

    /// Closes the listener and every connection.
    pub(crate) async fn stop(&self) {
        self.off.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.off.cancel();
    }
}

/// Serves `router` on a Unix socket until `off`.
pub(crate) fn serve_unix(
    listener: UnixListener,
    router: Router,
    off: &CancellationToken,
    tasks: &TaskTracker,
) {
    let (accepting, connections) = (off.clone(), tasks.clone());
    tasks.spawn(async move {
        while let Some(accepted) = accepting.run_until_cancelled(listener.accept()).await {
            if let Ok((stream, _)) = accepted {
                connections.spawn(connection(stream, router.clone(), accepting.clone()));
            }
        }
    });
}

async fn connection<I>(io: I, router: Router, off: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |request| {
        let answer = inner.call(request);
        async move {
            let response: Response = match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            match response.extensions().get::<Vanish>() {
                Some(Vanish) => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
                None => Ok(response),
            }
        }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    // A client that goes away, or an answer that is never given, is no news.
    drop(off.run_until_cancelled(serving).await);
}
