//! Care of a VM as a whole: hardening, cleaning up, the agent's own next version, keys, volumes.

use serde::{Deserialize, Serialize};

use crate::bytes::{PublicKey, Signature};
use crate::upkeep::Upkeep;

/// The longest program that an agent takes as its next version, in bytes.
pub const MAX_AGENT_BYTES: u64 = 32 * 1024 * 1024;

/// The longest piece of it in one message, in bytes before base64.
pub const AGENT_PIECE_BYTES: usize = 512 * 1024;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "care", rename_all = "snake_case")]
pub enum Care {
    /// Hardens the VM, with an undo that is armed on it: answered by [`Cared::Hardened`].
    Harden(Harden),
    /// All is well after hardening: disarms the undo. Answered by [`Cared::Done`].
    KeepHardened(Upkeep),
    /// Takes back at once what was hardened last and not kept: answered by [`Cared::Done`].
    UndoHarden(Upkeep),
    /// Frees what is ours and unused: answered by [`Cared::Pruned`].
    Prune(Prune),
    /// Announces the agent's next version: answered by [`Cared::Upgrade`].
    BeginUpgrade(NewAgent),
    /// A piece of it, in order: answered by [`Cared::Upgrade`].
    UpgradePiece(Piece),
    /// All pieces are there: the new program tests itself, then has to link before it takes the
    /// old one's place. Answered by [`Cared::Upgrade`] before the trial begins, since that ends
    /// this link.
    TryUpgrade(Upkeep),
    /// How the last upgrade went: answered by [`Cared::Upgrade`].
    UpgradeState,
    /// Puts one public key in the place of another: answered by [`Cared::Done`].
    ReplaceKey(ReplaceKey),
    /// Pins these keys of the gateway, and no others: answered by [`Cared::Done`].
    TrustGateway(TrustGateway),
    /// From a newer gateway; the agent answers with the fault `unsupported`.
    #[serde(other)]
    Unknown,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "care", rename_all = "snake_case")]
pub enum Cared {
    /// To [`Care::Harden`].
    Hardened(Hardened),
    /// To what has nothing else to say.
    Done {
        /// False where it was so already.
        changed: bool,
    },
    /// To [`Care::Prune`].
    Pruned(Pruned),
    /// To the calls of an upgrade.
    Upgrade(UpgradeReport),
    /// From a newer agent.
    #[serde(other)]
    Unknown,
}

/// How to harden.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Harden {
    /// Whose work it is.
    pub operation: String,
    /// Seconds after which the VM takes everything back unless it is told to keep it.
    pub undo_after_s: u32,
}

/// What hardening did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hardened {
    /// In the order in which it was done.
    pub measures: Vec<Measure>,
    /// Whether something changed, so that the undo is armed.
    pub armed: bool,
}

/// One measure.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Measure {
    /// `sshd`, `upgrades`, `sysctl`, `journal`, `docker`, `firewall`, ...
    pub name: String,
    /// How it stands.
    pub outcome: Hardening,
    /// In words.
    pub says: String,
}

/// How a measure stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hardening {
    /// It was done.
    Changed,
    /// It was so before.
    AlreadyRight,
    /// What it is about is not on this machine.
    NotHere,
    /// It was not done, and what was begun was taken back.
    Failed,
    /// From a newer agent.
    #[default]
    #[serde(other)]
    Unknown,
}

/// What may be freed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Prune {
    /// Only say what would go.
    pub dry_run: bool,
    /// How many of the newest stopped versions of each app stay, with their images, so that Kamal
    /// can go back to them.
    pub keep: u32,
}

/// What was freed, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Pruned {
    /// Stopped containers of Kamal's apps.
    pub containers: Vec<String>,
    /// Images of Kamal's apps that no container uses.
    pub images: Vec<String>,
    /// What that frees, in bytes, as Docker counts it.
    pub bytes: u64,
}

/// The agent's next version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewAgent {
    /// In hex.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    /// `amd64` or `arm64`.
    pub arch: String,
    /// Over [`agent_binary_statement`], by the key that the agent has pinned.
    pub signature: Signature,
}

/// What the gateway signs to vouch for an agent's program: `vmkit-agent-binary-v1\0`, the
/// architecture, a zero byte, the length as 8 bytes big-endian, the SHA-256 in hex.
pub fn agent_binary_statement(arch: &str, bytes: u64, sha256: &str) -> Vec<u8> {
    let (label, length) = (b"vmkit-agent-binary-v1\0".as_slice(), bytes.to_be_bytes());
    [label, arch.as_bytes(), b"\0", &length, sha256.as_bytes()].concat()
}

/// One piece of the agent's next version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Where it begins.
    pub offset: u64,
    /// The bytes, in base64.
    pub base64: String,
}

/// Where an upgrade stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UpgradeReport {
    /// The program that is installed, in hex; empty where there is none.
    pub installed: String,
    /// The one that the last upgrade was about.
    pub wanted: String,
    /// How it stands.
    pub stage: UpgradeStage,
    /// How many of its bytes are there.
    pub received: u64,
    /// What happened, one line each, the oldest first.
    pub transcript: Vec<String>,
}

/// How far an upgrade is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpgradeStage {
    /// There was none.
    #[default]
    None,
    /// Its pieces come in.
    Receiving,
    /// It has to link within its time.
    Trial,
    /// It runs.
    Done,
    /// The old one goes on.
    RolledBack,
    /// From a newer agent.
    #[serde(other)]
    Unknown,
}

/// Whose keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyUser {
    /// Kamal deploys as this user.
    Kamal,
    /// VMKit's own link logs in as this user.
    Vmkit,
}

/// One public key for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaceKey {
    /// Whose.
    pub user: KeyUser,
    /// The key that goes, in OpenSSH form; without one the new key is only added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// The key that comes, in OpenSSH form; without one the old key only goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

/// The gateway's keys that an agent is to pin from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustGateway {
    /// One; two while the key is being changed.
    pub keys: Vec<PublicKey>,
    /// Over [`gateway_keys_statement`], by one of these keys that the agent has pinned already:
    /// whoever relays the link cannot say this, and nobody locks himself out.
    pub signature: Signature,
}

/// What the gateway signs to have its keys pinned: `vmkit-gateway-keys-v1\0`, the VM's id, a zero
/// byte, the keys. Replayed it does nothing, or what the signing key's holder wanted.
pub fn gateway_keys_statement(vm: &str, keys: &[PublicKey]) -> Vec<u8> {
    let mut statement = b"vmkit-gateway-keys-v1\0".to_vec();
    statement.extend(vm.as_bytes());
    statement.push(0);
    keys.iter().for_each(|key| statement.extend(key.0));
    statement
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::Call;

    #[test]
    fn a_call_that_this_version_does_not_know_is_unknown_and_not_an_error() {
        let known: Call =
            serde_json::from_str(r#"{"name":"care","care":"upgrade_state"}"#).unwrap();
        assert_eq!(known, Call::Care(Care::UpgradeState));
        let newer: Call = serde_json::from_str(r#"{"name":"care","care":"dance","x":1}"#).unwrap();
        assert_eq!(newer, Call::Care(Care::Unknown));
        let text = serde_json::to_string(&Call::Care(Care::Harden(Harden::default()))).unwrap();
        assert_eq!(text, r#"{"name":"care","care":"harden","operation":"","undo_after_s":0}"#);
        assert_eq!(
            serde_json::from_str::<Call>(&text).unwrap(),
            Call::Care(Care::Harden(Harden::default()))
        );
    }
}
