//! The simulated GitHub through its front door: HTTP in, a running app out.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod api;
mod deploys;
mod expressions;
mod git_ids;
mod goldens;
mod shell;
mod spec;
mod stage;
mod workflows;
