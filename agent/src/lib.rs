//! The agent: VMKit's eyes and hands on a VM.
//!
//! It dials out to its gateway and serves a Unix socket; both carry the same link. Every effect
//! goes through one [`host::Host`]. What it follows stays where it is: a slow or dead gateway
//! costs the VM a few bounded buffers and nothing else.

pub mod agent;
pub mod backoff;
mod calls;
mod care;
pub mod cli;
pub mod config;
mod dial;
mod docker;
mod enrol;
mod files;
pub mod host;
mod identity;
mod link;
mod logs;
pub mod metrics;
pub mod notify;
mod programs;
pub mod proxy;
mod session;
mod socket;
mod time;
mod units;
