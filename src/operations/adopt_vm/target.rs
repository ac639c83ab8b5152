//! Which machine is to be adopted, as a person names it.

use std::fmt;
use std::net::IpAddr;

use super::AdoptError;
use crate::bootstrap::adopt::is_user_name;
use crate::clouds::AnyCloud;

/// A machine that exists: where it is, and as whom VMKit logs in for the set-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub(super) login: String,
    pub(super) place: Place,
}

/// Where a machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A server of a connected cloud, by the cloud's id; which cloud is the environment's to say
    /// where none is named.
    Server { cloud: Option<&'static str>, id: String },
    /// Any machine that SSH reaches.
    Host(IpAddr),
}

impl Target {
    /// Reads `[USER@]ADDRESS`, `[USER@]hetzner:ID`, `[USER@]digitalocean:ID` or `[USER@]ID`.
    ///
    /// # Errors
    /// [`AdoptError::BadTarget`].
    pub fn parse(text: &str) -> Result<Self, AdoptError> {
        let bad = || AdoptError::BadTarget { given: text.chars().take(80).collect() };
        let (login, place) = text.trim().split_once('@').unwrap_or(("root", text.trim()));
        if !is_user_name(login) {
            return Err(bad());
        }
        let is_id = |id: &str| {
            !id.is_empty() && id.len() <= 20 && id.bytes().all(|byte| byte.is_ascii_digit())
        };
        let place = match place.split_once(':') {
            Some((cloud, id)) if is_id(id) => {
                let known = AnyCloud::PROVIDERS.into_iter().find(|known| *known == cloud);
                let cloud = known.map(Some).ok_or_else(bad)?;
                Place::Server { cloud, id: id.to_owned() }
            }
            _ if is_id(place) => Place::Server { cloud: None, id: place.to_owned() },
            _ => Place::Host(place.parse().map_err(|_| bad())?),
        };
        Ok(Self { login: login.to_owned(), place })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Server { cloud: Some(cloud), id } => write!(f, "{}@{cloud}:{id}", self.login),
            Place::Server { cloud: None, id } => write!(f, "{}@{id}", self.login),
            Place::Host(address) => write!(f, "{}@{address}", self.login),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_named_in_one_word() {
        let rows = [
            ("203.0.113.7", "root@203.0.113.7"),
            ("debian@203.0.113.7", "debian@203.0.113.7"),
            ("hetzner:4711", "root@hetzner:4711"),
            ("deploy@digitalocean:12", "deploy@digitalocean:12"),
            (" 4711 ", "root@4711"),
            ("2001:db8::7", "root@2001:db8::7"),
        ];
        for (given, read) in rows {
            assert_eq!(Target::parse(given).expect(given).to_string(), read);
        }
        let bad = [
            "",
            "@",
            "root@",
            "server.example.com",
            "aws:4711",
            "hetzner:",
            "Root@203.0.113.7",
            "a b@203.0.113.7",
            "203.0.113.7:22",
            "-o@203.0.113.7",
        ];
        for given in bad {
            assert_eq!(
                Target::parse(given).map_err(|error| error.code()),
                Err("bad_target"),
                "{given}"
            );
        }
    }
}
