//! A connection to the gateway: through the proxy where there is one, and TLS by the machine's own
//! authorities where the gateway's URL says so.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::MaybeTlsStream;

use crate::config::Gateway;
use crate::proxy::Proxy;
use crate::time::now_rfc3339;

/// A stream that an HTTP request can go over. Dropping the future ends the attempt.
pub(crate) async fn connect(
    gateway: &Gateway,
    proxy: Option<&Proxy>,
) -> io::Result<MaybeTlsStream<TcpStream>> {
    let (host, port) = gateway.address();
    let stream = match proxy.filter(|_| gateway.is_tls()) {
        Some(proxy) => proxy.tunnel(host, port).await?,
        None => TcpStream::connect((bare(host), port)).await?,
    };
    stream.set_nodelay(true)?;
    if !gateway.is_tls() {
        return Ok(MaybeTlsStream::Plain(stream));
    }
    let name = ServerName::try_from(bare(host).to_owned()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(trusting_the_machines_authorities()?));
    Ok(MaybeTlsStream::Rustls(connector.connect(name, stream).await.map_err(with_the_time)?))
}

/// A certificate that is not valid at this time: which of the two is wrong, nobody here can know.
#[derive(Debug, thiserror::Error)]
#[error(
    "by this VM's clock, which shows {shows}, the gateway's certificate {verdict}; if the clock is \
     wrong, set it (`timedatectl`), else the gateway needs another certificate"
)]
struct OutOfTime {
    shows: String,
    verdict: &'static str,
}

fn with_the_time(error: io::Error) -> io::Error {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let verdict = match tls {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => "has expired",
        Some(rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        )) => "is not valid yet",
        _ => return error,
    };
    io::Error::other(OutOfTime { shows: now_rfc3339(), verdict })
}

/// Whether a connection failed for that reason.
pub(crate) fn is_out_of_time(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<OutOfTime>())
}

/// Read anew each time: the agent dials seldom, and the machine's authorities change without it.
fn trusting_the_machines_authorities() -> io::Result<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        return Err(io::Error::other(format!(
            "this machine has no certificate authorities{why}; install `ca-certificates`"
        )));
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    // What is spoken over it is HTTP/1.1, whatever else the gateway's front could do.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// An IPv6 address without its brackets.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}
