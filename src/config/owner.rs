//! The owner's own SSH public key: with it they can log in to every VM, whatever becomes of VMKit.

use std::path::{Path, PathBuf};

use super::{Environment, SettingsError, bad, read_text};

const WANTED: &str =
    "an SSH public key such as `ssh-ed25519 AAAA... you@laptop`, or the path of a file with one";

/// The key that was given (its text or its file), else the first of `~/.ssh/id_ed25519.pub` and
/// `~/.ssh/id_rsa.pub`; nothing where there is none.
pub(super) fn find(
    given: Option<&str>,
    environment: &Environment,
) -> Result<Option<String>, SettingsError> {
    let home = environment.path("HOME");
    if let Some(given) = given {
        if let Some(key) = parse(given) {
            return Ok(Some(key));
        }
        let path = expand(given.trim(), home.as_deref());
        let text = read_text(&path)?.ok_or_else(|| bad("VMKIT_OWNER_KEY", given, WANTED))?;
        return parse(&text).map(Some).ok_or_else(|| bad("VMKIT_OWNER_KEY", given, WANTED));
    }
    let Some(home) = home else { return Ok(None) };
    // A key file that cannot be read is as good as none: provisioning says what is missing.
    Ok(["id_ed25519.pub", "id_rsa.pub"].iter().find_map(|name| {
        let text = std::fs::read_to_string(home.join(".ssh").join(name)).ok()?;
        parse(&text)
    }))
}

fn expand(given: &str, home: Option<&Path>) -> PathBuf {
    match (given.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(given),
    }
}

/// One line of `authorized_keys`, with its parts checked by the SSH library.
fn parse(text: &str) -> Option<String> {
    let line =
        text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
    let key = ssh_key::PublicKey::from_openssh(line).ok()?;
    key.to_openssh().ok()
}

#[cfg(test)]
mod tests {
    use ssh_key::rand_core::OsRng;

    use super::*;

    fn fresh_key() -> String {
        let key = ssh_key::PrivateKey::random(&mut OsRng, ssh_key::Algorithm::Ed25519);
        key.expect("a key").public_key().to_openssh().expect("a line")
    }

    #[test]
    fn the_key_comes_from_text_from_a_file_or_from_the_usual_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let environment: Environment = [("HOME", folder.path())].into_iter().collect();
        assert_eq!(find(None, &environment).expect("looked"), None);

        let usual = fresh_key();
        std::fs::create_dir(folder.path().join(".ssh")).expect("made");
        std::fs::write(folder.path().join(".ssh/id_ed25519.pub"), format!("{usual}\n"))
            .expect("written");
        assert_eq!(find(None, &environment).expect("found"), Some(usual));

        let given = fresh_key();
        assert_eq!(find(Some(&given), &environment).expect("text"), Some(given.clone()));
        std::fs::write(folder.path().join("mine.pub"), &given).expect("written");
        assert_eq!(find(Some("~/mine.pub"), &environment).expect("file"), Some(given));
    }

    #[test]
    fn a_private_key_or_rubbish_is_refused_with_an_example() {
        let environment = Environment::default();
        for given in ["ssh-ed25519 rubbish", "/nowhere/at/all"] {
            let text = find(Some(given), &environment).expect_err(given).to_string();
            assert!(
                text.contains("VMKIT_OWNER_KEY") && text.contains("ssh-ed25519 AAAA"),
                "{text}"
            );
        }
    }
}
