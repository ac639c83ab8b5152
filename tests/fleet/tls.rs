//! Enrolment and link over HTTPS: behind any ordinary proxy that ends TLS, at a gateway that ends it
//! itself and is bound to the session, and through the proxy of a closed network.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use vmkit::fleet::TlsSession;
use vmkit_agent_protocol::calls::Call;

use super::rig::{Agent, DEADLINE, Rig, until};

/// An authority of the test's own; its certificate stands where an agent can be told to look.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

/// From which year on, and until which, a certificate is valid.
const GOOD: (i32, i32) = (2001, 2999);
const EXPIRED: (i32, i32) = (2001, 2002);
const NOT_YET: (i32, i32) = (2998, 2999);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("authority.pem"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    /// With a fresh certificate of these years, and a fresh key.
    fn acceptor(&self, (from, until): (i32, i32)) -> TlsAcceptor {
        let names = ["localhost", "gateway.test"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(until, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Ends TLS before the rig's gateway; gives the URL.
async fn front(rig: &Rig, acceptor: TlsAcceptor) -> String {
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

/// The certificate that a gateway has now, and how many connections it was good for.
#[derive(Clone)]
struct Certificate(Arc<Mutex<(TlsAcceptor, usize)>>);

impl Certificate {
    fn of(acceptor: TlsAcceptor) -> Self {
        Self(Arc::new(Mutex::new((acceptor, 0))))
    }

    fn renew(&self, acceptor: TlsAcceptor) {
        *self.0.lock().unwrap() = (acceptor, 0);
    }

    fn taken(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

/// Ends TLS in the gateway itself, which knows each connection's session; gives the URL.
async fn gateway_with_tls(rig: &Rig, certificate: &Certificate) -> String {
    let certificate = certificate.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = axum::Router::new().nest("/kit", rig.fleet.router());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (certificate, router) = (certificate.clone(), router.clone());
            tokio::spawn(async move {
                let acceptor = certificate.0.lock().unwrap().0.clone();
                let Ok(stream) = acceptor.accept(stream).await else { return };
                certificate.0.lock().unwrap().1 += 1;
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
async fn relay(authority: &Authority, to: &str) -> String {
    let acceptor = authority.acceptor(GOOD);
    let port: u16 = to.rsplit(':').next().unwrap().trim_end_matches("/kit").parse().unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).unwrap();
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
    let authority = Authority::new();
    let direct = gateway_with_tls(&rig, &Certificate::of(authority.acceptor(GOOD))).await;
    rig.configure_url(&direct);
    let mut agent = Agent::start_trusting(rig.root.path(), Some(&authority.file()));
    rig.linked().await;
    agent.kill();
    rig.unlinked().await;
    // The same gateway, by way of somebody whose certificate the agent takes.
    let between = relay(&authority, &direct).await;
    let config = rig.path("etc/vmkit/agent.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(&direct, &between)).unwrap();
    let _agent = Agent::start_trusting(rig.root.path(), Some(&authority.file()));
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
    let authority = Authority::new();
    let direct = front(&rig, authority.acceptor(GOOD)).await;
    // A name that only the proxy can resolve.
    rig.configure_url(&direct.replace("localhost", "gateway.test"));
    let (proxy, count) = tunnels().await;
    let config = rig.path("etc/vmkit/agent.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("proxy = \"{proxy}\"\n{text}")).unwrap();
    let _agent = Agent::start_trusting(rig.root.path(), Some(&authority.file()));
    rig.linked().await;
    assert!(count.load(Ordering::SeqCst) >= 2, "one for the enrolment, one for the link");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_links_over_https_below_a_path_and_trusts_no_unknown_certificate() {
    let rig = Rig::new().await;
    let authority = Authority::new();
    rig.configure_url(&front(&rig, authority.acceptor(GOOD)).await);

    // The machine's own authorities know nothing of this certificate.
    let mut doubtful = rig.start_agent();
    until("the agent says that it does not reach the gateway", async || {
        let log = std::fs::read_to_string(rig.path("agent.log")).unwrap();
        log.contains("not enrolled").then_some(())
    })
    .await;
    doubtful.kill();
    assert!(!rig.fleet.presence(rig.vm).await.unwrap().linked);

    let _agent = Agent::start_trusting(rig.root.path(), Some(&authority.file()));
    rig.linked().await;
    assert!(rig.fleet.call(rig.vm, Call::HostFacts, DEADLINE).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_cuts_nobody_off_and_one_out_of_its_time_is_told() {
    let rig = Rig::new().await;
    let authority = Authority::new();
    let certificate = Certificate::of(authority.acceptor(GOOD));
    rig.configure_url(&gateway_with_tls(&rig, &certificate).await);
    let _agent = Agent::start_trusting(rig.root.path(), Some(&authority.file()));
    rig.linked().await;
    let since = async || rig.fleet.presence(rig.vm).await.unwrap().since;
    let first = since().await;
    certificate.renew(authority.acceptor(GOOD));
    assert!(rig.fleet.call(rig.vm, Call::HostFacts, DEADLINE).await.is_ok());
    assert_eq!((since().await, certificate.taken()), (first, 0), "the link is the same");
    let log = || std::fs::read_to_string(rig.path("agent.log")).unwrap();
    for (years, told) in [(EXPIRED, "has expired"), (NOT_YET, "is not valid yet")] {
        // Other links come over what is there now, the first time with the renewed one.
        rig.fleet.relink(rig.vm);
        until("another link is up", async || {
            let presence = rig.fleet.presence(rig.vm).await.unwrap();
            (presence.linked && certificate.taken() > 0).then_some(())
        })
        .await;
        certificate.renew(authority.acceptor(years));
        rig.fleet.relink(rig.vm);
        until("the agent tells whose time is wrong, loudly", async || {
            let told = format!("the gateway's certificate {told}");
            let line = log().lines().find(|line| line.contains(&told))?.to_owned();
            (line.contains("ERROR") && line.contains("by this VM's clock")).then_some(())
        })
        .await;
        rig.unlinked().await;
        certificate.renew(authority.acceptor(GOOD));
        rig.linked().await;
    }
}
