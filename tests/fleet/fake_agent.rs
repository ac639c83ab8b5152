//! An agent that says what the test wants, over an in-process stream.

use ed25519_dalek::{Signer, SigningKey};
use tokio::io::DuplexStream;
use vmkit_agent_protocol::bytes::Bytes;
use vmkit_agent_protocol::handshake::{Hello, agent_statement};
use vmkit_agent_protocol::messages::{ToAgent, ToGateway};
use vmkit_agent_protocol::wire::{Wire, WireError};
use vmkit_agent_protocol::{OLDEST, PROTOCOL};

use super::rig::Rig;

/// The agent's end of a link.
pub(crate) struct FakeAgent {
    pub(crate) wire: Wire,
    pub(crate) key: SigningKey,
    pub(crate) hello: Hello,
}

impl FakeAgent {
    /// An agent that the rig's gateway trusts, attached but not yet greeted.
    pub(crate) fn attach(rig: &Rig) -> Self {
        Self::attach_with(rig, SigningKey::from_bytes(&rand::random()))
    }

    /// The same with this key.
    pub(crate) fn attach_with(rig: &Rig, key: SigningKey) -> Self {
        rig.book.trust(rig.vm, key.verifying_key().to_bytes());
        let (ours, theirs): (DuplexStream, DuplexStream) = tokio::io::duplex(1 << 16);
        let fleet = rig.fleet.clone();
        tokio::spawn(async move { drop(fleet.attach(theirs).await) });
        let hello = Hello {
            protocol: PROTOCOL,
            oldest: OLDEST,
            vm: rig.vm.to_string(),
            nonce: Bytes(rand::random()),
            agent_version: "9.9.9".to_owned(),
            arch: "amd64".to_owned(),
            boot_id: "boot".to_owned(),
            time_ms: 0,
            enrolling: false,
            pins: vec![],
        };
        Self { wire: Wire::lines(ours), key, hello }
    }

    /// The agent's part of the handshake; gives the gateway's last word.
    pub(crate) async fn greet(&mut self) -> Result<ToAgent, WireError> {
        self.wire.send(&ToGateway::Hello(self.hello.clone())).await?;
        let welcome = match self.wire.receive().await? {
            ToAgent::Welcome(welcome) => welcome,
            other => return Ok(other),
        };
        let statement = agent_statement(&self.hello.nonce, &welcome.nonce, &self.hello.vm);
        let signature = Bytes(self.key.sign(&statement).to_bytes());
        self.wire.send(&ToGateway::Proof { signature }).await?;
        self.wire.receive().await
    }

    /// The next call that is not the one that fills the log cache, or a cancel.
    pub(crate) async fn asked(&mut self) -> ToAgent {
        loop {
            match self.wire.receive().await.expect("the gateway is there") {
                ToAgent::Call { id: 0, .. } | ToAgent::Heard { .. } => {}
                other => return other,
            }
        }
    }
}
