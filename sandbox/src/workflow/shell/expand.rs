//! Replaces variables and commands in the words of a script.

use futures::future::BoxFuture;

use super::reader::{Part, Simple, Word};
use super::{Flow, HOME, Output, Programs, Shell};

impl Shell {
    /// Words as arguments: what is not quoted is split at blanks.
    pub(super) fn words<'a>(
        &'a mut self,
        words: &'a [Word],
        programs: &'a dyn Programs,
    ) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async move {
            let mut found = Vec::new();
            for word in words {
                let mut current: Option<String> = None;
                for (at, part) in word.0.iter().enumerate() {
                    let (text, whole) = self.part(part, at == 0, programs).await;
                    if whole {
                        current.get_or_insert_default().push_str(&text);
                        continue;
                    }
                    let blank = |letter: char| letter.is_whitespace();
                    if text.starts_with(blank) {
                        found.extend(current.take());
                    }
                    let mut pieces = text.split_whitespace().peekable();
                    while let Some(piece) = pieces.next() {
                        current.get_or_insert_default().push_str(piece);
                        if pieces.peek().is_some() || text.ends_with(blank) {
                            found.extend(current.take());
                        }
                    }
                }
                found.extend(current);
            }
            found
        })
    }

    /// A word as one text, as on the right of `=` and behind `>`.
    pub(super) async fn text(&mut self, word: &Word, programs: &dyn Programs) -> String {
        let mut text = String::new();
        for (at, part) in word.0.iter().enumerate() {
            text.push_str(&self.part(part, at == 0, programs).await.0);
        }
        text
    }

    /// Whether a text fits a pattern of `case`: what is not quoted in it may hold `*` and `?`.
    pub(super) async fn fits(&mut self, text: &str, word: &Word, programs: &dyn Programs) -> bool {
        let mut pattern = String::new();
        for (at, part) in word.0.iter().enumerate() {
            let written = self.part(part, at == 0, programs).await.0;
            let literal = regex::escape(&written);
            pattern.push_str(&match part {
                Part::Text(_, false) => literal.replace("\\*", ".*").replace("\\?", "."),
                Part::Text(_, true) | Part::Variable(..) | Part::Command(..) => literal,
            });
        }
        regex::Regex::new(&format!("^(?s:{pattern})$")).is_ok_and(|whole| whole.is_match(text))
    }

    /// A part's text, and whether it is kept whole.
    async fn part(
        &mut self,
        part: &Part,
        is_first: bool,
        programs: &dyn Programs,
    ) -> (String, bool) {
        match part {
            Part::Text(text, false) if is_first && (text == "~" || text.starts_with("~/")) => {
                (format!("{HOME}{}", &text[1..]), true)
            }
            Part::Text(text, _) => (text.clone(), true),
            Part::Variable(name, operation, quoted) => (self.variable(name, operation), *quoted),
            Part::Command(nodes, quoted) => {
                let kept = std::sync::Mutex::new(String::new());
                let keep = |output: &Output| {
                    kept.lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push_str(&output.out);
                };
                self.last = match self.list(nodes, programs, &keep, false).await {
                    Flow::On(code) | Flow::Exit(code) => code,
                };
                let text = kept.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
                (text.trim_end_matches('\n').to_owned(), *quoted)
            }
        }
    }

    fn variable(&self, name: &str, operation: &str) -> String {
        let value = match name {
            "?" => Some(self.last.to_string()),
            _ => self.env.get(name).cloned(),
        };
        let set = value.clone().filter(|value| !value.is_empty());
        if let Some(default) = operation.strip_prefix(":-").or(operation.strip_prefix(":=")) {
            return set.unwrap_or_else(|| default.trim_matches('"').to_owned());
        }
        if let Some(default) = operation.strip_prefix('-') {
            return value.unwrap_or_else(|| default.to_owned());
        }
        if let Some(instead) = operation.strip_prefix(":+") {
            return set.map(|_| instead.to_owned()).unwrap_or_default();
        }
        let value = value.unwrap_or_default();
        if let Some(change) = operation.strip_prefix("//") {
            let (pattern, instead) = change.rsplit_once('/').unwrap_or((change, ""));
            let pattern =
                if pattern.starts_with('[') { pattern.to_owned() } else { regex::escape(pattern) };
            return match regex::Regex::new(&pattern) {
                Ok(pattern) => pattern.replace_all(&value, regex::NoExpand(instead)).into_owned(),
                Err(_) => value,
            };
        }
        if operation == ",," {
            return value.to_lowercase();
        }
        if operation == "^^" {
            return value.to_uppercase();
        }
        if let Some(suffix) = operation.strip_prefix('%') {
            return value.strip_suffix(suffix.trim_start_matches('%')).unwrap_or(&value).to_owned();
        }
        if let Some(prefix) = operation.strip_prefix('#') {
            return value.strip_prefix(prefix.trim_start_matches('#')).unwrap_or(&value).to_owned();
        }
        value
    }

    /// The first variable of a command that is not set, where that is an error (`set -u`, or
    /// `${NAME:?}`).
    pub(super) fn unset(&self, simple: &Simple) -> Option<String> {
        let assigned = simple.assignments.iter().map(|(_, word)| word);
        assigned.chain(&simple.words).flat_map(|word| &word.0).find_map(|part| match part {
            Part::Variable(name, operation, _) if name != "?" => {
                let value = self.env.get(name);
                let must = operation.starts_with(":?") && value.is_none_or(String::is_empty);
                let strict = self.nounset && value.is_none() && !operation.starts_with([':', '-']);
                (must || strict).then(|| name.clone())
            }
            _ => None,
        })
    }
}
