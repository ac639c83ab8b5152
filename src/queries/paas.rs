//! What the same slot would cost on a platform that hosts apps, from one dated table.
//!
//! The table is `paas_prices.json`: each price with where it was read and when that was written. A
//! price that nobody read is not in it, and a slot that a platform's rows do not reach has none.

use std::sync::OnceLock;

use rust_decimal::Decimal;
use serde::Deserialize;

use crate::domain::money::{Currency, Money};
use crate::domain::size::Size;

/// The table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The day on which somebody last looked whether the sources still say so.
    pub checked: String,
    /// What the comparison takes for granted.
    pub assumptions: Vec<String>,
    rates: Vec<Rate>,
    plans: Vec<Plan>,
}

/// A platform that bills by what is used.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rate {
    paas: String,
    memory_gb: Decimal,
    vcpu: Decimal,
    seen: String,
    source: String,
}

/// One plan of a platform.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    paas: String,
    plan: String,
    memory_mib: u64,
    monthly: Decimal,
    #[serde(default)]
    monthly_to: Option<Decimal>,
    seen: String,
    source: String,
    /// Where the rest of the row was read.
    #[serde(default)]
    also: Vec<String>,
    /// What to know about the price.
    #[serde(default)]
    note: Option<String>,
}

impl Plan {
    fn sources(&self) -> Vec<String> {
        std::iter::once(&self.source).chain(&self.also).cloned().collect()
    }
}

/// What a slot costs on one platform.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// The platform.
    pub paas: String,
    /// Its plan; none where it bills by use.
    pub plan: Option<String>,
    /// What it costs at least; none where the table has no plan as large.
    pub from: Option<Money>,
    /// What it costs at most, where that is more.
    pub to: Option<Money>,
    /// When the price was written down by its source.
    pub seen: Option<String>,
    /// What to know about the price.
    pub note: Option<String>,
    /// Where it was read.
    pub sources: Vec<String>,
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.paas)?;
        match (&self.from, &self.to) {
            (None, _) => return f.write_str(" (no sourced price that large)"),
            (Some(from), None) => write!(f, " {from}")?,
            (Some(from), Some(to)) => write!(f, " {from} to {:.2}", to.amount)?,
        }
        let seen = self.seen.as_deref().unwrap_or("?");
        match &self.plan {
            Some(plan) => write!(f, " ({plan}, {seen}")?,
            None => write!(f, " (by use, {seen}")?,
        }
        if let Some(note) = &self.note {
            write!(f, ", {note}")?;
        }
        f.write_str(")")
    }
}

/// The table that this program was built with.
pub fn table() -> Option<&'static Table> {
    static TABLE: OnceLock<Option<Table>> = OnceLock::new();
    // A test holds that it parses; a table that did not would only cost the comparison.
    TABLE.get_or_init(|| serde_json::from_str(include_str!("paas_prices.json")).ok()).as_ref()
}

/// What a slot of the same memory costs on each platform of the table.
pub fn compare(size: &Size) -> Vec<Slot> {
    let Some(table) = table() else { return Vec::new() };
    let usd = |amount: Decimal| Money::new(amount, Currency::Usd);
    let gb = Decimal::from(size.memory_mib) / Decimal::from(1024);
    let rates = table.rates.iter().map(|rate| {
        let from = rate.memory_gb * gb;
        Slot {
            paas: rate.paas.clone(),
            plan: None,
            from: Some(usd(from)),
            to: Some(usd(from + rate.vcpu * Decimal::from(size.cores))),
            seen: Some(rate.seen.clone()),
            note: None,
            sources: vec![rate.source.clone()],
        }
    });
    let mut slots: Vec<Slot> = rates.collect();
    let mut names: Vec<&str> = table.plans.iter().map(|plan| plan.paas.as_str()).collect();
    names.dedup();
    for name in names {
        let fits = |plan: &&Plan| plan.paas == name && plan.memory_mib >= size.memory_mib;
        let best = table.plans.iter().filter(fits).min_by_key(|plan| plan.memory_mib);
        slots.push(Slot {
            paas: name.to_owned(),
            plan: best.map(|plan| plan.plan.clone()),
            from: best.map(|plan| usd(plan.monthly)),
            to: best.and_then(|plan| plan.monthly_to).map(usd),
            seen: best.map(|plan| plan.seen.clone()),
            note: best.and_then(|plan| plan.note.clone()),
            sources: best.map(Plan::sources).unwrap_or_default(),
        });
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::size::testing::offer;

    #[test]
    fn every_price_has_a_source_and_a_date() {
        let table = table().expect("the table parses");
        let is_date = |text: &str| text.parse::<jiff::civil::Date>().is_ok();
        assert!(is_date(&table.checked) && !table.assumptions.is_empty());
        for rate in &table.rates {
            assert!(rate.source.starts_with("https://") && is_date(&rate.seen), "{rate:?}");
        }
        for plan in &table.plans {
            assert!(plan.source.starts_with("https://") && is_date(&plan.seen), "{plan:?}");
            assert!(plan.sources().iter().all(|url| url.starts_with("https://")), "{plan:?}");
            assert!(plan.monthly_to.is_none_or(|to| to > plan.monthly), "{plan:?}");
        }
        let raw: serde_json::Value =
            serde_json::from_str(include_str!("paas_prices.json")).expect("JSON");
        for plan in raw["plans"].as_array().expect("plans") {
            assert!(plan["monthly"].is_string(), "a price is a decimal in a string: {plan}");
        }
    }

    #[test]
    fn a_slot_is_matched_by_memory_and_none_is_made_up() {
        let told = |text: &str| -> Vec<String> {
            compare(&offer(text).size).iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            told("hetzner cx23 fsn1 amd64 2/4/40 5.99"),
            [
                "Railway USD 40.00 to 80.00 (by use, 2026-08-21)",
                "Render USD 85.00 (Pro, 2026-05-04, a third party's table)",
                "Fly USD 20.00 to 25.00 (shared-cpu-2x 4 GB, 2026-04-10, roughly)",
                "Heroku USD 500.00 (Performance-L, 2023-02-06)",
            ]
        );
        let large = told("hetzner cx53 fsn1 amd64 16/32/320 29.99");
        assert_eq!(
            large[1..],
            [
                "Render (no sourced price that large)",
                "Fly (no sourced price that large)",
                "Heroku (no sourced price that large)",
            ]
        );
    }
}
