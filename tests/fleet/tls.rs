//! Enrolment and link over HTTPS: behind any ordinary proxy that ends TLS, at a gateway that ends it
//! itself and is bound to the session, and through the proxy of a closed network.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use vmkit::fleet::TlsSession;
use vmkit_agent_protocol::calls::Call;

use super::rig::{Agent, DEADLINE, Rig, until};
use super::skips::skip;

/// A certificate for `localhost` that vouches for itself; made now, good for a day.
fn certificate(dir: &Path) -> Result<(), String> {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args([
            "-days",
            "1",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,DNS:gateway.test",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(dir.join("key.pem"))
        .arg("-out")
        .arg(dir.join("cert.pem"))
        .output()
        .map_err(|error| format!("openssl is not installed: {error}"))?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

fn acceptor(dir: &Path) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(dir.join("cert.pem"))
        .unwrap()
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Ends TLS before the rig's gateway; gives the URL.
async fn front(rig: &Rig, dir: &Path) -> String {
    let acceptor = acceptor(dir);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let gateway = rig.cable.address;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut near) = acceptor.accept(stream).await else { return };
                let mut far = TcpStream::connect(gateway).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
            });
        }
    });
    format!("https://localhost:{port}/kit")
}

/// Ends TLS in the gateway itself, which knows each connection's session; gives the URL.
async fn gateway_with_tls(rig: &Rig, dir: &Path) -> String {
    let acceptor = acceptor(dir);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = axum::Router::new().nest("/kit", rig.fleet.router());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let session = TlsSession::of(stream.get_ref().1).unwrap();
                // One connection each, through axum's own server.
                let (near, far) = tokio::io::duplex(1 << 16);
                let router = router.layer(axum::Extension(session));
                let serving = axum::serve(Once::of(far), router);
                let joined = async {
                    let (mut stream, mut near) = (stream, near);
                    drop(tokio::io::copy_bidirectional(&mut stream, &mut near).await);
                };
                tokio::select! {
                    served = serving => served.unwrap(),
                    () = joined => {}
                }
            });
        }
    });
    format!("https://localhost:{port}/kit")
}

/// A listener of one connection.
struct Once(Option<tokio::io::DuplexStream>);

impl Once {
    fn of(stream: tokio::io::DuplexStream) -> Self {
        Self(Some(stream))
    }
}

impl axum::serve::Listener for Once {
    type Io = tokio::io::DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.0.take() {
            Some(stream) => (stream, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(())
    }
}

/// Somebody between the two with a certificate that the agent trusts, who ends TLS and opens it
/// again to the real gateway; gives the URL.
async fn relay(dir: &Path, to: &str) -> String {
    let acceptor = acceptor(dir);
    let port: u16 = to.rsplit(':').next().unwrap().trim_end_matches("/kit").parse().unwrap();
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(dir.join("cert.pem")).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, connector) = (acceptor.clone(), connector.clone());
            tokio::spawn(async move {
                let Ok(mut near) = acceptor.accept(stream).await else { return };
                let far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let name = "localhost".try_into().unwrap();
                let Ok(mut far) = connector.connect(name, far).await else { return };
                drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
            });
        }
    });
    format!("https://localhost:{own}/kit")
}

/// An HTTP proxy that opens tunnels, and counts them.
async fn tunnels() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = near.read_u8().await else { return };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let to = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap();
                // Names are the proxy's business: the agent's network may know none.
                let to = to.replace("gateway.test", "127.0.0.1").replace("localhost", "127.0.0.1");
                let mut far = TcpStream::connect(to).await.unwrap();
                near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
            });
        }
    });
    (url, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_ends_tls_is_bound_to_the_session_and_nobody_comes_between() {
    let rig = Rig::new().await;
    let dir = tempfile::tempdir().unwrap();
    if let Err(reason) = certificate(dir.path()) {
        return skip("link bound to its TLS session", &reason);
    }
    let direct = gateway_with_tls(&rig, dir.path()).await;
    rig.configure_url(&direct);
    let authority = dir.path().join("cert.pem");
    let mut agent = Agent::start_trusting(rig.root.path(), Some(&authority));
    rig.linked().await;
    agent.kill();
    rig.unlinked().await;
    // The same gateway, by way of somebody whose certificate the agent takes.
    let between = relay(dir.path(), &direct).await;
    let config = rig.path("etc/vmkit/agent.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(&direct, &between)).unwrap();
    let _agent = Agent::start_trusting(rig.root.path(), Some(&authority));
    until("the agent refuses it, loudly", async || {
        let log = std::fs::read_to_string(rig.path("agent.log")).unwrap();
        log.contains("does not hold the key that this VM trusts").then_some(())
    })
    .await;
    assert!(!rig.fleet.presence(rig.vm).await.unwrap().linked);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_in_a_closed_network_enrols_and_links_through_its_proxy() {
    let rig = Rig::new().await;
    let dir = tempfile::tempdir().unwrap();
    if let Err(reason) = certificate(dir.path()) {
        return skip("link through a proxy", &reason);
    }
    let direct = front(&rig, dir.path()).await;
    // A name that only the proxy can resolve.
    rig.configure_url(&direct.replace("localhost", "gateway.test"));
    let (proxy, count) = tunnels().await;
    let config = rig.path("etc/vmkit/agent.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("proxy = \"{proxy}\"\n{text}")).unwrap();
    let authority = dir.path().join("cert.pem");
    let _agent = Agent::start_trusting(rig.root.path(), Some(&authority));
    rig.linked().await;
    assert!(count.load(Ordering::SeqCst) >= 2, "one for the enrolment, one for the link");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_links_over_https_below_a_path_and_trusts_no_unknown_certificate() {
    let rig = Rig::new().await;
    let dir = tempfile::tempdir().unwrap();
    if let Err(reason) = certificate(dir.path()) {
        return skip("link over https", &reason);
    }
    rig.configure_url(&front(&rig, dir.path()).await);

    // The machine's own authorities know nothing of this certificate.
    let mut doubtful = rig.start_agent();
    until("the agent says that it does not reach the gateway", async || {
        let log = std::fs::read_to_string(rig.path("agent.log")).unwrap();
        log.contains("not enrolled").then_some(())
    })
    .await;
    doubtful.kill();
    assert!(!rig.fleet.presence(rig.vm).await.unwrap().linked);

    let authority = dir.path().join("cert.pem");
    let _agent = Agent::start_trusting(rig.root.path(), Some(&authority));
    rig.linked().await;
    assert!(rig.fleet.call(rig.vm, Call::HostFacts, DEADLINE).await.is_ok());
}
