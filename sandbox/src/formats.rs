//! What the simulated clouds check alike: host names and SSH keys.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

/// Letters, digits, hyphens and dots, as a server's name has to be.
pub(crate) fn is_hostname(name: &str) -> bool {
    let label = |label: &str| {
        let fine = label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        !label.is_empty()
            && label.len() <= 63
            && fine
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// MD5 of a public key's bytes, in hex with colons; none where it is no key.
pub(crate) fn key_fingerprint(public_key: &str) -> Option<String> {
    let mut words = public_key.split_whitespace();
    let kind =
        words.next().filter(|kind| kind.starts_with("ssh-") || kind.starts_with("ecdsa-"))?;
    let blob = STANDARD.decode(words.next()?).ok()?;
    // The blob begins with the kind's name again, after its length.
    blob.get(4..4 + kind.len()).filter(|name| *name == kind.as_bytes())?;
    let pairs: Vec<String> = Md5::digest(&blob).iter().map(|byte| format!("{byte:02x}")).collect();
    Some(pairs.join(":"))
}
