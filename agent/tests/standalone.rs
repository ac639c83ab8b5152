//! The agent without a gateway: its command line, its configuration, its end.

#![expect(clippy::unwrap_used, reason = "what a test's helper cannot get is the test's failure")]

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vmkit_agent::agent::{self, AgentError, Rhythm};
use vmkit_agent::host::Host;
use vmkit_agent_protocol::bytes::Bytes;

const DEADLINE: Duration = Duration::from_secs(30);

fn configure(root: &Path, extra: &str) {
    let path = Host::new(root).config_file();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let key = Bytes([7; 32]);
    std::fs::write(path, format!("vm = \"vm_x\"\ngateway_key = \"{key}\"\n{extra}\n")).unwrap();
}

fn run(words: &[&str]) -> String {
    // An exit code shows itself only in its `Debug` form.
    format!("{:?}", vmkit_agent::cli::run(words.iter().map(OsString::from)))
}

#[test]
fn usage_and_failure_have_different_exit_codes() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().to_str().unwrap();
    assert_eq!(run(&["--version"]), format!("{:?}", std::process::ExitCode::SUCCESS));
    assert_eq!(run(&["dance"]), format!("{:?}", std::process::ExitCode::from(2)));
    assert_eq!(
        run(&["run", "--heartbeat-ms", "0"]),
        format!("{:?}", std::process::ExitCode::from(2))
    );
    assert_eq!(run(&["run", "--root", root]), format!("{:?}", std::process::ExitCode::FAILURE));
    assert_eq!(run(&["bridge", "--root", root]), format!("{:?}", std::process::ExitCode::FAILURE));
}

#[tokio::test]
async fn an_agent_without_gateway_serves_its_socket_and_ends_when_told() {
    let root = tempfile::tempdir().unwrap();
    configure(root.path(), "");
    let (host, stop) = (Host::new(root.path()), CancellationToken::new());
    let socket = host.agent_socket();
    // Left behind by one that was killed.
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let running = tokio::spawn(agent::run(host, Rhythm::default(), stop.clone()));
    tokio::time::timeout(DEADLINE, async {
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    stop.cancel();
    tokio::time::timeout(DEADLINE, running).await.unwrap().unwrap().unwrap();
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_gateway_that_never_answers_does_not_keep_the_agent_from_ending() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for extra in ["", "enrolment_token = \"token-for-tests\""] {
        let root = tempfile::tempdir().unwrap();
        configure(root.path(), &format!("gateway = \"http://{address}\"\n{extra}"));
        let (host, stop) = (Host::new(root.path()), CancellationToken::new());
        let socket = host.agent_socket();
        let running = tokio::spawn(agent::run(host, Rhythm::default(), stop.clone()));
        tokio::time::timeout(DEADLINE, async {
            while !socket.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
        // The gateway takes the connection, and says nothing.
        let (_held, _) = tokio::task::spawn_blocking({
            let listener = listener.try_clone().unwrap();
            move || listener.accept().unwrap()
        })
        .await
        .unwrap();
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), running).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_configuration_is_said() {
    let root = tempfile::tempdir().unwrap();
    let start = async |root: &Path| {
        agent::run(Host::new(root), Rhythm::default(), CancellationToken::new()).await
    };
    assert!(matches!(start(root.path()).await, Err(AgentError::Config(_))));
    configure(root.path(), "gateway = \"http://vm.example.com\"");
    let Err(AgentError::Config(error)) = start(root.path()).await else {
        panic!("plain http to another machine is refused");
    };
    assert!(error.to_string().contains("must be https"), "{error}");
    configure(root.path(), "");
    let key = Host::new(root.path()).key_file();
    std::fs::create_dir_all(key.parent().unwrap()).unwrap();
    std::fs::write(&key, "not a key").unwrap();
    assert!(matches!(start(root.path()).await, Err(AgentError::Identity(_))));
}
