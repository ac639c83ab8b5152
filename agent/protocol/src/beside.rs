//! One app's containers, and the services beside it.

use serde::{Deserialize, Serialize};

use crate::bytes::Hidden;
use crate::calls::Container;

/// The env file of a service beside an app, such as its database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceFile {
    /// The app's slug.
    pub app: String,
    /// The environment's name.
    pub environment: String,
    /// The accessory's name, such as `db`.
    pub beside: String,
    /// The file's content.
    pub content: Hidden,
}

/// A service beside an app that is to go from a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveService {
    /// The app's slug.
    pub app: String,
    /// The environment's name.
    pub environment: String,
    /// The accessory's name, such as `db`.
    pub beside: String,
    /// Whether its volume, `APP-ENV-BESIDE`, goes too, which loses its data.
    #[serde(default)]
    pub volume: bool,
    /// Whether only its env file goes.
    #[serde(default)]
    pub file_only: bool,
}

/// Which containers, and what is done to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// The app's slug.
    pub app: String,
    /// The environment's name.
    pub environment: String,
    /// The accessory's name; none means the app itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
    /// What is done.
    pub action: ControlAction,
    /// The version of the app whose containers are started where none of it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// What is done to containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlAction {
    /// Stopped and started.
    Restart,
    /// Stopped, also over a reboot.
    Stop,
    /// Started.
    Start,
}

/// What runs after it, and what does not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Controlled {
    /// The containers that were meant, as they are now.
    pub containers: Vec<Container>,
}
