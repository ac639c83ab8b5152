//! What all connected clouds sell, with the age of the knowledge.
//!
//! A list is kept in the state file: a question takes one that is young enough, an order asks the
//! cloud. While a cloud is away, its last list serves for questions, and says how old it is.

use serde::{Deserialize, Serialize};

use super::{Context, OpError};
use crate::accounts::{Accounts, CLOUDS};
use crate::clouds::{AccountFacts, Cloud, CloudError, ExtraPrices};
use crate::domain::clock::Millis;
use crate::domain::environment::Settings;
use crate::domain::size::{Offer, Size, misfit, nearest, told};

/// How old a list may be for a question, in milliseconds: prices change with weeks of notice,
/// availability within hours.
const YOUNG_MS: i64 = 10 * 60 * 1000;

/// How old a list may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// As of now, for an order.
    Now,
    /// A few minutes, for a question.
    Young,
}

/// What one cloud sells.
#[derive(Debug, Clone)]
pub struct PriceList {
    /// The cloud.
    pub cloud: &'static str,
    /// Its sizes.
    pub sizes: Vec<Size>,
    /// What it bills beside servers.
    pub extras: ExtraPrices,
    /// When it said so.
    pub seen_at: Millis,
    /// Whether it should have been asked again and did not answer.
    pub stale: bool,
}

/// The stored form of a list.
#[derive(Serialize, Deserialize)]
struct Body {
    sizes: Vec<Size>,
    extras: ExtraPrices,
}

/// What all connected clouds sell.
#[derive(Debug)]
pub struct Catalogue {
    /// A list for each cloud that has one.
    pub lists: Vec<PriceList>,
    /// The clouds that did not answer, and why not.
    pub away: Vec<(&'static str, OpError)>,
    /// The clouds that nobody gave a token for.
    pub absent: Vec<&'static str>,
}

impl Catalogue {
    /// Every size in every region.
    pub fn offers(&self) -> Vec<Offer> {
        let of = |list: &PriceList| list.sizes.clone().into_iter().map(Offer::of);
        self.lists.iter().flat_map(of).collect()
    }

    /// The list of a cloud.
    pub fn of(&self, cloud: &str) -> Option<&PriceList> {
        self.lists.iter().find(|list| list.cloud == cloud)
    }

    /// The size that the settings name, if it can be ordered now as far as its cloud says. Where
    /// they name no cloud, size and region do: no two clouds have both in common.
    ///
    /// # Errors
    /// [`OpError::UnknownSize`] and [`OpError::SoldOut`] name what would work; the cloud's own error
    /// where it would have to be asked and does not answer.
    pub fn pick(mut self, settings: &Settings) -> Result<Size, OpError> {
        let offers = self.offers();
        let here = |o: &Offer| settings.provider.as_ref().is_none_or(|own| o.cloud == *own);
        let named = |o: &Offer| o.size.name == settings.size && o.size.region == settings.region;
        let found = offers.iter().find(|o| named(o) && here(o));
        let (size, region) = (&settings.size, &settings.region);
        let Some(found) = found else {
            // It may be a size of the cloud that did not answer.
            let silent = |(cloud, _): &(&'static str, OpError)| self.of(cloud).is_none();
            if let Some(place) = self.away.iter().position(silent) {
                return Err(self.away.swap_remove(place).1);
            }
            let mut near: Vec<String> = mixed_up(&offers, settings).into_iter().collect();
            near.push(misfit(size, region, &offers));
            if !self.absent.is_empty() {
                let absent = self.absent.join(" and ");
                near.push(format!("{absent} is not connected, so its sizes are not known"));
            }
            let (size, region) = (size.to_string(), region.to_string());
            return Err(OpError::UnknownSize { size, region, near: near.join("; ") });
        };
        if self.of(&found.cloud).is_some_and(|list| list.stale)
            && let Some(place) = self.away.iter().position(|(cloud, _)| *cloud == found.cloud)
        {
            return Err(self.away.swap_remove(place).1);
        }
        if found.size.available { Ok(found.size.clone()) } else { Err(sold_out(found, &offers)) }
    }
}

/// What to say where size and region are of different clouds, or of another one than was asked for.
fn mixed_up(offers: &[Offer], settings: &Settings) -> Option<String> {
    let (size, region) = (&settings.size, &settings.region);
    let of = |is: &dyn Fn(&Offer) -> bool| offers.iter().find(|o| is(o)).map(|o| o.cloud.as_str());
    let of_size = of(&|o| o.size.name == *size);
    let of_region = of(&|o| o.size.region == *region);
    match (of_size, of_region, settings.provider.as_deref()) {
        (Some(one), Some(other), _) if one != other => {
            Some(format!("`{size}` is a size of {one}, and `{region}` a region of {other}"))
        }
        (Some(found), _, Some(asked)) if found != asked => {
            Some(format!("`{size}` is a size of {found}, not of {asked}"))
        }
        (_, Some(found), Some(asked)) if found != asked => {
            Some(format!("`{region}` is a region of {found}, not of {asked}"))
        }
        _ => None,
    }
}

/// What can be ordered instead of what cannot.
pub(super) fn sold_out(wanted: &Offer, offers: &[Offer]) -> OpError {
    OpError::SoldOut {
        size: wanted.size.name.to_string(),
        region: wanted.size.region.to_string(),
        near: told(wanted, &nearest(wanted, offers)),
    }
}

/// What all connected clouds sell; a cloud that is not connected has no list.
///
/// # Errors
/// No cloud is connected, or none answers and none has a list.
pub async fn catalogue(context: &Context, age: Age) -> Result<Catalogue, OpError> {
    let (mut lists, mut away, mut absent) = (Vec::new(), Vec::new(), Vec::new());
    let mut missing = None;
    for cloud in CLOUDS {
        if context.accounts.source(cloud).await?.is_none() {
            absent.push(cloud);
            missing.get_or_insert(cloud);
            continue;
        }
        let kept = kept(context, cloud).await?;
        let young = |list: &PriceList| {
            age == Age::Young && (0..YOUNG_MS).contains(&context.clock.now().since_ms(list.seen_at))
        };
        if let Some(kept) = kept.as_ref().filter(|kept| young(kept)) {
            lists.push(kept.clone());
            continue;
        }
        match asked(context, cloud).await {
            Ok(list) => lists.push(list),
            Err(error) => {
                lists.extend(kept.map(|kept| PriceList { stale: true, ..kept }));
                away.push((cloud, error));
            }
        }
    }
    if lists.is_empty() {
        if !away.is_empty() {
            return Err(away.swap_remove(0).1);
        }
        if let Some(cloud) = missing {
            // Says which variable or command would connect it.
            context.accounts.cloud(cloud).await?;
        }
    }
    Ok(Catalogue { lists, away, absent })
}

async fn kept(context: &Context, cloud: &'static str) -> Result<Option<PriceList>, OpError> {
    let Some((body, seen_at)) = context.store.price_list(cloud).await? else { return Ok(None) };
    // A list that another version wrote otherwise is as good as none: it is asked for again.
    let Ok(Body { sizes, extras }) = serde_json::from_value(body) else { return Ok(None) };
    Ok(Some(PriceList { cloud, sizes, extras, seen_at, stale: false }))
}

async fn asked(context: &Context, cloud: &'static str) -> Result<PriceList, OpError> {
    let seen_at = context.clock.now();
    let (sizes, extras) = ask(&context.accounts, cloud).await?;
    let body = Body { sizes, extras };
    let stored = serde_json::to_value(&body).unwrap_or_default();
    context.store.put_price_list(cloud.to_owned(), stored, seen_at).await?;
    let Body { sizes, extras } = body;
    Ok(PriceList { cloud, sizes, extras, seen_at, stale: false })
}

async fn ask(
    accounts: &Accounts,
    cloud: &'static str,
) -> Result<(Vec<Size>, ExtraPrices), OpError> {
    let client = accounts.cloud(cloud).await?;
    let sizes = client.sizes().await?;
    let extras = match client.extra_prices().await {
        Ok(extras) => extras,
        // A price that is not told is left open; nothing is guessed.
        Err(CloudError::NotOffered { .. }) => ExtraPrices::default(),
        Err(error) => return Err(error.into()),
    };
    Ok((sizes, extras))
}

/// Fails where the account of a cloud cannot order a server, as far as the cloud tells beforehand.
///
/// # Errors
/// The token may only read, the account is at its limit or blocked.
pub(super) async fn may_order(context: &Context, cloud: &str) -> Result<(), OpError> {
    let client = context.accounts.cloud(cloud).await?;
    let facts = client.check(context.settings.installation).await?;
    orderable(cloud, &facts)
}

/// Whether facts of an account leave room for one more server.
///
/// # Errors
/// As [`may_order`].
pub(crate) fn orderable(cloud: &str, facts: &AccountFacts) -> Result<(), OpError> {
    let provider = title(cloud);
    if facts.can_write == Some(false) {
        let reason = "it is read-only".to_owned();
        return Err(CloudError::Forbidden { provider, reason }.into());
    }
    if let Some(reason) = &facts.blocked {
        let (cloud, reason) = (provider.to_owned(), reason.clone());
        return Err(OpError::AccountBlocked { cloud, reason });
    }
    match facts.server_limit {
        Some(limit) if facts.servers >= limit => {
            let what = format!("{} of {limit} servers", facts.servers);
            Err(CloudError::Limit { provider, what }.into())
        }
        _ => Ok(()),
    }
}

/// A provider's name as people write it.
pub(crate) fn title(provider: &str) -> &'static str {
    match provider {
        "hetzner" => "Hetzner",
        "digitalocean" => "DigitalOcean",
        "github" => "GitHub",
        "vmkit" => "VMKit",
        "cloudflare" => "Cloudflare",
        _ => "the provider",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::money::Currency;
    use crate::domain::size::testing::offers;

    #[test]
    fn an_account_that_cannot_order_says_why_and_what_to_do() {
        let free = AccountFacts {
            currency: Currency::Eur,
            can_write: Some(true),
            servers: 4,
            foreign_servers: 0,
            server_limit: Some(5),
            blocked: None,
        };
        assert!(orderable("hetzner", &free).is_ok());
        let unknown = AccountFacts { can_write: None, server_limit: None, ..free.clone() };
        assert!(orderable("hetzner", &unknown).is_ok());
        let rows = [
            (AccountFacts { can_write: Some(false), ..free.clone() }, "forbidden", "read-only"),
            (AccountFacts { servers: 5, ..free.clone() }, "limit_reached", "5 of 5 servers"),
            (
                AccountFacts { blocked: Some("verify your e-mail".to_owned()), ..free },
                "account_blocked",
                "verify your e-mail",
            ),
        ];
        for (facts, code, word) in rows {
            let error = orderable("hetzner", &facts).expect_err("refused");
            assert_eq!(error.code(), code);
            assert!(error.to_string().contains(word), "{error}");
            assert!(!error.fix().is_empty());
        }
    }

    fn picked(provider: Option<&str>, size: &str, region: &str) -> Result<String, String> {
        let of = |cloud: &'static str| PriceList {
            cloud,
            sizes: offers().into_iter().filter(|o| o.cloud == cloud).map(|o| o.size).collect(),
            extras: ExtraPrices::default(),
            seen_at: Millis(0),
            stale: false,
        };
        let lists = CLOUDS.map(of).to_vec();
        let settings = Settings {
            provider: provider.map(str::to_owned),
            size: size.parse().expect("a size"),
            region: region.parse().expect("a region"),
            domain: None,
            port: 80,
            health_path: "/".to_owned(),
            protected: false,
        };
        let catalogue = Catalogue { lists, away: Vec::new(), absent: Vec::new() };
        catalogue.pick(&settings).map(|size| size.provider).map_err(|error| error.to_string())
    }

    #[test]
    fn size_and_region_decide_on_the_cloud() {
        assert_eq!(picked(None, "cpx22", "fsn1").as_deref(), Ok("hetzner"));
        assert_eq!(picked(None, "s-2vcpu-4gb", "fra1").as_deref(), Ok("digitalocean"));
        assert_eq!(picked(Some("hetzner"), "cpx22", "fsn1").as_deref(), Ok("hetzner"));
    }

    #[test]
    fn a_size_of_another_cloud_is_told_as_such() {
        let text = picked(None, "s-2vcpu-4gb", "fsn1").expect_err("another cloud's");
        let wanted = "`s-2vcpu-4gb` is a size of digitalocean, and `fsn1` a region of hetzner";
        assert!(text.contains(wanted), "{text}");
        let text = picked(Some("hetzner"), "s-2vcpu-4gb", "fra1").expect_err("another cloud's");
        assert!(text.contains("is a size of digitalocean, not of hetzner"), "{text}");
        let text = picked(Some("hetzner"), "nonesuch", "fra1").expect_err("another cloud's");
        assert!(text.contains("`fra1` is a region of digitalocean, not of hetzner"), "{text}");
    }
}
