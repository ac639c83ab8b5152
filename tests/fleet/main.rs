//! The fleet and the agent through real sockets: the agent is the real program, in a private root
//! directory.

#![expect(clippy::unwrap_used, reason = "what a test's helper cannot get is the test's failure")]

mod docker;
mod engines;
mod fake_agent;
mod fake_gateway;
mod identity;
mod journal;
mod links;
mod logs;
mod metrics;
mod rig;
mod served;
#[path = "../support/skips.rs"]
mod skips;
mod time;
mod tls;
mod trouble;
mod upgrade;
