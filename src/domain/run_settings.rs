//! How an environment's app is built and run, as far as somebody chose it. What is left open comes
//! from the scan of the repo.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::names::{BranchName, CommandLine, EnvKey, MountPath, ProcessName, VolumeName};

/// The least memory that a process can be limited to, in MiB.
pub const MEMORY_MIN_MB: u32 = 16;

/// What somebody chose for one environment beyond its size, region, names and port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunSettings {
    /// Processes that differ from what the scan found, by name.
    pub processes: BTreeMap<ProcessName, ProcessSettings>,
    /// Volumes that outlive containers, by name: where each lies in every container.
    pub volumes: BTreeMap<VolumeName, MountPath>,
    /// Whether what the app keeps on its own disk may be lost with every deploy.
    pub ephemeral: bool,
    /// How long the proxy waits for an answer, in seconds.
    pub response_timeout_s: Option<u32>,
    /// How long a new version may take to become healthy, in seconds.
    pub start_timeout_s: Option<u32>,
    /// How long an old version may take to end its work, in seconds.
    pub drain_timeout_s: Option<u32>,
    /// Whether the proxy holds answers back until they are complete.
    pub buffering: Option<bool>,
    /// What runs in the new image before any of its containers starts, such as migrations.
    pub release: Option<Release>,
    /// What stands before the app.
    pub proxy: ProxyKind,
    /// The branch whose pushes deploy to the environment.
    pub push_to_deploy: Option<BranchName>,
    /// Variables that the build of the image sees, whose values lie at GitHub.
    pub build_variables: BTreeMap<EnvKey, BuildVariable>,
}

/// What somebody chose for a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessSettings {
    /// The line that starts it.
    pub command: Option<CommandLine>,
    /// The most memory that it may use, in MiB.
    pub memory_mb: Option<u32>,
    /// It is not run in this environment.
    pub off: bool,
}

/// The command before a new version starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// Nothing runs, whatever the Procfile says.
    Off,
    /// This runs.
    Command(CommandLine),
}

/// What stands before the app on the VM. All apps of a VM share it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyKind {
    /// Kamal's own proxy.
    #[default]
    Kamal,
    /// Traefik, in front of Kamal's proxy, which publishes no port then.
    Traefik,
}

impl ProxyKind {
    /// The stored and shown form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kamal => "kamal",
            Self::Traefik => "traefik",
        }
    }
}

/// A variable of the build, whose value lies at GitHub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildVariable {
    /// An Actions secret; an Actions variable otherwise.
    pub secret: bool,
    /// The mark of its value: two environments whose marks are equal build the same.
    pub mark: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_chosen_is_what_rows_of_earlier_versions_say() {
        let read: RunSettings = serde_json::from_str("{}").expect("a row of an earlier version");
        assert_eq!(read, RunSettings::default());
    }

    #[test]
    fn names_of_places_refuse_what_could_leave_their_place() {
        for bad in [
            "", "/", "data", "/data/", "//data", "/a/../b", "/proc/1", "/etc", "/a b", "/a:ro",
            "/<%",
        ] {
            assert!(bad.parse::<MountPath>().is_err(), "{bad:?}");
        }
        for good in ["/data", "/rails/storage", "/app/.cache/x_1"] {
            assert!(good.parse::<MountPath>().is_ok(), "{good:?}");
        }
        for bad in ["", " x", "a;b", "a|b", "$(id)", "a\nb", "`id`", "-x", "a'b", "<%=x%>", "é"] {
            assert!(bad.parse::<CommandLine>().is_err(), "{bad:?}");
        }
        for bad in
            ["", "-x", "a..b", "a//b", "/a", "a/", "a b", ".a", "a.lock", "a/-b", "a*", "${{x}}"]
        {
            assert!(bad.parse::<BranchName>().is_err(), "{bad:?}");
        }
        assert!("release/2.x".parse::<BranchName>().is_ok());
    }
}
