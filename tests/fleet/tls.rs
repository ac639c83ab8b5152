//! Enrolment and link over HTTPS, as behind any ordinary proxy that ends TLS.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use vmkit_agent_protocol::calls::Call;

use super::rig::{Agent, DEADLINE, Rig, until};
use super::skips::skip;

/// A certificate for `localhost` that vouches for itself; made now, good for a day.
fn certificate(dir: &Path) -> Result<(), String> {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(dir.join("key.pem"))
        .arg("-out")
        .arg(dir.join("cert.pem"))
        .output()
        .map_err(|error| format!("openssl is not installed: {error}"))?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

/// Ends TLS before the rig's gateway; gives the URL.
async fn front(rig: &Rig, dir: &Path) -> String {
    let chain = CertificateDer::pem_file_iter(dir.join("cert.pem"))
        .unwrap()
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
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
