//! What can be ordered instead of what cannot: the nearest first, never another architecture.

use super::{Arch, Offer};
use crate::domain::money::Money;
use crate::domain::names::{RegionName, SizeName};

/// How many alternatives of one kind are named.
const EACH: usize = 2;

/// In what an alternative differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The same size in another region.
    OtherRegion,
    /// A larger size in the same region.
    Larger,
    /// A larger size in another region.
    LargerElsewhere,
    /// A size at least as large at another cloud.
    OtherCloud,
}

/// Something that can be ordered instead.
#[derive(Debug, Clone, PartialEq)]
pub struct Alternative {
    /// What.
    pub offer: Offer,
    /// In what it differs.
    pub why: Why,
    /// What it costs more per month; none where the two clouds bill in different currencies.
    pub difference: Option<Money>,
}

impl std::fmt::Display for Alternative {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size = &self.offer.size;
        write!(f, "`{}` in {}", size.name, size.region)?;
        if self.why == Why::OtherCloud {
            write!(f, " at {}", self.offer.cloud)?;
        }
        match self.difference {
            Some(difference) => write!(f, " for {} ({})", size.monthly, difference.signed()),
            None => write!(f, " for {}", size.monthly),
        }
    }
}

/// What can be ordered instead of `wanted`, which cannot: the same size in other regions, then the
/// next larger ones in its region (else elsewhere at its cloud), then what is at least as large at
/// other clouds. Only ever of the same architecture, and of own cores where it has own cores.
pub fn nearest(wanted: &Offer, offers: &[Offer]) -> Vec<Alternative> {
    let want = &wanted.size;
    let same = |o: &Offer| o.size.name == want.name && o.cloud == wanted.cloud;
    let holds = |o: &Offer| {
        o.size.memory_mib >= want.memory_mib
            && o.size.disk_gb >= want.disk_gb
            && o.size.cores >= want.cores
            && (o.size.dedicated || !want.dedicated)
    };
    let can: Vec<&Offer> = offers
        .iter()
        .filter(|o| o.size.available && o.size.arch == want.arch)
        .filter(|o| !(same(o) && o.size.region == want.region))
        .collect();
    let of = |why: Why, keep: &dyn Fn(&Offer) -> bool| -> Vec<Alternative> {
        let mut found: Vec<&Offer> = can.iter().copied().filter(|o| keep(o)).collect();
        found.sort_by_cached_key(|offer| key(offer));
        found.dedup_by(|a, b| why != Why::OtherRegion && a.size.name == b.size.name);
        let alternative = |offer: &Offer| Alternative {
            offer: offer.clone(),
            why,
            difference: offer.size.monthly.minus(want.monthly),
        };
        found.into_iter().take(EACH).map(alternative).collect()
    };
    let here = |o: &Offer| o.cloud == wanted.cloud && o.size.region == want.region;
    let mut all = of(Why::OtherRegion, &same);
    let larger = of(Why::Larger, &|o| here(o) && !same(o) && holds(o));
    let none_here = larger.is_empty();
    all.extend(larger);
    if none_here {
        let elsewhere = |o: &Offer| o.cloud == wanted.cloud && !here(o) && !same(o) && holds(o);
        all.extend(of(Why::LargerElsewhere, &elsewhere));
    }
    all.extend(of(Why::OtherCloud, &|o| o.cloud != wanted.cloud && holds(o)));
    all
}

/// Cheapest first; amounts of two currencies are not compared.
pub(super) fn key(offer: &Offer) -> impl Ord + use<> {
    let size = &offer.size;
    let name = (offer.cloud.clone(), size.name.to_string(), size.region.to_string());
    (size.monthly.currency, size.monthly.amount, name)
}

/// Alternatives in a sentence, for an error's message.
pub fn told(wanted: &Offer, alternatives: &[Alternative]) -> String {
    if alternatives.is_empty() {
        let (arch, gib) = (wanted.size.arch.as_str(), wanted.size.memory_mib / 1024);
        return format!("nothing of {arch} with at least {gib} GiB can be ordered anywhere now");
    }
    let shown: Vec<String> = alternatives.iter().map(ToString::to_string).collect();
    format!("what can be ordered instead: {}", shown.join("; "))
}

/// Why a size cannot be had in a region where the lists do not have the two together, and what
/// would work.
pub fn misfit(name: &SizeName, region: &RegionName, offers: &[Offer]) -> String {
    let of_name: Vec<&Offer> = offers.iter().filter(|o| o.size.name == *name).collect();
    let there: Vec<&Offer> = offers.iter().filter(|o| o.size.region == *region).collect();
    let mut parts = Vec::new();
    if of_name.is_empty() {
        parts.push(format!("there is no size `{name}`"));
    }
    if there.is_empty() {
        parts.push(format!("there is no region `{region}`"));
    }
    match of_name.first() {
        Some(known) => {
            parts.push(sold_in(&of_name));
            parts.extend(cheapest(&there, Some(known.size.arch), region));
        }
        None if there.is_empty() => {
            let names = offers.iter().map(|o| o.size.region.to_string());
            parts.push(format!("the regions are {}", listed(names)));
        }
        None => parts.extend(several(&there, name, region)),
    }
    parts.join("; ")
}

fn sold_in(of_name: &[&Offer]) -> String {
    let can = of_name.iter().filter(|o| o.size.available).map(|o| o.size.region.to_string());
    let can = listed(can);
    if !can.is_empty() {
        return format!("it is in {can}");
    }
    let all = listed(of_name.iter().map(|o| o.size.region.to_string()));
    format!("it is sold out where it is sold ({all})")
}

/// The cheapest of the architecture that is wanted; one of another is named as such.
fn cheapest(there: &[&Offer], wanted: Option<Arch>, region: &RegionName) -> Option<String> {
    let can = || there.iter().filter(|o| o.size.available);
    let same = can().filter(|o| wanted.is_none_or(|arch| o.size.arch == arch));
    let cheap = |o: &&&Offer| key(o);
    if let Some(found) = same.min_by_key(cheap) {
        let size = &found.size;
        return Some(format!("in {region} the cheapest is `{}` at {}", size.name, size.monthly));
    }
    let found = can().min_by_key(cheap)?;
    let (size, arch) = (&found.size, found.size.arch.as_str());
    Some(format!(
        "in {region} the cheapest is `{}` at {}, which is {arch} and needs another image",
        size.name, size.monthly
    ))
}

/// A few that can be had there: of the same family where there are such.
fn several(there: &[&Offer], name: &SizeName, region: &RegionName) -> Option<String> {
    let family = |text: &str| text.chars().take_while(|c| !c.is_ascii_digit()).collect::<String>();
    let mut can: Vec<&&Offer> = there.iter().filter(|o| o.size.available).collect();
    let wanted = family(name.as_str());
    can.sort_by_key(|o| (family(o.size.name.as_str()) != wanted, key(o)));
    let shown: Vec<String> = can
        .iter()
        .take(3)
        .map(|o| format!("`{}` at {} ({})", o.size.name, o.size.monthly, o.size.arch.as_str()))
        .collect();
    (!shown.is_empty()).then(|| format!("in {region} can be ordered: {}", shown.join(", ")))
}

/// Each once, in the order in which they come.
fn listed(names: impl Iterator<Item = String>) -> String {
    let mut seen: Vec<String> = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{offer, offers};
    use super::*;

    /// What is offered instead, one per line; `sold_out` cannot be ordered.
    fn instead(wanted: &str, sold_out: &[&str]) -> Vec<String> {
        let mut offers = offers();
        for o in &mut offers {
            let place = format!("{} {}", o.size.name, o.size.region);
            o.size.available &= !sold_out.contains(&place.as_str());
        }
        nearest(&offer(wanted), &offers).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_nearest_are_the_other_region_then_the_next_larger_then_the_other_cloud() {
        assert_eq!(
            instead("hetzner cx23 fsn1 amd64 2/4/40 5.99", &[]),
            [
                "`cx23` in nbg1 for EUR 5.99 (+EUR 0.00)",
                "`cx33` in fsn1 for EUR 8.99 (+EUR 3.00)",
                "`cpx22` in fsn1 for EUR 19.99 (+EUR 14.00)",
                "`s-2vcpu-4gb` in fra1 at digitalocean for USD 24.00",
                "`s-4vcpu-8gb` in fra1 at digitalocean for USD 48.00",
            ]
        );
    }

    #[test]
    fn what_is_sold_out_too_is_not_offered() {
        assert_eq!(
            instead("hetzner cx23 fsn1 amd64 2/4/40 5.99", &["cx23 nbg1", "cx33 fsn1"])[..2],
            [
                "`cpx22` in fsn1 for EUR 19.99 (+EUR 14.00)",
                "`cpx32` in fsn1 for EUR 35.99 (+EUR 30.00)",
            ]
        );
    }

    #[test]
    fn never_another_architecture_and_never_shared_cores_for_own_ones() {
        let arm = "hetzner cax11 fsn1 arm64 2/4/40 6.49";
        assert_eq!(
            instead(arm, &[]),
            [
                "`cax11` in hel1 for EUR 6.49 (+EUR 0.00)",
                "`cax11` in nbg1 for EUR 6.49 (+EUR 0.00)"
            ]
        );
        assert_eq!(instead(arm, &["cax11 nbg1", "cax11 hel1"]), Vec::<String>::new());
        let nothing = told(&offer(arm), &[]);
        assert_eq!(nothing, "nothing of arm64 with at least 4 GiB can be ordered anywhere now");
        assert_eq!(instead("hetzner ccx13 fsn1 amd64 2/8/80 43.49", &[]), Vec::<String>::new());
    }

    #[test]
    fn where_a_region_has_nothing_larger_another_region_is_looked_at() {
        let all = instead("hetzner cpx21 ash amd64 3/4/80 32.49", &[]);
        assert_eq!(all[0], "`cx33` in fsn1 for EUR 8.99 (-EUR 23.50)");
    }

    #[test]
    fn a_size_and_a_region_that_do_not_fit_are_told_apart() {
        let rows = [
            (
                "cax11",
                "ash",
                "it is in fsn1, nbg1, hel1; in ash the cheapest is `cpx11` at EUR 17.99, which is amd64 and needs another image",
            ),
            ("cx23", "ash", "it is in fsn1, nbg1; in ash the cheapest is `cpx11` at EUR 17.99"),
            ("cx23", "mars", "there is no region `mars`; it is in fsn1, nbg1"),
            (
                "cx1000",
                "fsn1",
                "there is no size `cx1000`; in fsn1 can be ordered: `cx23` at EUR 5.99 (amd64), `cx33` at EUR 8.99 (amd64), `cax11` at EUR 6.49 (arm64)",
            ),
            (
                "big",
                "mars",
                "there is no size `big`; there is no region `mars`; the regions are fsn1, nbg1, hel1, ash, fra1",
            ),
            (
                "cx23",
                "fra1",
                "it is in fsn1, nbg1; in fra1 the cheapest is `s-1vcpu-1gb` at USD 6.00",
            ),
        ];
        for (size, region, wanted) in rows {
            let found = misfit(
                &size.parse().expect("a size"),
                &region.parse().expect("a region"),
                &offers(),
            );
            assert_eq!(found, wanted, "{size} in {region}");
        }
    }
}
