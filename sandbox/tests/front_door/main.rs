//! The sandbox from outside: its APIs over HTTP, its machines' sockets, its processes in /proc.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod client;
mod containers;
mod faults;
mod hetzner;
mod machines;
mod official;
mod processes;
mod proxy;
mod spec;
mod stage;
