//! Services beside an app: a database, a cache, a search index. What each is, how it is addressed,
//! and which change of its version its data survives.
//!
//! Ports, variables and data folders are those of the images' own documents; the default tags were
//! seen in public use. None of these images was run by us.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::clock::Millis;
use super::ids::{EnvironmentId, SecretId, ServiceId};
use super::names::{BadName, EnvironmentPath};
use super::secret::Secret;

/// What a service is. An environment has at most one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceKind {
    /// PostgreSQL.
    Postgres,
    /// Redis.
    Redis,
    /// Meilisearch.
    Meilisearch,
    /// Qdrant.
    Qdrant,
}

impl ServiceKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Postgres, Self::Redis, Self::Meilisearch, Self::Qdrant];

    /// The stored and shown form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Meilisearch => "meilisearch",
            Self::Qdrant => "qdrant",
        }
    }

    /// As its makers write it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Redis => "Redis",
            Self::Meilisearch => "Meilisearch",
            Self::Qdrant => "Qdrant",
        }
    }

    /// The accessory's name in the Kamal file; its container is `APP-ENV-` and this.
    pub fn accessory(self) -> &'static str {
        match self {
            Self::Postgres => "db",
            Self::Redis | Self::Meilisearch | Self::Qdrant => self.as_str(),
        }
    }

    /// The image without a tag.
    pub fn repository(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Meilisearch => "getmeili/meilisearch",
            Self::Qdrant => "qdrant/qdrant",
        }
    }

    /// The version that is taken where nobody chose one.
    pub fn default_version(self) -> ServiceVersion {
        let (major, minor, patch) = match self {
            Self::Postgres => (17, 6, None),
            Self::Redis => (8, 2, Some(1)),
            Self::Meilisearch => (1, 13, Some(3)),
            Self::Qdrant => (1, 18, Some(3)),
        };
        ServiceVersion { major, minor, patch }
    }

    /// The majors whose data folder and settings are known here.
    fn majors(self) -> std::ops::RangeInclusive<u32> {
        match self {
            Self::Postgres => 14..=18,
            Self::Redis => 7..=8,
            Self::Meilisearch | Self::Qdrant => 1..=1,
        }
    }

    /// The port that it listens on in its container; no port of the VM leads there.
    pub fn port(self) -> u16 {
        match self {
            Self::Postgres => 5432,
            Self::Redis => 6379,
            Self::Meilisearch => 7700,
            Self::Qdrant => 6333,
        }
    }

    /// Where its volume is mounted. The images of PostgreSQL keep their data one folder higher from
    /// 18 on.
    pub fn data_folder(self, version: ServiceVersion) -> &'static str {
        match self {
            Self::Postgres if version.major >= 18 => "/var/lib/postgresql",
            Self::Postgres => "/var/lib/postgresql/data",
            Self::Redis => "/data",
            Self::Meilisearch => "/meili_data",
            Self::Qdrant => "/qdrant/storage",
        }
    }

    /// What Docker runs in the container to see whether it is well.
    pub fn health_command(self) -> &'static str {
        match self {
            Self::Postgres => "pg_isready -h 127.0.0.1 -U app -d app",
            // The password comes from REDISCLI_AUTH.
            Self::Redis => "redis-cli ping | grep -q PONG",
            Self::Meilisearch => "wget -q -O /dev/null http://127.0.0.1:7700/health",
            // The image has neither curl nor wget.
            Self::Qdrant => "bash -c ': > /dev/tcp/127.0.0.1/6333'",
        }
    }

    /// What is run instead of the image's own command, as a shell on the VM reads it.
    pub fn command(self) -> Option<&'static str> {
        match self {
            // The image has no variable for a password. Its entry point drops root's rights.
            Self::Redis => Some(
                r#"sh -c 'exec docker-entrypoint.sh redis-server --appendonly yes --requirepass "$REDIS_PASSWORD"'"#,
            ),
            Self::Postgres | Self::Meilisearch | Self::Qdrant => None,
        }
    }

    /// Memory that it should have, in MiB: a hint to the kernel, not a limit.
    pub fn memory_hint_mb(self) -> u32 {
        match self {
            Self::Redis => 64,
            Self::Postgres | Self::Meilisearch | Self::Qdrant => 256,
        }
    }

    /// The variable of the app that holds its address.
    pub fn url_key(self) -> &'static str {
        match self {
            Self::Postgres => "DATABASE_URL",
            Self::Redis => "REDIS_URL",
            Self::Meilisearch => "MEILISEARCH_URL",
            Self::Qdrant => "QDRANT_URL",
        }
    }

    /// The variable of the app that holds its key, where the address cannot carry it.
    pub fn api_key(self) -> Option<&'static str> {
        match self {
            Self::Postgres | Self::Redis => None,
            Self::Meilisearch => Some("MEILISEARCH_API_KEY"),
            Self::Qdrant => Some("QDRANT_API_KEY"),
        }
    }

    /// All variables of the app that are this service's.
    pub fn keys(self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.url_key()).chain(self.api_key())
    }

    /// What the app is given, with the service's container as the host: never `localhost`, which in
    /// a container is the container itself.
    pub fn app_values(
        self,
        path: &EnvironmentPath,
        password: &Secret,
    ) -> Vec<(&'static str, Secret)> {
        let (host, port, word) = (self.host(path), self.port(), password.expose());
        let url = match self {
            Self::Postgres => format!("postgresql://app:{word}@{host}:{port}/app"),
            Self::Redis => format!("redis://:{word}@{host}:{port}/0"),
            Self::Meilisearch | Self::Qdrant => format!("http://{host}:{port}"),
        };
        let mut values = vec![(self.url_key(), Secret::new(url))];
        values.extend(self.api_key().map(|key| (key, password.clone())));
        values
    }

    /// The content of its own env file.
    pub fn file(self, password: &Secret) -> Secret {
        let word = password.expose();
        Secret::new(match self {
            Self::Postgres => {
                format!("POSTGRES_DB=app\nPOSTGRES_PASSWORD={word}\nPOSTGRES_USER=app\n")
            }
            Self::Redis => format!("REDISCLI_AUTH={word}\nREDIS_PASSWORD={word}\n"),
            Self::Meilisearch => {
                format!("MEILI_ENV=production\nMEILI_MASTER_KEY={word}\nMEILI_NO_ANALYTICS=true\n")
            }
            Self::Qdrant => {
                format!("QDRANT__SERVICE__API_KEY={word}\nQDRANT__TELEMETRY_DISABLED=true\n")
            }
        })
    }

    /// The name of its container, of its volume, and its Kamal label: `APP-ENV-db`.
    pub fn host(self, path: &EnvironmentPath) -> String {
        format!("{}-{}", path.service(), self.accessory())
    }

    /// The service whose variable this is.
    pub fn of_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.keys().any(|own| own.eq_ignore_ascii_case(key)))
    }
}

impl fmt::Display for ServiceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ServiceKind {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| BadName {
            given: text.chars().take(80).collect(),
            wanted: "a service: postgres, redis, meilisearch or qdrant",
        })
    }
}

/// An exact version: `17.6` of PostgreSQL, three numbers of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceVersion {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
    /// The third; PostgreSQL has none.
    pub patch: Option<u32>,
}

/// Why a version cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// It is no exact version.
    #[error("`{given}` is not an exact version of {}: give one such as {}", kind.title(), kind.default_version())]
    Shape {
        /// Of what.
        kind: ServiceKind,
        /// What was given, cut.
        given: String,
    },
    /// A major that nobody has looked at.
    #[error("{} {major} is not known here; known are {} to {}", kind.title(), kind.majors().start(), kind.majors().end())]
    Major {
        /// Of what.
        kind: ServiceKind,
        /// Which.
        major: u32,
    },
    /// What the newer one has written the older one may not read.
    #[error("{} {from} does not go back to {to}: the older one may not read what the newer one has written", kind.title())]
    Back {
        /// Of what.
        kind: ServiceKind,
        /// What runs.
        from: ServiceVersion,
        /// What was asked for.
        to: ServiceVersion,
    },
    /// The data has to be taken out and put in again.
    #[error("{} {from} does not become {to} in place: {why}", kind.title())]
    Leap {
        /// Of what.
        kind: ServiceKind,
        /// What runs.
        from: ServiceVersion,
        /// What was asked for.
        to: ServiceVersion,
        /// The reason.
        why: &'static str,
    },
}

impl VersionError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Shape { .. } => "service_version",
            Self::Major { .. } => "service_major_unknown",
            Self::Back { .. } => "service_downgrade",
            Self::Leap { .. } => "service_major_upgrade",
        }
    }

    /// What to do instead.
    pub fn fix(&self) -> String {
        match self {
            Self::Shape { kind, .. } => format!("pass `version: {}`", kind.default_version()),
            Self::Major { kind, .. } => format!("pass a version of {}", kind.majors().end()),
            Self::Back { .. } => "stay at the version that runs, or restore a backup of the older \
                                  one into a new environment"
                .to_owned(),
            Self::Leap { kind: ServiceKind::Postgres, to, .. } => format!(
                "make another environment with PostgreSQL {to}, copy the data with `pg_dump` and \
                 `pg_restore`, and move the domain; or dump, `destroy` this service, add it anew \
                 and restore"
            ),
            Self::Leap { kind: ServiceKind::Meilisearch, to, .. } => format!(
                "dump the index, `destroy` this service, add it anew with version {to} and import \
                 the dump (or index the data again)"
            ),
            Self::Leap { .. } => "go up one minor version at a time".to_owned(),
        }
    }
}

impl ServiceVersion {
    /// The version that a person means, with or without a `v` before it.
    ///
    /// # Errors
    /// `Shape` and `Major`.
    pub fn parse(kind: ServiceKind, text: &str) -> Result<Self, VersionError> {
        let shape = || VersionError::Shape { kind, given: text.chars().take(40).collect() };
        let bare = text.trim();
        let bare = bare.strip_prefix('v').unwrap_or(bare);
        let number = |part: &str| -> Option<u32> {
            let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            part.parse().ok().filter(|_| plain && part.len() <= 4)
        };
        let numbers: Option<Vec<u32>> = bare.split('.').map(number).collect();
        let version = match (kind, numbers.as_deref()) {
            (ServiceKind::Postgres, Some(&[major, minor])) => Self { major, minor, patch: None },
            (ServiceKind::Postgres, _) => return Err(shape()),
            (_, Some(&[major, minor, patch])) => Self { major, minor, patch: Some(patch) },
            _ => return Err(shape()),
        };
        if kind.majors().contains(&version.major) {
            return Ok(version);
        }
        Err(VersionError::Major { kind, major: version.major })
    }

    /// The image with its exact tag.
    pub fn image(self, kind: ServiceKind) -> String {
        let v = match kind {
            ServiceKind::Meilisearch | ServiceKind::Qdrant => "v",
            ServiceKind::Postgres | ServiceKind::Redis => "",
        };
        format!("{}:{v}{self}", kind.repository())
    }

    /// Whether the data that `self` has written serves `to`.
    ///
    /// # Errors
    /// `Back` and `Leap`.
    pub fn upgrade(self, kind: ServiceKind, to: Self) -> Result<(), VersionError> {
        let from = self;
        let leap = |why| Err(VersionError::Leap { kind, from, to, why });
        if to < from {
            return Err(VersionError::Back { kind, from, to });
        }
        match kind {
            ServiceKind::Postgres if to.major != from.major => {
                leap("each major version has a data folder of its own, which another cannot open")
            }
            ServiceKind::Meilisearch if to.minor != from.minor => {
                leap("it opens only a database of its own minor version")
            }
            ServiceKind::Qdrant if to.minor > from.minor + 1 => {
                leap("its storage moves by one minor version at a time")
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for ServiceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        self.patch.map_or(Ok(()), |patch| write!(f, ".{patch}"))
    }
}

/// How far a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceState {
    /// It is being made.
    Ordered,
    /// It was seen well.
    Ready,
    /// It is being removed.
    Removing,
}

impl ServiceState {
    /// The stored and shown form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Ready => "ready",
            Self::Removing => "removing",
        }
    }
}

/// A service of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// Whose it is.
    pub environment: EnvironmentId,
    /// What it is.
    pub kind: ServiceKind,
    /// Its exact version.
    pub version: ServiceVersion,
    /// The most memory that it may have, in MiB; none is no limit.
    pub memory_mb: Option<u32>,
    /// Where its password is sealed.
    pub secret: SecretId,
    /// How far it is.
    pub state: ServiceState,
    /// When it was asked for.
    pub created_at: Millis,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(kind: ServiceKind, text: &str) -> Result<ServiceVersion, &'static str> {
        ServiceVersion::parse(kind, text).map_err(|error| error.code())
    }

    #[test]
    fn a_version_is_exact_and_of_a_known_major() {
        use ServiceKind::{Meilisearch, Postgres, Qdrant, Redis};
        let image = |kind, text| version(kind, text).expect("taken").image(kind);
        assert_eq!(image(Postgres, "17.6"), "postgres:17.6");
        assert_eq!(image(Redis, "8.2.1"), "redis:8.2.1");
        assert_eq!(image(Meilisearch, "v1.13.3"), "getmeili/meilisearch:v1.13.3");
        assert_eq!(image(Qdrant, "1.18.3"), "qdrant/qdrant:v1.18.3");
        for text in ["17", "latest", "17.6-alpine", "17.6; id", "<%= 1 %>", "17.+6", "17.6.1", ""] {
            assert_eq!(version(Postgres, text), Err("service_version"), "{text}");
        }
        assert_eq!(version(Redis, "8.2"), Err("service_version"));
        assert_eq!(version(Postgres, "99.1"), Err("service_major_unknown"));
        for kind in ServiceKind::ALL {
            let default = kind.default_version();
            assert_eq!(version(kind, &default.to_string()), Ok(default));
        }
    }

    #[test]
    fn data_never_meets_a_version_that_cannot_read_it() {
        use ServiceKind::{Meilisearch, Postgres, Qdrant, Redis};
        let moved = |kind, from, to| {
            let (from, to) = (version(kind, from), version(kind, to));
            from.expect("one").upgrade(kind, to.expect("another")).map_err(|error| error.code())
        };
        assert_eq!(moved(Postgres, "17.5", "17.6"), Ok(()));
        assert_eq!(moved(Postgres, "17.6", "18.0"), Err("service_major_upgrade"));
        assert_eq!(moved(Postgres, "17.6", "17.5"), Err("service_downgrade"));
        assert_eq!(moved(Redis, "7.4.1", "8.2.1"), Ok(()));
        assert_eq!(moved(Meilisearch, "1.13.0", "1.13.3"), Ok(()));
        assert_eq!(moved(Meilisearch, "1.12.3", "1.13.3"), Err("service_major_upgrade"));
        assert_eq!(moved(Qdrant, "1.17.0", "1.18.3"), Ok(()));
        assert_eq!(moved(Qdrant, "1.16.0", "1.18.3"), Err("service_major_upgrade"));
    }

    #[test]
    fn an_app_is_told_the_container_and_never_localhost() {
        let path: EnvironmentPath = "shop/staging".parse().expect("a path");
        for kind in ServiceKind::ALL {
            for (key, value) in kind.app_values(&path, &Secret::new("pw")) {
                assert!(!value.expose().contains("localhost"));
                assert_eq!(ServiceKind::of_key(key), Some(kind));
            }
            let (_, url) = kind.app_values(&path, &Secret::new("pw")).remove(0);
            assert!(url.expose().contains(&format!("{}:{}", kind.host(&path), kind.port())));
        }
        let (_, url) = ServiceKind::Postgres.app_values(&path, &Secret::new("pw")).remove(0);
        assert_eq!(url.expose(), "postgresql://app:pw@shop-staging-db:5432/app");
    }
}
