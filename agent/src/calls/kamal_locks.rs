//! Kamal's own locks, for work on the whole VM. Kamal takes `~kamal/.kamal/lock-SERVICE` by `mkdir`
//! and says in its file `details` who it is; a lock that somebody else holds is never broken.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustix::fs::{CWD, Gid, RenameFlags, Uid};
use vmkit_agent_protocol::calls::Reply;
use vmkit_agent_protocol::upkeep::{HeldLock, KamalLocks};

use super::{Fault, blocking, containers};
use crate::agent::Agent;
use crate::host::Host;
use crate::time::now_ms;

/// What a lock's folder is called before it is one, and after.
const DRAFT: &str = ".vmkit-lock-";

/// Takes the lock of every service, or none.
pub(super) async fn take(agent: &Arc<Agent>, wanted: KamalLocks) -> Result<Reply, Fault> {
    if !is_plain(&wanted.operation) || wanted.message.contains(['\n', '\r']) {
        return Err(Fault::invalid("an operation has an id, and a message one line".to_owned()));
    }
    let running = containers::containers(agent.engine()).await?;
    let labelled = running.into_iter().filter(|one| one.labels.contains_key("role"));
    let mut services: BTreeSet<String> =
        labelled.filter_map(|mut one| one.labels.remove("service")).collect();
    services.extend(wanted.services.iter().cloned());
    // Kamal's own rule for a service's name; here it becomes a path.
    services.retain(|service| is_plain(service));
    let host = agent.host().clone();
    blocking(move || take_all(&host, &wanted, services))
        .await?
        .map_err(|error| Fault::files(&error))
}

fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !name.is_empty() && name.len() <= 100 && name.chars().all(plain)
}

fn take_all(host: &Host, wanted: &KamalLocks, services: BTreeSet<String>) -> io::Result<Reply> {
    let folder = folder(host)?;
    forget_drafts(&folder)?;
    let holder = holder(&wanted.operation);
    for service in &services {
        let text =
            format!("Locked by: {holder} at {}\nVersion: none\nMessage: {}", now(), wanted.message);
        if take_one(host, &folder, service, &text)? {
            continue;
        }
        let held = read(&folder, service)?;
        if held.as_ref().is_some_and(|held| held.by == holder) {
            continue;
        }
        release_all(&folder, &holder)?;
        let unknown = HeldLock { service: service.clone(), ..HeldLock::default() };
        return Ok(Reply::KamalLocks { services: Vec::new(), held: Some(held.unwrap_or(unknown)) });
    }
    Ok(Reply::KamalLocks { services: services.into_iter().collect(), held: None })
}

/// Gives back every lock of `operation`.
pub(super) fn release(host: &Host, operation: &str) -> Result<Reply, Fault> {
    let folder = host.kamal_folder();
    let released =
        release_all(&folder, &holder(operation)).map_err(|error| Fault::files(&error))?;
    Ok(Reply::KamalLocks { services: released, held: None })
}

/// Who holds one service's lock.
pub(super) fn look(host: &Host, service: &str) -> Result<Reply, Fault> {
    if !is_plain(service) {
        return Err(Fault::invalid(format!("`{service}` is no service's name")));
    }
    let held = read(&host.kamal_folder(), service).map_err(|error| Fault::files(&error))?;
    Ok(Reply::KamalLocks { services: Vec::new(), held })
}

/// Breaks a lock that is as described; what is another one by now stays.
pub(super) fn break_one(host: &Host, wanted: &HeldLock) -> Result<Reply, Fault> {
    let Reply::KamalLocks { held: Some(held), .. } = look(host, &wanted.service)? else {
        return Ok(Reply::KamalLocks { services: Vec::new(), held: None });
    };
    if held != *wanted {
        return Ok(Reply::KamalLocks { services: Vec::new(), held: Some(held) });
    }
    drop_lock(&host.kamal_folder(), &held.service).map_err(|error| Fault::files(&error))?;
    Ok(Reply::KamalLocks { services: vec![held.service], held: None })
}

/// Gone at once, so that nobody meets a lock without a holder.
fn drop_lock(folder: &Path, service: &str) -> io::Result<()> {
    let gone = folder.join(format!("{DRAFT}{:016x}", rand::random::<u64>()));
    std::fs::rename(folder.join(format!("lock-{service}")), &gone)?;
    std::fs::remove_dir_all(&gone)
}

/// As Kamal writes a time.
fn now() -> String {
    let now = jiff::Timestamp::from_millisecond(now_ms()).unwrap_or_default();
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn holder(operation: &str) -> String {
    format!("vmkit {operation}")
}

/// Kamal's folder, made as Kamal would make it.
fn folder(host: &Host) -> io::Result<std::path::PathBuf> {
    let folder = host.kamal_folder();
    if !folder.is_dir() {
        host.make_dir(&folder, 0o755)?;
        give_to_kamal(host, &folder)?;
    }
    Ok(folder)
}

/// The folder appears under its name with its details in it, and only where there is none: the
/// same as Kamal's `mkdir`, but never without a name of its holder.
fn take_one(host: &Host, folder: &Path, service: &str, text: &str) -> io::Result<bool> {
    let draft = folder.join(format!("{DRAFT}{:016x}", rand::random::<u64>()));
    std::fs::create_dir(&draft)?;
    let details = draft.join("details");
    std::fs::write(&details, BASE64_STANDARD.encode(text))?;
    give_to_kamal(host, &details)?;
    give_to_kamal(host, &draft)?;
    let lock = folder.join(format!("lock-{service}"));
    match rustix::fs::renameat_with(CWD, &draft, CWD, &lock, RenameFlags::NOREPLACE) {
        Ok(()) => {
            std::fs::File::open(folder)?.sync_all()?;
            Ok(true)
        }
        Err(error) => {
            std::fs::remove_dir_all(&draft)?;
            if error == rustix::io::Errno::EXIST { Ok(false) } else { Err(error.into()) }
        }
    }
}

fn give_to_kamal(host: &Host, path: &Path) -> io::Result<()> {
    let (Some(user), Some((group, _))) = (host.user_id("kamal"), host.user("kamal")) else {
        return Ok(());
    };
    if rustix::process::geteuid().is_root() {
        rustix::fs::chown(path, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
    }
    Ok(())
}

/// Who holds a service's lock; none where it is free.
fn read(folder: &Path, service: &str) -> io::Result<Option<HeldLock>> {
    let lock = folder.join(format!("lock-{service}"));
    let text = match std::fs::read_to_string(lock.join("details")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Kamal makes the folder before it writes the file.
            let empty = HeldLock { service: service.to_owned(), ..HeldLock::default() };
            return Ok(lock.is_dir().then_some(empty));
        }
        Err(error) => return Err(error),
    };
    let packed: String = text.split_whitespace().collect();
    let bytes = BASE64_STANDARD.decode(packed).unwrap_or_default();
    Ok(Some(parse(service, &String::from_utf8_lossy(&bytes))))
}

fn parse(service: &str, text: &str) -> HeldLock {
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
    };
    let by = field("Locked by:");
    let (by, since) = by.rsplit_once(" at ").unwrap_or((&by, ""));
    HeldLock {
        service: service.to_owned(),
        by: by.to_owned(),
        since: since.to_owned(),
        version: field("Version:"),
        message: field("Message:"),
    }
}

/// Gives back every lock of ours: nobody will come for them.
pub(crate) fn release_ours(folder: &Path) -> io::Result<Vec<String>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    release_held(folder, |by| by.starts_with("vmkit op_"))
}

fn release_all(folder: &Path, holder: &str) -> io::Result<Vec<String>> {
    release_held(folder, |by| by == holder)
}

fn release_held(folder: &Path, ours: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
    let mut released = Vec::new();
    for name in names(folder)? {
        let Some(service) = name.strip_prefix("lock-") else { continue };
        if read(folder, service)?.is_none_or(|held| !ours(&held.by)) {
            continue;
        }
        drop_lock(folder, service)?;
        released.push(service.to_owned());
    }
    released.sort();
    Ok(released)
}

/// What a death in the middle left.
fn forget_drafts(folder: &Path) -> io::Result<()> {
    let mut drafts = names(folder)?.into_iter().filter(|name| name.starts_with(DRAFT));
    drafts.try_for_each(|name| std::fs::remove_dir_all(folder.join(name)))
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATION: &str = "op_1";

    fn wanted() -> KamalLocks {
        let message = "resizing the VM".to_owned();
        KamalLocks { operation: OPERATION.to_owned(), message, services: Vec::new() }
    }

    fn services(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn all_locks_are_taken_or_none_and_only_ours_are_given_back() {
        let root = tempfile::tempdir().expect("a folder");
        let host = Host::new(root.path());
        let folder = host.kamal_folder();
        let taken = take_all(&host, &wanted(), services(&["a", "b"])).expect("taken");
        let both = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(taken, Reply::KamalLocks { services: both.clone(), held: None });
        let again = take_all(&host, &wanted(), services(&["a", "b"])).expect("taken");
        assert_eq!(again, taken, "a retry finds its own");
        let held = read(&folder, "a").expect("read").expect("held");
        assert_eq!((held.by.as_str(), held.message.as_str()), ("vmkit op_1", "resizing the VM"));
        assert_eq!(names(&folder).expect("read").len(), 2, "no draft is left");

        let other = KamalLocks { operation: "op_2".to_owned(), ..wanted() };
        let refused = take_all(&host, &other, services(&["0", "b"])).expect("answered");
        let Reply::KamalLocks { services: none, held: Some(held) } = refused else {
            panic!("{refused:?}");
        };
        assert!(none.is_empty());
        assert_eq!((held.service.as_str(), held.by.as_str()), ("b", "vmkit op_1"));
        assert!(!folder.join("lock-0").exists(), "what it took before is given back");
        let nothing = release(&host, "op_2").expect("done");
        assert_eq!(nothing, Reply::KamalLocks { services: Vec::new(), held: None });
        assert_eq!(release(&host, OPERATION).expect("done"), taken);
        assert!(names(&folder).expect("read").is_empty());
    }

    #[test]
    fn a_lock_of_kamals_is_read_and_stays() {
        let root = tempfile::tempdir().expect("a folder");
        let host = Host::new(root.path());
        let lock = host.kamal_folder().join("lock-shop-staging");
        std::fs::create_dir_all(&lock).expect("made");
        // Between Kamal's two commands.
        let answer = take_all(&host, &wanted(), services(&["shop-staging"])).expect("answered");
        assert!(matches!(answer, Reply::KamalLocks { held: Some(_), .. }), "{answer:?}");
        let text = "Locked by: Ann at Home at 2026-11-01T10:00:00Z\nVersion: 4f2a\nMessage: wait";
        // Ruby's `Base64.encode64` breaks lines.
        let mut packed = BASE64_STANDARD.encode(text);
        packed.insert(60, '\n');
        std::fs::write(lock.join("details"), packed).expect("written");
        let answer = take_all(&host, &wanted(), services(&["shop-staging"])).expect("answered");
        let Reply::KamalLocks { held: Some(held), .. } = answer else { panic!("{answer:?}") };
        assert_eq!(
            (held.by.as_str(), held.since.as_str()),
            ("Ann at Home", "2026-11-01T10:00:00Z")
        );
        assert_eq!((held.version.as_str(), held.message.as_str()), ("4f2a", "wait"));
        assert!(lock.is_dir());

        let seen = look(&host, "shop-staging").expect("looked");
        let by_name = Reply::KamalLocks { services: Vec::new(), held: Some(held.clone()) };
        assert_eq!(seen, by_name);
        let earlier = HeldLock { since: "2026-11-01T09:00:00Z".to_owned(), ..held.clone() };
        assert_eq!(break_one(&host, &earlier).expect("answered"), by_name, "another one by now");
        assert!(lock.is_dir());
        let broken = break_one(&host, &held).expect("broken");
        let none =
            |services: &[&str]| services.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let wanted = Reply::KamalLocks { services: none(&["shop-staging"]), held: None };
        assert_eq!(broken, wanted);
        assert!(!lock.exists());
        let again = Reply::KamalLocks { services: Vec::new(), held: None };
        assert_eq!(break_one(&host, &held).expect("gone already"), again);
        assert!(look(&host, "../etc").is_err());
    }
}
