//! The Docker engine's API, in a version that this engine speaks.

use bollard::{ClientVersion, Docker};
use tokio::sync::Mutex;

use crate::host::Host;

/// For one request up to its answer's head; a followed log then runs without an end.
const TIMEOUT_S: u64 = 60;

/// API versions to ask with, newest first. An engine refuses what is newer than itself, and new
/// engines refuse what is older than 1.44.
const VERSIONS: [ClientVersion; 3] = [
    ClientVersion { major_version: 1, minor_version: 44 },
    ClientVersion { major_version: 1, minor_version: 41 },
    ClientVersion { major_version: 1, minor_version: 30 },
];

/// The host's engine, connected at first use.
#[derive(Debug)]
pub(crate) struct Engine {
    host: Host,
    connected: Mutex<Option<Docker>>,
}

impl Engine {
    pub(crate) fn new(host: Host) -> Self {
        Self { host, connected: Mutex::new(None) }
    }

    /// Asks the engine for its version again at the next use: it may be another one by then.
    pub(crate) async fn forget(&self) {
        *self.connected.lock().await = None;
    }

    /// A connection whose API version the engine has accepted.
    ///
    /// # Errors
    /// Where no engine answers.
    pub(crate) async fn get(&self) -> Result<Docker, bollard::errors::Error> {
        let mut connected = self.connected.lock().await;
        if let Some(docker) = connected.as_ref() {
            return Ok(docker.clone());
        }
        let socket = self.host.docker_socket();
        let mut answer = None;
        for version in &VERSIONS {
            let docker =
                Docker::connect_with_socket(&socket.to_string_lossy(), TIMEOUT_S, version)?;
            match docker.version().await {
                Ok(_) => {
                    *connected = Some(docker.clone());
                    return Ok(docker);
                }
                Err(error @ bollard::errors::Error::DockerResponseServerError { .. }) => {
                    answer = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(answer.unwrap_or(bollard::errors::Error::APIVersionParseError {}))
    }
}
