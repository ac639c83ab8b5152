//! The DNS provider that was picked at run time: every call goes to the one that it is.

use url::Url;

use super::{Cloudflare, DigitalOcean, Dns, DnsError, HetznerDns, Record, Wanted, Zone};
use crate::domain::names::Domain;
use crate::domain::secret::Secret;
use crate::requests::Pace;

/// A DNS provider that was picked at run time.
#[derive(Debug, Clone)]
pub enum AnyDns {
    /// Cloudflare.
    Cloudflare(Cloudflare),
    /// Hetzner's zones, in its Cloud API.
    Hetzner(HetznerDns),
    /// DigitalOcean's domains.
    DigitalOcean(DigitalOcean),
}

impl AnyDns {
    /// The providers that [`Self::connect`] knows, in the order in which they are asked for a zone.
    pub const PROVIDERS: [&'static str; 3] = ["cloudflare", "hetzner", "digitalocean"];

    /// A client for `provider`; talks to nobody yet.
    pub fn connect(
        provider: &str,
        base_url: &Url,
        token: Secret,
        pace: Pace,
    ) -> Result<Self, DnsError> {
        match provider {
            "cloudflare" => Ok(Self::Cloudflare(Cloudflare::new(base_url, token, pace)?)),
            "hetzner" => Ok(Self::Hetzner(HetznerDns::new(base_url, token, pace)?)),
            "digitalocean" => Ok(Self::DigitalOcean(DigitalOcean::new(base_url, token, pace)?)),
            _ => Err(DnsError::UnknownProvider { provider: crate::requests::clean(provider) }),
        }
    }

    /// Its name in the store: `cloudflare`.
    pub fn provider(&self) -> &'static str {
        match self {
            Self::Cloudflare(_) => "cloudflare",
            Self::Hetzner(_) => "hetzner",
            Self::DigitalOcean(_) => "digitalocean",
        }
    }

    /// Whether a record can carry our mark there; where not, our own table tells whose it is.
    pub fn keeps_marks(&self) -> bool {
        match self {
            Self::Cloudflare(_) | Self::Hetzner(_) => true,
            Self::DigitalOcean(_) => false,
        }
    }
}

/// Writes a method of [`Dns`] as a match over the providers.
macro_rules! forward {
    ($(async fn $name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(async fn $name(&self, $($arg: $type),*) -> Result<$answer, DnsError> {
            match self {
                Self::Cloudflare(dns) => dns.$name($($arg),*).await,
                Self::Hetzner(dns) => dns.$name($($arg),*).await,
                Self::DigitalOcean(dns) => dns.$name($($arg),*).await,
            }
        })*
    };
}

impl Dns for AnyDns {
    fn title(&self) -> &'static str {
        match self {
            Self::Cloudflare(dns) => dns.title(),
            Self::Hetzner(dns) => dns.title(),
            Self::DigitalOcean(dns) => dns.title(),
        }
    }

    fn pace(&self) -> &Pace {
        match self {
            Self::Cloudflare(dns) => dns.pace(),
            Self::Hetzner(dns) => dns.pace(),
            Self::DigitalOcean(dns) => dns.pace(),
        }
    }

    forward! {
        async fn zones() -> Vec<Zone>;
        async fn zone(name: &Domain) -> Option<Zone>;
        async fn records(zone: &Zone, name: &Domain) -> Vec<Record>;
        async fn create(zone: &Zone, wanted: &Wanted) -> Record;
        async fn change(zone: &Zone, record: &Record, wanted: &Wanted) -> Record;
        async fn delete(zone: &Zone, record: &Record) -> ();
    }
}
