//! Names that people give, parsed once at the edge. Every one is safe in YAML, in a shell word, in
//! a label and in a path: the character sets are closed, so `<%`, `$` and `/` cannot occur.

mod given;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use given::BadDomain;

/// A name that does not fit its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not {wanted}")]
pub struct BadName {
    /// What was given, cut at 80 characters.
    pub given: String,
    /// The rule, with an example.
    pub wanted: &'static str,
}

fn bad(given: &str, wanted: &'static str) -> BadName {
    BadName { given: given.chars().take(80).collect(), wanted }
}

fn is_slug(text: &str, max: usize) -> bool {
    !text.is_empty()
        && text.len() <= max
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

macro_rules! text_type {
    ($($(#[$doc:meta])* $name:ident, $wanted:literal, $check:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.to_owned())) } else { Err(bad(text, $wanted)) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
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

text_type! {
    /// An app's short name, such as `shop`.
    AppSlug, "an app's name: a lower-case letter, then up to 29 letters, digits or hyphens, such as `shop`",
        |text| is_slug(text, 30);
    /// An environment's name within its app, such as `staging`.
    EnvironmentName, "an environment's name: a lower-case letter, then up to 29 letters, digits or hyphens, such as `staging`",
        |text| is_slug(text, 30);
    /// A repo as `owner/name`.
    RepoName, "a GitHub repo of the form `owner/name`, such as `octo/shop`", |text| {
        let part = |p: &str| !p.is_empty() && p.len() <= 100 && p != "." && p != ".."
            && p.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        text.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name) && !owner.contains('.'))
    };
    /// A host name such as `shop.example.com`, lower case, in punycode where it is not ASCII.
    Domain, "a host name in lower case with a dot in it, such as `shop.example.com`", |text| {
        text.len() <= 253 && text.contains('.') && text.parse::<std::net::IpAddr>().is_err()
            && text.split('.').all(|label| !label.is_empty() && label.len() <= 63
                && !label.starts_with('-') && !label.ends_with('-')
                && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'))
    };
    /// The name of an env variable.
    EnvKey, "an env variable's name: letters, digits and underscores, not beginning with a digit, such as `LOG_LEVEL`", |text| {
        text.len() <= 200 && !text.starts_with(|c: char| c.is_ascii_digit())
            && !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    /// A provider's size, such as `cax11`.
    SizeName, "a size's name, such as `cpx22`",
        |text| !text.is_empty() && text.len() <= 63 && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    /// A provider's region, such as `fsn1`.
    RegionName, "a region's name, such as `fsn1`",
        |text| is_slug(text, 30);
    /// A full git commit id.
    CommitSha, "a full commit id of 40 lower-case hexadecimal digits",
        |text| text.len() == 40 && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
    /// A process of an app, such as `worker`.
    ProcessName, "a process's name: a lower-case letter, then up to 29 letters, digits or hyphens, such as `worker`",
        |text| is_slug(text, 30);
    /// A volume of an environment, such as `data`.
    VolumeName, "a volume's name: a lower-case letter, then up to 29 letters, digits or hyphens, such as `data`",
        |text| is_slug(text, 30);
    /// A folder in a container where a volume lies, such as `/data`.
    MountPath, "an absolute folder of letters, digits, `.`, `_`, `-` and `/`, such as `/data`, and none of the system's", |text| {
        let part = |p: &str| !p.is_empty() && p != "." && p != ".."
            && p.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        let system = ["bin", "boot", "cnb", "dev", "etc", "lib", "proc", "run", "sbin", "sys", "usr"];
        text.len() <= 200 && text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(part)
            && !rest.split('/').next().is_some_and(|first| system.contains(&first)))
    };
    /// A command line without anything that a shell would take for more than words.
    CommandLine, "a plain command without quotes, `$`, pipes or `;`, such as `bin/work --queue=mail`; put other lines into a script of the repo", |text| {
        text.len() <= 500 && text == text.trim() && !text.is_empty() && !text.starts_with('-')
            && text.chars().all(|c| c.is_ascii_alphanumeric()
                || matches!(c, ' ' | '.' | '_' | '-' | '/' | ':' | '=' | ',' | '@' | '+'))
    };
    /// A branch of a repo, such as `main`.
    BranchName, "a branch's name of letters, digits, `.`, `_`, `-` and `/`, such as `main`", |text| {
        text.len() <= 200 && !text.contains("..") && !text.ends_with(".lock")
            && text.split('/').all(|part| !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
    };
}

impl RepoName {
    /// The part before the slash.
    pub fn owner(&self) -> &str {
        self.0.split_once('/').map_or("", |(owner, _)| owner)
    }

    /// The part after the slash.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }
}

impl CommitSha {
    /// The first 7 digits, as git shows them.
    pub fn short(&self) -> &str {
        &self.0[..7]
    }
}

/// An environment by its app and name: `shop/staging`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvironmentPath {
    /// The app.
    pub app: AppSlug,
    /// The environment within it.
    pub name: EnvironmentName,
}

impl EnvironmentPath {
    /// The Kamal service: `APP-ENV`, unique per VM.
    pub fn service(&self) -> String {
        format!("{}-{}", self.app, self.name)
    }

    /// The environment's name as GitHub secrets and variables end in it: `STAGING_EU`.
    pub fn suffix(&self) -> String {
        self.name.as_str().to_ascii_uppercase().replace('-', "_")
    }
}

impl fmt::Display for EnvironmentPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.name)
    }
}

impl FromStr for EnvironmentPath {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        const WANTED: &str =
            "an environment of the form `app/environment`, such as `shop/production`";
        let (app, name) = text.split_once('/').ok_or_else(|| bad(text, WANTED))?;
        let app = app.parse().map_err(|_| bad(text, WANTED))?;
        let name = name.parse().map_err(|_| bad(text, WANTED))?;
        Ok(Self { app, name })
    }
}

impl Serialize for EnvironmentPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EnvironmentPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_refuse_what_could_leave_their_place() {
        for bad in ["", "Shop", "my shop", "shop/", "-shop", "shop-", "<%=`id`%>", "a$(id)", "ä"] {
            assert!(bad.parse::<AppSlug>().is_err(), "{bad:?}");
            assert!(bad.parse::<EnvironmentName>().is_err(), "{bad:?}");
        }
        for bad in ["octo", "octo/", "/shop", "octo/shop/x", "octo/..", "o cto/shop", "octo/<%"] {
            assert!(bad.parse::<RepoName>().is_err(), "{bad:?}");
        }
        for bad in ["localhost", "127.0.0.1", "Shop.example.com", "a..b", "-a.b", "a.b/c", "<%.com"]
        {
            assert!(bad.parse::<Domain>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_environment_names_its_service_and_its_secrets() {
        let path: EnvironmentPath = "shop/staging-eu".parse().expect("a path");
        assert_eq!(path.service(), "shop-staging-eu");
        assert_eq!(path.suffix(), "STAGING_EU");
        assert_eq!(
            "octo".parse::<EnvironmentPath>().map_err(|e| e.to_string()),
            Err("`octo` is not an environment of the form `app/environment`, such as `shop/production`".to_owned())
        );
    }
}
