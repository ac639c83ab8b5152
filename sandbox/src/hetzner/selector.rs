//! Labels and label selectors: `a=b,c!=d,e,!f,g in (h,i),j notin (k)`.

use super::errors::ApiError;
use super::input::Labels;

/// Why Hetzner would refuse a label.
pub(super) fn label_problem(key: &str, value: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if prefix == Some("hetzner.cloud") {
        return Some("the prefix hetzner.cloud/ is reserved".to_owned());
    }
    let host = |prefix: &str| {
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        !prefix.is_empty() && prefix.len() <= 253 && prefix.chars().all(fine)
    };
    if prefix.is_some_and(|prefix| !host(prefix)) || name.is_empty() || !is_word(name) {
        return Some("the key is not valid".to_owned());
    }
    (!is_word(value)).then(|| "the value is not valid".to_owned())
}

/// At most 63 of `[A-Za-z0-9-_.]`, starting and ending alphanumeric; may be empty.
fn is_word(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let edges = [text.chars().next(), text.chars().last()];
    let fine = edges.iter().flatten().all(char::is_ascii_alphanumeric);
    text.len() <= 63 && text.chars().all(inner) && fine
}

#[derive(Debug)]
enum Term {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Has(String),
    HasNot(String),
}

#[derive(Debug)]
pub(super) struct Selector(Vec<Term>);

impl Selector {
    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        let bad = || ApiError::field("label_selector", "the label selector is not valid");
        let terms = split(text).into_iter().map(|term| Term::parse(term).ok_or_else(bad));
        Ok(Self(terms.collect::<Result<_, _>>()?))
    }

    pub(super) fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|term| match term {
            Term::In(key, values) => labels.get(key).is_some_and(|own| values.contains(own)),
            Term::NotIn(key, values) => labels.get(key).is_none_or(|own| !values.contains(own)),
            Term::Has(key) => labels.contains_key(key),
            Term::HasNot(key) => !labels.contains_key(key),
        })
    }
}

impl Term {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let key = |key: &str| {
            let key = key.trim();
            let fine = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
            (!key.is_empty() && key.chars().all(fine)).then(|| key.to_owned())
        };
        let set = |rest: &str| -> Option<Vec<String>> {
            let inner = rest.trim().strip_prefix('(')?.strip_suffix(')')?;
            Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
        };
        if let Some((left, right)) = text.split_once("!=") {
            return Some(Self::NotIn(key(left)?, vec![right.trim().to_owned()]));
        }
        if let Some((left, right)) = text.split_once("==").or_else(|| text.split_once('=')) {
            return Some(Self::In(key(left)?, vec![right.trim().to_owned()]));
        }
        if let Some((left, right)) = text.split_once(" notin ") {
            return Some(Self::NotIn(key(left)?, set(right)?));
        }
        if let Some((left, right)) = text.split_once(" in ") {
            return Some(Self::In(key(left)?, set(right)?));
        }
        match text.strip_prefix('!') {
            Some(rest) => Some(Self::HasNot(key(rest)?)),
            None => Some(Self::Has(key(text)?)),
        }
    }
}

/// Splits at commas outside brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_i32);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_match_as_documented() {
        let labels: Labels =
            [("env", "prod"), ("vmkit.io/op", "1")].map(|(k, v)| (k.into(), v.into())).into();
        let cases = [
            ("env=prod", true),
            ("env==prod,vmkit.io/op=1", true),
            ("env!=prod", false),
            ("env", true),
            ("!env", false),
            ("env in (dev,prod),!gone", true),
            ("env notin (dev,prod)", false),
            ("other!=x", true),
            ("", true),
        ];
        for (text, matches) in cases {
            assert_eq!(Selector::parse(text).unwrap().matches(&labels), matches, "{text}");
        }
        assert!(Selector::parse("a b").is_err());
        assert!(Selector::parse("a in b").is_err());
    }

    #[test]
    fn bad_labels_are_refused() {
        assert_eq!(label_problem("vmkit.io/vm", "01abc"), None);
        assert_eq!(label_problem("a", ""), None);
        for (key, value) in [("", "x"), ("a b", "x"), ("hetzner.cloud/x", "y"), ("a", "-x")] {
            assert!(label_problem(key, value).is_some(), "{key}={value}");
        }
        assert!(label_problem("a", &"x".repeat(64)).is_some());
    }
}
