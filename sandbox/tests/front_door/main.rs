//! The sandbox from outside: its APIs over HTTP, its machines' sockets, its processes in /proc.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod client;
mod containers;
mod digitalocean;
mod faults;
mod hetzner;
mod machines;
mod names;
mod official;
mod official_github;
mod processes;
mod proxy;
#[path = "../../../tests/support/skips.rs"]
mod skips;
mod spec;
mod stage;
