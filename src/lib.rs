//! VMKit: a deployment control plane for servers that you own.

pub mod bootstrap;
pub mod clouds;
pub mod diagnosis;
pub mod domain;
pub mod fleet;
pub mod github;
pub mod pipeline;
pub mod requests;
pub mod store;
pub mod vault;
