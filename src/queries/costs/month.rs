//! This month in UTC, and the share of it for which something is there.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;

use crate::domain::clock::Millis;

/// A calendar month in UTC, as both clouds bill it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Month {
    /// Such as `2026-11`.
    pub name: String,
    /// Its first moment.
    pub start: Millis,
    /// The first moment of the next.
    pub end: Millis,
}

impl Month {
    /// The month that `now` lies in.
    pub fn of(now: Millis) -> Self {
        let at = Timestamp::from_millisecond(now.0).unwrap_or_default().to_zoned(TimeZone::UTC);
        let first = at.date().first_of_month();
        let next = first.last_of_month().tomorrow().unwrap_or(first);
        let millis = |date: jiff::civil::Date| {
            let start = date.to_zoned(TimeZone::UTC).map(|start| start.timestamp());
            Millis(start.map_or(now.0, |start| start.as_millisecond()))
        };
        Self { name: first.strftime("%Y-%m").to_string(), start: millis(first), end: millis(next) }
    }

    /// The share of the month from `since` to its end: between 0 and 1.
    pub fn share_since(&self, since: Millis) -> Decimal {
        self.share(since, None)
    }

    /// The share of the month from `since` until `until`, or to its end.
    pub fn share(&self, since: Millis, until: Option<Millis>) -> Decimal {
        let from = since.max(self.start).min(self.end);
        let to = until.unwrap_or(self.end).min(self.end).max(from);
        let whole = self.end.since_ms(self.start).max(1);
        Decimal::from(to.since_ms(from)) / Decimal::from(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Millis {
        Millis(text.parse::<Timestamp>().expect("a time").as_millisecond())
    }

    #[test]
    fn a_month_is_the_calendars_in_utc() {
        let month = Month::of(at("2026-11-16T12:00:00Z"));
        assert_eq!(month.name, "2026-11");
        assert_eq!(
            (month.start, month.end),
            (at("2026-11-01T00:00:00Z"), at("2026-12-01T00:00:00Z"))
        );
        let december = Month::of(at("2026-12-31T23:59:59Z"));
        assert_eq!(december.end, at("2027-01-01T00:00:00Z"));
    }

    #[test]
    fn what_is_there_for_half_the_month_costs_half() {
        let month = Month::of(at("2026-11-20T00:00:00Z"));
        let share = |since: &str| month.share_since(at(since)).normalize().to_string();
        assert_eq!(share("2026-11-16T00:00:00Z"), "0.5");
        assert_eq!(share("2025-01-01T00:00:00Z"), "1");
        assert_eq!(share("2027-01-01T00:00:00Z"), "0");
        let gone = month.share(at("2026-11-01T00:00:00Z"), Some(at("2026-11-04T00:00:00Z")));
        assert_eq!(gone.normalize().to_string(), "0.1");
    }
}
