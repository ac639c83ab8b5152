//! What the vault promises: nothing opens in another row, and nothing shows what it holds.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn random_key() -> Secret {
    let mut bytes = [0_u8; 32];
    OsRng.fill_bytes(&mut bytes);
    Secret::new(hex::encode(bytes))
}

fn vault() -> Vault {
    Vault::open(MasterKey::from_variable(&random_key()).expect("a key"))
}

#[test]
fn what_is_sealed_opens_again_and_never_looks_the_same_twice() {
    let vault = vault();
    for text in ["", "x", "token-for-tests", "ümläut \u{1F512} $(id)\n"] {
        let secret = Secret::new(text);
        let one = vault.seal(&secret, Purpose::EnvValue, "env_1/KEY").expect("sealed");
        let two = vault.seal(&secret, Purpose::EnvValue, "env_1/KEY").expect("sealed");
        assert_ne!(one, two);
        let open = vault.unseal(&one, Purpose::EnvValue, "env_1/KEY").expect("opened");
        assert_eq!(open.expose(), text);
    }
}

#[test]
fn swapped_rows_do_not_open() {
    let vault = vault();
    let purpose = Purpose::EnvValue;
    let a = vault.seal(&Secret::new("value of a"), purpose, "row_a").expect("sealed");
    let b = vault.seal(&Secret::new("value of b"), purpose, "row_b").expect("sealed");
    assert_eq!(vault.unseal(&b, purpose, "row_a").expect_err("swapped").code(), "vault_unopenable");
    assert_eq!(vault.unseal(&a, purpose, "row_b").expect_err("swapped").code(), "vault_unopenable");
    // Nor for another purpose in the same row.
    assert!(vault.unseal(&a, Purpose::CloudToken, "row_a").is_err());
    assert!(vault.unseal(&a, purpose, "row_a").is_ok());
}

#[test]
fn every_changed_or_missing_byte_is_noticed() {
    let vault = vault();
    let purpose = Purpose::DeployKey;
    let sealed = vault.seal(&Secret::new("value"), purpose, "row").expect("sealed");
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(vault.unseal(&changed, purpose, "row").is_err(), "byte {at}");
        assert!(vault.unseal(&sealed[..at], purpose, "row").is_err(), "cut at {at}");
    }
    let mut newer = sealed;
    newer[0] = 2;
    let error = vault.unseal(&newer, purpose, "row").expect_err("newer");
    assert_eq!(error.code(), "vault_version");
}

#[test]
fn a_wrong_key_says_where_it_came_from() {
    let ours = vault();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("master.key");
    let other = Vault::open(MasterKey::from_file(&path).expect("a new key file"));
    let error = other.check(ours.fingerprint()).expect_err("another key");
    assert_eq!(error.code(), "vault_wrong_key");
    let text = error.to_string();
    assert!(text.contains(&format!("the key file {}", path.display())), "{text}");
    assert!(text.contains(ours.fingerprint()), "{text}");
    let error = ours.check(other.fingerprint()).expect_err("another key").to_string();
    assert!(error.contains("the variable VMKIT_MASTER_KEY"), "{error}");
    ours.check(ours.fingerprint()).expect("its own");
    // And nothing sealed by the one opens with the other.
    let sealed = ours.seal(&Secret::new("value"), Purpose::CloudToken, "row").expect("sealed");
    assert!(other.unseal(&sealed, Purpose::CloudToken, "row").is_err());
}

#[test]
fn a_key_file_is_private_made_once_and_refused_when_others_can_read_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state/master.key");
    let first = Vault::open(MasterKey::from_file(&path).expect("made"));
    let mode = |path: &std::path::Path| {
        std::fs::metadata(path).expect("there").permissions().mode() & 0o7777
    };
    assert_eq!(mode(&path), 0o600);
    let again = Vault::open(MasterKey::from_file(&path).expect("read"));
    again.check(first.fingerprint()).expect("the same key");
    assert_eq!(std::fs::read_dir(path.parent().expect("its folder")).expect("listed").count(), 1);

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("set");
    let error = MasterKey::from_file(&path).expect_err("open to others");
    assert_eq!(error.code(), "vault_key_file_open");
    assert!(error.to_string().contains("mode 0640"), "{error}");
}

#[test]
fn two_processes_that_start_at_once_get_one_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("master.key");
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || Vault::open(MasterKey::from_file(&path).expect("a key")))
        })
        .collect();
    let prints: std::collections::BTreeSet<String> = threads
        .into_iter()
        .map(|thread| thread.join().expect("joined").fingerprint().to_owned())
        .collect();
    assert_eq!(prints.len(), 1);
}

#[test]
fn the_key_is_taken_in_hex_and_base64_and_nothing_else() {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
    let mut bytes = [0_u8; 32];
    OsRng.fill_bytes(&mut bytes);
    let wanted =
        Vault::open(MasterKey::from_variable(&Secret::new(hex::encode(bytes))).expect("hex"));
    let upper = hex::encode_upper(bytes);
    for text in
        [upper, STANDARD.encode(bytes), STANDARD_NO_PAD.encode(bytes), URL_SAFE.encode(bytes)]
    {
        let key = MasterKey::from_variable(&Secret::new(format!(" {text}\n"))).expect("a key");
        Vault::open(key).check(wanted.fingerprint()).expect("the same key");
    }
    for text in ["", "hunter2", &hex::encode(&bytes[..31]), &STANDARD.encode([0_u8; 33])] {
        let error = MasterKey::from_variable(&Secret::new(text)).expect_err("no key");
        assert_eq!(error.code(), "vault_key_text");
        assert!(text.is_empty() || !error.to_string().contains(text), "{error}");
    }
}

#[test]
fn a_mark_tells_values_apart_only_under_one_key() {
    let (one, two) = (vault(), vault());
    let (a, b) = (Secret::new("value a"), Secret::new("value b"));
    assert_eq!(one.mark(&a), one.mark(&a));
    assert_ne!(one.mark(&a), one.mark(&b));
    assert_ne!(one.mark(&a), two.mark(&a));
    assert_eq!(one.mark(&a).len(), 8);
}

#[test]
fn nothing_prints_a_key_or_a_value() {
    let key = random_key();
    let value = Secret::new("a value that must not be seen");
    let master = MasterKey::from_variable(&key).expect("a key");
    let mut shown = format!("{master:?} {value:?}");
    let vault = Vault::open(master);
    let sealed = vault.seal(&value, Purpose::EnvValue, "row").expect("sealed");
    let error = vault.unseal(&sealed, Purpose::EnvValue, "other").expect_err("moved");
    shown += &format!("{vault:?} {error:?} {error}");
    assert!(!shown.contains(key.expose()) && !shown.contains(value.expose()), "{shown}");
    assert!(!String::from_utf8_lossy(&sealed).contains("must not"));
}
