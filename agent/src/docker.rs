//! The Docker engine's API. bollard names no version in its requests, whichever it is given (it
//! joins the path to a URL that has the version, which loses it), so each is answered by the
//! newest API of the engine that is there: none is too old for an engine, and none too new.

use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::sync::Mutex;

use crate::host::Host;

/// For one request up to its answer's head; a followed log then runs without an end.
const TIMEOUT_S: u64 = 60;

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

    /// Connects again at the next use: it may be another engine by then.
    pub(crate) async fn forget(&self) {
        *self.connected.lock().await = None;
    }

    /// A connection that the engine has answered over.
    ///
    /// # Errors
    /// Where no engine answers.
    pub(crate) async fn get(&self) -> Result<Docker, bollard::errors::Error> {
        let mut connected = self.connected.lock().await;
        if let Some(docker) = connected.as_ref() {
            return Ok(docker.clone());
        }
        let socket = self.host.docker_socket();
        let socket = socket.to_string_lossy();
        let docker = Docker::connect_with_socket(&socket, TIMEOUT_S, API_DEFAULT_VERSION)?;
        docker.version().await?;
        *connected = Some(docker.clone());
        Ok(docker)
    }
}
