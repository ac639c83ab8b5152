//! The way from GitHub's runner to the VM.

use super::rule::By::Tool;
use super::rule::Mends::{Person, Vmkit};
use super::rule::Row;

pub(super) const ROWS: &[Row] = &[
    (
        "host_key_changed",
        Tool,
        r"fingerprint (?:SHA256:\S+) does not match for|Net::SSH::HostKeyMismatch",
        "the VM showed another host key than the one that is known: it was rebuilt, or something stands in between",
        "if the VM was rebuilt, call `deploy`, which knows its new key; if not, do not go on before you know why",
        Person,
        "table",
    ),
    (
        "host_key_unknown",
        Tool,
        r"Net::SSH::HostKeyUnknown",
        "the VM's host key is not among the known ones, so nothing was sent",
        "call `deploy` with environment `{environment}`: it writes the variable with the VM's host key",
        Vmkit,
        "table",
    ),
    (
        "ssh_auth_failed",
        Tool,
        r"Authentication failed for user (\S+)",
        "the VM refused the deploy key of $1",
        "check that the key is in ~kamal/.ssh/authorized_keys on the VM; VMKit writes the repo's secret anew on the next deploy",
        Person,
        "table",
    ),
    (
        "ssh_throttled",
        Tool,
        r"Net::SSH::Disconnect|ERROR \(.*connection closed by remote host",
        "the VM's SSH server closed the connection: too many failed logins, or too many at once",
        "wait ten minutes, then call `deploy` with environment `{environment}`",
        Vmkit,
        "table",
    ),
    (
        "vm_unreachable",
        Tool,
        r"Errno::EHOSTUNREACH|Errno::ENETUNREACH|Errno::ETIMEDOUT|Net::SSH::ConnectionTimeout|Errno::ECONNREFUSED.*connect\(2\) for \S+:22|connect\(2\) for \S+:22.*Errno::ECONNREFUSED",
        "the VM does not answer on its SSH port",
        "call `get_status` with environment `{environment}`; check that the VM is on and that its firewall lets port 22 in",
        Person,
        "table",
    ),
    (
        "address_unknown",
        Tool,
        r"ERROR \((?:Socket::ResolutionError|SocketError)\)",
        "the address in the config file is a name that does not resolve",
        "put the VM's IP address into `servers` of config/deploy.{name}.yml",
        Person,
        "table",
    ),
];
