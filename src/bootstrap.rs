//! The user-data that a new VM boots from: cloud-init makes it a host that Kamal can deploy to and
//! whose agent dials home, and then VMKit is not needed to log in or to deploy.
//!
//! It is one text for Debian 12 and 13 and for Ubuntu 22.04 and 24.04, on amd64 and arm64: the
//! packages have the same names on all of them, but for the command `docker`, which the first boot
//! looks for, and where it is missing (Debian 13) takes from a package of its own. What else differs,
//! such as the `ssh.socket` of Ubuntu 24.04, is the agent's to know, which hardens afterwards. VMKit
//! itself orders Debian; an Ubuntu is adopted.
//!
//! User-data stays readable on the VM, so the only secret in it is an enrolment token that works
//! once, for this VM, for an hour.

pub mod adopt;

use url::Url;

use crate::domain::ids::VmId;
use crate::domain::secret::Secret;

const TEMPLATE: &str = include_str!("bootstrap/user-data.yml");
/// As the agent itself would write it.
const UNIT: &str = include_str!("../agent/units/vmkit-agent.service");
const RESTORED: &str = include_str!("bootstrap/restored.yml");

/// The most that user-data may be, in bytes: half of what the strictest cloud takes.
pub const MAX_BYTES: usize = 16 * 1024;

/// All that the user-data is made of.
#[derive(Debug, Clone)]
pub struct Bootstrap<'a> {
    /// Which VM.
    pub vm: VmId,
    /// The VM's own host name.
    pub hostname: &'a str,
    /// How VMKit and the VM's agent will meet.
    pub link: Link<'a>,
    /// The ed25519 key that the gateway has to prove, in base64.
    pub gateway_key_base64: &'a str,
    /// The single-use token.
    pub enrolment_token: &'a Secret,
    /// The SHA-256 of that binary, in hex.
    pub agent_sha256: &'a str,
    /// What Docker asks before Docker Hub.
    pub registry_mirror: Option<&'a Url>,
    /// The public half of the environment's deploy key, in OpenSSH form.
    pub deploy_public_key: &'a str,
    /// The owner's public key, in OpenSSH form: they can log in whatever becomes of VMKit.
    pub owner_public_key: &'a str,
}

/// How VMKit and a VM's agent meet.
#[derive(Debug, Clone)]
pub enum Link<'a> {
    /// The agent dials out.
    DialOut {
        /// To where.
        gateway_url: &'a Url,
        /// Where the agent's binary for the VM's architecture is.
        agent_url: &'a Url,
    },
    /// VMKit comes over SSH, and brings the agent's binary.
    Served {
        /// The public half of the key that it comes with, in OpenSSH form.
        link_public_key: &'a str,
        /// The VM's host key, an ed25519 one in OpenSSH's form: known before the VM is there, and
        /// replaced by the agent as soon as it has enrolled.
        host_private_key: &'a Secret,
        /// Its public half.
        host_public_key: &'a str,
        /// The length of the agent's binary.
        agent_bytes: u64,
    },
}

/// A value that cannot be written into user-data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {what} cannot be written into the VM's user-data: {wanted}")]
pub struct BootstrapError {
    /// Which value. It is not shown, since it may be a secret.
    pub what: &'static str,
    /// What is taken.
    pub wanted: &'static str,
}

impl BootstrapError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        "bootstrap_value"
    }

    /// Whether the same call may succeed later without a person's doing: it never does.
    pub fn retryable(&self) -> bool {
        false
    }
}

/// The user-data, which begins with `#cloud-config` and holds the enrolment token.
///
/// # Errors
/// A value that could leave its place in the file, or a key that is no public key.
pub fn user_data(facts: &Bootstrap<'_>) -> Result<String, BootstrapError> {
    let deploy_key = public_key("deploy key", facts.deploy_public_key)?;
    let owner_key = public_key("owner's public key", facts.owner_public_key)?;
    host_name(facts.hostname)?;
    base64_text("gateway's key", facts.gateway_key_base64)?;
    token_text(facts.enrolment_token)?;
    checksum(facts.agent_sha256)?;
    let text = match &facts.link {
        Link::DialOut { gateway_url, agent_url } => {
            let gateway = url("gateway's URL", gateway_url)?;
            let agent = url("agent's URL", agent_url)?;
            kept("dial-out")
                .replace("@GATEWAY@", gateway.trim_end_matches('/'))
                .replace("@AGENT_URL@", agent)
                .replace("@AGENT_PROTOCOL@", agent_url.scheme())
        }
        Link::Served { link_public_key, host_private_key, host_public_key, agent_bytes } => {
            let link_key = public_key("link key", link_public_key)?;
            let host_key = public_key("host key", host_public_key)?;
            kept("served")
                .replace("@LINK_KEY@", &link_key)
                .replace("@HOST_KEY@", &host_key)
                .replace("@HOST_PRIVATE_KEY@", &private_lines(host_private_key)?)
                .replace("@AGENT_BYTES@", &agent_bytes.to_string())
        }
    };
    let text = with_mirror(&text, facts.registry_mirror)?
        .replace("@VM@", &facts.vm.to_string())
        .replace("@HOSTNAME@", facts.hostname)
        .replace("@GATEWAY_KEY@", facts.gateway_key_base64)
        .replace("@TOKEN@", facts.enrolment_token.expose())
        .replace("@AGENT_SHA256@", facts.agent_sha256)
        .replace("@DEPLOY_KEY@", &deploy_key)
        .replace("@OWNER_KEY@", &owner_key);
    if text.len() > MAX_BYTES {
        return Err(BootstrapError { what: "whole", wanted: "at most 16384 bytes" });
    }
    Ok(text)
}

/// The template with the parts of one kind of link: those of another stand between `#<KIND>` and
/// `#</KIND>`, and are left out.
fn kept(kind: &str) -> String {
    let mut text = String::with_capacity(TEMPLATE.len());
    let mut inside: Option<&str> = None;
    for line in TEMPLATE.lines() {
        let mark = line.trim().strip_prefix("#<").and_then(|mark| mark.strip_suffix('>'));
        match mark {
            Some(mark) => inside = (!mark.starts_with('/')).then_some(mark),
            None if inside.is_none_or(|inside| inside == kind) => {
                text.push_str(line);
                text.push('\n');
            }
            None => {}
        }
    }
    let indented =
        |line: &str| if line.is_empty() { String::new() } else { format!("      {line}") };
    let unit: Vec<String> = UNIT.lines().map(indented).collect();
    text.replace("@UNIT@", unit.join("\n").trim_start())
}

/// With Docker's line for a registry mirror, or without it.
fn with_mirror(text: &str, mirror: Option<&Url>) -> Result<String, BootstrapError> {
    let mirror = mirror.map(|mirror| url("registry mirror", mirror)).transpose()?;
    let setting = mirror.map(|mirror| format!("\"registry-mirrors\": [\"{mirror}\"],"));
    let mut whole = String::with_capacity(text.len() + 100);
    for line in text.lines() {
        match &setting {
            _ if line.trim() != "@MIRROR@" => whole.push_str(line),
            Some(setting) => whole.push_str(&line.replace("@MIRROR@", setting)),
            None => continue,
        }
        whole.push('\n');
    }
    Ok(whole)
}

/// A private key's lines as they stand in the block of the template.
fn private_lines(key: &Secret) -> Result<String, BootstrapError> {
    let wanted = "an ed25519 private key in OpenSSH's form, without a passphrase";
    let bad = || BootstrapError { what: "host key", wanted };
    let key = ssh_key::PrivateKey::from_openssh(key.expose()).map_err(|_| bad())?;
    if key.is_encrypted() || key.algorithm() != ssh_key::Algorithm::Ed25519 {
        return Err(bad());
    }
    let text = key.to_openssh(ssh_key::LineEnding::LF).map_err(|_| bad())?;
    Ok(text.trim_end().replace('\n', "\n    "))
}

/// The user-data of a server that is made from a snapshot of ours: no second bootstrap, the users
/// and the host keys of the snapshot.
///
/// # Errors
/// A host name that could leave its place in the file.
pub fn restored(hostname: &str) -> Result<String, BootstrapError> {
    host_name(hostname)?;
    Ok(RESTORED.replace("@HOSTNAME@", hostname))
}

fn base64_text(what: &'static str, text: &str) -> Result<(), BootstrapError> {
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    closed(what, text, 100, base64, "base64")
}

fn token_text(token: &Secret) -> Result<(), BootstrapError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=' | '~');
    let wanted = "letters, digits, `-`, `_`, `.`, `=` and `~`";
    closed("enrolment token", token.expose(), 500, fits, wanted)
}

fn checksum(text: &str) -> Result<(), BootstrapError> {
    let (what, wanted) = ("agent's SHA-256", "64 lower-case hexadecimal digits");
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    closed(what, text, 64, hex, wanted)?;
    if text.len() == 64 { Ok(()) } else { Err(BootstrapError { what, wanted }) }
}

fn host_name(text: &str) -> Result<(), BootstrapError> {
    let host = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    closed("host name", text, 63, host, "lower-case letters, digits and hyphens")
}

/// The key in its canonical form, with a comment of our own: what stands in the comment of a key
/// that somebody pasted must not reach the file.
fn public_key(what: &'static str, text: &str) -> Result<String, BootstrapError> {
    let wanted = "one public key in OpenSSH form, such as `ssh-ed25519 AAAA... name`";
    let bad = |_| BootstrapError { what, wanted };
    let mut key = ssh_key::PublicKey::from_openssh(text.trim()).map_err(bad)?;
    key.set_comment(match what {
        "deploy key" => "vmkit-deploy",
        "link key" => "vmkit-link",
        "login key" => "vmkit-adopt",
        "host key" => "vmkit-first-boot",
        _ => "owner",
    });
    key.to_openssh().map_err(bad)
}

fn closed(
    what: &'static str,
    text: &str,
    max: usize,
    fits: impl Fn(char) -> bool,
    wanted: &'static str,
) -> Result<(), BootstrapError> {
    if text.is_empty() || text.len() > max || !text.chars().all(fits) {
        return Err(BootstrapError { what, wanted });
    }
    Ok(())
}

fn url<'a>(what: &'static str, url: &'a Url) -> Result<&'a str, BootstrapError> {
    let fits = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(c, ':' | '/' | '.' | '-' | '_' | '[' | ']' | '~' | '%' | '?' | '=' | '&')
    };
    let wanted = "an http or https URL without a user name, quotes or blanks";
    closed(what, url.as_str(), 500, fits, wanted)?;
    if !matches!(url.scheme(), "http" | "https") || url.fragment().is_some() {
        return Err(BootstrapError { what, wanted });
    }
    Ok(url.as_str())
}

#[cfg(test)]
mod tests;
