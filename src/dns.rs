//! DNS providers: few methods, thin clients with their own wire types, and one way to bring a record
//! to what it has to be. What resolvers really see is asked by [`resolve`].

mod any;
mod cloudflare;
mod digitalocean;
mod error;
mod hetzner;
mod put;
pub mod resolve;
pub mod sslip;

use std::fmt;

pub use any::AnyDns;
pub use cloudflare::Cloudflare;
pub use digitalocean::DigitalOcean;
pub use error::DnsError;
pub use hetzner::HetznerDns;
pub use put::{Decision, Put, decide, put, zone_of};

use crate::domain::ids::{EnvironmentId, InstallationId};
use crate::domain::names::Domain;
use crate::requests::Pace;

/// How long resolvers may keep a record of ours, in seconds: short, since an address may change.
pub const TTL: u32 = 300;

/// A zone that a token can edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// The provider's id of it.
    pub id: String,
    /// Its name.
    pub name: Domain,
    /// Whether the provider says that resolvers are sent to it.
    pub active: bool,
    /// The servers that its registrar has to name, where the provider tells them.
    pub nameservers: Vec<String>,
}

/// The kinds of records that concern an app's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordKind {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
    /// Another name.
    Cname,
    /// One that is not ours to make.
    Other(String),
}

impl RecordKind {
    /// As a zone's file has it: `AAAA`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
            Self::Other(kind) => kind,
        }
    }

    /// From a zone's file.
    pub fn of(text: &str) -> Self {
        match text {
            "A" => Self::A,
            "AAAA" => Self::Aaaa,
            "CNAME" => Self::Cname,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a record of ours carries where its provider has a place for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Whose it is.
    pub installation: InstallationId,
    /// What it is for.
    pub environment: EnvironmentId,
}

const INSTALLATION: &str = "vmkit.io/installation";
const ENVIRONMENT: &str = "vmkit.io/environment";

impl fmt::Display for Mark {
    /// As a comment: at most 100 characters, as many as Cloudflare's free plan takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (installation, environment) = (self.installation.bare(), self.environment.bare());
        write!(f, "{INSTALLATION}={installation} {ENVIRONMENT}={environment}")
    }
}

impl Mark {
    /// From a comment; none where it is no mark.
    pub fn parse(text: &str) -> Option<Self> {
        let word = |name: &str| {
            text.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        Self::of(word(INSTALLATION)?, word(ENVIRONMENT)?)
    }

    fn of(installation: &str, environment: &str) -> Option<Self> {
        Some(Self {
            installation: format!("ins_{installation}").parse().ok()?,
            environment: format!("env_{environment}").parse().ok()?,
        })
    }
}

/// A record of a name, or all records of one kind where the provider keeps those together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The provider's id of it.
    pub id: String,
    /// Its whole name.
    pub name: Domain,
    /// Its kind.
    pub kind: RecordKind,
    /// What it says.
    pub values: Vec<String>,
    /// Whether the provider answers with its own addresses and carries the traffic itself.
    pub proxied: bool,
    /// Whose it is, where the provider keeps marks and it has one.
    pub mark: Option<Mark>,
}

impl Record {
    /// Such as `A shop.example.com 203.0.113.7`.
    pub fn line(&self) -> String {
        format!("{} {} {}", self.kind, self.name, self.values.join(" "))
    }
}

/// A record as it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its whole name.
    pub name: Domain,
    /// Its kind.
    pub kind: RecordKind,
    /// What it has to say.
    pub value: String,
    /// Whose it will be.
    pub mark: Mark,
}

impl Wanted {
    /// Whether a record says this and nothing else, to everybody.
    pub fn is_met_by(&self, record: &Record) -> bool {
        record.kind == self.kind && !record.proxied && record.values == [self.value.clone()]
    }
}

/// What VMKit needs of a DNS provider. Every call may be made again.
pub trait Dns {
    /// The zones that the token can see.
    fn zones(&self) -> impl Future<Output = Result<Vec<Zone>, DnsError>> + Send;

    /// The zone of exactly this name, if the token can see it.
    fn zone(&self, name: &Domain) -> impl Future<Output = Result<Option<Zone>, DnsError>> + Send;

    /// The records of a name, of every kind.
    fn records(
        &self,
        zone: &Zone,
        name: &Domain,
    ) -> impl Future<Output = Result<Vec<Record>, DnsError>> + Send;

    /// Makes a record. Sent once: a lost answer comes back as an error that says so.
    fn create(
        &self,
        zone: &Zone,
        wanted: &Wanted,
    ) -> impl Future<Output = Result<Record, DnsError>> + Send;

    /// Makes a record say what is wanted.
    fn change(
        &self,
        zone: &Zone,
        record: &Record,
        wanted: &Wanted,
    ) -> impl Future<Output = Result<Record, DnsError>> + Send;

    /// Deletes a record; one that is gone is no error.
    fn delete(
        &self,
        zone: &Zone,
        record: &Record,
    ) -> impl Future<Output = Result<(), DnsError>> + Send;

    /// What people call it.
    fn title(&self) -> &'static str;

    /// How it waits.
    fn pace(&self) -> &Pace;
}
