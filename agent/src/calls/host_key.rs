//! The SSH host key: the one from the user-data was known to the provider and to whoever can read
//! user-data, so the agent makes another, which never leaves the VM.
//!
//! In two steps: the new key is announced before it is used, so that whoever checks host keys is
//! never surprised, and a lost answer at any point costs nothing.

use std::io;

use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey};
use vmkit_agent_protocol::calls::Reply;

use super::Fault;
use crate::files::{self, Access};
use crate::host::Host;

/// Where the next key waits.
const PREPARED: &str = "var/lib/vmkit/next_host_key";
/// Where the SSH server looks.
const IN_PLACE: &str = "etc/ssh/ssh_host_ed25519_key";
const FOR_ALL: Access = Access { mode: 0o644, owner: None, group: None };

/// The key that waits, made where there is none.
pub(super) fn prepare(host: &Host) -> Result<Reply, Fault> {
    let waiting = match waiting(host)? {
        Some(key) => key,
        None => make(host).map_err(|error| Fault::files(&error))?,
    };
    Ok(Reply::HostKeyPrepared { public_key: public_line(&waiting)? })
}

/// Puts the key that waits in place.
pub(super) fn install(host: &Host, public_key: &str) -> Result<Reply, Fault> {
    let Some(key) = waiting(host)? else {
        let in_place = std::fs::read_to_string(host.path(&format!("{IN_PLACE}.pub")));
        let same = in_place.is_ok_and(|line| words(&line) == words(public_key));
        return match same {
            true => Ok(Reply::HostKeyInstalled { changed: false }),
            false => Err(Fault::invalid("no such host key was prepared".to_owned())),
        };
    };
    let line = public_line(&key)?;
    if words(&line) != words(public_key) {
        return Err(Fault::invalid("another host key was prepared".to_owned()));
    }
    put(host, &key, &line).map_err(|error| Fault::files(&error))?;
    Ok(Reply::HostKeyInstalled { changed: true })
}

/// The private half first: between the two writes the server's key is whole either way.
fn put(host: &Host, key: &PrivateKey, line: &str) -> io::Result<()> {
    let text = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    files::write_whole(&host.path(IN_PLACE), text.as_bytes(), files::PRIVATE)?;
    let line = format!("{line} vmkit\n");
    files::write_whole(&host.path(&format!("{IN_PLACE}.pub")), line.as_bytes(), FOR_ALL)?;
    reload(host);
    std::fs::remove_file(host.path(PREPARED))
}

/// Lets the SSH server read its keys again. Sessions that are open stay. Where it is started for
/// each connection there is nothing to tell.
pub(crate) fn reload(host: &Host) {
    let pid = host.read_line("run/sshd.pid").parse().ok().and_then(rustix::process::Pid::from_raw);
    let Some(pid) = pid else { return };
    // The file may be an old one, and its number somebody else's by now.
    let name = std::fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero()));
    if name.is_ok_and(|name| name.trim() == "sshd")
        && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::HUP)
    {
        tracing::warn!(%error, "the SSH server was not told of its new host key");
    }
}

fn waiting(host: &Host) -> Result<Option<PrivateKey>, Fault> {
    match std::fs::read_to_string(host.path(PREPARED)) {
        Ok(text) => Ok(PrivateKey::from_openssh(text).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Fault::files(&error)),
    }
}

fn make(host: &Host) -> io::Result<PrivateKey> {
    let pair = Ed25519Keypair::from_seed(&rand::random());
    let key = PrivateKey::new(KeypairData::from(pair), "vmkit").map_err(io::Error::other)?;
    let path = host.path(PREPARED);
    host.make_dir(path.parent().unwrap_or(host.root()), 0o700)?;
    let text = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    files::write_whole(&path, text.as_bytes(), files::PRIVATE)?;
    Ok(key)
}

/// `ssh-ed25519 AAAA…`.
fn public_line(key: &PrivateKey) -> Result<String, Fault> {
    let line = key.public_key().to_openssh();
    let line = line.map_err(|error| Fault::files(&io::Error::other(error)))?;
    Ok(words(&line).join(" "))
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().take(2).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn prepared(host: &Host) -> String {
        match prepare(host) {
            Ok(Reply::HostKeyPrepared { public_key }) => public_key,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_host_key_is_announced_before_it_is_used_and_every_step_may_run_twice() {
        let root = tempfile::tempdir().expect("a folder");
        let host = Host::new(root.path());
        std::fs::create_dir_all(root.path().join("etc/ssh")).expect("made");
        let key = prepared(&host);
        assert_eq!(prepared(&host), key);
        assert!(!host.path(IN_PLACE).exists());
        assert!(install(&host, "ssh-ed25519 AAAA").is_err());
        let installed = |changed| Ok(Reply::HostKeyInstalled { changed });
        assert_eq!(install(&host, &key), installed(true));
        assert_eq!(install(&host, &key), installed(false));
        assert_eq!(words(&host.read_line(&format!("{IN_PLACE}.pub"))).join(" "), key);
        let private = std::fs::read_to_string(host.path(IN_PLACE)).expect("a key");
        let private = PrivateKey::from_openssh(private).expect("a key");
        assert_eq!(public_line(&private).expect("a line"), key);
        let mode = std::fs::metadata(host.path(IN_PLACE)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(prepared(&host), key, "the next one is another");
        assert!(install(&host, "ssh-ed25519 AAAA").is_err());
    }
}
