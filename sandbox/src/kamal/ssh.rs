//! The way to a VM: host key, login. The sandbox has no SSH server; these are the checks that a
//! real client and a real server would make, on the same files.

use ssh_key::{HashAlg, PrivateKey, PublicKey};

use super::{Failure, Session, secrets};
use crate::machines::Machine;

impl Session<'_> {
    /// Connects to a host, as far as that fails or not.
    pub(super) async fn log_in(&self, host: &str) -> Result<Machine, Failure> {
        let on_host = |class, text: String| {
            Failure::new(class, format!("Exception while executing on host {host}: {text}"))
        };
        let Ok(address) = host.parse() else {
            return Err(on_host(
                "Socket::ResolutionError",
                "getaddrinfo(3): Name or service not known".to_owned(),
            ));
        };
        let Some(machine) = self.kamal.machines.by_address(address) else {
            return Err(on_host(
                "Errno::ECONNREFUSED",
                format!("Connection refused - connect(2) for {host}:22"),
            ));
        };
        if !machine.is_on().await {
            return Err(on_host(
                "Errno::EHOSTUNREACH",
                format!("No route to host - connect(2) for {host}:22"),
            ));
        }
        self.check_host_key(host, &machine)?;
        if self.is_let_in(&machine) {
            Ok(machine)
        } else {
            let text = format!("Authentication failed for user {}@{host}", self.config.ssh_user);
            Err(on_host("Net::SSH::AuthenticationFailed", text))
        }
    }

    fn check_host_key(&self, host: &str, machine: &Machine) -> Result<(), Failure> {
        let key = machine.host_key();
        let known = self.shell.read("/home/runner/.ssh/known_hosts").unwrap_or_default();
        let of_host: Vec<&str> = known.lines().filter_map(|line| known_key(line, host)).collect();
        if of_host.iter().any(|known| Some(*known) == key.split_whitespace().nth(1)) {
            return Ok(());
        }
        let fingerprint = PublicKey::from_openssh(&key).map_or_else(
            |_| "SHA256:unknown".to_owned(),
            |key| key.fingerprint(HashAlg::Sha256).to_string(),
        );
        if !of_host.is_empty() {
            let text = format!(
                "Exception while executing on host {host}: fingerprint {fingerprint} does not match for \"{host}\""
            );
            return Err(Failure::new("Net::SSH::HostKeyMismatch", text));
        }
        if self.is_strict() {
            let text = format!(
                "Exception while executing on host {host}: fingerprint {fingerprint} is unknown for \"{host}\""
            );
            return Err(Failure::new("Net::SSH::HostKeyUnknown", text));
        }
        Ok(())
    }

    fn is_strict(&self) -> bool {
        self.config.ssh_configs.iter().filter_map(|path| self.shell.read(path)).any(|text| {
            text.lines().any(|line| {
                let words: Vec<String> = line
                    .split([' ', '\t', '='])
                    .filter(|word| !word.is_empty())
                    .map(str::to_lowercase)
                    .collect();
                words.first().is_some_and(|word| word == "stricthostkeychecking")
                    && words.get(1).is_some_and(|word| word == "yes")
            })
        })
    }

    /// Whether one of the runner's keys is in the user's `authorized_keys`.
    fn is_let_in(&self, machine: &Machine) -> bool {
        let defaults = ["/home/runner/.ssh/id_ed25519".to_owned()];
        let paths =
            if self.config.ssh_keys.is_empty() { &defaults[..] } else { &self.config.ssh_keys };
        let from_files =
            paths.iter().filter_map(|path| self.shell.read(&path.replacen('~', "/home/runner", 1)));
        let from_secrets =
            self.config.key_data.iter().filter_map(|name| secrets::value(self.shell, name).ok());
        let authorized = machine.authorized_keys(&self.config.ssh_user);
        from_files.chain(from_secrets).filter_map(|text| public_half(&text)).any(|key| {
            authorized.iter().any(|line| {
                !line.contains("command=") && line.split_whitespace().any(|word| word == key)
            })
        })
    }
}

/// The key of a line of `known_hosts`, if the line is about this address. Names count only where the
/// address stands beside them, as Kamal looks hosts up by address.
fn known_key<'a>(line: &'a str, host: &str) -> Option<&'a str> {
    let mut words = line.split_whitespace().filter(|word| !word.starts_with('@'));
    let names = words.next()?;
    let bracketed = format!("[{host}]:22");
    names.split(',').any(|name| name == host || name == bracketed).then(|| words.nth(1)).flatten()
}

fn public_half(private: &str) -> Option<String> {
    let private = format!("{}\n", private.trim());
    let key = PrivateKey::from_openssh(&private).ok()?.public_key().to_openssh().ok()?;
    key.split_whitespace().nth(1).map(str::to_owned)
}
