//! The outside calls of each step, in order: what the crashes, refusals and hiccups are played on.

use crate::jobs::Job;
use crate::stage::At;

/// One call of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outside {
    pub(crate) step: &'static str,
    pub(crate) at: At,
    pub(crate) method: &'static str,
    /// A regex that finds its path and no other call's of the same method.
    pub(crate) path: &'static str,
}

impl Outside {
    /// Whether it changes anything there.
    pub(crate) fn changes(&self) -> bool {
        self.method != "GET"
    }

    pub(crate) fn matches(&self, method: &str, path: &str) -> bool {
        let found = regex::Regex::new(self.path).expect("a regex");
        self.method == method && found.is_match(path)
    }
}

const fn cloud(step: &'static str, method: &'static str, path: &'static str) -> Outside {
    Outside { step, at: At::Cloud, method, path }
}

const fn github(step: &'static str, method: &'static str, path: &'static str) -> Outside {
    Outside { step, at: At::GitHub, method, path }
}

const fn dns(step: &'static str, method: &'static str, path: &'static str) -> Outside {
    Outside { step, at: At::Dns, method, path }
}

const SETUP: &[Outside] = &[
    github("commit_files", "GET", "/commits/main$"),
    github("commit_files", "GET", "/contents/"),
    github("commit_files", "GET", "/pulls$"),
    github("commit_files", "DELETE", "/git/refs/heads/vmkit/setup$"),
    github("commit_files", "GET", "/git/ref/heads/vmkit/setup$"),
    github("commit_files", "GET", "/git/commits/"),
    github("commit_files", "POST", "/git/trees$"),
    github("commit_files", "POST", "/git/commits$"),
    github("commit_files", "POST", "/git/refs$"),
    github("open_pull", "GET", "/pulls$"),
    github("open_pull", "POST", "/pulls$"),
];

const PROVISION: &[Outside] = &[
    cloud("ssh_key", "GET", "/ssh_keys$"),
    cloud("ssh_key", "POST", "/ssh_keys$"),
    cloud("firewall", "GET", "/firewalls$"),
    cloud("firewall", "POST", "/firewalls$"),
    cloud("address", "GET", "/primary_ips$"),
    cloud("address", "POST", "/primary_ips$"),
    cloud("create_server", "GET", "/images$"),
    cloud("create_server", "GET", "/servers$"),
    cloud("create_server", "POST", "/servers$"),
    cloud("wait_server", "GET", r"/servers/\d+$"),
];

const ADOPT: &[Outside] =
    &[cloud("label", "GET", r"/servers/\d+$"), cloud("label", "PUT", r"/servers/\d+$")];

const DEPLOY: &[Outside] = &[
    dns("point", "GET", "/zones$"),
    dns("point", "GET", "/dns_records$"),
    dns("point", "POST", "/dns_records$"),
    dns("point", "GET", "/zones$"),
    dns("point", "GET", "/dns_records$"),
    dns("point", "POST", "/dns_records$"),
    github("commit_config", "GET", "/commits/main$"),
    github("commit_config", "GET", "/contents/"),
    github("commit_config", "GET", "/rules/branches/main$"),
    github("commit_config", "GET", "shop/branches/main$"),
    github("commit_config", "GET", "/git/ref/heads/main$"),
    github("commit_config", "GET", "/git/commits/"),
    github("commit_config", "POST", "/git/trees$"),
    github("commit_config", "POST", "/git/commits$"),
    github("commit_config", "PATCH", "/git/refs/heads/main$"),
    github("grant_access", "GET", "/actions/secrets/public-key$"),
    github("grant_access", "PUT", "/actions/secrets/VMKIT_"),
    github("grant_access", "PATCH", "/actions/variables/VMKIT_"),
    github("grant_access", "POST", "/actions/variables$"),
    github("dispatch", "POST", "/dispatches$"),
    github("watch", "GET", r"/actions/runs/\d+$"),
    github("watch", "GET", r"/actions/runs/\d+/jobs$"),
    github("watch", "GET", r"/actions/runs/\d+$"),
];

const CONFIGURE: &[Outside] = &[
    github("commit_config", "GET", "/contents/"),
    github("commit_config", "GET", "/commits/main$"),
    github("commit_config", "GET", "/contents/"),
    github("commit_config", "GET", "/rules/branches/main$"),
    github("commit_config", "GET", "shop/branches/main$"),
    github("commit_config", "GET", "/git/ref/heads/main$"),
    github("commit_config", "GET", "/git/commits/"),
    github("commit_config", "POST", "/git/trees$"),
    github("commit_config", "POST", "/git/commits$"),
    github("commit_config", "PATCH", "/git/refs/heads/main$"),
];

/// A deploy whose config is in the repo and whose keys are in place.
const REDEPLOY: &[Outside] = &[
    github("commit_config", "GET", "/commits/main$"),
    github("commit_config", "GET", "/contents/"),
    github("grant_access", "GET", "/actions/secrets/public-key$"),
    github("grant_access", "PUT", "/actions/secrets/VMKIT_"),
    github("grant_access", "PATCH", "/actions/variables/VMKIT_"),
    github("dispatch", "POST", "/dispatches$"),
    github("watch", "GET", r"/actions/runs/\d+$"),
    github("watch", "GET", r"/actions/runs/\d+/jobs$"),
    github("watch", "GET", r"/actions/runs/\d+$"),
];

/// The workflow knows the environment from the set-up.
const TEST_BUILD: &[Outside] = &[
    github("commit_config", "GET", "/commits/main$"),
    github("commit_config", "GET", "/contents/"),
    github("dispatch", "POST", "/dispatches$"),
    github("watch", "GET", r"/actions/runs/\d+$"),
    github("watch", "GET", r"/actions/runs/\d+/jobs$"),
    github("watch", "GET", r"/actions/runs/\d+$"),
];

const DESTROY: &[Outside] = &[
    github("revoke_access", "DELETE", "/actions/secrets/VMKIT_"),
    github("revoke_access", "DELETE", "/actions/variables/VMKIT_"),
    dns("remove_records", "GET", "/zones$"),
    dns("remove_records", "GET", "/dns_records$"),
    dns("remove_records", "DELETE", r"/dns_records/\w+$"),
    dns("remove_records", "GET", "/zones$"),
    dns("remove_records", "GET", "/dns_records$"),
    dns("remove_records", "DELETE", r"/dns_records/\w+$"),
    cloud("delete_server", "GET", "/servers$"),
    cloud("delete_server", "GET", r"/servers/\d+$"),
    cloud("delete_server", "DELETE", r"/servers/\d+$"),
    cloud("delete_server", "GET", r"/actions/\d+$"),
    cloud("delete_server", "GET", r"/servers/\d+$"),
    cloud("delete_address", "GET", "/primary_ips$"),
    cloud("delete_address", "GET", r"/primary_ips/\d+$"),
    cloud("delete_address", "DELETE", r"/primary_ips/\d+$"),
    cloud("delete_firewall", "GET", "/firewalls$"),
    cloud("delete_firewall", "DELETE", r"/firewalls/\d+$"),
    cloud("delete_ssh_key", "GET", "/ssh_keys$"),
    cloud("delete_ssh_key", "DELETE", r"/ssh_keys/\d+$"),
];

const RETIRE: &[Outside] = &[
    cloud("note", "GET", "/servers$"),
    cloud("note", "GET", "/pricing$"),
    github("revoke_access", "DELETE", "/actions/secrets/VMKIT_"),
    github("revoke_access", "DELETE", "/actions/variables/VMKIT_"),
    cloud("stop_server", "GET", "/servers$"),
    cloud("stop_server", "GET", r"/servers/\d+$"),
    cloud("stop_server", "POST", "/actions/shutdown$"),
    cloud("stop_server", "GET", r"/actions/\d+$"),
    cloud("stop_server", "GET", r"/servers/\d+$"),
    cloud("keep_snapshot", "GET", "/images$"),
    cloud("keep_snapshot", "GET", r"/servers/\d+$"),
    cloud("keep_snapshot", "POST", "/actions/create_image$"),
    cloud("keep_snapshot", "GET", r"/actions/\d+$"),
    cloud("keep_snapshot", "GET", r"/images/\d+$"),
    cloud("keep_address", "GET", r"/primary_ips/\d+$"),
    cloud("keep_address", "GET", r"/servers/\d+$"),
    cloud("keep_address", "POST", "/actions/unassign$"),
    cloud("keep_address", "GET", r"/primary_ips/\d+$"),
    cloud("delete_server", "GET", "/servers$"),
    cloud("delete_server", "GET", r"/servers/\d+$"),
    cloud("delete_server", "DELETE", r"/servers/\d+$"),
    cloud("delete_server", "GET", r"/actions/\d+$"),
    cloud("delete_server", "GET", r"/servers/\d+$"),
];

const RESTORE: &[Outside] = &[
    cloud("ssh_key", "GET", "/ssh_keys$"),
    cloud("firewall", "GET", "/firewalls$"),
    cloud("order_server", "GET", "/servers$"),
    cloud("order_server", "POST", "/servers$"),
    cloud("wait_server", "GET", r"/servers/\d+$"),
    github("grant_access", "GET", "/actions/secrets/public-key$"),
    github("grant_access", "PUT", "/actions/secrets/VMKIT_"),
    github("grant_access", "PATCH", "/actions/variables/VMKIT_"),
    github("grant_access", "POST", "/actions/variables$"),
    dns("record", "GET", "/zones$"),
    dns("record", "GET", "/dns_records$"),
    dns("record", "PATCH", r"/dns_records/\w+$"),
    cloud("delete_snapshot", "GET", r"/images/\d+$"),
    cloud("delete_snapshot", "DELETE", r"/images/\d+$"),
];

const RESIZE: &[Outside] = &[
    cloud("shut_down", "GET", r"/servers/\d+$"),
    cloud("shut_down", "POST", "/actions/shutdown$"),
    cloud("shut_down", "GET", r"/actions/\d+$"),
    cloud("shut_down", "GET", r"/servers/\d+$"),
    cloud("change_size", "POST", "/actions/change_type$"),
    cloud("change_size", "GET", r"/actions/\d+$"),
    cloud("change_size", "GET", r"/servers/\d+$"),
];

const REBOOT: &[Outside] = &[
    cloud("shut_down", "GET", r"/servers/\d+$"),
    cloud("shut_down", "POST", "/actions/shutdown$"),
    cloud("shut_down", "GET", r"/actions/\d+$"),
    cloud("shut_down", "GET", r"/servers/\d+$"),
    cloud("power_on", "POST", "/actions/poweron$"),
    cloud("power_on", "GET", r"/actions/\d+$"),
    cloud("power_on", "GET", r"/servers/\d+$"),
];

/// A service beside the app: the config with it, and a run that makes its container.
const SERVICE: &[Outside] = &[
    github("commit_config", "GET", "/commits/main$"),
    github("commit_config", "GET", "/contents/"),
    github("commit_config", "GET", "/rules/branches/main$"),
    github("commit_config", "GET", "shop/branches/main$"),
    github("commit_config", "GET", "/git/ref/heads/main$"),
    github("commit_config", "GET", "/git/commits/"),
    github("commit_config", "POST", "/git/trees$"),
    github("commit_config", "POST", "/git/commits$"),
    github("commit_config", "PATCH", "/git/refs/heads/main$"),
    github("grant_access", "GET", "/actions/secrets/public-key$"),
    github("grant_access", "PUT", "/actions/secrets/VMKIT_"),
    github("grant_access", "PATCH", "/actions/variables/VMKIT_"),
    github("dispatch", "POST", "/dispatches$"),
    github("watch", "GET", r"/actions/runs/\d+$"),
    github("watch", "GET", r"/actions/runs/\d+/jobs$"),
    github("watch", "GET", r"/actions/runs/\d+$"),
];

/// The config without a service.
const REMOVE_SERVICE: &[Outside] = &[
    github("commit_config", "GET", "/commits/main$"),
    github("commit_config", "GET", "/contents/"),
    github("commit_config", "GET", "/rules/branches/main$"),
    github("commit_config", "GET", "shop/branches/main$"),
    github("commit_config", "GET", "/git/ref/heads/main$"),
    github("commit_config", "GET", "/git/commits/"),
    github("commit_config", "POST", "/git/trees$"),
    github("commit_config", "POST", "/git/commits$"),
    github("commit_config", "PATCH", "/git/refs/heads/main$"),
];

/// A name in a zone at Cloudflare.
const DOMAIN: &[Outside] = &[
    dns("point", "GET", "/zones$"),
    dns("point", "GET", "/dns_records$"),
    dns("point", "POST", "/dns_records$"),
    dns("point", "GET", "/zones$"),
    dns("point", "GET", "/dns_records$"),
    dns("point", "POST", "/dns_records$"),
    dns("look", "GET", "/zones$"),
    dns("look", "GET", "/dns_records$"),
];

impl Job {
    /// Its outside calls where nothing goes wrong, in order; several of a kind in a row are one.
    pub(crate) fn calls(self) -> &'static [Outside] {
        match self {
            Self::Setup => SETUP,
            Self::Provision => PROVISION,
            Self::Adopt => ADOPT,
            Self::Deploy => DEPLOY,
            Self::Current | Self::Rollback => REDEPLOY,
            Self::Resize => RESIZE,
            Self::Reboot => REBOOT,
            Self::Destroy => DESTROY,
            Self::Retire => RETIRE,
            Self::Restore => RESTORE,
            Self::Domain => DOMAIN,
            Self::Configure => CONFIGURE,
            Self::AddService | Self::UpgradeService => SERVICE,
            Self::RemoveService => REMOVE_SERVICE,
            Self::Stop => &[],
            Self::TestBuild => TEST_BUILD,
        }
    }

    /// Its outside calls, each kind once.
    pub(crate) fn kinds_of_calls(self) -> Vec<Outside> {
        let mut kinds: Vec<Outside> = Vec::new();
        for call in self.calls() {
            if !kinds.iter().any(|kind| kind.method == call.method && kind.path == call.path) {
                kinds.push(*call);
            }
        }
        kinds
    }

    /// Its steps, in order.
    pub(crate) fn steps(self) -> &'static [&'static str] {
        match self {
            Self::Setup => &["commit_files", "open_pull"],
            Self::Provision => &[
                "prepare",
                "ssh_key",
                "firewall",
                "address",
                "create_server",
                "own_address",
                "wait_server",
                "wait_agent",
                "record",
                "harden",
                "new_login",
                "keep",
            ],
            Self::Adopt => &[
                "prepare",
                "label",
                "arm",
                "set_up",
                "wait_agent",
                "check",
                "confirm",
                "record",
                "lock_out",
            ],
            Self::Deploy | Self::Current | Self::Rollback => &[
                "point",
                "commit_config",
                "grant_access",
                "write_env",
                "dispatch",
                "watch",
                "prove",
            ],
            Self::Resize => &[
                "look",
                "lock_kamal",
                "quiesce",
                "shut_down",
                "change_size",
                "power_on",
                "wait_agent",
                "resume",
                "prove",
                "record",
                "unlock_kamal",
            ],
            Self::Reboot => &[
                "look",
                "lock_kamal",
                "quiesce",
                "shut_down",
                "power_on",
                "wait_agent",
                "resume",
                "prove",
                "unlock_kamal",
            ],
            Self::Destroy => &[
                "revoke_access",
                "remove_records",
                "remove_app",
                "delete_server",
                "delete_snapshot",
                "delete_address",
                "delete_firewall",
                "delete_ssh_key",
                "forget",
            ],
            Self::Retire => &[
                "note",
                "revoke_access",
                "remove_app",
                "stop_server",
                "keep_snapshot",
                "keep_address",
                "delete_server",
                "mark",
            ],
            Self::Restore => &[
                "ssh_key",
                "firewall",
                "order_server",
                "power_on",
                "wait_server",
                "wait_agent",
                "check_host",
                "grant_access",
                "prove",
                "record",
                "delete_snapshot",
            ],
            Self::Domain => &["claim", "point", "look"],
            Self::Configure => &["keep_settings", "commit_config"],
            Self::AddService => &[
                "claim",
                "write_file",
                "commit_config",
                "grant_access",
                "dispatch",
                "watch",
                "prove",
                "give_address",
            ],
            Self::UpgradeService => {
                &["note_version", "commit_config", "grant_access", "dispatch", "watch", "prove"]
            }
            Self::RemoveService => &["mark", "commit_config", "unset_address", "remove", "forget"],
            Self::Stop => &["stop", "look"],
            Self::TestBuild => &["commit_config", "dispatch", "watch"],
        }
    }
}
