//! Typed ids: a prefix and a ULID in lower-case Crockford letters, such as `vm_01jc4k…`.
//!
//! An id is made before the thing exists, so that a crash between the two leaves a row that names it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

/// A string that is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of the form `{prefix}_` and 26 letters or digits")]
pub struct BadId {
    /// What was given.
    pub text: String,
    /// The prefix that was wanted.
    pub prefix: &'static str,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// What every id of this kind begins with, without the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new id, later than every one made before it on this machine.
            pub fn generate() -> Self {
                Self(Ulid::new())
            }

            /// The part after the underscore: it fits labels and host names.
            pub fn bare(&self) -> String {
                self.0.to_string().to_ascii_lowercase()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.bare())
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let bad = || BadId { text: text.to_owned(), prefix: $prefix };
                let bare = text.strip_prefix(concat!($prefix, "_")).ok_or_else(bad)?;
                if bare.len() != 26 || bare.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(bad());
                }
                Ulid::from_string(bare).map(Self).map_err(|_| bad())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// This installation of VMKit: every resource that it makes carries it as a label.
    InstallationId = "ins";
    /// One cloud or GitHub credential.
    AccountId = "acc";
    /// A sealed secret.
    SecretId = "sec";
    /// A repo and a root directory in it.
    AppId = "app";
    /// A named place where an app runs.
    EnvironmentId = "env";
    /// A service beside an app, such as its database.
    ServiceId = "svc";
    /// One server.
    VmId = "vm";
    /// One attempt to make a version live.
    DeployId = "dep";
    /// What a successful deploy made live.
    ReleaseId = "rel";
    /// A durable, resumable piece of work.
    OperationId = "op";
    /// What an operation would do.
    PlanId = "plan";
    /// An API key of a gateway.
    KeyId = "key";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_the_round_trip_and_refuses_another_kind() {
        let id = VmId::generate();
        assert_eq!(id.to_string().parse::<VmId>(), Ok(id));
        let other = id.to_string().parse::<DeployId>();
        assert_eq!(
            other.map_err(|e| e.to_string()),
            Err(format!("`{id}` is not an id of the form `dep_` and 26 letters or digits"))
        );
        assert!(id.to_string().to_uppercase().parse::<VmId>().is_err());
    }
}
