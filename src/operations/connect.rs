//! Takes a token in: it is tried before it is kept.

use super::catalogue::{orderable, title};
use super::{Context, OpError};
use crate::accounts::{CLOUDFLARE, GITHUB};
use crate::clouds::{AccountFacts, Cloud, CloudError};
use crate::dns::{Dns, DnsError};
use crate::domain::secret::Secret;
use crate::domain::size::Size;
pub use crate::github::AppKey;

/// Whose token it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Hetzner Cloud.
    Hetzner,
    /// DigitalOcean.
    DigitalOcean,
    /// GitHub.
    GitHub,
    /// Cloudflare, for its zones.
    Cloudflare,
}

impl Provider {
    /// The stored and shown form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hetzner => "hetzner",
            Self::DigitalOcean => "digitalocean",
            Self::GitHub => GITHUB,
            Self::Cloudflare => CLOUDFLARE,
        }
    }
}

/// Tries a token, keeps it where it works, and says in a line what it opens.
///
/// # Errors
/// The provider refuses the token or does not answer; nothing is kept then.
pub async fn connect(
    context: &Context,
    provider: Provider,
    token: Secret,
) -> Result<String, OpError> {
    let name = provider.as_str();
    let found = match provider {
        Provider::Hetzner | Provider::DigitalOcean => {
            let cloud = context.accounts.cloud_with(name, token.clone())?;
            let facts = cloud.check(context.settings.installation).await?;
            let sizes = cloud.sizes().await?;
            // What another token's project was told may not hold for this one.
            context.store.drop_price_list(name).await?;
            format!("the token works; {}", account(name, &facts, &sizes).join("; "))
        }
        Provider::GitHub => {
            let sign_in = context.accounts.github_with(token.clone())?.sign_in().await?;
            let missing = sign_in.missing().map(|missing| format!("; {missing}"));
            format!("the sign-in works; {}{}", sign_in.told(), missing.unwrap_or_default())
        }
        Provider::Cloudflare => zones(context, token.clone()).await?,
    };
    context.accounts.remember(name, &token, context.clock.now()).await?;
    Ok(found)
}

/// What the account of a cloud is, in a few parts: access, servers and limits, and one size that
/// can be ordered.
pub(crate) fn account(cloud: &str, facts: &AccountFacts, sizes: &[Size]) -> Vec<String> {
    let mut parts = vec![match facts.can_write {
        Some(true) => "read and write".to_owned(),
        Some(false) => "READ ONLY: make one with write access before you provision".to_owned(),
        None => "write access shows at the first order".to_owned(),
    }];
    parts.push(format!("bills in {}", facts.currency));
    let limit = match facts.server_limit {
        Some(limit) => format!(" of {limit} that the account may have"),
        None => format!(", and {} does not tell how many the account may have", title(cloud)),
    };
    parts.push(match facts.servers {
        0 => format!("no server{limit}"),
        1 => format!("1 server{limit}"),
        servers => format!("{servers} servers{limit}"),
    });
    if let Err(
        error @ (OpError::Cloud(CloudError::Limit { .. }) | OpError::AccountBlocked { .. }),
    ) = orderable(cloud, facts)
    {
        parts.push(format!("NO ROOM: {error}; {}", error.fix()));
    }
    parts.extend(own_project(facts));
    let can = sizes.iter().filter(|size| size.available);
    parts.push(match can.min_by_key(|size| size.monthly.amount) {
        Some(size) => {
            format!("`{}` in {} can be ordered at {} a month", size.name, size.region, size.monthly)
        }
        None => "nothing can be ordered now".to_owned(),
    });
    parts
}

/// What is recommended where others' servers are within the token's reach.
pub(crate) fn own_project(facts: &AccountFacts) -> Option<String> {
    (facts.foreign_servers > 0).then(|| {
        format!(
            "{} of them {} not VMKit's: it never touches such, but a token of a project of its own \
             could not even reach them",
            facts.foreign_servers,
            if facts.foreign_servers == 1 { "is" } else { "are" }
        )
    })
}

/// Whether a token of Cloudflare's is good, and the zones that it opens.
async fn zones(context: &Context, token: Secret) -> Result<String, OpError> {
    let cloudflare = context.accounts.cloudflare_with(token)?;
    let verified = cloudflare.verify().await;
    let zones = match (verified, cloudflare.zones().await) {
        (Ok(()), zones) => zones?,
        // A token of an account is not known where those of users are verified: its zones prove it.
        (Err(DnsError::Auth { .. } | DnsError::Forbidden { .. }), Ok(zones))
            if !zones.is_empty() =>
        {
            zones
        }
        (Err(error), _) => return Err(error.into()),
    };
    if zones.is_empty() {
        return Ok("the token works, but opens no zone: give it Zone:Read and DNS:Edit on yours"
            .to_owned());
    }
    let named: Vec<String> = zones
        .iter()
        .map(|zone| match zone.active {
            true => zone.name.to_string(),
            false => format!(
                "{} (not active: set {} at its registrar)",
                zone.name,
                zone.nameservers.join(" and ")
            ),
        })
        .collect();
    Ok(format!("the token works; zones: {}", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::money::Currency;

    #[test]
    fn an_account_is_told_with_its_limits_and_strangers() {
        let facts = AccountFacts {
            currency: Currency::Eur,
            can_write: Some(true),
            servers: 3,
            foreign_servers: 1,
            server_limit: Some(3),
            blocked: None,
        };
        let told = account("hetzner", &facts, &[]).join("; ");
        for word in [
            "read and write",
            "bills in EUR",
            "3 servers of 3 that the account may have",
            "NO ROOM",
            "1 of them is not VMKit's",
            "project of its own",
            "nothing can be ordered now",
        ] {
            assert!(told.contains(word), "{word}: {told}");
        }
    }
}
