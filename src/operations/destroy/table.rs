//! What becomes of each thing that an environment has when it is destroyed: the one table. Plans
//! are rendered from it, the steps follow it, and a test lists all clouds and GitHub against it.

use crate::domain::retirement::Keeping;

/// How an environment is destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// For good, with its VM.
    Purge,
    /// For good, from a VM that others use.
    PurgeShared,
    /// So that it can be undone.
    Keep(Keeping),
}

impl Manner {
    /// Every manner.
    pub const ALL: [Self; 5] = [
        Self::Purge,
        Self::PurgeShared,
        Self::Keep(Keeping::Snapshot),
        Self::Keep(Keeping::Park),
        Self::Keep(Keeping::Shared),
    ];
}

/// What an environment has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    /// The server.
    Server,
    /// Its IPv4 address of its own.
    Address,
    /// A snapshot that an earlier destroy kept.
    Snapshot,
    /// The firewall that all VMs share.
    Firewall,
    /// The owner's public key at the cloud, which all VMs share.
    OwnerKey,
    /// The containers of the app and its accessories.
    Containers,
    /// The proxy's route to them.
    Route,
    /// Volumes: the app's data.
    Volumes,
    /// The env file on the VM.
    EnvFile,
    /// The deploy key, here and on the VM.
    DeployKey,
    /// The Actions secret with the deploy key.
    Secret,
    /// The Actions variable with the host key.
    Variable,
    /// The env values and their history, sealed in our file.
    EnvValues,
    /// DNS records that VMKit made.
    DnsRecords,
    /// Images in the registry.
    Packages,
    /// The workflow and Kamal files in the repo.
    Workflow,
    /// The repo's webhook.
    Hook,
}

impl Thing {
    /// Every thing.
    pub const ALL: [Self; 17] = [
        Self::Server,
        Self::Address,
        Self::Snapshot,
        Self::Firewall,
        Self::OwnerKey,
        Self::Containers,
        Self::Route,
        Self::Volumes,
        Self::EnvFile,
        Self::DeployKey,
        Self::Secret,
        Self::Variable,
        Self::EnvValues,
        Self::DnsRecords,
        Self::Packages,
        Self::Workflow,
        Self::Hook,
    ];

    /// As a person reads it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Address => "IPv4 address",
            Self::Snapshot => "snapshot",
            Self::Firewall => "firewall",
            Self::OwnerKey => "your public key at the cloud",
            Self::Containers => "containers",
            Self::Route => "route",
            Self::Volumes => "volumes",
            Self::EnvFile => "env file",
            Self::DeployKey => "deploy key",
            Self::Secret => "Actions secret",
            Self::Variable => "Actions variable",
            Self::EnvValues => "env values",
            Self::DnsRecords => "DNS records",
            Self::Packages => "images in the registry",
            Self::Workflow => "workflow and Kamal files",
            Self::Hook => "webhook",
        }
    }
}

/// What becomes of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is removed.
    Removed,
    /// It is removed with the last VM, or the last environment of its repo, that needs it.
    WithTheLast,
    /// It is kept until the destroy is undone or over.
    Kept,
    /// It is not ours alone and stays as it is.
    Stays,
    /// It is the owner's to remove, where they want to.
    Asked,
}

impl Fate {
    /// As a person reads it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::WithTheLast => "removed with the last that needs it",
            Self::Kept => "kept for the undo",
            Self::Stays => "stay as they are",
            Self::Asked => "yours to remove",
        }
    }
}

/// The table.
pub fn fate(thing: Thing, manner: Manner) -> Fate {
    use Fate::{Asked, Kept, Removed, Stays, WithTheLast};
    let [purge, purge_shared, snapshot, park, shared] = match thing {
        Thing::Server => [Removed, Stays, Removed, Kept, Stays],
        Thing::Address => [Removed, Stays, Kept, Kept, Stays],
        Thing::Snapshot => [Removed, Stays, Kept, Stays, Stays],
        Thing::Firewall | Thing::OwnerKey => [WithTheLast, Stays, Stays, Stays, Stays],
        Thing::Containers | Thing::Route | Thing::EnvFile => {
            [Removed, Removed, Kept, Kept, Removed]
        }
        Thing::Volumes => [Removed, Removed, Kept, Kept, Kept],
        Thing::DeployKey | Thing::EnvValues => [Removed, Removed, Kept, Kept, Kept],
        Thing::Secret | Thing::Variable => [Removed; 5],
        Thing::DnsRecords => [Removed, Removed, Kept, Kept, Kept],
        Thing::Hook => [WithTheLast; 5],
        Thing::Packages | Thing::Workflow => [Asked; 5],
    };
    match manner {
        Manner::Purge => purge,
        Manner::PurgeShared => purge_shared,
        Manner::Keep(Keeping::Snapshot) => snapshot,
        Manner::Keep(Keeping::Park) => park,
        Manner::Keep(Keeping::Shared) => shared,
    }
}

/// The table's column for a plan: one line a fate.
pub fn lines(manner: Manner) -> Vec<String> {
    [Fate::Removed, Fate::WithTheLast, Fate::Kept, Fate::Asked]
        .into_iter()
        .filter_map(|wanted| {
            let of = Thing::ALL.into_iter().filter(|thing| fate(*thing, manner) == wanted);
            let names: Vec<&str> = of.map(Thing::as_str).collect();
            (!names.is_empty()).then(|| format!("{}: {}", wanted.as_str(), names.join(", ")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_undone_loses_nothing_and_what_cannot_leaves_nothing_billed() {
        for manner in Manner::ALL {
            for data in [Thing::Volumes, Thing::EnvValues] {
                let wanted = match manner {
                    Manner::Purge | Manner::PurgeShared => Fate::Removed,
                    Manner::Keep(_) => Fate::Kept,
                };
                assert_eq!(fate(data, manner), wanted, "{data:?} {manner:?}");
            }
            // What lets a workflow run in goes at once, whatever is kept.
            assert_eq!(fate(Thing::Secret, manner), Fate::Removed);
        }
        for billed in [Thing::Server, Thing::Address, Thing::Snapshot] {
            assert_eq!(fate(billed, Manner::Purge), Fate::Removed);
        }
    }

    #[test]
    fn a_vm_that_others_use_stays() {
        for manner in [Manner::PurgeShared, Manner::Keep(Keeping::Shared)] {
            for thing in [Thing::Server, Thing::Address, Thing::Firewall] {
                assert_eq!(fate(thing, manner), Fate::Stays);
            }
        }
    }

    #[test]
    fn every_line_names_its_things() {
        let lines = lines(Manner::Keep(Keeping::Snapshot));
        assert!(lines[0].starts_with("removed: server"), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("kept for the undo: IPv4 address")));
    }
}
