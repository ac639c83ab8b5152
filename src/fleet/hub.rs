//! What all links of this process share: who is there, and the way to ask them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use vmkit_agent_protocol::bytes::PublicKey;
use vmkit_agent_protocol::calls::{Call, Reply};

use super::cache::LogCache;
use super::identity::Met;
use super::{FleetError, Limits, Presence, PresenceChange, Roster, Trouble};
use crate::domain::clock::{Clock, Millis};
use crate::domain::ids::VmId;

/// Requests that wait for a link's task.
const ASKS: usize = 64;
/// Comings and goings that are remembered per VM.
const CHANGES: usize = 10;
/// What a call's caller waits beyond the agent's own time-out, for the reply to travel.
const TRAVEL: Duration = Duration::from_millis(250);

/// The local fleet.
pub(super) struct Hub {
    pub(super) roster: Arc<dyn Roster>,
    pub(super) identity: SigningKey,
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    pub(super) nudge: Notify,
    pub(super) newcomers: Semaphore,
    cache: Mutex<LogCache>,
    vms: Mutex<HashMap<VmId, Known>>,
    troubles: Mutex<HashMap<VmId, Troubles>>,
    /// Counts links that came and went.
    changes: watch::Sender<u64>,
    next_id: AtomicU64,
}

/// Why one VM's agent is not linked, by who says so.
#[derive(Default)]
struct Troubles {
    /// The link's own end.
    link: Option<Trouble>,
    /// Somebody who looked from outside, which says more.
    outside: Option<Trouble>,
}

/// What is known of one VM's agent.
#[derive(Default)]
struct Known {
    link: Option<Arc<LinkHandle>>,
    since: Option<Millis>,
    last_seen: Option<Millis>,
    agent_version: String,
    clock_offset_ms: i64,
    trusts: Vec<PublicKey>,
    changes: VecDeque<PresenceChange>,
}

impl Known {
    fn changed(&mut self, at: Millis, linked: bool, reason: Option<String>) {
        self.changes.push_back(PresenceChange { at, linked, reason });
        if self.changes.len() > CHANGES {
            self.changes.pop_front();
        }
    }
}

/// The way to a link's task.
pub(super) struct LinkHandle {
    asks: mpsc::Sender<Ask>,
    last_seen: AtomicI64,
    pub(super) stop: CancellationToken,
    /// The key that the agent has met us with.
    identity: Arc<SigningKey>,
    /// Another agent with the same identity has come.
    pub(super) replaced: AtomicBool,
}

/// What a link's task is asked to do; small, since each link has room for some.
pub(super) enum Ask {
    Call { id: u64, call: Box<Call>, timeout: Duration, answer: Answer },
    Cancel { id: u64 },
}

/// Where a call's outcome goes.
pub(super) type Answer = oneshot::Sender<Result<Reply, FleetError>>;

impl LinkHandle {
    pub(super) fn seen(&self, at: Millis) {
        self.last_seen.store(at.0, Ordering::Relaxed);
    }
}

/// Tells the agent that nobody waits any more, unless the reply has come.
struct Waiting {
    link: Arc<LinkHandle>,
    id: u64,
    done: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.done {
            // A full queue costs no more than a reply that nobody reads.
            drop(self.link.asks.try_send(Ask::Cancel { id: self.id }));
        }
    }
}

impl Hub {
    pub(super) fn new(
        roster: Arc<dyn Roster>,
        identity: SigningKey,
        clock: Clock,
        limits: Limits,
    ) -> Self {
        Self {
            roster,
            identity,
            clock,
            nudge: Notify::new(),
            newcomers: Semaphore::new(limits.newcomers),
            cache: Mutex::new(LogCache::new(limits.cache.clone())),
            limits,
            vms: Mutex::default(),
            troubles: Mutex::default(),
            changes: watch::Sender::new(0),
            next_id: AtomicU64::new(1),
        }
    }

    pub(super) fn cache(&self) -> MutexGuard<'_, LogCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vms(&self) -> MutexGuard<'_, HashMap<VmId, Known>> {
        self.vms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A link is up. One that the VM had before is closed: the agent has given it up.
    pub(super) fn arrived(
        &self,
        vm: VmId,
        agent_version: String,
        clock_offset_ms: i64,
        met: &Met,
    ) -> (Arc<LinkHandle>, mpsc::Receiver<Ask>) {
        let now = self.clock.now();
        let (asks, asked) = mpsc::channel(ASKS);
        let stop = CancellationToken::new();
        let (last_seen, replaced) = (AtomicI64::new(now.0), AtomicBool::new(false));
        let identity = Arc::clone(&met.key);
        let link = Arc::new(LinkHandle { asks, last_seen, stop, identity, replaced });
        let old = {
            let mut vms = self.vms();
            let known = vms.entry(vm).or_default();
            known.since = Some(now);
            known.last_seen = Some(now);
            known.agent_version = agent_version;
            known.clock_offset_ms = clock_offset_ms;
            known.trusts.clone_from(&met.pins);
            known.changed(now, true, None);
            known.link.replace(Arc::clone(&link))
        };
        if let Some(old) = old {
            old.replaced.store(true, Ordering::Release);
            old.stop.cancel();
        }
        self.troubles().remove(&vm);
        self.changes.send_modify(|changes| *changes += 1);
        (link, asked)
    }

    /// The agent has pinned these keys of ours.
    pub(super) fn trusts(&self, vm: VmId, keys: Vec<PublicKey>) {
        if let Some(known) = self.vms().get_mut(&vm) {
            known.trusts = keys;
        }
    }

    /// Signs with the key by which the VM's agent knows us.
    pub(super) fn vouch(&self, vm: VmId, statement: &[u8]) -> [u8; 64] {
        let link = self.vms().get(&vm).and_then(|known| known.link.clone());
        let key = link.as_ref().map_or(&self.identity, |link| &link.identity);
        key.sign(statement).to_bytes()
    }

    /// A link is down, for a reason.
    pub(super) fn left(&self, vm: VmId, link: &Arc<LinkHandle>, reason: Option<String>) {
        let now = self.clock.now();
        if let Some(known) = self.vms().get_mut(&vm)
            && known.link.as_ref().is_some_and(|current| Arc::ptr_eq(current, link))
        {
            known.link = None;
            known.last_seen = Some(Millis(link.last_seen.load(Ordering::Relaxed)));
            known.changed(now, false, reason);
        }
        self.changes.send_modify(|changes| *changes += 1);
    }

    pub(super) fn forget(&self, vm: VmId) {
        if let Some(link) = self.vms().remove(&vm).and_then(|known| known.link) {
            link.stop.cancel();
        }
        self.troubles().remove(&vm);
        self.cache().forget(vm);
    }

    fn troubles(&self) -> MutexGuard<'_, HashMap<VmId, Troubles>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes why a VM has no link; `None` where it has one, or nobody tries any more.
    pub(super) fn trouble(&self, vm: VmId, trouble: Option<Trouble>) {
        self.troubles().entry(vm).or_default().link = trouble;
    }

    /// Notes what somebody saw who looked at a VM from outside, unless its agent is linked by now.
    pub(super) fn explain(&self, vm: VmId, seen: Option<Trouble>) {
        // Held over both, so that an agent that links at this moment has the last word.
        let mut troubles = self.troubles();
        let linked = self.vms().get(&vm).is_some_and(|known| known.link.is_some());
        troubles.entry(vm).or_default().outside = seen.filter(|_| !linked);
    }

    pub(super) fn relink(&self, vm: VmId) {
        if let Some(link) = self.vms().get(&vm).and_then(|known| known.link.as_ref()) {
            link.stop.cancel();
        }
    }

    pub(super) fn close(&self) {
        for known in self.vms().values() {
            if let Some(link) = &known.link {
                link.stop.cancel();
            }
        }
    }

    pub(super) fn presence(&self, vm: VmId) -> Presence {
        let trouble = self
            .troubles()
            .get(&vm)
            .and_then(|troubles| troubles.outside.clone().or_else(|| troubles.link.clone()));
        let vms = self.vms();
        let Some(known) = vms.get(&vm) else { return Presence { trouble, ..Presence::default() } };
        let last_seen = match &known.link {
            Some(link) => Some(Millis(link.last_seen.load(Ordering::Relaxed))),
            None => known.last_seen,
        };
        let silent_ms = last_seen.map_or(i64::MAX, |seen| self.clock.now().since_ms(seen));
        let patience_ms = i64::try_from(self.limits.silent_after.as_millis()).unwrap_or(i64::MAX);
        Presence {
            linked: known.link.is_some() && silent_ms <= patience_ms,
            since: known.since,
            last_seen,
            agent_version: Some(known.agent_version.clone()).filter(|version| !version.is_empty()),
            clock_offset_ms: known.clock_offset_ms,
            trusts: known.trusts.iter().map(ToString::to_string).collect(),
            trouble,
            changes: known.changes.iter().cloned().collect(),
        }
    }

    pub(super) async fn wait_linked(
        &self,
        vm: VmId,
        timeout: Duration,
    ) -> Result<Presence, FleetError> {
        let mut changes = self.changes.subscribe();
        let waiting = async {
            loop {
                let presence = self.presence(vm);
                if presence.linked || changes.changed().await.is_err() {
                    return presence;
                }
            }
        };
        tokio::time::timeout(timeout, waiting).await.map_err(|_| FleetError::NotLinked { vm })
    }

    pub(super) async fn call(
        &self,
        vm: VmId,
        call: Call,
        timeout: Duration,
    ) -> Result<Reply, FleetError> {
        let link = self.vms().get(&vm).and_then(|known| known.link.clone());
        let link = link.ok_or(FleetError::NotLinked { vm })?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let mut waiting = Waiting { link: Arc::clone(&link), id, done: false };
        let asking = async {
            let ask = Ask::Call { id, call: Box::new(call), timeout, answer };
            link.asks.send(ask).await.map_err(|_| FleetError::LinkLost { vm })?;
            answered.await.map_err(|_| FleetError::LinkLost { vm })?
        };
        let outcome = tokio::time::timeout(timeout + TRAVEL, asking).await;
        waiting.done = outcome.is_ok();
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        match outcome.unwrap_or(Err(FleetError::TimedOut { vm, timeout_ms })) {
            // The agent's own watch and ours say the same.
            Err(FleetError::Fault { code, .. }) if code == "timed_out" => {
                Err(FleetError::TimedOut { vm, timeout_ms })
            }
            Ok(Reply::Unknown) => Err(FleetError::NotUnderstood { vm }),
            other => other,
        }
    }
}
