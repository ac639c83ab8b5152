//! Env files: written whole, readable for Kamal's user, with the last revisions kept.

use std::io;
use std::path::{Path, PathBuf};

use vmkit_agent_protocol::calls::{EnvFile, Reply};

use super::Fault;
use crate::files::{self, Access};
use crate::host::Host;

/// Revisions that are kept, the one in place included.
const KEPT: usize = 10;
/// The longest env file that is taken, in bytes.
const LONGEST: usize = 512 * 1024;

/// Puts a revision in place. The same revision with the same content is fine, as often as asked.
pub(super) fn write(host: &Host, file: &EnvFile) -> Result<Reply, Fault> {
    for name in [&file.app, &file.environment] {
        if !is_slug(name) {
            return Err(Fault::invalid(format!(
                "`{name}` is not the name of an app or environment"
            )));
        }
    }
    let content = file.content.0.as_bytes();
    if content.len() > LONGEST || content.contains(&0) {
        return Err(Fault::invalid(format!("an env file is text of at most {LONGEST} bytes")));
    }
    let changed = put(host, file, content)?;
    Ok(Reply::EnvFileWritten { revision: file.revision, changed })
}

fn put(host: &Host, file: &EnvFile, content: &[u8]) -> Result<bool, Fault> {
    let failed = |error: io::Error| Fault::files(&error);
    let (app, environment) = (&file.app, &file.environment);
    let target = host.path(&format!("etc/vmkit/env/{app}/{environment}.env"));
    let history = host.path(&format!("var/lib/vmkit/env/{app}/{environment}"));
    let kept = history.join(format!("{}.env", file.revision));
    let before = read(&kept).map_err(failed)?;
    if before.as_deref().is_some_and(|before| before != content) {
        let revision = file.revision;
        return Err(Fault::revision_conflict(format!(
            "revision {revision} of `{app}/{environment}` is on the VM already with other values"
        )));
    }
    if before.is_some() && read(&target).map_err(failed)?.as_deref() == Some(content) {
        return Ok(false);
    }
    refuse_if_locked(host, app, environment)?;
    // The history comes first: what is in place can then always be named.
    host.make_dir(&history, 0o700).map_err(failed)?;
    files::write_whole(&kept, content, files::PRIVATE).map_err(failed)?;
    let access = for_kamal(host);
    let dir = target.parent().unwrap_or(host.root());
    make_readable_dirs(host, dir).map_err(failed)?;
    files::write_whole(&target, content, access).map_err(failed)?;
    forget_old(&history, file.revision).map_err(failed)?;
    Ok(true)
}

/// As VMKit's own names of apps and environments are made; the agent looks again, since these
/// become paths.
pub(super) fn is_slug(text: &str) -> bool {
    text.len() <= 30
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Kamal holds a directory as its lock while it deploys, and must not see the values change.
pub(super) fn refuse_if_locked(host: &Host, app: &str, environment: &str) -> Result<(), Fault> {
    if host.kamal_folder().join(format!("lock-{app}-{environment}")).is_dir() {
        return Err(Fault::kamal_locked(format!(
            "a deploy of `{app}/{environment}` holds Kamal's lock; its values change afterwards"
        )));
    }
    Ok(())
}

pub(super) fn for_kamal(host: &Host) -> Access {
    match host.group_id("kamal").or_else(|| host.user("kamal").map(|(group, _)| group)) {
        Some(group) => Access { mode: 0o640, owner: None, group: Some(group) },
        None => files::PRIVATE,
    }
}

/// `etc/vmkit` holds the agent's own configuration too, but that is 0600; Kamal's user has to get
/// through.
pub(super) fn make_readable_dirs(host: &Host, dir: &Path) -> io::Result<()> {
    let mut above: Vec<PathBuf> =
        dir.ancestors().take_while(|at| *at != host.root()).map(Path::to_path_buf).collect();
    above.reverse();
    above.iter().try_for_each(|dir| host.make_dir(dir, 0o755))
}

/// Keeps the newest revisions, and the one that is in place.
fn forget_old(history: &Path, in_place: u32) -> io::Result<()> {
    let mut revisions: Vec<u32> = std::fs::read_dir(history)?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".env")?.parse().ok())
        .filter(|&revision| revision != in_place)
        .collect();
    revisions.sort_unstable_by(|a, b| b.cmp(a));
    for old in revisions.into_iter().skip(KEPT - 1) {
        std::fs::remove_file(history.join(format!("{old}.env")))?;
    }
    Ok(())
}
