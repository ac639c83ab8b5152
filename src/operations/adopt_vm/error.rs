//! Why a machine is not adopted.

use crate::fleet::shell::ShellError;

/// Why a machine is not adopted.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what its fields are")]
pub enum AdoptError {
    #[error(
        "`{given}` names no machine: it is an IP address (`203.0.113.7`, with a user other than root `debian@203.0.113.7`) or a server's id at a connected cloud (`hetzner:4711`)"
    )]
    BadTarget { given: String },
    #[error("`{given}` is no SSH host key's fingerprint, such as `SHA256:` and 43 characters")]
    BadFingerprint { given: String },
    #[error("`{environment}` runs on a machine of your own, and none was named yet")]
    NoTarget { environment: String },
    #[error("there is no server {id} in the connected account at {cloud}")]
    NoServer { cloud: String, id: String },
    #[error("server {id} at {cloud} has no public IPv4 address, or is not running")]
    NotUp { cloud: String, id: String },
    #[error("{machine} belongs to another installation of VMKit")]
    Theirs { machine: String },
    #[error("{machine} is VM {vm} already")]
    Ours { machine: String, vm: String },
    #[error(
        "{machine} shows the SSH host key {found}, and {wanted} was expected: nobody logged in, and nothing was sent to it"
    )]
    OtherHostKey { machine: String, found: String, wanted: String },
    #[error("{machine} does not let {login} be root: {said}")]
    NoRoot { machine: String, login: String, said: String },
    #[error("{machine} cannot be adopted: {}", reasons.join("; "))]
    Unfit { machine: String, reasons: Vec<String> },
    #[error("{part} failed on {machine}: {said}")]
    Script { machine: String, part: &'static str, said: String },
    #[error("what was there before is not as it was on {machine}: {what}")]
    Disturbed { machine: String, what: String },
    #[error(transparent)]
    Ssh(#[from] ShellError),
}

impl AdoptError {
    /// A stable word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadTarget { .. } => "bad_target",
            Self::BadFingerprint { .. } => "bad_fingerprint",
            Self::NoTarget { .. } => "no_target",
            Self::NoServer { .. } => "no_server",
            Self::NotUp { .. } => "server_not_up",
            Self::Theirs { .. } => "not_ours",
            Self::Ours { .. } => "adopted_already",
            Self::OtherHostKey { .. } => "other_host_key",
            Self::NoRoot { .. } => "no_root",
            Self::Unfit { .. } => "unfit_machine",
            Self::Script { .. } => "adopt_failed",
            Self::Disturbed { .. } => "disturbed",
            Self::Ssh(error) => error.code(),
        }
    }

    /// Whether the same may go through in a moment.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Ssh(error) if error.retryable())
    }

    /// What to do next.
    pub fn fix(&self) -> String {
        match self {
            Self::BadTarget { .. } => "name it so in `adopt`".into(),
            Self::BadFingerprint { .. } => "give what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints on the machine, or leave `host_key` out: the plan then names the one that was seen".into(),
            Self::NoTarget { environment } => format!("call `provision_vm` with environment `{environment}` and `adopt`, such as `root@203.0.113.7`"),
            Self::NoServer { .. } => "look for its id in the provider's console".into(),
            Self::NotUp { .. } => "start it, or give it an address, in the provider's console".into(),
            Self::Theirs { .. } => "take it off that installation first (`destroy` there); where that is gone, run /usr/local/lib/vmkit/leave on the machine and remove the vmkit labels at the cloud".into(),
            Self::Ours { .. } => "call `get_overview` for the VMs and what runs on them".into(),
            Self::OtherHostKey { .. } => "find out why: the machine was installed anew, or somebody stands in between".into(),
            Self::NoRoot { .. } => "name root in `adopt`, or let that user use sudo without a password".into(),
            Self::Unfit { .. } => "mend that on the machine, or take another one".into(),
            Self::Script { .. } => "what was begun is taken off again; mend what it says on the machine, then call `provision_vm` again".into(),
            Self::Disturbed { .. } => "VMKit's things are taken off again; look at the machine, then call `provision_vm` again".into(),
            Self::Ssh(_) => "see that the machine is up and that its SSH port is open to this VMKit, then call it again".into(),
        }
    }
}
