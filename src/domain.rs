//! Plain types and rules. Nothing here does I/O or knows where its values are kept.

pub mod agent_release;
pub mod clock;
pub mod deploy;
pub mod env_values;
pub mod environment;
pub mod ids;
pub mod log_lines;
pub mod money;
pub mod names;
pub mod operation;
pub mod plan;
pub mod retirement;
pub mod run_settings;
pub mod secret;
pub mod service;
pub mod size;
pub mod sizing;
pub mod waits;
