//! Work on a VM as a whole: nobody deploys to it meanwhile, and what ran before runs afterwards.

use serde::{Deserialize, Serialize};

/// Kamal's lock of every service on the VM: of those that have containers there, and of those that
/// are named.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct KamalLocks {
    /// Whose the locks are; the same again finds its own.
    pub operation: String,
    /// Why, as Kamal shows it to whoever is kept out.
    pub message: String,
    /// Services that may have no container yet.
    pub services: Vec<String>,
}

/// The work that a call is part of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Upkeep {
    /// Its id.
    pub operation: String,
}

/// A lock of Kamal's as its own file describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HeldLock {
    /// The service that it is of.
    pub service: String,
    /// Who holds it; empty where the file does not say.
    pub by: String,
    /// Since when, as the file says.
    pub since: String,
    /// The version that is being deployed.
    pub version: String,
    /// Why.
    pub message: String,
}
