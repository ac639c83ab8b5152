//! What can be made to go wrong in front of a simulator, and the record of what was asked of it.

mod admin;
mod keep;
mod layer;

pub use admin::StateOf;
pub use keep::{Kept, VARIABLE as RECORD_VARIABLE};

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use http::Method;
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::clock;

/// How many requests are remembered.
const REQUESTS_MAX: usize = 20_000;

/// Whose error shapes and rate-limit headers are played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// `{"error": {"code", "message", "details"}}`, `RateLimit-*`.
    Hetzner,
    /// `{"id", "message"}`, `RateLimit-*`, `Retry-After`.
    DigitalOcean,
    /// `{"message", "documentation_url"}`, `X-RateLimit-*`.
    GitHub,
    /// `{"success", "errors", "messages", "result"}`, `Ratelimit`, `Retry-After`.
    Cloudflare,
}

/// A fault to play on the requests that it matches.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Such as `POST`; any where none.
    #[serde(default)]
    pub method: Option<String>,
    /// Searched in the path (without the query), such as `^/v1/servers$`.
    pub path_regex: String,
    /// What happens.
    pub action: Action,
    /// How often; for ever where none.
    #[serde(default)]
    pub times: Option<u32>,
}

/// What a fault does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// This answer, without the effect. Without a body, one in the simulator's style.
    Status {
        /// The HTTP status.
        code: u16,
        /// The whole body.
        #[serde(default)]
        body: Option<Value>,
        /// Further headers.
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
    /// The request waits for a release before its effect.
    HoldBefore,
    /// The effect happens; the answer waits for a release.
    HoldAfter,
    /// The connection is closed without an answer and without an effect.
    DropBefore,
    /// The effect happens; the connection is closed without an answer.
    DropAfter,
    /// The effect happens; the answer is this status, with an error in the simulator's style.
    StatusAfter {
        /// The HTTP status.
        code: u16,
    },
    /// The effect happens; the answer has its status, and a body that is no JSON.
    Garble,
    /// The effect happens; the answer begins at once, and its body is whole only later.
    SlowBody {
        /// By how many milliseconds.
        ms: u64,
    },
    /// The effect and the answer come later.
    Latency {
        /// By how many milliseconds.
        ms: u64,
    },
    /// Refused by the rate limit, without the effect.
    RateLimit {
        /// In how many seconds there is room again.
        reset_seconds: u32,
    },
}

/// One request, and its answer once there is one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exchange {
    /// Counts from 1.
    pub id: u64,
    /// When it came, in milliseconds since 1970.
    pub time_ms: i64,
    /// Such as `POST`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Without the question mark; empty where none.
    pub query: String,
    /// The client, as its `User-Agent` names it; empty where it names none.
    pub client: String,
    /// JSON where it is JSON, else text; null where empty.
    pub body: Value,
    /// The fault that was played, such as `drop_after`.
    pub fault: Option<String>,
    /// The answer's status; none while there is no answer.
    pub status: Option<u16>,
    /// The answer's body, as `body`.
    pub answer: Value,
}

/// A request that waits for its release.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Held {
    /// The exchange's id.
    pub id: u64,
    /// Such as `POST`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Whether its effect has happened.
    pub after_effect: bool,
}

/// The faults and the record of one simulator. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Faults(Arc<Inner>);

struct Inner {
    style: Style,
    keeper: keep::Keeper,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rules: Vec<Active>,
    requests: VecDeque<Exchange>,
    last_id: u64,
    held: BTreeMap<u64, (Held, oneshot::Sender<()>)>,
}

struct Active {
    rule: Rule,
    path: Regex,
}

impl Faults {
    /// No faults yet.
    pub fn new(style: Style) -> Self {
        let keeper = keep::Keeper::from_environment();
        Self(Arc::new(Inner { style, keeper, state: Mutex::default() }))
    }

    /// Adds a rule; the first that matches a request is played. Fails on a bad regex.
    pub fn add(&self, rule: Rule) -> Result<(), regex::Error> {
        let path = Regex::new(&rule.path_regex)?;
        self.state().rules.push(Active { rule, path });
        Ok(())
    }

    /// Removes all rules. What is held stays held.
    pub fn clear(&self) {
        self.state().rules.clear();
    }

    /// The rules, with how often each will still be played.
    pub fn rules(&self) -> Vec<Rule> {
        self.state().rules.iter().map(|active| active.rule.clone()).collect()
    }

    /// The requests so far, oldest first, at most 20,000.
    pub fn requests(&self) -> Vec<Exchange> {
        self.state().requests.iter().cloned().collect()
    }

    /// The requests that wait for a release.
    pub fn held(&self) -> Vec<Held> {
        self.state().held.values().map(|(held, _)| held.clone()).collect()
    }

    /// Lets one held request go on; false where it is not held.
    pub fn release(&self, id: u64) -> bool {
        let held = self.state().held.remove(&id);
        held.is_some_and(|(_, go)| go.send(()).is_ok())
    }

    /// Lets all held requests go on; returns how many there were.
    pub fn release_all(&self) -> usize {
        let held = std::mem::take(&mut self.state().held);
        held.into_values().filter_map(|(_, go)| go.send(()).ok()).count()
    }

    fn style(&self) -> Style {
        self.0.style
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        crate::lock(&self.0.state)
    }

    /// The action of the first rule that matches, counted down.
    fn take(&self, method: &Method, path: &str) -> Option<Action> {
        let mut state = self.state();
        let at = state.rules.iter().position(|active| {
            let same = active.rule.method.as_deref().is_none_or(|m| method.as_str() == m);
            same && active.path.is_match(path)
        })?;
        let rule = &mut state.rules[at].rule;
        let action = rule.action.clone();
        if let Some(times) = &mut rule.times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                state.rules.remove(at);
            }
        }
        Some(action)
    }

    fn record(&self, mut exchange: Exchange) -> u64 {
        let mut state = self.state();
        state.last_id += 1;
        exchange.id = state.last_id;
        exchange.time_ms = clock::now_ms();
        state.requests.push_back(exchange);
        if state.requests.len() > REQUESTS_MAX {
            state.requests.pop_front();
        }
        state.last_id
    }

    fn record_answer(&self, id: u64, status: u16, answer: Value) {
        let mut state = self.state();
        if let Some(exchange) = state.requests.iter_mut().rev().find(|one| one.id == id) {
            exchange.status = Some(status);
            exchange.answer = answer;
        }
    }

    /// Keeps what there is of an exchange, now that it has ended.
    fn keep(&self, id: u64) {
        let found = self.state().requests.iter().rev().find(|one| one.id == id).cloned();
        if let Some(exchange) = found {
            self.0.keeper.keep(self.0.style, &exchange);
        }
    }

    /// Drops what is held: those requests end without a further effect.
    pub(crate) fn close(&self) {
        let held = std::mem::take(&mut self.state().held);
        drop(held);
    }

    /// Waits until the request is released; false where it never will be.
    async fn hold(&self, id: u64, method: &Method, path: &str, after_effect: bool) -> bool {
        let (go, released) = oneshot::channel();
        let held = Held { id, method: method.to_string(), path: path.to_owned(), after_effect };
        self.state().held.insert(id, (held, go));
        released.await.is_ok()
    }
}
