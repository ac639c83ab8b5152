//! VMKit: a deployment control plane for servers that you own.

pub mod accounts;
pub mod bootstrap;
pub mod clouds;
pub mod config;
pub mod diagnosis;
pub mod domain;
pub mod fleet;
pub mod github;
pub mod installation;
pub mod operations;
pub mod pipeline;
pub mod probe;
pub mod queries;
pub mod requests;
pub mod store;
pub mod vault;
