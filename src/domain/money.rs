//! Prices: decimal, with their currency, never a float.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::names::BadName;

/// A currency that a supported cloud bills in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Currency {
    /// Euro (Hetzner's default).
    #[serde(rename = "EUR")]
    Eur,
    /// US dollar (DigitalOcean, and some Hetzner projects).
    #[serde(rename = "USD")]
    Usd,
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eur => "EUR",
            Self::Usd => "USD",
        })
    }
}

/// An amount per month, net of tax, in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// The amount in whole units of the currency.
    pub amount: Decimal,
    /// Its currency: amounts of two currencies are never added.
    pub currency: Currency,
}

impl Money {
    /// `amount` of `currency`.
    pub fn new(amount: Decimal, currency: Currency) -> Self {
        Self { amount, currency }
    }

    /// Nothing, in `currency`.
    pub fn zero(currency: Currency) -> Self {
        Self::new(Decimal::ZERO, currency)
    }

    /// The sum, or nothing where the currencies differ.
    pub fn plus(self, other: Self) -> Option<Self> {
        (self.currency == other.currency)
            .then(|| Self::new(self.amount + other.amount, self.currency))
    }
}

impl Money {
    /// The difference, or nothing where the currencies differ.
    pub fn minus(self, other: Self) -> Option<Self> {
        (self.currency == other.currency)
            .then(|| Self::new(self.amount - other.amount, self.currency))
    }

    /// So many times the amount.
    pub fn times(self, factor: Decimal) -> Self {
        Self::new(self.amount * factor, self.currency)
    }

    /// With its sign: `+EUR 3.00`, `-EUR 3.00`.
    pub fn signed(self) -> String {
        let sign = if self.amount.is_sign_negative() { '-' } else { '+' };
        format!("{sign}{}", Self::new(self.amount.abs(), self.currency))
    }

    /// One sum per currency, without those that come to nothing; currencies are never added up.
    pub fn sums(amounts: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut sums = [Self::zero(Currency::Eur), Self::zero(Currency::Usd)];
        for money in amounts {
            for sum in &mut sums {
                *sum = sum.plus(money).unwrap_or(*sum);
            }
        }
        sums.into_iter().filter(|sum| !sum.amount.is_zero()).collect()
    }
}

/// The most that somebody wants to pay per month: an amount, and its currency where they said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The amount in whole units.
    pub amount: Decimal,
    /// Its currency; none where only an amount was given.
    pub currency: Option<Currency>,
}

impl FromStr for Budget {
    type Err = BadName;

    /// `EUR 20`, `20 USD`, `20`.
    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName {
            given: text.chars().take(80).collect(),
            wanted: "an amount per month above zero with its currency, such as `EUR 20`",
        };
        let (mut amount, mut currency) = (None, None);
        for word in text.split_whitespace() {
            match word.to_ascii_uppercase().as_str() {
                "EUR" if currency.is_none() => currency = Some(Currency::Eur),
                "USD" if currency.is_none() => currency = Some(Currency::Usd),
                number if amount.is_none() => {
                    amount = Some(number.parse::<Decimal>().map_err(|_| bad())?);
                }
                _ => return Err(bad()),
            }
        }
        let amount = amount.filter(|amount| *amount > Decimal::ZERO).ok_or_else(bad)?;
        Ok(Self { amount, currency })
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.currency {
            Some(currency) => write!(f, "{}", Money::new(self.amount, currency)),
            None => write!(f, "{:.2}", self.amount),
        }
    }
}

impl fmt::Display for Money {
    /// `EUR 5.99`, always with two decimals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:.2}", self.currency, self.amount.round_dp(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eur(text: &str) -> Money {
        Money::new(text.parse().expect("a number"), Currency::Eur)
    }

    fn usd(text: &str) -> Money {
        Money::new(text.parse().expect("a number"), Currency::Usd)
    }

    #[test]
    fn money_is_stored_as_a_string_and_never_as_a_float() {
        let stored = serde_json::to_string(&eur("5.10")).expect("JSON");
        assert_eq!(stored, r#"{"amount":"5.10","currency":"EUR"}"#);
        let back: Money = serde_json::from_str(&stored).expect("money");
        assert_eq!(back, eur("5.10"));
        // A tenth has no exact float: ten of them are one here.
        let tenths = Money::sums(vec![eur("0.10"); 10]);
        assert_eq!(tenths, [eur("1.00")]);
    }

    #[test]
    fn two_currencies_are_never_added() {
        assert_eq!(eur("1").plus(usd("1")), None);
        assert_eq!(eur("1").minus(usd("1")), None);
        assert_eq!(Money::sums([usd("2"), eur("1"), usd("3")]), [eur("1"), usd("5")]);
        assert_eq!(Money::sums([eur("0")]), []);
        assert_eq!(eur("5.5").signed(), "+EUR 5.50");
        assert_eq!(eur("-5.5").signed(), "-EUR 5.50");
    }

    #[test]
    fn a_budget_says_its_currency_or_leaves_it_open() {
        let parse = |text: &str| text.parse::<Budget>().map(|budget| budget.to_string());
        assert_eq!(parse("EUR 20").as_deref(), Ok("EUR 20.00"));
        assert_eq!(parse("20.5 usd").as_deref(), Ok("USD 20.50"));
        assert_eq!(parse("7").as_deref(), Ok("7.00"));
        for bad in ["", "EUR", "-3 EUR", "0", "20 CHF", "1 2", "EUR USD 3", "ten"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
