//! What somebody needs of a size, and which sizes meet it.

use rust_decimal::Decimal;

use super::nearest::key;
use super::{Arch, Offer};
use crate::domain::money::{Budget, Money};
use crate::domain::names::RegionName;

/// What somebody needs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Need {
    /// In one region only.
    pub region: Option<RegionName>,
    /// Of one architecture only.
    pub arch: Option<Arch>,
    /// At least so much memory, in MiB.
    pub min_memory_mib: Option<u64>,
    /// At least so much disk, in GB.
    pub min_disk_gb: Option<u64>,
    /// At most so much per month; another currency than the given one meets nothing.
    pub max_monthly: Option<Budget>,
}

impl Need {
    fn is_met(&self, offer: &Offer) -> bool {
        let size = &offer.size;
        let within = |most: Budget| {
            most.currency.is_none_or(|currency| currency == size.monthly.currency)
                && size.monthly.amount <= most.amount
        };
        self.region.as_ref().is_none_or(|region| size.region == *region)
            && self.arch.is_none_or(|arch| size.arch == arch)
            && self.min_memory_mib.is_none_or(|least| size.memory_mib >= least)
            && self.min_disk_gb.is_none_or(|least| size.disk_gb >= least)
            && self.max_monthly.is_none_or(within)
    }
}

/// The offers that meet a need: what can be ordered first, and the cheapest of that first. Amounts
/// of two currencies are not compared: each currency's are together.
pub fn rank(offers: &[Offer], need: &Need) -> Vec<Offer> {
    let mut met: Vec<Offer> = offers.iter().filter(|o| need.is_met(o)).cloned().collect();
    met.sort_by_cached_key(|o| (!o.size.available, key(o)));
    met
}

/// What stands in the way where nothing meets a need: each condition without which something does,
/// and the cheapest that this is.
pub fn unmet(offers: &[Offer], need: &Need) -> Vec<String> {
    let loosened = [
        ("any region", need.region.is_some(), Need { region: None, ..need.clone() }),
        ("the other architecture", need.arch.is_some(), Need { arch: None, ..need.clone() }),
        (
            "less memory",
            need.min_memory_mib.is_some(),
            Need { min_memory_mib: None, ..need.clone() },
        ),
        ("less disk", need.min_disk_gb.is_some(), Need { min_disk_gb: None, ..need.clone() }),
        ("a higher price", need.max_monthly.is_some(), Need { max_monthly: None, ..need.clone() }),
    ];
    let told = loosened.into_iter().filter(|(_, asked, _)| *asked).filter_map(|(with, _, need)| {
        // Of less memory or less disk, the nearest is the one with most of it.
        let found = rank(offers, &need).into_iter().filter(|o| o.size.available);
        let best = match with {
            "less memory" => found.max_by_key(|o| o.size.memory_mib),
            "less disk" => found.max_by_key(|o| o.size.disk_gb),
            _ => found.min_by_key(key),
        }?;
        let size = best.size;
        Some(format!(
            "with {with}: `{}` in {} ({}, {} GiB, {} GB disk) at {}",
            size.name,
            size.region,
            size.arch.as_str(),
            size.memory_mib / 1024,
            size.disk_gb,
            size.monthly
        ))
    });
    told.collect()
}

/// A size whose disk alone is too small, with a volume for the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct DiskOnly {
    /// The size.
    pub offer: Offer,
    /// How many GB the volume has.
    pub volume_gb: u64,
    /// What both cost per month.
    pub monthly: Money,
}

/// Growing only the disk: the cheapest size that meets all of a need but its disk, with a volume
/// for the rest at its cloud's price per GB. None where no disk was asked for, where the cheapest
/// size has enough, or where the cloud's price is not known.
pub fn disk_only(
    offers: &[Offer],
    need: &Need,
    volume_gb_price: impl Fn(&str) -> Option<Money>,
) -> Option<DiskOnly> {
    let least = need.min_disk_gb?;
    let small = Need { min_disk_gb: None, ..need.clone() };
    let offer = rank(offers, &small).into_iter().find(|o| o.size.available)?;
    let missing = least.checked_sub(offer.size.disk_gb).filter(|gb| *gb > 0)?;
    let volume = volume_gb_price(&offer.cloud)?.times(Decimal::from(missing));
    let monthly = offer.size.monthly.plus(volume)?;
    Some(DiskOnly { offer, volume_gb: missing, monthly })
}

#[cfg(test)]
mod tests {
    use super::super::testing::offers;
    use super::*;
    use crate::domain::money::Currency;

    fn names(need: &Need) -> Vec<String> {
        let named = |o: Offer| format!("{} {}", o.size.name, o.size.region);
        rank(&offers(), need).into_iter().map(named).collect()
    }

    #[test]
    fn the_cheapest_that_fits_comes_first_and_what_is_sold_out_last() {
        let mut all = offers();
        all[0].size.available = false;
        let need = Need { min_memory_mib: Some(4096), arch: Some(Arch::Amd64), ..Need::default() };
        let ranked = rank(&all, &need);
        let first: Vec<&str> = ranked.iter().map(|o| o.size.name.as_str()).collect();
        assert_eq!(first[..2], ["cx23", "cx33"]);
        assert_eq!(ranked[0].size.region.as_str(), "nbg1");
        assert_eq!(ranked.last().map(|o| o.size.region.as_str()), Some("fsn1"));
        assert!(!ranked.last().expect("one").size.available);
    }

    #[test]
    fn each_condition_counts() {
        let gib = |n: u64| Some(n * 1024);
        let region = |name: &str| Some(name.parse().expect("a region"));
        let most = |text: &str| Some(text.parse().expect("a budget"));
        let none = Need::default;
        let rows = [
            (Need { region: region("ash"), ..none() }, vec!["cpx11 ash", "cpx21 ash"]),
            (Need { region: region("ash"), arch: Some(Arch::Arm64), ..none() }, vec![]),
            (
                Need { min_memory_mib: gib(8), ..none() },
                vec!["cx33 fsn1", "cpx32 fsn1", "ccx13 fsn1", "s-4vcpu-8gb fra1"],
            ),
            (Need { min_disk_gb: Some(160), ..none() }, vec!["cpx32 fsn1", "s-4vcpu-8gb fra1"]),
            (Need { max_monthly: most("EUR 6"), ..none() }, vec!["cx23 fsn1", "cx23 nbg1"]),
            (Need { max_monthly: most("USD 6"), ..none() }, vec!["s-1vcpu-1gb fra1"]),
            (Need { max_monthly: most("EUR 1"), ..none() }, vec![]),
        ];
        for (need, wanted) in rows {
            assert_eq!(names(&need), wanted, "{need:?}");
        }
    }

    #[test]
    fn what_cannot_be_met_says_which_condition_is_too_much() {
        let need = Need {
            min_memory_mib: Some(8192),
            max_monthly: Some("EUR 7".parse().expect("a budget")),
            ..Need::default()
        };
        assert_eq!(
            unmet(&offers(), &need),
            [
                "with less memory: `cax11` in nbg1 (arm64, 4 GiB, 40 GB disk) at EUR 6.49",
                "with a higher price: `cx33` in fsn1 (amd64, 8 GiB, 80 GB disk) at EUR 8.99",
            ]
        );
    }

    #[test]
    fn growing_only_the_disk_is_an_answer() {
        let price = |cloud: &str| {
            (cloud == "hetzner")
                .then(|| Money::new("0.0440".parse().expect("a price"), Currency::Eur))
        };
        let need = Need { min_disk_gb: Some(140), ..Need::default() };
        let found = disk_only(&offers(), &need, price).expect("an answer");
        assert_eq!((found.offer.size.name.as_str(), found.volume_gb), ("cx23", 100));
        assert_eq!(found.monthly.to_string(), "EUR 10.39");
        let enough = Need { min_disk_gb: Some(40), ..Need::default() };
        assert_eq!(disk_only(&offers(), &enough, price), None);
        assert_eq!(disk_only(&offers(), &need, |_| None), None);
    }
}
