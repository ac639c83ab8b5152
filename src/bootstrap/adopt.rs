//! The scripts for a machine that exists already: one that looks, one that sets it up as a first
//! boot would, and one that takes all of it off again.
//!
//! What both ways have in common stands once, among the files of the user-data. What is there
//! stays: users, keys, containers, firewalls and the SSH server's configuration.

use url::Url;

use super::{
    BootstrapError, TEMPLATE, base64_text, checksum, closed, kept, public_key, token_text,
    with_mirror,
};
use crate::domain::ids::VmId;
use crate::domain::secret::Secret;

/// Reads what a plan has to tell, one fact a line; changes nothing.
pub const LOOK: &str = include_str!("look.sh");
const ADOPT: &str = include_str!("adopt.sh");
const LEAVE_FILE: &str = include_str!("leave.sh");

/// Takes VMKit off the machine, as far as it got there.
pub const LEAVE: &str = "root=${VMKIT_ROOT:-}\n\
    [ ! -x \"$root/usr/local/lib/vmkit/leave\" ] || \"$root/usr/local/lib/vmkit/leave\"\n";

/// After how many minutes the machine takes everything off by itself, unless that is called off.
pub const UNDO_MINUTES: u32 = 30;

/// Files of the user-data that an adopted machine does not get: its SSH server stays as it is, its
/// Docker where there is one, and cloud-init does not run.
const NOT_HERE: [&str; 3] = [
    "/etc/docker/daemon.json",
    "/etc/ssh/sshd_config.d/20-vmkit.conf",
    "/var/lib/vmkit/bootstrap.sh",
];

/// A part of the script: its first argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The machine will undo all by itself unless somebody calls it off.
    Arm,
    /// Everything else.
    SetUp,
    /// Calls the undo off.
    Confirm,
    /// Removes the key that let VMKit in.
    LockOut,
}

impl Part {
    /// As the script knows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arm => "arm",
            Self::SetUp => "set_up",
            Self::Confirm => "confirm",
            Self::LockOut => "lock_out",
        }
    }
}

/// All that the script is made of.
#[derive(Debug, Clone)]
pub struct Adoption<'a> {
    /// Which VM the machine becomes.
    pub vm: VmId,
    /// The ed25519 key that the gateway has to prove, in base64.
    pub gateway_key_base64: &'a str,
    /// The single-use token.
    pub enrolment_token: &'a Secret,
    /// The SHA-256 of the agent's binary, in hex.
    pub agent_sha256: &'a str,
    /// Its length.
    pub agent_bytes: u64,
    /// What Docker asks before Docker Hub, where VMKit brings it.
    pub registry_mirror: Option<&'a Url>,
    /// The public half of the environment's deploy key, in OpenSSH form.
    pub deploy_public_key: &'a str,
    /// The owner's public key, where one is known.
    pub owner_public_key: Option<&'a str>,
    /// The public half of the key that VMKit will come with, in OpenSSH form.
    pub link_public_key: &'a str,
    /// The user as whom VMKit logs in for the set-up.
    pub login: &'a str,
    /// The public half of the key that it does that with.
    pub login_public_key: &'a str,
}

/// Whether a text can be the name of a user on a machine.
pub fn is_user_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text.chars().all(fits)
}

/// The script, for `sh -s PART`; it holds the enrolment token.
///
/// # Errors
/// A value that could leave its place in the script, or a key that is no public key.
pub fn script(facts: &Adoption<'_>) -> Result<Secret, BootstrapError> {
    let deploy_key = public_key("deploy key", facts.deploy_public_key)?;
    let link_key = public_key("link key", facts.link_public_key)?;
    let login_key = public_key("login key", facts.login_public_key)?;
    let owner_key =
        facts.owner_public_key.map(|key| public_key("owner's public key", key)).transpose()?;
    base64_text("gateway's key", facts.gateway_key_base64)?;
    token_text(facts.enrolment_token)?;
    checksum(facts.agent_sha256)?;
    closed("login", facts.login, 32, |_| is_user_name(facts.login), "a user's name")?;
    let body = login_key.split(' ').nth(1).unwrap_or_default();
    let mut text = String::new();
    let mut without_owner = false;
    for line in ADOPT.lines() {
        match line.trim() {
            "#<leave>" => put(&mut text, "0755", "/usr/local/lib/vmkit/leave", LEAVE_FILE),
            "#<daemon>" => {
                for (path, mode, content) in files().filter(|(path, ..)| *path == NOT_HERE[0]) {
                    put(&mut text, &mode, path, &content);
                }
            }
            "#<files>" => {
                for (path, mode, content) in files().filter(|(path, ..)| !NOT_HERE.contains(path)) {
                    put(&mut text, &mode, path, &content);
                }
            }
            "#<owner>" => without_owner = owner_key.is_none(),
            "#</owner>" => without_owner = false,
            _ if without_owner => {}
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    Ok(Secret::new(
        with_mirror(&text, facts.registry_mirror)?
            .replace("@VM@", &facts.vm.to_string())
            .replace("@GATEWAY_KEY@", facts.gateway_key_base64)
            .replace("@TOKEN@", facts.enrolment_token.expose())
            .replace("@AGENT_SHA256@", facts.agent_sha256)
            .replace("@AGENT_BYTES@", &facts.agent_bytes.to_string())
            .replace("@DEPLOY_KEY@", &deploy_key)
            .replace("@OWNER_KEY@", owner_key.as_deref().unwrap_or_default())
            .replace("@LINK_KEY@", &link_key)
            .replace("@LOGIN_KEY_BODY@", body)
            .replace("@LOGIN@", facts.login)
            .replace("@UNDO_MINUTES@", &UNDO_MINUTES.to_string()),
    ))
}

/// A file, written as the script's `put` does.
fn put(text: &mut String, mode: &str, path: &str, content: &str) {
    text.push_str(&format!("  put {mode} {path} << 'END_OF_FILE'\n{content}END_OF_FILE\n"));
}

/// The files of the user-data of a VM that VMKit comes to: path, mode, content, as they stand in
/// the template.
fn files() -> impl Iterator<Item = (&'static str, String, String)> {
    let mut files: Vec<(&'static str, String, String)> = Vec::new();
    let paths: Vec<&'static str> =
        TEMPLATE.lines().filter_map(|line| line.strip_prefix("  - path: ")).collect();
    for line in kept("served").lines() {
        if let Some(path) = line.strip_prefix("  - path: ") {
            let path = paths.iter().find(|known| **known == path).copied().unwrap_or_default();
            files.push((path, String::new(), String::new()));
        } else if let Some((_, mode, content)) = files.last_mut() {
            if let Some(given) = line.strip_prefix("    permissions: ") {
                *mode = given.trim_matches('"').to_owned();
            } else if let Some(inner) = line.strip_prefix("      ") {
                content.push_str(inner);
                content.push('\n');
            } else if line.is_empty() {
                content.push('\n');
            } else if !line.starts_with(' ') {
                break;
            }
        }
    }
    files.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMD";

    fn adoption<'a>(token: &'a Secret, login: &'a str, owner: Option<&'a str>) -> Adoption<'a> {
        Adoption {
            vm: VmId::generate(),
            gateway_key_base64: "Z2F0ZXdheQ==",
            enrolment_token: token,
            agent_sha256: "abababababababababababababababababababababababababababababababab",
            agent_bytes: 17,
            registry_mirror: None,
            deploy_public_key: KEY,
            owner_public_key: owner,
            link_public_key: KEY,
            login,
            login_public_key: KEY,
        }
    }

    #[test]
    fn the_files_are_those_that_cloud_init_would_write() {
        let user_data: serde_json::Value = serde_saphyr::from_str(&kept("served")).expect("YAML");
        let theirs = user_data["write_files"].as_array().expect("a list");
        let ours: Vec<_> = files().collect();
        assert_eq!(ours.len(), theirs.len());
        for ((path, mode, content), theirs) in ours.iter().zip(theirs) {
            assert_eq!(
                (*path, mode.as_str()),
                (theirs["path"].as_str().unwrap(), theirs["permissions"].as_str().unwrap())
            );
            assert_eq!(content, theirs["content"].as_str().unwrap(), "{path}");
        }
    }

    #[test]
    fn nothing_is_left_open_and_nobody_elses_settings_are_in_it() {
        let token = Secret::new("token");
        let place = regex::Regex::new("@[A-Z_0-9]+@").expect("a regex");
        for owner in [None, Some(KEY)] {
            let script = script(&adoption(&token, "root", owner)).expect("a script");
            let text = script.expose();
            let open = text.lines().find(|line| line.contains("#<") || line.contains("@O"));
            assert_eq!(open, None);
            assert!(!place.is_match(text), "{text}");
            assert!(!text.contains("sshd_config"), "the SSH server's settings stay");
            assert_eq!(text.contains("authorize kamal 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMD owner'"), owner.is_some());
            assert_eq!(text.matches("END_OF_FILE").count() % 2, 0);
        }
    }

    #[test]
    fn what_could_leave_its_place_is_refused() {
        let token = Secret::new("token");
        for login in ["", "Root", "a b", "x'; rm -rf /; '", "-x", "a\nb"] {
            assert!(script(&adoption(&token, login, None)).is_err(), "{login:?}");
        }
        let bad = Secret::new("a'b");
        assert!(script(&adoption(&bad, "root", None)).is_err());
        assert!(script(&adoption(&token, "root", Some("not a key"))).is_err());
    }
}
