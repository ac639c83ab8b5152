//! The user-data that a new VM boots from: cloud-init makes it a host that Kamal can deploy to and
//! whose agent dials home, and then VMKit is not needed to log in or to deploy.
//!
//! User-data stays readable on the VM, so the only secret in it is an enrolment token that works
//! once, for this VM, for an hour.

use url::Url;

use crate::domain::ids::VmId;
use crate::domain::secret::Secret;

const TEMPLATE: &str = include_str!("bootstrap/user-data.yml");

/// The most that user-data may be, in bytes: half of what the strictest cloud takes.
pub const MAX_BYTES: usize = 16 * 1024;

/// All that the user-data is made of.
#[derive(Debug, Clone)]
pub struct Bootstrap<'a> {
    /// Which VM.
    pub vm: VmId,
    /// The VM's own host name.
    pub hostname: &'a str,
    /// Where the agent dials.
    pub gateway_url: &'a Url,
    /// The ed25519 key that the gateway has to prove, in base64.
    pub gateway_key_base64: &'a str,
    /// The single-use token.
    pub enrolment_token: &'a Secret,
    /// Where the agent's binary for the VM's architecture is.
    pub agent_url: &'a Url,
    /// The SHA-256 of that binary, in hex.
    pub agent_sha256: &'a str,
    /// The public half of the environment's deploy key, in OpenSSH form.
    pub deploy_public_key: &'a str,
    /// The owner's public key, in OpenSSH form: they can log in whatever becomes of VMKit.
    pub owner_public_key: &'a str,
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
    let host = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    closed("host name", facts.hostname, 63, host, "lower-case letters, digits and hyphens")?;
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    closed("gateway's key", facts.gateway_key_base64, 100, base64, "base64")?;
    let token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=' | '~');
    let wanted = "letters, digits, `-`, `_`, `.`, `=` and `~`";
    closed("enrolment token", facts.enrolment_token.expose(), 500, token, wanted)?;
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    closed("agent's SHA-256", facts.agent_sha256, 64, hex, "64 lower-case hexadecimal digits")?;
    if facts.agent_sha256.len() != 64 {
        let wanted = "64 lower-case hexadecimal digits";
        return Err(BootstrapError { what: "agent's SHA-256", wanted });
    }
    let gateway = url("gateway's URL", facts.gateway_url)?;
    let agent = url("agent's URL", facts.agent_url)?;
    let text = TEMPLATE
        .replace("@VM@", &facts.vm.to_string())
        .replace("@HOSTNAME@", facts.hostname)
        .replace("@GATEWAY@", gateway.trim_end_matches('/'))
        .replace("@GATEWAY_KEY@", facts.gateway_key_base64)
        .replace("@TOKEN@", facts.enrolment_token.expose())
        .replace("@AGENT_URL@", agent)
        .replace("@AGENT_PROTOCOL@", facts.agent_url.scheme())
        .replace("@AGENT_SHA256@", facts.agent_sha256)
        .replace("@DEPLOY_KEY@", &deploy_key)
        .replace("@OWNER_KEY@", &owner_key);
    if text.len() > MAX_BYTES {
        return Err(BootstrapError { what: "whole", wanted: "at most 16384 bytes" });
    }
    Ok(text)
}

/// The key in its canonical form, with a comment of our own: what stands in the comment of a key
/// that somebody pasted must not reach the file.
fn public_key(what: &'static str, text: &str) -> Result<String, BootstrapError> {
    let wanted = "one public key in OpenSSH form, such as `ssh-ed25519 AAAA... name`";
    let bad = |_| BootstrapError { what, wanted };
    let mut key = ssh_key::PublicKey::from_openssh(text.trim()).map_err(bad)?;
    key.set_comment(if what == "deploy key" { "vmkit-deploy" } else { "owner" });
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
