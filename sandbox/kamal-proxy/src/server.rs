//! `kamal-proxy run`: port 80 and port 443, until SIGTERM.

use std::net::SocketAddr;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::LazyConfigAcceptor;

use crate::certificates::Certificates;
use crate::requests::{Front, answer};
use crate::routes::Routes;
use crate::{control, log};

/// Serves until the container is stopped.
pub(crate) async fn run() -> Result<String, String> {
    let routes = Routes::load();
    let certificates = Certificates::default();
    let fail = |error: std::io::Error| error.to_string();
    let mut end = signal(SignalKind::terminate()).map_err(fail)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
    control::serve(routes.clone())?;
    for (port, tls) in [(80, false), (443, true)] {
        let listener = TcpListener::bind(("0.0.0.0", port)).await.map_err(fail)?;
        let front = Front { routes: routes.clone(), certificates: certificates.clone(), tls, port };
        tokio::spawn(accept(listener, front));
    }
    log::note("INFO", "Server started", json!({"http": 80, "https": 443}));
    tokio::select! {
        _ = end.recv() => {}
        _ = interrupt.recv() => {}
    }
    log::note("INFO", "Server stopped", json!({}));
    Ok(String::new())
}

async fn accept(listener: TcpListener, front: Front) {
    loop {
        let Ok((stream, from)) = listener.accept().await else { continue };
        let front = front.clone();
        tokio::spawn(async move {
            drop(stream.set_nodelay(true));
            if !front.tls {
                return serve(stream, front, from).await;
            }
            match secure(stream, &front).await {
                Ok(stream) => serve(stream, front, from).await,
                Err(why) => {
                    let message = format!("http: TLS handshake error from {from}: {why}");
                    log::note("ERROR", &message, json!({}));
                }
            }
        });
    }
}

async fn secure(
    stream: TcpStream,
    front: &Front,
) -> Result<tokio_rustls::server::TlsStream<TcpStream>, String> {
    let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
    let start = acceptor.await.map_err(|error| error.to_string())?;
    let name = start.client_hello().server_name().map(str::to_ascii_lowercase);
    let name = name.ok_or("acme/autocert: missing server name")?;
    if !front.routes.has_tls(&name) {
        return Err(format!("acme/autocert: host \"{name}\" not configured in HostWhitelist"));
    }
    let config = front.certificates.for_name(&name).await?;
    start.into_stream(config).await.map_err(|error| error.to_string())
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    front: Front,
    from: SocketAddr,
) {
    let service = service_fn(move |request| answer(front.clone(), from, request));
    let mut builder = http1::Builder::new();
    let connection =
        builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    // A client that goes away in the middle is nobody's fault.
    drop(connection.await);
}
