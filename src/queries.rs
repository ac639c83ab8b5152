//! What is read: one file per question. Nothing here changes anything.

pub mod costs;
pub mod deploy_log;
pub mod deploys;
pub mod diagnosis;
pub mod doctor;
pub mod env;
pub mod logs;
pub mod metrics;
pub mod operation;
pub mod overview;
pub mod paas;
pub mod repo_check;
pub mod sizes;
pub mod status;
