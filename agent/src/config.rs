//! The agent's configuration file, `etc/vmkit/agent.toml`, as the VM's user-data wrote it.

use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde::Deserialize;
use url::{Host as UrlHost, Url};
use vmkit_agent_protocol::bytes::{Hidden, PublicKey};

use crate::files::{self, Access};
use crate::host::Host;
use crate::proxy::Proxy;

/// What the agent was told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The VM's id.
    pub vm: String,
    /// The gateway's public key: the agent talks to nobody else.
    pub gateway_key: PublicKey,
    /// The one that will take its place, while it is being changed: either is taken.
    pub next_gateway_key: Option<PublicKey>,
    /// Where to dial; absent where VMKit comes over the socket.
    pub gateway: Option<Gateway>,
    /// The HTTP proxy to dial through, where there is no other way.
    pub proxy: Option<Proxy>,
    /// There until the agent has enrolled.
    pub enrolment_token: Option<Hidden>,
}

/// The gateway's URL, which may have a path of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway(Url);

/// Why the configuration is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read or written.
    #[error("the configuration `{path}` cannot be read or written; the VM's user-data writes it")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("the configuration `{path}` is wrong: {reason}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong, without the file's content.
        reason: String,
    },
}

#[derive(Deserialize)]
struct File {
    gateway: Option<String>,
    proxy: Option<String>,
    vm: String,
    gateway_key: String,
    next_gateway_key: Option<String>,
    enrolment_token: Option<String>,
}

impl Config {
    /// Reads the host's configuration.
    ///
    /// # Errors
    /// Where it is absent or wrong.
    pub fn read(host: &Host) -> Result<Self, ConfigError> {
        let path = host.config_file();
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
        Self::parse(&text).map_err(|reason| ConfigError::Wrong { path, reason })
    }

    fn parse(text: &str) -> Result<Self, String> {
        // The parser's own message quotes the line, and a line may hold the token.
        let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        let key = |name: &str, text: &str| {
            text.parse().map_err(|_| format!("`{name}` is not the base64 of an ed25519 key"))
        };
        let gateway_key = key("gateway_key", &file.gateway_key)?;
        let next = file.next_gateway_key.as_deref();
        let next_gateway_key = next.map(|next| key("next_gateway_key", next)).transpose()?;
        let gateway = file.gateway.as_deref().map(Gateway::parse).transpose()?;
        let proxy = file.proxy.as_deref().map(Proxy::parse).transpose()?;
        let enrolment_token = file.enrolment_token.filter(|token| !token.is_empty()).map(Hidden);
        Ok(Self { vm: file.vm, gateway_key, next_gateway_key, gateway, proxy, enrolment_token })
    }

    /// Takes the enrolment token out of the host's configuration: it has been used.
    ///
    /// # Errors
    /// Where the file cannot be rewritten.
    pub fn forget_token(host: &Host) -> Result<(), ConfigError> {
        Self::edit(host, |table| table.remove("enrolment_token").is_some())
    }

    /// Pins these keys of the gateway in the host's configuration: the first, and where there is
    /// one the next.
    ///
    /// # Errors
    /// Where the file cannot be rewritten.
    pub fn pin(host: &Host, key: &PublicKey, next: Option<&PublicKey>) -> Result<(), ConfigError> {
        Self::edit(host, |table| {
            table.insert("gateway_key".to_owned(), key.to_string().into());
            match next {
                Some(next) => table.insert("next_gateway_key".to_owned(), next.to_string().into()),
                None => table.remove("next_gateway_key"),
            };
            true
        })
    }

    /// Writes the file anew where `change` says that there is something to write.
    fn edit(host: &Host, change: impl FnOnce(&mut toml::Table) -> bool) -> Result<(), ConfigError> {
        let path = host.config_file();
        let unreadable = |source| ConfigError::Unreadable { path: path.clone(), source };
        let text = std::fs::read_to_string(&path).map_err(unreadable)?;
        let mut table: toml::Table = toml::from_str(&text).map_err(|error| ConfigError::Wrong {
            path: path.clone(),
            reason: error.message().to_owned(),
        })?;
        if !change(&mut table) {
            return Ok(());
        }
        let mode = std::fs::metadata(&path).map_err(unreadable)?.permissions().mode() & 0o777;
        let access = Access { mode, owner: None, group: None };
        files::write_whole(&path, table.to_string().as_bytes(), access).map_err(unreadable)
    }
}

impl Gateway {
    /// An `https` URL, or an `http` one of this machine.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url: Url = text.parse().map_err(|_| "`gateway` is not a URL".to_owned())?;
        let loopback = match url.host() {
            Some(UrlHost::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
            Some(UrlHost::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
            Some(UrlHost::Domain(name)) => name == "localhost",
            None => return Err("`gateway` has no host".to_owned()),
        };
        match url.scheme() {
            "https" => Ok(Self(url)),
            "http" if loopback => Ok(Self(url)),
            "http" => Err("`gateway` must be https, except on this machine".to_owned()),
            _ => Err("`gateway` must be an https URL".to_owned()),
        }
    }

    /// Its host (an IPv6 address in brackets) and its port.
    pub(crate) fn address(&self) -> (&str, u16) {
        (self.0.host_str().unwrap_or_default(), self.0.port_or_known_default().unwrap_or(443))
    }

    /// False only for this machine itself, to which no proxy leads.
    pub(crate) fn is_tls(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The URL of `path` below the gateway's own path.
    pub fn http(&self, path: &str) -> String {
        format!("{}{path}", self.0.as_str().trim_end_matches('/'))
    }

    /// The same for a WebSocket.
    pub fn web_socket(&self, path: &str) -> String {
        // `http` becomes `ws`, and `https` becomes `wss`.
        self.http(path).replacen("http", "ws", 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(extra: &str) -> Result<Config, String> {
        let key = PublicKey::to_string(&vmkit_agent_protocol::bytes::Bytes([7; 32]));
        Config::parse(&format!("vm = \"vm_x\"\ngateway_key = \"{key}\"\n{extra}\n"))
    }

    #[test]
    fn a_gateways_path_prefix_is_kept() {
        for given in ["https://vm.example.com/kit", "https://vm.example.com/kit/"] {
            let gateway = Gateway::parse(given).expect("a gateway");
            assert_eq!(
                gateway.http("/agent/v1/enrol"),
                "https://vm.example.com/kit/agent/v1/enrol"
            );
            assert_eq!(
                gateway.web_socket("/agent/v1/link"),
                "wss://vm.example.com/kit/agent/v1/link"
            );
        }
        let bare = Gateway::parse("http://127.0.0.1:8080").expect("a gateway");
        assert_eq!(bare.web_socket("/agent/v1/link"), "ws://127.0.0.1:8080/agent/v1/link");
    }

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for good in
            ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1", "http://127.9.1.2"]
        {
            assert!(Gateway::parse(good).is_ok(), "{good}");
        }
        for bad in ["http://10.0.0.1", "http://example.com", "ftp://127.0.0.1", "example.com", "/x"]
        {
            assert!(Gateway::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_token() {
        let wrong = parse("enrolment_token = token-for-tests").expect_err("it is not TOML");
        assert!(!wrong.contains("token-for-tests"), "{wrong}");
        assert!(parse("gateway = \"http://example.com\"").is_err());
        let fine = parse("enrolment_token = \"\"\nlater = 1").expect("unknown keys are fine");
        assert!(fine.enrolment_token.is_none() && fine.gateway.is_none());
    }
}
