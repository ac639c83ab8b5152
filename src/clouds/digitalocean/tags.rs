//! Labels where there are only tags.
//!
//! | label | at DigitalOcean |
//! | --- | --- |
//! | installation | the tags `vmkit` (one for all) and `vmkit-installation:<bare id>` |
//! | VM | the name, `vmkit-<bare id>`; the tag `vmkit-vm:<bare id>` where the name is another |
//! | operation | nothing: a tag per operation would litter the account |
//! | any other | the tag `vmkit-<word>:<value>` |
//!
//! A firewall has no tags of its own: those that it names say which droplets it protects. It names
//! `vmkit-firewall:<bare id of the installation>`, which only droplets that were ordered with it
//! carry: an adopted one gets no firewall by that.

use std::collections::{BTreeMap, BTreeSet};

use crate::clouds::{LABEL_INSTALLATION, LABEL_OPERATION, LABEL_VM};
use crate::domain::ids::{InstallationId, VmId};

/// On everything that VMKit made, whichever installation it was.
const ALL: &str = "vmkit";
const LABELS: &str = "vmkit.io/";
const TAGS: &str = "vmkit-";
const FIREWALL: &str = "vmkit-firewall:";

/// The tag of the droplets that an installation's firewalls protect.
pub(super) fn firewall_tag(installation: InstallationId) -> String {
    format!("{FIREWALL}{}", installation.bare())
}

/// The tag that says whose a thing is.
pub(super) fn installation_tag(installation: InstallationId) -> String {
    format!("{TAGS}installation:{}", installation.bare())
}

/// Whether a tag is one of VMKit's.
pub(super) fn is_ours(tag: &str) -> bool {
    tag == ALL || tag.starts_with(TAGS)
}

/// Whether a tag says what a firewall protects.
pub(super) fn is_firewall_tag(tag: &str) -> bool {
    tag.starts_with(FIREWALL)
}

/// The tags that say what `labels` say of the thing with that name.
pub(super) fn tags(labels: &BTreeMap<String, String>, name: &str) -> BTreeSet<String> {
    let mut tags = BTreeSet::from([ALL.to_owned()]);
    for (label, value) in labels {
        let told = label == LABEL_OPERATION
            || (label == LABEL_VM && vm_of(name).as_deref() == Some(value));
        if let Some(word) = label.strip_prefix(LABELS).filter(|_| !told) {
            tags.insert(format!("{TAGS}{word}:{value}"));
        }
    }
    tags
}

/// What tags and name say, as labels.
pub(super) fn labels(tags: &[String], name: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for tag in tags.iter().filter(|tag| !is_firewall_tag(tag)) {
        if let Some((word, value)) = tag.strip_prefix(TAGS).and_then(|tag| tag.split_once(':')) {
            labels.insert(format!("{LABELS}{word}"), value.to_owned());
        }
    }
    if let Some(vm) = vm_of(name)
        && labels.contains_key(LABEL_INSTALLATION)
    {
        labels.entry(LABEL_VM.to_owned()).or_insert(vm);
    }
    labels
}

/// The bare id of the VM that a name is made of.
fn vm_of(name: &str) -> Option<String> {
    let bare = name.strip_prefix(TAGS)?.split('-').next()?;
    let id: VmId = format!("vm_{bare}").parse().ok()?;
    Some(id.bare())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clouds::vm_labels;
    use crate::domain::environment::Vm;
    use crate::domain::ids::OperationId;

    #[test]
    fn labels_survive_the_way_through_tags_and_name() {
        let (installation, vm) = (InstallationId::generate(), VmId::generate());
        let given = vm_labels(installation, vm, Some(OperationId::generate()));
        let own: Vec<String> = tags(&given, &Vm::cloud_name(&vm)).into_iter().collect();
        assert_eq!(
            own,
            ["vmkit".to_owned(), format!("vmkit-installation:{}", installation.bare())]
        );
        let read = labels(&own, &Vm::cloud_name(&vm));
        assert_eq!(read, vm_labels(installation, vm, None), "all but the operation");
        // Under another name a tag says which VM it is.
        let other: Vec<String> = tags(&given, "db-1").into_iter().collect();
        assert_eq!(labels(&other, "db-1"), vm_labels(installation, vm, None));
    }

    #[test]
    fn a_firewalls_tag_and_a_strangers_name_say_nothing() {
        let installation = InstallationId::generate();
        assert_eq!(labels(&[firewall_tag(installation), "web".to_owned()], "x"), BTreeMap::new());
        assert_eq!(labels(&[], &Vm::cloud_name(&VmId::generate())), BTreeMap::new());
    }
}
