//! What happened to a machine's containers, as Docker's `/events` tells it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// How many past events are kept for `since`; Docker keeps 256.
const PAST_MAX: usize = 256;

#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) time: Timestamp,
    pub(super) action: &'static str,
    pub(super) container: String,
    pub(super) attributes: BTreeMap<String, String>,
}

impl Event {
    pub(super) fn json(&self) -> Value {
        json!({
            "status": self.action, "id": self.container, "from": self.attributes.get("image"),
            "Type": "container", "Action": self.action, "scope": "local",
            "Actor": {"ID": self.container, "Attributes": self.attributes},
            "time": self.time.as_second(),
            "timeNano": i64::try_from(self.time.as_nanosecond()).unwrap_or(i64::MAX),
        })
    }
}

pub(super) struct Events {
    past: Mutex<VecDeque<Event>>,
    live: broadcast::Sender<Event>,
}

impl Events {
    pub(super) fn new() -> Self {
        Self { past: Mutex::default(), live: broadcast::channel(1024).0 }
    }

    pub(super) fn tell(&self, event: Event) {
        let mut past = crate::lock(&self.past);
        past.push_back(event.clone());
        if past.len() > PAST_MAX {
            past.pop_front();
        }
        // Nobody listening is the usual case.
        drop(self.live.send(event));
    }

    /// The events kept, and a receiver of all that follow them: none is missed between the two.
    pub(super) fn listen(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let past = crate::lock(&self.past);
        (past.iter().cloned().collect(), self.live.subscribe())
    }
}
