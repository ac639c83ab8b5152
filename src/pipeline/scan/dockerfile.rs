//! What a Dockerfile says of the app: port, health path, user, start.

use super::{Build, Evidence};

const FILE: &str = "Dockerfile";

/// Takes the repo's own Dockerfile as the build.
pub(super) fn look(evidence: &mut Evidence<'_>) {
    "Dockerfile".clone_into(&mut evidence.scan.stack);
    evidence.scan.build = Some(Build::Dockerfile { path: evidence.full(FILE) });
    evidence.found("stack", "Dockerfile", FILE);
    let Some(text) = evidence.text(FILE).map(instructions) else {
        let text = "the Dockerfile could not be read (it is very long?), so port and health path are guesses";
        evidence.check("dockerfile_unread", false, text, Some(FILE));
        return;
    };
    // Only the last stage is what runs.
    let last = text.iter().rposition(|(word, _)| word == "FROM").unwrap_or(0);
    let (earlier, stage) = text.split_at(last);
    let port = stage.iter().rev().find_map(|(word, rest)| match word.as_str() {
        "EXPOSE" => rest.split_whitespace().find_map(port),
        "ENV" => rest.split_whitespace().find_map(|pair| port(pair.strip_prefix("PORT=")?)),
        _ => None,
    });
    if let Some(port) = port {
        evidence.scan.port = port;
        evidence.found("port", port.to_string(), FILE);
    }
    if let Some(path) = stage.iter().find_map(|(word, rest)| health(word, rest)) {
        evidence.found("health_path", path.as_str(), FILE);
        evidence.scan.health_path = path;
    }
    let starts = |word: &str| matches!(word, "CMD" | "ENTRYPOINT");
    if !stage.iter().any(|(word, _)| starts(word)) {
        // A base image may bring a start of its own, a stage of this file is looked at.
        let from = stage.first().map_or("", |(_, rest)| rest.as_str());
        let base = from.split_whitespace().find(|word| !word.starts_with("--")).unwrap_or("");
        let own = earlier.iter().any(|(word, rest)| {
            word == "FROM"
                && rest
                    .to_ascii_lowercase()
                    .ends_with(&format!(" as {}", base.to_ascii_lowercase()))
        });
        let blocking = text.is_empty()
            || base == "scratch"
            || (own && !earlier.iter().any(|(w, _)| starts(w)));
        let text = "the last stage of the Dockerfile has neither CMD nor ENTRYPOINT; add the line that starts the app";
        evidence.check("no_start_command", blocking, text, Some(FILE));
    }
    if !stage.iter().any(|(word, rest)| word == "USER" && rest != "root" && rest != "0") {
        let text = "the image runs as root; a USER line makes a break-in worth less";
        evidence.check("runs_as_root", false, text, Some(FILE));
    }
}

/// Instructions in upper case with their arguments; continued lines joined, comments left out.
fn instructions(text: &str) -> Vec<(String, String)> {
    let mut list = Vec::new();
    let mut open = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        match line.strip_suffix('\\') {
            Some(more) => {
                open.push_str(more);
                open.push(' ');
            }
            None => {
                open.push_str(line);
                if let Some((word, rest)) = open.trim().split_once(char::is_whitespace) {
                    list.push((word.to_ascii_uppercase(), rest.trim().to_owned()));
                }
                open.clear();
            }
        }
    }
    list
}

fn port(text: &str) -> Option<u16> {
    let text = text.trim_matches(['"', '\'']);
    let number = text.strip_suffix("/tcp").unwrap_or(text);
    number.parse().ok().filter(|port| *port != 0)
}

/// The path of the URL that a HEALTHCHECK asks.
fn health(word: &str, rest: &str) -> Option<String> {
    if word != "HEALTHCHECK" {
        return None;
    }
    let address = rest.split_once("http://")?.1;
    let end = address
        .find(|c: char| {
            !(c.is_ascii_alphanumeric()
                || matches!(c, '.' | ':' | '/' | '_' | '-' | '$' | '{' | '}'))
        })
        .unwrap_or(address.len());
    let path = &address[address.find('/')?..end.max(address.find('/')?)];
    let good = path.len() > 1 && !path.contains(['$', '{', ':']);
    good.then(|| path.to_owned())
}
