//! The wire types between VMKit and its agent, and what both sides sign.
//!
//! Messages are JSON: one text message each over WebSocket, one line each over a Unix socket. A
//! reader ignores fields that it does not know, and takes a variant that it does not know as
//! `Unknown`: each side may be newer than the other.

pub mod beside;
pub mod bytes;
pub mod calls;
pub mod care;
pub mod enrol;
pub mod handshake;
pub mod logs;
pub mod messages;
pub mod metrics;
pub mod upkeep;
pub mod wire;

/// The version of the protocol that this crate speaks.
pub const PROTOCOL: u32 = 1;

/// The oldest version of the peer that this crate still understands.
pub const OLDEST: u32 = 1;

/// The longest message that either side takes, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Where an agent enrols, below the gateway's URL.
pub const ENROL_PATH: &str = "/agent/v1/enrol";

/// Where an agent opens its link, below the gateway's URL.
pub const LINK_PATH: &str = "/agent/v1/link";
