//! VMKit: a deployment control plane for servers that you own.

pub mod clouds;
pub mod domain;
pub mod github;
pub mod requests;
pub mod store;
pub mod vault;
