//! Lines of containers that are gone: with the journald driver the journal still has them.

use std::collections::HashMap;

use regex::Regex;
use vmkit_agent_protocol::logs::{LogRange, Selector, Source};

use super::journal::{self, Entry};
use super::lines::Assembler;
use super::newest::{FirstMoment, Newest, SPARE};
use crate::calls::Fault;
use crate::host::Host;

/// Containers of one service that are looked for; a deploy makes a few.
const NAMES: usize = 200;

/// Adds the lines of a service's containers that Docker does not have any more.
pub(super) async fn read(
    host: &Host,
    range: &LogRange,
    grep: Option<&Regex>,
    there: &[String],
    newest: &mut Newest,
) -> Result<(), Fault> {
    let Selector { service: Some(service), role, container: None } = &range.selector else {
        return Ok(());
    };
    if !journal::is_there(host) {
        return Ok(());
    }
    let mut sources: HashMap<String, Source> = journal::values(host, "CONTAINER_NAME")
        .await?
        .into_iter()
        .filter_map(|name| Some((name.clone(), source(&name, service, role.as_deref())?)))
        .collect();
    if sources.is_empty() {
        return Ok(());
    }
    let mut args: Vec<String> =
        sources.keys().take(NAMES).map(|name| format!("CONTAINER_NAME={name}")).collect();
    args.extend(span(range.since_ms, range.until_ms));
    let since_ns = range.since_ms.map_or(i64::MIN, |ms| ms.saturating_mul(1_000_000));
    let until_ns = range.until_ms.map_or(i64::MAX, |ms| ms.saturating_mul(1_000_000));
    let tail = newest.limit() + SPARE;
    // Lines of containers that are there would count too, and are left out here.
    let cut_possible = grep.is_none() && there.is_empty();
    if cut_possible {
        args.push(format!("--lines={tail}"));
    }
    let mut readings: HashMap<String, Reading> = HashMap::new();
    let mut count = 0;
    let (mut first, mut held) = (FirstMoment::default(), Vec::new());
    journal::entries(host, &args, |entry| {
        count += 1;
        let Some((id, name)) = entry.container.clone() else { return };
        if there.contains(&id) {
            return;
        }
        let reading = readings.entry(id.clone()).or_insert_with(|| {
            let source = sources.entry(name).or_default().clone();
            let place = newest.source(Source { container: id, ..source });
            Reading { place, assembler: Assembler::default() }
        });
        let text = said(&entry);
        let place = reading.place;
        reading.assembler.take(entry.stream, entry.time_ns, &text, |line| {
            let inside = (since_ns..until_ns).contains(&line.time_ns);
            let at_first = cut_possible && first.holds(&line);
            if inside && grep.is_none_or(|grep| grep.is_match(&line.text)) {
                if at_first {
                    held.push((place, line));
                } else {
                    newest.add(place, line);
                }
            }
        });
    })
    .await?;
    if cut_possible && count >= tail {
        // A reading that is cut begins in the middle of a moment, where lines cannot be numbered.
        newest.leave_out();
    } else {
        for (place, line) in held {
            newest.add(place, line);
        }
    }
    Ok(())
}

struct Reading {
    place: usize,
    assembler: Assembler,
}

/// journalctl's words for a range: whole seconds, a little more than wanted.
pub(super) fn span(since_ms: Option<i64>, until_ms: Option<i64>) -> Vec<String> {
    let mut args = Vec::new();
    args.extend(since_ms.map(|ms| format!("--since=@{}", ms.div_euclid(1000).max(0))));
    args.extend(until_ms.map(|ms| format!("--until=@{}", (ms.div_euclid(1000) + 1).max(0))));
    args
}

/// The text as Docker would give it: with the end of the line, where it has one.
fn said(entry: &Entry) -> Vec<u8> {
    let mut text = entry.text.clone();
    if !entry.partial {
        text.push(b'\n');
    }
    text
}

/// Whose lines a container's are, by its name alone: `SERVICE-ROLE-VERSION`, or the service itself
/// for one beside it.
fn source(name: &str, service: &str, role: Option<&str>) -> Option<Source> {
    let mut source =
        Source { name: name.to_owned(), service: service.to_owned(), ..Source::default() };
    if name == service {
        return role.is_none().then_some(source);
    }
    let rest = name.strip_prefix(service)?.strip_prefix('-')?;
    let rest = rest.split("_replaced_").next().unwrap_or(rest);
    let (of, version) = match role {
        Some(role) => (role, rest.strip_prefix(role)?.strip_prefix('-')?),
        None => rest.split_once('-')?,
    };
    // `shop-staging` has nothing to do with `shop-staging-two-web-abc`.
    if version.is_empty() || version.contains('-') {
        return None;
    }
    source.role = Some(of.to_owned());
    source.version = Some(version.to_owned());
    Some(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_containers_that_are_gone_tell_whose_they_were() {
        let of = |name: &str, role: Option<&str>| {
            source(name, "shop-staging", role).map(|source| (source.role, source.version))
        };
        let web = Some((Some("web".to_owned()), Some("abc".to_owned())));
        assert_eq!(of("shop-staging-web-abc", None), web);
        assert_eq!(of("shop-staging-web-abc_replaced_0f1e", Some("web")), web);
        assert_eq!(of("shop-staging-web-abc", Some("worker")), None);
        assert_eq!(of("shop-staging-two-web-abc", None), None);
        assert_eq!(of("shop-staging", None), Some((None, None)));
        assert_eq!(of("shop-stagingx-web-abc", None), None);
    }
}
