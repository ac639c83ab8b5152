//! VMKit: a deployment control plane for servers that you own.

pub mod domain;
pub mod store;
pub mod vault;
