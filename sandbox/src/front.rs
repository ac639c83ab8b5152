//! One simulator's front: its listener, its faults, its side door.

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;

use crate::SandboxError;
use crate::faults::{Faults, StateOf, Style};
use crate::serve::Server;

/// A listener whose address is known and that is not served yet, since a simulator needs to know
/// its own URL.
pub(crate) struct Door {
    pub(crate) faults: Faults,
    listener: TcpListener,
    address: SocketAddr,
}

impl Door {
    /// Listens on `address` (port 0 picks one).
    pub(crate) async fn open(address: SocketAddr, style: Style) -> Result<Self, SandboxError> {
        let (listener, address) = Server::bind(address).await?;
        Ok(Self { faults: Faults::new(style), listener, address })
    }

    /// Such as `http://127.0.0.1:4010`.
    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves the simulator behind its faults, and beside it `/_sandbox`, with `more` in it.
    pub(crate) fn serve(self, api: Router, more: Router, state: StateOf) -> Front {
        let router = self.faults.layer(api).merge(self.faults.admin(state)).merge(more);
        let origin = self.origin();
        let server = Server::start(self.listener, router);
        Front { faults: self.faults, origin, server }
    }
}

/// A simulator that is served.
pub(crate) struct Front {
    pub(crate) faults: Faults,
    /// Such as `http://127.0.0.1:4010`.
    pub(crate) origin: String,
    server: Server,
}

impl Front {
    pub(crate) async fn stop(&self) {
        self.server.stop().await;
        self.faults.close();
    }
}
