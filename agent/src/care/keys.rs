//! One public key for another, among those that let VMKit's or Kamal's user in.

use std::io;

use vmkit_agent_protocol::care::{KeyUser, ReplaceKey};

use crate::calls::Fault;
use crate::files::{self, Access};
use crate::host::Host;

/// What VMKit's own key may do, as the user-data writes it.
const LINK_ONLY: &str = "restrict,command=\"/usr/local/lib/vmkit/link\" ";

/// The new key comes before the old one goes, in one rename; other people's lines stay as they are.
/// False where it is so already.
pub(super) fn replace(host: &Host, wanted: &ReplaceKey) -> Result<bool, Fault> {
    let parsed = |key: &Option<String>| match key {
        None => Ok(None),
        Some(line) => ssh_key::PublicKey::from_openssh(line.trim())
            .map(Some)
            .map_err(|_| Fault::invalid("a key is one line in OpenSSH's form".to_owned())),
    };
    let (old, new) = (parsed(&wanted.old)?, parsed(&wanted.new)?);
    let (name, options) = match wanted.user {
        KeyUser::Kamal => ("kamal", ""),
        KeyUser::Vmkit => ("vmkit", LINK_ONLY),
    };
    let Some((group, home)) = host.user(name) else {
        return Err(Fault::invalid(format!("there is no user `{name}` on this VM")));
    };
    let path = host.path(&format!("{home}/.ssh/authorized_keys"));
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|error| Fault::files(&error))?,
    };
    let old_body = old.as_ref().map(body).transpose()?;
    let new_body = new.as_ref().map(body).transpose()?;
    let holds = |line: &str, key: &Option<String>| {
        key.as_ref().is_some_and(|key| line.split_whitespace().any(|word| word == key))
    };
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| old_body == new_body || !holds(line, &old_body))
        .map(str::to_owned)
        .collect();
    if let Some(new) = new
        && !lines.iter().any(|line| holds(line, &new_body))
    {
        let line = new.to_openssh().map_err(|error| Fault::invalid(error.to_string()))?;
        lines.push(format!("{options}{line}"));
    }
    let mut changed = lines.join("\n");
    if !lines.is_empty() {
        changed.push('\n');
    }
    if changed == text {
        return Ok(false);
    }
    // sshd reads it as the user, and with StrictModes only where nobody else could have written it.
    let access = Access { mode: 0o600, owner: host.user_id(name), group: Some(group) };
    files::write_whole(&path, changed.as_bytes(), access).map_err(|error| Fault::files(&error))?;
    Ok(true)
}

fn body(key: &ssh_key::PublicKey) -> Result<String, Fault> {
    let line = key.to_openssh().map_err(|error| Fault::invalid(error.to_string()))?;
    Ok(line.split_whitespace().nth(1).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use ssh_key::private::{Ed25519Keypair, KeypairData, PrivateKey};

    use super::*;

    fn key(comment: &str) -> String {
        let pair = KeypairData::from(Ed25519Keypair::from_seed(&rand::random()));
        PrivateKey::new(pair, comment).unwrap().public_key().to_openssh().unwrap()
    }

    #[test]
    fn the_new_key_comes_and_the_old_one_goes_and_the_owners_stays() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        std::fs::create_dir_all(root.path().join("home/vmkit/.ssh")).unwrap();
        std::fs::write(host.path("etc/passwd"), "vmkit:x:998:997::/home/vmkit:/bin/sh\n").unwrap();
        let file = host.path("home/vmkit/.ssh/authorized_keys");
        let (old, new, owner) = (key("vmkit-link"), key("vmkit-link"), key("me@home"));
        std::fs::write(&file, format!("{LINK_ONLY}{old}\n{owner}\n")).unwrap();
        let ask = |old: Option<&str>, new: Option<&str>| {
            let of = |key: Option<&str>| key.map(str::to_owned);
            replace(&host, &ReplaceKey { user: KeyUser::Vmkit, old: of(old), new: of(new) })
        };
        let read = || std::fs::read_to_string(&file).unwrap();
        assert_eq!(ask(None, Some(&new)), Ok(true));
        assert_eq!(read(), format!("{LINK_ONLY}{old}\n{owner}\n{LINK_ONLY}{new}\n"));
        assert_eq!(ask(Some(&old), Some(&new)), Ok(true));
        assert_eq!(ask(Some(&old), Some(&new)), Ok(false));
        assert_eq!(read(), format!("{owner}\n{LINK_ONLY}{new}\n"));
        assert!(ask(None, Some("ssh-ed25519 AAAA\nssh-ed25519 BBBB")).is_err());
        let kamal = ReplaceKey { user: KeyUser::Kamal, old: None, new: Some(new) };
        assert!(replace(&host, &kamal).is_err(), "no such user");
    }
}
