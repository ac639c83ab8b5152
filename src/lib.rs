//! VMKit: a deployment control plane for servers that you own.
//!
//! `domain` says what things are and `store` where they are kept; `clouds`, `github` and `fleet`
//! are whom we talk to; `operations` changes the world and `queries` reads it. ARCHITECTURE.md has
//! the whole map.

pub mod access;
pub mod accounts;
pub mod agent_releases;
pub mod bootstrap;
pub mod cli;
pub mod clouds;
pub mod config;
pub mod diagnosis;
pub mod dns;
pub mod domain;
pub mod fleet;
pub mod github;
pub mod http;
pub mod installation;
pub mod mcp;
pub mod operations;
pub mod pipeline;
pub mod probe;
pub mod queries;
pub mod requests;
pub mod store;
#[path = "../tools/registry.rs"]
mod tools;
pub mod vault;
