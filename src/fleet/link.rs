//! One link as the gateway sees it, from the hello to its end; the same over every kind of wire.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ed25519_dalek::{Signature, Signer, VerifyingKey};
use futures::{SinkExt, StreamExt};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;
use vmkit_agent_protocol::bytes::{Bytes, Nonce};
use vmkit_agent_protocol::calls::{Call, Reply};
use vmkit_agent_protocol::care::{Care, TrustGateway};
use vmkit_agent_protocol::enrol::{EnrolRequest, Refusal};
use vmkit_agent_protocol::handshake::{
    Hello, Mismatch, TlsBinding, Welcome, agent_statement, agree, bound_statement,
    gateway_statement,
};
use vmkit_agent_protocol::logs::{FollowLogs, Selector};
use vmkit_agent_protocol::messages::{Item, Outcome, ToAgent, ToGateway};
use vmkit_agent_protocol::wire::{Outgoing, Wire, WireError};
use vmkit_agent_protocol::{OLDEST, PROTOCOL};

use super::hub::{Answer, Ask, Hub, LinkHandle};
use super::identity::{Met, meet};
use super::{EnrolRefusal, FleetError, Trouble};
use crate::domain::ids::VmId;
use crate::domain::secret::Secret;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// An agent that takes nothing for so long is gone; it always reads.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A link that ends has so long for its last word.
const GOODBYE: Duration = Duration::from_secs(1);
/// The call that fills the log cache has this id; those of callers begin at 1.
const FOLLOWING: u64 = 0;
/// And this one has the call that changes which keys of ours the agent has pinned.
const TRUSTING: u64 = u64::MAX;
/// How long the agent may take for that.
const TRUST_TIMEOUT_MS: u64 = 30_000;
/// Batches of lines that may be on their way; half of them are granted again at a time.
const CREDIT: u32 = 64;
/// When a followed stream failed, it is asked for again after this.
const FOLLOW_AGAIN: Duration = Duration::from_secs(5);

/// Why a link ended, or did not come about.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("the connection is gone")]
    Wire(#[source] WireError),
    #[error("the agent was silent for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the agent did not keep to the handshake")]
    Handshake,
    #[error("the versions do not fit")]
    Versions(#[source] Mismatch),
    #[error("`{given}` is not a VM that may link")]
    UnknownVm { given: String },
    #[error("the agent does not hold the key that `{vm}` enrolled with")]
    WrongKey { vm: VmId },
    #[error("the agent may not enrol")]
    Enrolment(#[source] EnrolRefusal),
}

impl LinkError {
    /// What the agent is told, where there is anything to tell.
    fn refusal(&self) -> Option<Refusal> {
        let code = match self {
            Self::Wire(_) | Self::Silent(_) | Self::Handshake => return None,
            Self::Versions(mismatch) => mismatch.code(),
            Self::UnknownVm { .. } => "unknown_vm",
            Self::WrongKey { .. } => "wrong_key",
            Self::Enrolment(refusal) => {
                let (code, message) = (refusal.code().to_owned(), refusal.to_string());
                return Some(Refusal { code, message });
            }
        };
        Some(Refusal { code: code.to_owned(), message: self.to_string() })
    }
}

/// Runs a link to its end. `Ok` where the agent closed it or another link took its place.
pub(super) async fn run(hub: &Arc<Hub>, wire: Wire) -> Result<(), LinkError> {
    run_for(hub, wire, None).await
}

/// The same where we know beforehand whose agent it must be.
pub(super) async fn run_for(
    hub: &Arc<Hub>,
    wire: Wire,
    expected: Option<VmId>,
) -> Result<(), LinkError> {
    run_bound(hub, wire, expected, None).await
}

/// The same over a TLS session that ends here.
pub(super) async fn run_bound(
    hub: &Arc<Hub>,
    mut wire: Wire,
    expected: Option<VmId>,
    tls: Option<TlsBinding>,
) -> Result<(), LinkError> {
    let (vm, hello, met) = greet(hub, &mut wire, expected, tls).await?;
    let offset_ms = hub.clock.now().0 - hello.time_ms;
    let (handle, asked) = hub.arrived(vm, hello.agent_version, offset_ms, &met);
    tracing::info!(%vm, "agent linked: {vm}");
    let Wire { outgoing, incoming } = wire;
    let mut link = Link {
        hub: Arc::clone(hub),
        vm,
        handle: Arc::clone(&handle),
        outgoing,
        waiting: HashMap::new(),
        follow_at: Some(Instant::now()),
        taken: 0,
        trust: met.next,
    };
    let ended = tokio::select! {
        ended = link.keep(incoming, asked) => ended,
        () = handle.stop.cancelled() => Ok(()),
    };
    link.say_goodbye().await;
    let reason = ended.as_ref().err().map(ToString::to_string);
    hub.left(vm, &handle, reason);
    match &ended {
        Ok(()) => tracing::info!(%vm, "agent's link ended: {vm}"),
        Err(error) => {
            let error = error as &dyn std::error::Error;
            tracing::info!(%vm, error, "agent's link broke: {vm}");
        }
    }
    ended
}

/// The handshake, within its time and among a bounded number of others.
async fn greet(
    hub: &Hub,
    wire: &mut Wire,
    expected: Option<VmId>,
    tls: Option<TlsBinding>,
) -> Result<(VmId, Hello, Met), LinkError> {
    let greeting = async {
        // The semaphore is never closed.
        let _place = hub.newcomers.acquire().await.map_err(|_| LinkError::Handshake)?;
        let greeted = shake_hands(hub, wire, expected, tls).await;
        if let Err(Some(refusal)) = greeted.as_ref().map_err(LinkError::refusal) {
            tracing::warn!(code = refusal.code, "a link was refused: {}", refusal.message);
            drop(wire.send(&ToAgent::Refused(refusal)).await);
        }
        greeted
    };
    tokio::time::timeout(HANDSHAKE_TIMEOUT, greeting)
        .await
        .map_err(|_| LinkError::Silent(HANDSHAKE_TIMEOUT))?
}

async fn shake_hands(
    hub: &Hub,
    wire: &mut Wire,
    expected: Option<VmId>,
    tls: Option<TlsBinding>,
) -> Result<(VmId, Hello, Met), LinkError> {
    let ToGateway::Hello(hello) = wire.receive().await.map_err(LinkError::Wire)? else {
        return Err(LinkError::Handshake);
    };
    agree(hello.protocol, hello.oldest).map_err(LinkError::Versions)?;
    let unknown = || LinkError::UnknownVm { given: hello.vm.chars().take(40).collect() };
    let vm: VmId = hello.vm.parse().map_err(|_| unknown())?;
    if expected.is_some_and(|expected| expected != vm) {
        return Err(unknown());
    }
    let known = hub.roster.public_key(vm).await;
    if known.is_none() && !hello.enrolling {
        return Err(unknown());
    }
    let met = meet(&hub.roster.identities().await, &hub.identity, &hello);
    let nonce: Nonce = Bytes(rand::random());
    let statement = match &tls {
        Some(tls) => bound_statement(&hello.nonce, &nonce, tls, &hello.vm),
        None => gateway_statement(&hello.nonce, &nonce, &hello.vm),
    };
    let signature = Bytes(met.key.sign(&statement).to_bytes());
    let bound = tls.is_some();
    let welcome = Welcome { protocol: PROTOCOL, oldest: OLDEST, nonce, signature, bound };
    wire.send(&ToAgent::Welcome(welcome)).await.map_err(LinkError::Wire)?;
    let enrolment = if hello.enrolling { Some(enrolment(wire).await?) } else { None };
    let claimed = enrolment.as_ref().map(|request| request.public_key.0).or(known);
    let key = claimed.ok_or_else(unknown)?;
    let ToGateway::Proof { signature } = wire.receive().await.map_err(LinkError::Wire)? else {
        return Err(LinkError::Handshake);
    };
    let statement = agent_statement(&hello.nonce, &nonce, &hello.vm);
    let proven = VerifyingKey::from_bytes(&key).is_ok_and(|key| {
        key.verify_strict(&statement, &Signature::from_bytes(&signature.0)).is_ok()
    });
    if !proven {
        // What is said of a VM that is linked is a stranger's doing, and is not shown.
        let error = LinkError::WrongKey { vm };
        let trouble = Trouble { code: "link_refused".to_owned(), message: error.to_string() };
        hub.trouble(vm, Some(trouble));
        return Err(error);
    }
    // Only now: a token is not used up for a key that nobody holds.
    if let Some(request) = enrolment {
        let token = Secret::new(request.token.0);
        hub.roster.redeem(vm, token, key).await.map_err(LinkError::Enrolment)?;
        tracing::info!(%vm, "agent enrolled: {vm}");
    }
    let time_ms = hub.clock.now().0;
    wire.send(&ToAgent::Ready { time_ms }).await.map_err(LinkError::Wire)?;
    Ok((vm, hello, met))
}

/// What an agent that has not enrolled says before its proof.
async fn enrolment(wire: &mut Wire) -> Result<EnrolRequest, LinkError> {
    match wire.receive().await.map_err(LinkError::Wire)? {
        ToGateway::Enrol(request) => Ok(request),
        _ => Err(LinkError::Handshake),
    }
}

struct Link {
    hub: Arc<Hub>,
    vm: VmId,
    handle: Arc<LinkHandle>,
    outgoing: Outgoing,
    waiting: HashMap<u64, Answer>,
    /// When the log stream is to be asked for; `None` while it runs.
    follow_at: Option<Instant>,
    /// Batches that have come since credit was last given.
    taken: u32,
    /// What the agent is to pin, while it has not said that it did.
    trust: Option<TrustGateway>,
}

impl Link {
    /// Tells an agent that another one has its identity: the link that it lost may have been its
    /// own, or there is a copy of the VM.
    async fn say_goodbye(mut self) {
        if self.handle.replaced.load(Ordering::Acquire) {
            let message = "another agent with this VM's identity has linked".to_owned();
            let refused = ToAgent::Refused(Refusal { code: "replaced".to_owned(), message });
            // One that is gone does not hear it.
            drop(tokio::time::timeout(GOODBYE, self.send(&refused)).await);
        }
    }

    /// Those who wait are answered with `LinkLost` when the link is dropped.
    async fn keep(
        &mut self,
        mut incoming: vmkit_agent_protocol::wire::Incoming,
        mut asked: mpsc::Receiver<Ask>,
    ) -> Result<(), LinkError> {
        let patience = self.hub.limits.silent_after;
        let mut silent_at = Instant::now() + patience;
        if let Some(trust) = self.trust.clone() {
            let call = Call::Care(Care::TrustGateway(trust));
            let timeout_ms = TRUST_TIMEOUT_MS;
            self.send(&ToAgent::Call { id: TRUSTING, call, timeout_ms }).await?;
        }
        loop {
            let follow_at = self.follow_at;
            tokio::select! {
                message = incoming.next() => {
                    let Some(text) = message else { return Ok(()) };
                    let text = text.map_err(LinkError::Wire)?;
                    silent_at = Instant::now() + patience;
                    self.handle.seen(self.hub.clock.now());
                    let message = serde_json::from_str(&text)
                        .map_err(|error| LinkError::Wire(WireError::NotUnderstood(error)))?;
                    self.take(message).await?;
                }
                Some(ask) = asked.recv() => self.ask(ask).await?,
                () = sleep_until(follow_at) => self.follow().await?,
                () = tokio::time::sleep_until(silent_at) => {
                    return Err(LinkError::Silent(patience));
                }
            }
        }
    }

    async fn ask(&mut self, ask: Ask) -> Result<(), LinkError> {
        match ask {
            Ask::Call { id, call, timeout, answer } => {
                let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
                self.waiting.insert(id, answer);
                self.send(&ToAgent::Call { id, call: *call, timeout_ms }).await
            }
            Ask::Cancel { id } => {
                self.waiting.remove(&id);
                self.send(&ToAgent::Cancel { id }).await
            }
        }
    }

    async fn follow(&mut self) -> Result<(), LinkError> {
        self.follow_at = None;
        let resume = self.hub.cache().positions(self.vm);
        let lines = self.hub.limits.cache.lines;
        let follow = FollowLogs {
            selector: Selector::default(),
            resume,
            backfill: u32::try_from(lines).unwrap_or(u32::MAX),
            credit: Some(CREDIT),
        };
        self.taken = 0;
        let call = Call::FollowLogs(follow);
        self.send(&ToAgent::Call { id: FOLLOWING, call, timeout_ms: 0 }).await
    }

    async fn take(&mut self, message: ToGateway) -> Result<(), LinkError> {
        match message {
            ToGateway::Heartbeat { .. } => {
                let time_ms = self.hub.clock.now().0;
                self.send(&ToAgent::Heard { time_ms }).await?;
            }
            ToGateway::Item { id: FOLLOWING, item: Item::Logs(batch), .. } => {
                self.hub.cache().add(self.vm, batch);
                self.taken += 1;
                if self.taken >= CREDIT / 2 {
                    let items = std::mem::take(&mut self.taken);
                    self.send(&ToAgent::Credit { id: FOLLOWING, items }).await?;
                }
            }
            ToGateway::Reply { id: FOLLOWING, .. } => {
                self.follow_at = Some(Instant::now() + FOLLOW_AGAIN);
            }
            ToGateway::Reply { id: TRUSTING, result } => self.trusted(result),
            ToGateway::Reply { id, result } => {
                if let Some(answer) = self.waiting.remove(&id) {
                    // Who gave up waiting is not there to be told.
                    drop(answer.send(self.outcome(result)));
                }
            }
            ToGateway::Item { .. }
            | ToGateway::Hello(_)
            | ToGateway::Enrol(_)
            | ToGateway::NoAgent { .. }
            | ToGateway::Proof { .. }
            | ToGateway::Unknown => {}
        }
        Ok(())
    }

    /// The agent has pinned what it was told to, or not: then the next link is for that.
    fn trusted(&mut self, result: Outcome) {
        let (vm, Some(trust)) = (self.vm, self.trust.take()) else { return };
        match self.outcome(result) {
            Ok(_) => {
                let count = trust.keys.len();
                tracing::info!(%vm, "the agent of {vm} trusts {count} of our keys now");
                self.hub.trusts(vm, trust.keys);
                if count > 1 {
                    // The next link is by the newer one, and tells the agent to forget the other.
                    self.handle.stop.cancel();
                }
            }
            Err(error) => {
                let code = error.code();
                tracing::warn!(%vm, code, %error, "the agent of {vm} takes no other key of ours");
            }
        }
    }

    fn outcome(&self, result: Outcome) -> Result<Reply, FleetError> {
        match result {
            Outcome::Ok { reply } => Ok(reply),
            Outcome::Fault(Refusal { code, message }) => Err(FleetError::Fault { code, message }),
            Outcome::Unknown => Err(FleetError::NotUnderstood { vm: self.vm }),
        }
    }

    async fn send(&mut self, message: &impl Serialize) -> Result<(), LinkError> {
        let text = serde_json::to_string(message)
            .map_err(|error| LinkError::Wire(WireError::NotUnderstood(error)))?;
        tokio::time::timeout(WRITE_TIMEOUT, self.outgoing.send(text))
            .await
            .map_err(|_| LinkError::Silent(WRITE_TIMEOUT))?
            .map_err(LinkError::Wire)
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
