//! The messages of a link, in both directions.

use serde::{Deserialize, Serialize};

use crate::bytes::Signature;
use crate::calls::{Call, Reply};
use crate::enrol::{EnrolRequest, Refusal};
use crate::handshake::{Hello, Welcome};
use crate::logs::Batch;

/// What the gateway says to the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToAgent {
    /// The answer to the hello.
    Welcome(Welcome),
    /// The handshake is over, and the link is up.
    Ready {
        /// The gateway's clock, in milliseconds since 1970.
        #[serde(default)]
        time_ms: i64,
    },
    /// The gateway will not have this agent.
    Refused(Refusal),
    /// Do this and reply.
    Call {
        /// Chosen by the gateway, unique within the link.
        id: u64,
        /// What to do.
        call: Call,
        /// After this long nobody waits for the reply; 0 for a stream, which has no end.
        #[serde(default)]
        timeout_ms: u64,
    },
    /// Nobody wants the reply of this call any more.
    Cancel {
        /// The call's id.
        id: u64,
    },
    /// The gateway can take so many more items of a stream.
    Credit {
        /// The call's id.
        id: u64,
        /// How many more.
        items: u32,
    },
    /// The answer to a heartbeat: the gateway is there.
    Heard {
        /// The gateway's clock, in milliseconds since 1970.
        #[serde(default)]
        time_ms: i64,
    },
    /// From a newer gateway.
    #[serde(other)]
    Unknown,
}

/// What the agent says to the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToGateway {
    /// The first message.
    Hello(Hello),
    /// After the welcome of an agent that said `enrolling`; the proof follows at once. What is
    /// refused is refused instead of [`ToAgent::Ready`].
    Enrol(EnrolRequest),
    /// Not from an agent: from the receiver that stands in for one which is not installed yet. It
    /// takes one line `upload BYTES` and that many bytes, and closes.
    NoAgent {
        /// The SHA-256 of the only program that will be installed, in hex.
        sha256: String,
        /// Its length; no other is taken.
        bytes: u64,
        /// What the VM's first boot is at, or `failed: STEP (CODE)`.
        #[serde(default)]
        step: String,
    },
    /// Proves that the agent holds the enrolled key.
    Proof {
        /// Over [`crate::handshake::agent_statement`].
        signature: Signature,
    },
    /// A call has ended; nothing more comes for its id.
    Reply {
        /// The call's id.
        id: u64,
        /// How it ended.
        result: Outcome,
    },
    /// One item of a stream.
    Item {
        /// The call's id.
        id: u64,
        /// 0, 1, 2, … within the call.
        seq: u64,
        /// The item.
        item: Item,
    },
    /// The agent is alive; every 15 s.
    Heartbeat {
        /// The VM's clock, in milliseconds since 1970.
        #[serde(default)]
        time_ms: i64,
    },
    /// From a newer agent.
    #[serde(other)]
    Unknown,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Outcome {
    /// It did what was asked.
    Ok {
        /// The answer.
        reply: Reply,
    },
    /// It did not.
    Fault(Refusal),
    /// From a newer agent.
    #[serde(other)]
    Unknown,
}

/// One item of a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Item {
    /// Lines of one container, in the order of its log.
    Logs(Batch),
    /// From a newer agent.
    #[serde(other)]
    Unknown,
}
