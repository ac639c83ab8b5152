//! What can be ordered, with live prices: ranked for a need, with what would do where nothing fits.

use super::paas::{self, Slot};
use crate::domain::clock::Millis;
use crate::domain::money::{Budget, Currency};
use crate::domain::names::RegionName;
use crate::domain::size::{DiskOnly, Need, Offer, disk_only, rank, unmet};
use crate::operations::catalogue::{Age, Catalogue, PriceList, catalogue};
use crate::operations::{Context, OpError};

/// A size with all regions in which it has the same price.
#[derive(Debug, Clone)]
pub struct SizeLine {
    /// The size in the first of the regions.
    pub offer: Offer,
    /// Where it can be ordered.
    pub regions: Vec<RegionName>,
    /// Where it is sold out.
    pub sold_out: Vec<RegionName>,
}

/// How old what we know of a cloud is.
#[derive(Debug, Clone)]
pub struct ListAge {
    /// The cloud.
    pub cloud: &'static str,
    /// When it said so.
    pub seen_at: Millis,
    /// How many seconds ago that was.
    pub age_s: i64,
    /// Why there is nothing newer, where it was asked and did not answer.
    pub away: Option<String>,
}

/// The answer to a need.
#[derive(Debug)]
pub struct Sizes {
    /// What meets it: what can be ordered first, the cheapest of that first.
    pub lines: Vec<SizeLine>,
    /// What stands in the way where nothing that can be ordered meets it.
    pub unmet: Vec<String>,
    /// Growing only the disk, where disk is the need.
    pub disk_only: Option<DiskOnly>,
    /// The same slot as the first on other platforms.
    pub paas: Vec<Slot>,
    /// How old all this is.
    pub ages: Vec<ListAge>,
}

/// The sizes that meet a need.
///
/// # Errors
/// No cloud is connected or none has a list; [`OpError::UnknownRegion`]; and
/// [`OpError::OtherCurrency`] where the price limit has no currency that a cloud bills in.
pub async fn sizes(context: &Context, need: &Need) -> Result<Sizes, OpError> {
    let catalogue = catalogue(context, Age::Young).await?;
    let offers = catalogue.offers();
    if let Some(region) = &need.region {
        check_region(region, &offers)?;
    }
    if let Some(budget) = need.max_monthly {
        check_currency(budget, &catalogue)?;
    }
    let ranked = rank(&offers, need);
    let first = ranked.first().filter(|offer| offer.size.available);
    let price = |cloud: &str| catalogue.of(cloud).and_then(|list| list.extras.volume_gb);
    Ok(Sizes {
        unmet: if first.is_some() { Vec::new() } else { unmet(&offers, need) },
        disk_only: disk_only(&offers, need, price),
        paas: first.map(|offer| paas::compare(&offer.size)).unwrap_or_default(),
        lines: lines(ranked),
        ages: ages(context, &catalogue),
    })
}

fn check_region(region: &RegionName, offers: &[Offer]) -> Result<(), OpError> {
    if offers.iter().any(|offer| offer.size.region == *region) {
        return Ok(());
    }
    let mut known: Vec<&str> = Vec::new();
    for offer in offers {
        if !known.contains(&offer.size.region.as_str()) {
            known.push(offer.size.region.as_str());
        }
    }
    Err(OpError::UnknownRegion { region: region.to_string(), known: known.join(", ") })
}

/// A limit is an amount in a currency: without one it is only clear where all bill in the same.
fn check_currency(budget: Budget, catalogue: &Catalogue) -> Result<(), OpError> {
    let bills: Vec<(&str, Currency)> = catalogue
        .lists
        .iter()
        .filter_map(|list| Some((list.cloud, list.sizes.first()?.monthly.currency)))
        .collect();
    let said: Vec<String> =
        bills.iter().map(|(cloud, currency)| format!("{cloud} bills in {currency}")).collect();
    let several = bills.iter().any(|(_, currency)| *currency != bills[0].1);
    let trouble = match budget.currency {
        Some(wanted) => !bills.iter().any(|(_, currency)| *currency == wanted),
        None => several,
    };
    if !trouble {
        return Ok(());
    }
    Err(OpError::OtherCurrency { asked: budget.to_string(), clouds: said.join(", ") })
}

/// Ranked offers, each size once per price.
fn lines(ranked: Vec<Offer>) -> Vec<SizeLine> {
    let mut lines: Vec<SizeLine> = Vec::new();
    for offer in ranked {
        let same = |line: &SizeLine| {
            let (a, b) = (&line.offer, &offer);
            a.cloud == b.cloud && a.size.name == b.size.name && a.size.monthly == b.size.monthly
        };
        let place = lines.iter().position(same).unwrap_or(lines.len());
        if place == lines.len() {
            lines.push(SizeLine { offer: offer.clone(), regions: vec![], sold_out: vec![] });
        }
        let (line, region) = (&mut lines[place], offer.size.region);
        if offer.size.available { line.regions.push(region) } else { line.sold_out.push(region) }
    }
    lines
}

fn ages(context: &Context, catalogue: &Catalogue) -> Vec<ListAge> {
    let now = context.clock.now();
    let away = |cloud: &str| {
        let found = catalogue.away.iter().find(|(known, _)| *known == cloud);
        found.map(|(_, error)| error.to_string())
    };
    let age = |list: &PriceList| ListAge {
        cloud: list.cloud,
        seen_at: list.seen_at,
        age_s: now.since_ms(list.seen_at).max(0) / 1000,
        away: away(list.cloud),
    };
    catalogue.lists.iter().map(age).collect()
}
