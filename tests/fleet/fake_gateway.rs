//! A gateway that says what the test wants, over the agent's own socket.

use ed25519_dalek::{Signer, SigningKey};
use tokio::net::UnixStream;
use vmkit_agent_protocol::bytes::Bytes;
use vmkit_agent_protocol::calls::Call;
use vmkit_agent_protocol::handshake::{Welcome, gateway_statement};
use vmkit_agent_protocol::logs::{Batch, FollowLogs, Selector};
use vmkit_agent_protocol::messages::{Item, Outcome, ToAgent, ToGateway};
use vmkit_agent_protocol::wire::{Wire, WireError};
use vmkit_agent_protocol::{OLDEST, PROTOCOL};

use super::rig::{DEADLINE, Rig, until};

/// The gateway's end of a link.
pub(crate) struct FakeGateway {
    pub(crate) wire: Wire,
    taken: u32,
}

impl FakeGateway {
    /// Linked to the rig's agent, which takes it for its own gateway.
    pub(crate) async fn link(rig: &Rig) -> Self {
        Self::link_as(rig, &rig.identity, PROTOCOL).await.expect("a link")
    }

    /// The same with another key or version; the error is the agent's end of the link.
    pub(crate) async fn link_as(
        rig: &Rig,
        key: &SigningKey,
        protocol: u32,
    ) -> Result<Self, WireError> {
        let socket = rig.path("run/vmkit/agent.sock");
        let stream =
            until("the agent's socket is there", async || UnixStream::connect(&socket).await.ok())
                .await;
        let mut wire = Wire::lines(stream);
        let ToGateway::Hello(hello) = wire.receive().await? else { panic!("no hello") };
        let nonce = Bytes(rand::random());
        let statement = gateway_statement(&hello.nonce, &nonce, &hello.vm);
        let signature = Bytes(key.sign(&statement).to_bytes());
        let oldest = protocol.min(OLDEST);
        wire.send(&ToAgent::Welcome(Welcome { protocol, oldest, nonce, signature, bound: false }))
            .await?;
        let mut said = wire.receive().await?;
        if matches!(said, ToGateway::Enrol(_)) {
            said = wire.receive().await?;
        }
        assert!(matches!(said, ToGateway::Proof { .. }), "{said:?}");
        wire.send(&ToAgent::Ready { time_ms: 0 }).await?;
        Ok(Self { wire, taken: 0 })
    }

    pub(crate) async fn call(&mut self, id: u64, call: Call) {
        self.wire.send(&ToAgent::Call { id, call, timeout_ms: 0 }).await.unwrap();
    }

    /// Follows a service's logs with this credit, under the id 1.
    pub(crate) async fn follow(&mut self, service: &str, credit: u32) {
        let selector = Selector { service: Some(service.to_owned()), ..Selector::default() };
        let (backfill, credit) = (1_000_000, Some(credit));
        let follow = FollowLogs { selector, backfill, credit, ..FollowLogs::default() };
        self.call(1, Call::FollowLogs(follow)).await;
    }

    pub(crate) async fn grant(&mut self, items: u32) {
        self.wire.send(&ToAgent::Credit { id: 1, items }).await.unwrap();
    }

    /// The next batch of lines.
    pub(crate) async fn batch(&mut self) -> Batch {
        // A real one gives credit again now and then, by which the agent knows that it is there.
        self.taken += 1;
        if self.taken.is_multiple_of(32) {
            self.grant(1).await;
        }
        loop {
            match self.heard().await {
                ToGateway::Item { item: Item::Logs(batch), .. } => return batch,
                ToGateway::Heartbeat { .. } => self.heartbeat().await,
                other => panic!("no lines: {other:?}"),
            }
        }
    }

    /// How a call ended.
    pub(crate) async fn outcome(&mut self, of: u64) -> Outcome {
        loop {
            match self.heard().await {
                ToGateway::Reply { id, result } if id == of => return result,
                ToGateway::Heartbeat { .. } => self.heartbeat().await,
                _ => {}
            }
        }
    }

    /// Answers, so that the agent goes on taking us for alive.
    pub(crate) async fn heartbeat(&mut self) {
        self.wire.send(&ToAgent::Heard { time_ms: 0 }).await.unwrap();
    }

    pub(crate) async fn heard(&mut self) -> ToGateway {
        let heard = tokio::time::timeout(DEADLINE, self.wire.receive());
        heard.await.expect("the agent says something").expect("the link holds")
    }
}
