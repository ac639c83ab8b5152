//! How the VM is doing: sampled every few seconds, kept by the minute for two days.
//!
//! The minutes lie in a file of fixed size on the VM, so that a gateway that was away (a laptop
//! that was closed) still has history, and a power cut costs the minute that was being written.

mod containers;
mod disks;
mod history;
mod machine;
mod minute;
mod ring;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use vmkit_agent_protocol::metrics::{Metrics, MetricsHistory, MetricsRange};

use crate::agent::Agent;
use crate::host::Host;
use crate::time::now_ms;

pub use minute::{DiskUse, Minute, Share};
pub use ring::{MINUTES, Ring};

use containers::{Taken, Use};
use machine::Counters;
use minute::Gathering;

/// How often the VM is looked at, unless told otherwise.
pub const EVERY: Duration = Duration::from_secs(15);
/// An engine that takes longer to say what its containers take is asked again the next time.
const CONTAINERS_TIMEOUT: Duration = Duration::from_secs(10);

/// What the samples have in common.
#[derive(Debug)]
pub(crate) struct Meter {
    host: Host,
    state: Mutex<State>,
    /// Opened at the first minute; a disk that is full now may have room at the next.
    ring: Mutex<Option<Ring>>,
}

#[derive(Debug, Default)]
struct State {
    counters: Option<Counters>,
    cpu_busy: f64,
    containers: Vec<Use>,
    docker_trouble: Option<String>,
    gathering: Gathering,
}

impl Meter {
    pub(crate) fn new(host: Host) -> Self {
        Self { host, state: Mutex::default(), ring: Mutex::new(None) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the VM is doing now; its containers as of the last sample.
    pub(crate) fn now(&self) -> Metrics {
        let (mut metrics, counters) = machine::read(&self.host, now_ms());
        let state = self.state();
        metrics.cpu_busy = match counters.busy_since(state.counters.as_ref()) {
            Some(share) => share,
            None => state.cpu_busy,
        };
        metrics.containers = state.containers.iter().map(|one| one.shown.clone()).collect();
        metrics.docker_trouble.clone_from(&state.docker_trouble);
        metrics
    }

    /// One sample: it goes to its minute, and the minute to the file once it is over.
    fn take(&self, containers: Result<Vec<Use>, String>) {
        let (mut metrics, counters) = machine::read(&self.host, now_ms());
        let over = {
            let mut state = self.state();
            metrics.cpu_busy =
                counters.busy_since(state.counters.as_ref()).unwrap_or(state.cpu_busy);
            state.cpu_busy = metrics.cpu_busy;
            let network = counters.network_since(state.counters.as_ref());
            state.counters = Some(counters);
            (state.containers, state.docker_trouble) = match containers {
                Ok(containers) => (containers, None),
                Err(trouble) => (Vec::new(), Some(trouble)),
            };
            let State { gathering, containers, .. } = &mut *state;
            gathering.add(&metrics, network, containers)
        };
        if let Some(minute) = over {
            self.keep(&minute);
        }
    }

    fn keep(&self, minute: &Minute) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = match ring.as_mut() {
            Some(ring) => ring.write(minute),
            None => Ring::open(&self.host).and_then(|opened| ring.insert(opened).write(minute)),
        };
        if let Err(error) = kept {
            tracing::warn!(%error, "a minute of metrics could not be kept");
        }
    }

    /// Writes what the unfinished minute has: the agent ends.
    fn put_down(&self) {
        let unfinished = self.state().gathering.so_far();
        if let Some(minute) = unfinished {
            self.keep(&minute);
        }
    }

    /// How the VM was doing over a time.
    pub(crate) fn history(&self, range: &MetricsRange) -> MetricsHistory {
        let (now, so_far) = (self.now(), self.state().gathering.so_far());
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.is_none() {
            *ring = Ring::open(&self.host).ok();
        }
        let kept = ring.as_ref().map(|ring| ring.read(now.time_ms)).unwrap_or_default();
        drop(ring);
        history::draw(now, kept, so_far, range)
    }
}

/// Samples until this future is dropped; what the last minute has is written then.
pub(crate) async fn keep(agent: &Arc<Agent>, every: Duration) {
    let _end = PutDown(Arc::clone(agent));
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut taken = Taken::default();
    loop {
        tick.tick().await;
        let looking = containers::look(agent.engine(), &mut taken);
        let containers = tokio::time::timeout(CONTAINERS_TIMEOUT, looking)
            .await
            .unwrap_or_else(|_| Err("the Docker engine takes too long to answer".to_owned()));
        let sampled = Arc::clone(agent);
        let sampling = tokio::task::spawn_blocking(move || sampled.meter().take(containers)).await;
        if let Err(error) = sampling {
            tracing::warn!(%error, "a sample of the metrics failed");
        }
    }
}

struct PutDown(Arc<Agent>);

impl Drop for PutDown {
    fn drop(&mut self) {
        self.0.meter().put_down();
    }
}
