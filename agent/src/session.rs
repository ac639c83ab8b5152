//! One link, from the hello to its end; the same over WebSocket and over the Unix socket.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::{Signature, Signer, VerifyingKey};
use futures::{SinkExt, StreamExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use vmkit_agent_protocol::bytes::{Bytes, Nonce};
use vmkit_agent_protocol::calls::Call;
use vmkit_agent_protocol::enrol::Refusal;
use vmkit_agent_protocol::handshake::{
    Hello, Mismatch, TlsBinding, Welcome, agent_statement, agree, bound_statement,
    gateway_statement,
};
use vmkit_agent_protocol::messages::{Outcome, ToAgent, ToGateway};
use vmkit_agent_protocol::wire::{Incoming, Outgoing, Wire, WireError};
use vmkit_agent_protocol::{OLDEST, PROTOCOL};

use crate::agent::Agent;
use crate::calls::{self, Fault};
use crate::enrol;
use crate::time::now_ms;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// A gateway that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Messages that wait for the gateway; those who make more wait themselves.
const QUEUE: usize = 16;
/// Calls under way at a time.
const CALLS: usize = 64;
/// The most items of a stream that a gateway can say it takes.
const CREDIT: usize = 1 << 20;

/// Why a link ended, or did not come about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("the connection is gone")]
    Wire(#[source] WireError),
    #[error("the gateway was silent for {seconds} s")]
    Silent { seconds: u64 },
    #[error("the gateway took nothing for {} s", WRITE_TIMEOUT.as_secs())]
    Stuck,
    #[error("the gateway does not hold the key that this VM trusts; nothing was told to it")]
    NotOurGateway,
    #[error("the gateway's certificate or this VM's clock is wrong")]
    OutOfTime(#[source] std::io::Error),
    #[error("the gateway refused the link with {code}: {message}")]
    Refused { code: String, message: String },
    #[error("the versions do not fit")]
    Versions(#[source] Mismatch),
    #[error("the gateway did not keep to the handshake")]
    Handshake,
}

impl LinkError {
    /// True where a person has to do something.
    pub(crate) fn loud(&self) -> bool {
        match self {
            Self::NotOurGateway | Self::OutOfTime(_) | Self::Refused { .. } | Self::Versions(_) => {
                true
            }
            Self::Wire(_) | Self::Silent { .. } | Self::Stuck | Self::Handshake => false,
        }
    }
}

/// Runs a link until the peer or `stop` ends it; calls `greeted` once the handshake is over.
pub(crate) async fn run(
    agent: &Arc<Agent>,
    mut wire: Wire,
    tls: Option<TlsBinding>,
    stop: &CancellationToken,
    greeted: impl FnOnce(),
) -> Result<(), LinkError> {
    let greeting =
        tokio::time::timeout(HANDSHAKE_TIMEOUT, shake_hands(agent, &mut wire, tls.as_ref()));
    tokio::select! {
        shaken = greeting => {
            shaken.map_err(|_| LinkError::Silent { seconds: HANDSHAKE_TIMEOUT.as_secs() })??;
        }
        () = stop.cancelled() => return Ok(()),
    }
    tracing::info!("linked");
    agent.linked();
    greeted();
    let (queue, queued) = mpsc::channel(QUEUE);
    let link = Link { agent: Arc::clone(agent), queue, calls: JoinSet::new(), ids: HashMap::new() };
    tokio::select! {
        ended = link.listen(wire.incoming) => ended,
        stuck = write(wire.outgoing, queued) => Err(stuck),
        () = stop.cancelled() => Ok(()),
    }
}

async fn shake_hands(
    agent: &Agent,
    wire: &mut Wire,
    tls: Option<&TlsBinding>,
) -> Result<(), LinkError> {
    let nonce: Nonce = Bytes(rand::random());
    let enrolment = agent.enrolment();
    let hello = Hello {
        protocol: PROTOCOL,
        oldest: OLDEST,
        vm: agent.vm().to_owned(),
        nonce,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        arch: calls::facts::arch(),
        boot_id: calls::facts::boot_id(agent.host()),
        time_ms: now_ms(),
        enrolling: enrolment.is_some(),
        pins: agent.pinned(),
    };
    wire.send(&ToGateway::Hello(hello)).await.map_err(LinkError::Wire)?;
    let welcome = match wire.receive().await.map_err(LinkError::Wire)? {
        ToAgent::Welcome(welcome) => welcome,
        ToAgent::Refused(Refusal { code, message }) => {
            return Err(LinkError::Refused { code, message });
        }
        _ => return Err(LinkError::Handshake),
    };
    agree(welcome.protocol, welcome.oldest).map_err(LinkError::Versions)?;
    if !is_ours(agent, &nonce, &welcome, tls) {
        return Err(LinkError::NotOurGateway);
    }
    // The gateway has proven itself, so the token goes to nobody else.
    if let Some(token) = enrolment {
        let request = ToGateway::Enrol(enrol::request(agent, token));
        wire.send(&request).await.map_err(LinkError::Wire)?;
    }
    let statement = agent_statement(&nonce, &welcome.nonce, agent.vm());
    let signature = Bytes(agent.key().sign(&statement).to_bytes());
    wire.send(&ToGateway::Proof { signature }).await.map_err(LinkError::Wire)?;
    match wire.receive().await.map_err(LinkError::Wire)? {
        ToAgent::Ready { .. } => {
            agent.enrolled().await;
            Ok(())
        }
        ToAgent::Refused(Refusal { code, message }) => Err(LinkError::Refused { code, message }),
        _ => Err(LinkError::Handshake),
    }
}

/// Whether a key that we have pinned vouches for the welcome; for this very TLS session too, where
/// the gateway ends it.
fn is_ours(agent: &Agent, nonce: &Nonce, welcome: &Welcome, tls: Option<&TlsBinding>) -> bool {
    let statement = match (welcome.bound, tls) {
        (false, _) => gateway_statement(nonce, &welcome.nonce, agent.vm()),
        (true, Some(tls)) => bound_statement(nonce, &welcome.nonce, tls, agent.vm()),
        (true, None) => return false,
    };
    let signature = Signature::from_bytes(&welcome.signature.0);
    agent.pinned().iter().any(|key| {
        VerifyingKey::from_bytes(&key.0)
            .is_ok_and(|key| key.verify_strict(&statement, &signature).is_ok())
    })
}

/// Sends what is queued, and flushes whenever nothing more waits.
async fn write(mut outgoing: Outgoing, mut queued: mpsc::Receiver<String>) -> LinkError {
    while let Some(text) = queued.recv().await {
        let sending = async {
            outgoing.feed(text).await?;
            // Bounded: a flush at least every queue's length.
            for _ in 0..QUEUE {
                match queued.try_recv() {
                    Ok(text) => outgoing.feed(text).await?,
                    Err(_) => break,
                }
            }
            outgoing.flush().await
        };
        match tokio::time::timeout(WRITE_TIMEOUT, sending).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return LinkError::Wire(error),
            Err(_) => return LinkError::Stuck,
        }
    }
    LinkError::Wire(WireError::Closed)
}

/// A call of this link: where its answer goes, and how much of a stream may go there.
#[derive(Debug)]
pub(crate) struct Asker {
    pub(crate) id: u64,
    pub(crate) queue: mpsc::Sender<String>,
    credit: Semaphore,
}

impl Asker {
    /// The gateway can take so many more items; no gateway's word makes this more than it can hold.
    pub(crate) fn grant(&self, items: u32) {
        let room = CREDIT.saturating_sub(self.credit.available_permits());
        self.credit.add_permits(room.min(usize::try_from(items).unwrap_or(CREDIT)));
    }

    /// Waits until the gateway can take an item; false never, since nobody closes this.
    pub(crate) async fn spend(&self) -> bool {
        self.credit.acquire().await.map(tokio::sync::SemaphorePermit::forget).is_ok()
    }
}

struct Link {
    agent: Arc<Agent>,
    queue: mpsc::Sender<String>,
    calls: JoinSet<u64>,
    ids: HashMap<u64, (AbortHandle, Arc<Asker>)>,
}

impl Link {
    async fn listen(mut self, mut incoming: Incoming) -> Result<(), LinkError> {
        let mut beat = tokio::time::interval(self.agent.heartbeat());
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let patience = self.agent.heartbeat().saturating_mul(3);
        let mut silent_at = Instant::now() + patience;
        loop {
            tokio::select! {
                message = incoming.next() => {
                    let Some(text) = message else { return Ok(()) };
                    let text = text.map_err(LinkError::Wire)?;
                    silent_at = Instant::now() + patience;
                    let message = serde_json::from_str(&text)
                        .map_err(|error| LinkError::Wire(WireError::NotUnderstood(error)))?;
                    if let ToAgent::Refused(Refusal { code, message }) = message {
                        return Err(LinkError::Refused { code, message });
                    }
                    self.take(message).await;
                }
                _ = beat.tick() => {
                    // A full queue means that the gateway hears from us anyway. It has nothing to
                    // answer then, and whether it takes what we send is watched where that is sent.
                    if let Some(text) = text(&ToGateway::Heartbeat { time_ms: now_ms() })
                        && self.queue.try_send(text).is_err()
                    {
                        silent_at = Instant::now() + patience;
                    }
                }
                Some(ended) = self.calls.join_next() => {
                    if let Ok(id) = ended {
                        self.ids.remove(&id);
                    }
                }
                () = tokio::time::sleep_until(silent_at) => {
                    return Err(LinkError::Silent { seconds: patience.as_secs() });
                }
            }
        }
    }

    async fn take(&mut self, message: ToAgent) {
        match message {
            ToAgent::Call { id, call, timeout_ms } => {
                if self.calls.len() >= CALLS {
                    reply(&self.queue, id, Err(Fault::busy())).await;
                    return;
                }
                let (queue, credit) = (self.queue.clone(), Semaphore::new(0));
                let asker = Arc::new(Asker { id, queue, credit });
                let work = answer(Arc::clone(&self.agent), Arc::clone(&asker), call, timeout_ms);
                self.ids.insert(id, (self.calls.spawn(work), asker));
            }
            ToAgent::Cancel { id } => {
                if let Some((call, _)) = self.ids.remove(&id) {
                    call.abort();
                }
            }
            ToAgent::Credit { id, items } => {
                if let Some((_, asker)) = self.ids.get(&id) {
                    asker.grant(items);
                }
            }
            ToAgent::Heard { .. }
            | ToAgent::Welcome(_)
            | ToAgent::Ready { .. }
            | ToAgent::Refused(_)
            | ToAgent::Unknown => {}
        }
    }
}

/// Does one call and replies. Dropping this future ends the call.
async fn answer(agent: Arc<Agent>, asker: Arc<Asker>, call: Call, timeout_ms: u64) -> u64 {
    let work = calls::perform(&agent, call, &asker);
    let result = if timeout_ms == 0 {
        work.await
    } else {
        let limit = Duration::from_millis(timeout_ms);
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(Fault::timed_out(limit)))
    };
    reply(&asker.queue, asker.id, result).await;
    asker.id
}

async fn reply(
    queue: &mpsc::Sender<String>,
    id: u64,
    result: Result<vmkit_agent_protocol::calls::Reply, Fault>,
) {
    let result = match result {
        Ok(reply) => Outcome::Ok { reply },
        Err(Fault { code, message }) => Outcome::Fault(Refusal { code: code.to_owned(), message }),
    };
    if let Some(text) = text(&ToGateway::Reply { id, result }) {
        // A closed queue means that the link is gone, and with it whoever asked.
        drop(queue.send(text).await);
    }
}

/// A message as it goes over the wire. Our own types always serialise; should one not, the peer's
/// time-out covers it.
pub(crate) fn text(message: &ToGateway) -> Option<String> {
    serde_json::to_string(message).ok()
}
