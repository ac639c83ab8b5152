//! A domain as people write it: in their own script, with a scheme before it, with a star. What
//! cannot be an app's domain is refused with what would work.

use super::Domain;

/// Endings that nobody outside a network of one's own can look up.
const PRIVATE: [&str; 7] = ["local", "localhost", "internal", "lan", "home", "corp", "onion"];
const EXAMPLE: &str = "give a host name such as `shop.example.com`";

/// Why a text is not a domain that an app can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` cannot be an app's domain: {wrong}; {works}")]
pub struct BadDomain {
    /// What was given, cut at 80 characters, without control characters.
    pub given: String,
    /// What is wrong with it.
    pub wrong: &'static str,
    /// What would work.
    pub works: String,
}

impl Domain {
    /// The domain that a person means: in lower case, IDN as punycode, without a dot at the end.
    ///
    /// # Errors
    /// [`BadDomain`], which says what is wrong and what would work.
    pub fn given(text: &str) -> Result<Self, BadDomain> {
        let text = text.trim();
        let shown: String = text.chars().filter(|c| !c.is_control()).take(80).collect();
        let bad = |wrong, works: String| Err(BadDomain { given: shown.clone(), wrong, works });
        if text.is_empty() {
            return bad("it is empty", EXAMPLE.to_owned());
        }
        let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
        let host = bare.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let name = host.split(':').next().unwrap_or_default();
        if name != text && host.parse::<std::net::Ipv6Addr>().is_err() {
            let works = Self::given(name).map_or(EXAMPLE.to_owned(), |d| format!("give `{d}`"));
            return bad("it is a URL or has a port or path, and only the host name counts", works);
        }
        if text.parse::<std::net::IpAddr>().is_ok() {
            let works = "an app without a domain answers at its VM's address by plain HTTP; for TLS \
                         without a domain of yours give `sslip`";
            return bad("it is an address, not a name", works.to_owned());
        }
        if let Some(parent) = text.strip_prefix("*.") {
            let works = Self::given(parent).map_or(EXAMPLE.to_owned(), |d| {
                format!("give the one name that the app is to have, such as `www.{d}` or `{d}`")
            });
            return bad(
                "a wildcard needs a certificate that Let's Encrypt gives only by DNS",
                works,
            );
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let ascii = idna::domain_to_ascii(name).unwrap_or_default();
        let Ok(domain) = ascii.parse::<Self>() else { return bad(wrong(name), EXAMPLE.to_owned()) };
        let end = ascii.rsplit('.').next().unwrap_or_default();
        if PRIVATE.contains(&end) || ascii.ends_with(".home.arpa") {
            let works = "give a name below a domain that you own, such as `shop.example.com`";
            return bad("nobody outside your own network can look it up", works.to_owned());
        }
        if end.chars().all(|c| c.is_ascii_digit()) {
            return bad("no domain ends in digits only", EXAMPLE.to_owned());
        }
        Ok(domain)
    }

    /// The name one label up, down to two labels: `example.com` for `shop.example.com`, none for
    /// `example.com`.
    pub fn parent(&self) -> Option<Self> {
        let (_, parent) = self.as_str().split_once('.')?;
        parent.parse().ok()
    }

    /// Whether it is `zone` or below it.
    pub fn is_within(&self, zone: &Self) -> bool {
        let name = self.as_str();
        name == zone.as_str()
            || name.strip_suffix(zone.as_str()).is_some_and(|rest| rest.ends_with('.'))
    }

    /// Its name in the zone's own file: `@` for the zone itself, `shop` for `shop.example.com`.
    pub fn within(&self, zone: &Self) -> String {
        match self.as_str().strip_suffix(zone.as_str()) {
            Some("") => "@".to_owned(),
            Some(rest) => rest.trim_end_matches('.').to_owned(),
            None => self.to_string(),
        }
    }

    /// The other one of `example.com` and `www.example.com`. A name that is neither a zone's own nor
    /// begins with `www.` has none.
    pub fn twin(&self, zone: Option<&Self>) -> Option<Self> {
        match self.as_str().strip_prefix("www.") {
            Some(bare) => bare.parse().ok(),
            None if zone == Some(self) => format!("www.{self}").parse().ok(),
            None => None,
        }
    }

    /// As a person reads it: punycode in the script that it stands for.
    pub fn shown(&self) -> String {
        let (readable, result) = idna::domain_to_unicode(self.as_str());
        match result {
            Ok(()) if readable != self.as_str() => format!("{readable} ({self})"),
            _ => self.to_string(),
        }
    }
}

/// What is wrong with a text that made no domain.
fn wrong(name: &str) -> &'static str {
    if !name.contains('.') {
        "it has one label only, and a domain has at least two"
    } else if name.contains('*') {
        "a star stands for many names, and an app has one"
    } else if name.contains('_') {
        "host names have no underscore"
    } else if name.split('.').any(str::is_empty) {
        "it has an empty label, two dots in a row or one at the beginning"
    } else if name.len() > 253 || name.split('.').any(|label| label.len() > 63) {
        "a label has at most 63 characters, and the whole name 253"
    } else if name.split('.').any(|label| label.starts_with('-') || label.ends_with('-')) {
        "a label neither begins nor ends with a hyphen"
    } else if name.contains(char::is_whitespace) {
        "it holds a blank"
    } else {
        "it holds characters that no host name has"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Domain::given(text).expect_err(text).to_string()
    }

    #[test]
    fn what_people_write_becomes_one_form() {
        for (given, domain) in [
            ("Shop.Example.COM", "shop.example.com"),
            (" shop.example.com. ", "shop.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ] {
            assert_eq!(Domain::given(given).expect(given).as_str(), domain);
        }
        let domain = Domain::given("bücher.example").expect("a domain");
        assert_eq!(domain.shown(), "bücher.example (xn--bcher-kva.example)");
    }

    #[test]
    fn what_cannot_be_a_domain_says_why_and_what_would_work() {
        for (given, wrong, works) in [
            ("", "it is empty", "such as `shop.example.com`"),
            ("https://shop.example.com/a?b", "a URL", "give `shop.example.com`"),
            ("shop.example.com:8080", "a URL or has a port", "give `shop.example.com`"),
            ("203.0.113.7", "an address, not a name", "give `sslip`"),
            ("2001:db8::1", "an address, not a name", "give `sslip`"),
            ("*.example.com", "a wildcard", "such as `www.example.com` or `example.com`"),
            ("shop", "one label only", "such as `shop.example.com`"),
            ("shop.local", "nobody outside your own network", "a domain that you own"),
            ("my_shop.example.com", "no underscore", "such as"),
            ("a..example.com", "an empty label", "such as"),
            ("-a.example.com", "begins nor ends with a hyphen", "such as"),
            ("my shop.example.com", "a blank", "such as"),
            ("shop.example.123", "digits only", "such as"),
            ("<%=`id`%>.example.com", "characters that no host name has", "such as"),
        ] {
            let told = refused(given);
            assert!(told.contains(wrong) && told.contains(works), "{told}");
        }
        let long = format!("{}.example.com", "a".repeat(64));
        assert!(refused(&long).contains("at most 63 characters"));
    }

    #[test]
    fn a_zone_and_its_www_are_twins() {
        let domain = |text: &str| Domain::given(text).expect(text);
        let zone = domain("example.com");
        assert_eq!(domain("example.com").twin(Some(&zone)), Some(domain("www.example.com")));
        assert_eq!(domain("www.example.com").twin(Some(&zone)), Some(domain("example.com")));
        assert_eq!(domain("shop.example.com").twin(Some(&zone)), None);
        assert_eq!(domain("shop.example.com").within(&zone), "shop");
        assert_eq!(zone.within(&zone), "@");
        assert!(domain("a.b.example.com").is_within(&zone));
        assert!(!domain("badexample.com").is_within(&zone));
    }
}
